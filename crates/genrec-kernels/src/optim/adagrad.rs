//! Adagrad.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::config::{OptimError, check};
use super::device::Slot;
use super::state::{MomentSpec, Rule, State};
use super::{Optimizer, elementwise_block};
use crate::params::{Gradients, ParamError, Parameters};

/// Hyper-parameters of [`Adagrad`]; the defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AdagradConfig {
    /// Step $t$ takes the learning rate divided by $1 + (t - 1) \cdot$ this; 0 by default.
    pub lr_decay: f64,
    /// Added to the gradient, times the parameter (L2 penalty, not decoupled); 0 by default.
    pub weight_decay: f64,
    /// First value of every sum of squares; 0 by default.
    pub initial_accumulator: f64,
    /// Added to the root of the sum of squares, above 0; 1e-10 by default.
    pub eps: f64,
}

impl Default for AdagradConfig {
    fn default() -> Self {
        Self { lr_decay: 0.0, weight_decay: 0.0, initial_accumulator: 0.0, eps: 1e-10 }
    }
}

impl AdagradConfig {
    /// Sets the decay of the learning rate.
    #[must_use]
    pub fn with_lr_decay(mut self, lr_decay: f64) -> Self {
        self.lr_decay = lr_decay;
        self
    }

    /// Sets the L2 penalty.
    #[must_use]
    pub fn with_weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// Sets the first value of every sum of squares.
    #[must_use]
    pub fn with_initial_accumulator(mut self, initial_accumulator: f64) -> Self {
        self.initial_accumulator = initial_accumulator;
        self
    }

    /// Sets the term added to the root of the sum of squares.
    #[must_use]
    pub fn with_eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`OptimError::OutOfRange`] names the first field outside its range.
    pub fn validate(&self) -> std::result::Result<(), OptimError> {
        let fields = [
            ("lr_decay", self.lr_decay),
            ("weight_decay", self.weight_decay),
            ("initial_accumulator", self.initial_accumulator),
        ];
        for (name, value) in fields {
            check(name, value, value >= 0.0 && value.is_finite(), "at least 0 and finite")?;
        }
        check("eps", self.eps, self.eps > 0.0 && self.eps.is_finite(), "above 0 and finite")
    }

    fn rate(&self, step: u64, lr: f64) -> f64 {
        lr / (1.0 + (step.saturating_sub(1)) as f64 * self.lr_decay)
    }
}

/// Adagrad: Duchi, Hazan and Singer, *Adaptive Subgradient Methods*, JMLR 2011, with a diagonal matrix.
///
/// With gradient $g$ and learning rate $\eta$,
///
/// $$ s \gets s + g^2, \quad \theta \gets \theta - \eta\,\frac{g}{\sqrt{s} + \epsilon}. $$
///
/// TIGER trains its RQ-VAE with it at a learning rate of 0.4 (Rajput et al. 2023, section 4). Moment: `sum` ($s$), as
/// PyTorch names it.
#[derive(Clone, Debug)]
pub struct Adagrad {
    config: AdagradConfig,
    state: State,
}

impl Adagrad {
    /// An optimiser for these parameters, with every sum at its initial value.
    ///
    /// # Errors
    /// When a hyper-parameter is out of range or the sums cannot be allocated.
    pub fn new(config: AdagradConfig, params: &Parameters) -> std::result::Result<Self, OptimError> {
        config.validate()?;
        let state = State::new(&config, params)?;
        Ok(Self { config, state })
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &AdagradConfig {
        &self.config
    }
}

impl Optimizer for Adagrad {
    fn step(&mut self, params: &Parameters, grads: &Gradients, lr: f64) -> Result<()> {
        self.state.step(&self.config, params, grads, lr)
    }

    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        self.state.tensors()
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> std::result::Result<(), ParamError> {
        self.state.load(state)
    }
}

impl Rule for AdagradConfig {
    fn moments(&self, dims: &[usize]) -> Vec<MomentSpec> {
        vec![MomentSpec { name: "sum", dims: dims.to_vec(), initial: self.initial_accumulator }]
    }

    fn update_host(&self, _: &[usize], step: u64, lr: f64, param: &mut [f32], grad: &[f32], m: &mut [Vec<f32>]) {
        let [sum] = m else { return };
        let (rate, decay, eps) = (self.rate(step, lr) as f32, self.weight_decay as f32, self.eps as f32);
        let block = elementwise_block(param.len());
        param.par_chunks_mut(block).zip(grad.par_chunks(block)).zip(sum.par_chunks_mut(block)).for_each(
            |((param, grad), sum)| {
                for ((p, &g), s) in param.iter_mut().zip(grad).zip(sum) {
                    let g = g + decay * *p;
                    *s += g * g;
                    *p -= rate * g / (s.sqrt() + eps);
                }
            },
        );
    }

    fn update_tensor(&self, step: u64, lr: f64, param: &Tensor, grad: &Tensor, m: &mut [Tensor]) -> Result<Tensor> {
        let [sum] = m else { candle_core::bail!("Adagrad keeps one moment a parameter") };
        let grad = (grad + (param * self.weight_decay)?)?;
        *sum = (&*sum + grad.sqr()?)?;
        param - ((grad / (sum.sqrt()? + self.eps)?)? * self.rate(step, lr))?
    }

    fn at_once(&self, _: &[usize]) -> bool {
        false
    }

    fn update_at_once(&self, _: u64, _: f64, _: &[Slot<'_>], _: &Device) -> Result<()> {
        candle_core::bail!("Adagrad moves one parameter at a time")
    }
}
