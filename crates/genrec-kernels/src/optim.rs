//! Optimisers whose state is read and written by name, learning-rate schedules and gradient clipping.
//!
//! A training loop asks [`OptimizerConfig::build`] for an [`AnyOptimizer`] (or makes [`AdamW`], [`Adagrad`] or
//! [`Adafactor`] itself), multiplies its base learning rate by [`Schedule::factor`] and calls
//! [`Optimizer::step`]. Saving [`Optimizer::state`] beside the weights makes a resumed run continue bit for bit.
//!
//! On the CPU an `f32` parameter is updated in place by one pass over parameter, gradient and moments; on CUDA
//! AdamW and Adafactor move all `f32` parameters by a few launches; elsewhere the same rule is a composition of candle operations.

mod adafactor;
mod adagrad;
mod adamw;
mod clip;
mod config;
mod device;
mod schedule;
mod state;

use std::collections::BTreeMap;

use candle_core::Tensor;

pub use self::adafactor::{Adafactor, AdafactorConfig};
pub use self::adagrad::{Adagrad, AdagradConfig};
pub use self::adamw::{AdamW, AdamWConfig};
pub use self::clip::clip_global_norm;
pub use self::config::{AnyOptimizer, OptimError, OptimizerConfig};
pub(crate) use self::device::squares;
pub use self::schedule::Schedule;
use crate::params::{Gradients, ParamError, Parameters};

/// A rule that moves parameters against their gradients, and what it remembers between two steps.
pub trait Optimizer {
    /// Moves every parameter once. `lr` is the learning rate of this step, schedule included.
    ///
    /// # Errors
    /// When a parameter has no gradient or one of another shape, dtype or device, or is not as it was when the optimiser
    /// was built (nothing is changed then), or a tensor operation fails.
    fn step(&mut self, params: &Parameters, grads: &Gradients, lr: f64) -> candle_core::Result<()>;

    /// What the optimiser remembers: `step`, an `i64` scalar counting the steps taken, and each moment under
    /// `<moment>.<parameter>`, e.g. `exp_avg.shared.weight`.
    ///
    /// # Errors
    /// When a tensor cannot be copied.
    fn state(&self) -> candle_core::Result<BTreeMap<String, Tensor>>;

    /// Replaces what the optimiser remembers by what [`state`](Self::state) returned earlier. Everything is checked
    /// before anything is changed.
    ///
    /// # Errors
    /// [`ParamError`] names the first tensor that is missing, superfluous, of another shape or not finite, or a
    /// `step` that is no count.
    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), ParamError>;
}

/// Elements that one parallel task of an element-wise update takes: all of them when there are few.
fn elementwise_block(len: usize) -> usize {
    const BLOCK: usize = 1 << 14;
    if len <= 2 * BLOCK { len.max(1) } else { BLOCK }
}

#[cfg(test)]
mod tests;
