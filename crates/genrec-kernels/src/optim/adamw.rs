//! Adam with decoupled weight decay.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::config::{OptimError, check};
use super::device::{Slot, Table, addresses};
use super::state::{MomentSpec, Rule, State};
use super::{Optimizer, elementwise_block};
use crate::math::vectorized;
use crate::params::{Gradients, ParamError, Parameters};

/// Hyper-parameters of [`AdamW`]; the defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AdamWConfig {
    /// Decay of the mean of gradients, in `[0, 1)`; 0.9 by default.
    pub beta1: f64,
    /// Decay of the mean of squared gradients, in `[0, 1)`; 0.999 by default.
    pub beta2: f64,
    /// Added to the root of the second moment, above 0; 1e-8 by default.
    pub eps: f64,
    /// Share of the parameter taken off in each step, times the learning rate; 0.01 by default.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

impl AdamWConfig {
    /// Sets both decay rates.
    #[must_use]
    pub fn with_betas(mut self, beta1: f64, beta2: f64) -> Self {
        (self.beta1, self.beta2) = (beta1, beta2);
        self
    }

    /// Sets the term added to the root of the second moment.
    #[must_use]
    pub fn with_eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Sets the weight decay.
    #[must_use]
    pub fn with_weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`OptimError::OutOfRange`] names the first field outside its range.
    pub fn validate(&self) -> std::result::Result<(), OptimError> {
        check("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "in [0, 1)")?;
        check("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "in [0, 1)")?;
        check("eps", self.eps, self.eps > 0.0 && self.eps.is_finite(), "above 0 and finite")?;
        let decay = self.weight_decay;
        check("weight_decay", decay, decay >= 0.0 && decay.is_finite(), "at least 0 and finite")
    }
}

/// AdamW: Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019, algorithm 2.
///
/// With gradient $g$ and learning rate $\eta$, step $t$ is
///
/// $$ m \gets \beta_1 m + (1-\beta_1) g, \quad v \gets \beta_2 v + (1-\beta_2) g^2, $$
/// $$ \theta \gets (1 - \eta\lambda)\theta - \eta\,\frac{m / (1-\beta_1^t)}{\sqrt{v / (1-\beta_2^t)} + \epsilon}. $$
///
/// Moments: `exp_avg` ($m$) and `exp_avg_sq` ($v$), as PyTorch names them.
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
    state: State,
}

impl AdamW {
    /// An optimiser for these parameters, with zero moments.
    ///
    /// # Errors
    /// When a hyper-parameter is out of range or the moments cannot be allocated.
    pub fn new(config: AdamWConfig, params: &Parameters) -> std::result::Result<Self, OptimError> {
        config.validate()?;
        let state = State::new(&config, params)?;
        Ok(Self { config, state })
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &AdamWConfig {
        &self.config
    }
}

impl Optimizer for AdamW {
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

/// Factors of one step that do not depend on the element.
struct Factors {
    keep: f64,
    rate: f64,
    second_root: f64,
}

impl AdamWConfig {
    fn factors(&self, step: u64, lr: f64) -> Factors {
        let t = step as f64;
        Factors {
            keep: 1.0 - lr * self.weight_decay,
            rate: lr / (1.0 - self.beta1.powf(t)),
            second_root: (1.0 - self.beta2.powf(t)).sqrt(),
        }
    }
}

impl Rule for AdamWConfig {
    fn moments(&self, dims: &[usize]) -> Vec<MomentSpec> {
        ["exp_avg", "exp_avg_sq"]
            .into_iter()
            .map(|name| MomentSpec { name, dims: dims.to_vec(), initial: 0.0 })
            .collect()
    }

    fn update_host(&self, _: &[usize], step: u64, lr: f64, param: &mut [f32], grad: &[f32], m: &mut [Vec<f32>]) {
        let [mean, square] = m else { return };
        let f = self.factors(step, lr);
        let (b1, b2, eps) = (self.beta1 as f32, self.beta2 as f32, self.eps as f32);
        let (c1, c2) = ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32);
        let (keep, rate, root) = (f.keep as f32, f.rate as f32, (1.0 / f.second_root) as f32);
        let block = elementwise_block(param.len());
        param
            .par_chunks_mut(block)
            .zip(grad.par_chunks(block))
            .zip(mean.par_chunks_mut(block).zip(square.par_chunks_mut(block)))
            .for_each(|((param, grad), (mean, square))| {
                vectorized(
                    #[inline(always)]
                    || {
                        for (((p, &g), m), v) in param.iter_mut().zip(grad).zip(&mut *mean).zip(&mut *square) {
                            *m = b1 * *m + c1 * g;
                            *v = b2 * *v + c2 * (g * g);
                            *p = keep * *p - rate * *m / (v.sqrt() * root + eps);
                        }
                    },
                );
            });
    }

    fn update_tensor(&self, step: u64, lr: f64, param: &Tensor, grad: &Tensor, m: &mut [Tensor]) -> Result<Tensor> {
        let [mean, square] = m else { candle_core::bail!("AdamW keeps two moments a parameter") };
        let f = self.factors(step, lr);
        *mean = ((&*mean * self.beta1)? + (grad * (1.0 - self.beta1))?)?;
        *square = ((&*square * self.beta2)? + (grad.sqr()? * (1.0 - self.beta2))?)?;
        let denominator = ((square.sqrt()? / f.second_root)? + self.eps)?;
        (param * f.keep)? - ((&*mean / denominator)? * f.rate)?
    }

    fn at_once(&self, _: &[usize]) -> bool {
        true
    }

    fn update_at_once(&self, step: u64, lr: f64, slots: &[Slot<'_>], device: &Device) -> Result<()> {
        let rows = slots
            .iter()
            .map(|Slot { param, grad, old, new }| {
                let ([old_mean, old_square], [new_mean, new_square]) = (old.as_slice(), new.as_slice()) else {
                    candle_core::bail!("AdamW keeps two moments a parameter")
                };
                let [p, g, a, b, c, d] = addresses([param, grad, old_mean, old_square, new_mean, new_square])?;
                Ok([p, g, a, b, c, d, param.elem_count() as u64])
            })
            .collect::<Result<Vec<_>>>()?;
        let f = self.factors(step, lr);
        Table::new(&rows, device)?.adamw([self.beta1, self.beta2, self.eps, f.keep, f.rate, 1.0 / f.second_root])
    }
}
