//! The built-in optimisers as one value, for configuration files and checkpoints.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{Adafactor, AdafactorConfig, Adagrad, AdagradConfig, AdamW, AdamWConfig, Optimizer};
use crate::params::{Gradients, ParamError, Parameters};

/// What is wrong with an optimiser's configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimError {
    /// A hyper-parameter lies outside its range.
    #[error("`{name}` is {value}, but must be {bound}")]
    OutOfRange {
        /// Name of the field.
        name: &'static str,
        /// The value given.
        value: f64,
        /// What the value must be.
        bound: &'static str,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

pub(super) fn check(name: &'static str, value: f64, ok: bool, bound: &'static str) -> Result<(), OptimError> {
    if ok { Ok(()) } else { Err(OptimError::OutOfRange { name, value, bound }) }
}

/// The choice of an optimiser and its hyper-parameters; the learning rate is given to each step instead.
///
/// ```
/// use genrec_kernels::optim::{AdamWConfig, OptimizerConfig};
///
/// let read: OptimizerConfig = serde_json::from_str(r#"{ "type": "adam_w", "weight_decay": 0.1 }"#)?;
/// assert_eq!(read, OptimizerConfig::AdamW(AdamWConfig::default().with_weight_decay(0.1)));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum OptimizerConfig {
    /// Adam with decoupled weight decay.
    AdamW(AdamWConfig),
    /// Sums of squared gradients.
    Adagrad(AdagradConfig),
    /// Factored second moments, steps scaled by the parameter.
    Adafactor(AdafactorConfig),
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::AdamW(AdamWConfig::default())
    }
}

impl OptimizerConfig {
    /// Checks every hyper-parameter.
    ///
    /// # Errors
    /// [`OptimError::OutOfRange`] names the first field outside its range.
    pub fn validate(&self) -> Result<(), OptimError> {
        match self {
            Self::AdamW(config) => config.validate(),
            Self::Adagrad(config) => config.validate(),
            Self::Adafactor(config) => config.validate(),
        }
    }

    /// An optimiser for these parameters, with nothing remembered yet.
    ///
    /// # Errors
    /// When a hyper-parameter is out of range or the moments cannot be allocated.
    pub fn build(&self, params: &Parameters) -> Result<AnyOptimizer, OptimError> {
        Ok(match self {
            Self::AdamW(config) => AnyOptimizer::AdamW(AdamW::new(config.clone(), params)?),
            Self::Adagrad(config) => AnyOptimizer::Adagrad(Adagrad::new(config.clone(), params)?),
            Self::Adafactor(config) => AnyOptimizer::Adafactor(Adafactor::new(config.clone(), params)?),
        })
    }
}

/// One of the built-in optimisers, as [`OptimizerConfig::build`] makes it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AnyOptimizer {
    /// See [`AdamW`].
    AdamW(AdamW),
    /// See [`Adagrad`].
    Adagrad(Adagrad),
    /// See [`Adafactor`].
    Adafactor(Adafactor),
}

impl Optimizer for AnyOptimizer {
    fn step(&mut self, params: &Parameters, grads: &Gradients, lr: f64) -> candle_core::Result<()> {
        match self {
            Self::AdamW(o) => o.step(params, grads, lr),
            Self::Adagrad(o) => o.step(params, grads, lr),
            Self::Adafactor(o) => o.step(params, grads, lr),
        }
    }

    fn state(&self) -> candle_core::Result<BTreeMap<String, Tensor>> {
        match self {
            Self::AdamW(o) => o.state(),
            Self::Adagrad(o) => o.state(),
            Self::Adafactor(o) => o.state(),
        }
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), ParamError> {
        match self {
            Self::AdamW(o) => o.load_state(state),
            Self::Adagrad(o) => o.load_state(state),
            Self::Adafactor(o) => o.load_state(state),
        }
    }
}
