//! Adafactor.

use std::collections::BTreeMap;

use candle_core::{D, Device, Result, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::config::{OptimError, check};
use super::device::{AdafactorFactors, Slot, Table, addresses};
use super::state::{MomentSpec, Rule, State};
use super::{Optimizer, elementwise_block};
use crate::host::{sum, sum_of_squares};
use crate::math::vectorized;
use crate::params::{Gradients, ParamError, Parameters};

/// Hyper-parameters of [`Adafactor`]; the defaults are the paper's algorithm 4 with the learning rate given to each
/// step (`relative_step=False` in `transformers`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AdafactorConfig {
    /// Step $t$ decays the second moment by $1 - t^{\text{this}}$; below 0, -0.8 by default.
    pub decay_rate: f64,
    /// Added to each squared gradient, above 0; 1e-30 by default.
    pub eps_square: f64,
    /// Smallest root mean square a parameter counts with when steps are scaled by it; 1e-3 by default.
    pub eps_scale: f64,
    /// Largest root mean square of an update before the learning rate; 1 by default.
    pub clip_threshold: f64,
    /// Decay of a mean of updates, in `[0, 1)`; none by default, which saves a moment the size of the parameters.
    pub beta1: Option<f64>,
    /// Share of the parameter taken off in each step, times its learning rate; 0 by default.
    pub weight_decay: f64,
    /// Whether the learning rate is multiplied by the parameter's root mean square; true by default. A learning rate
    /// of 0.01, as T5 and TIGER use, is meant for it.
    pub scale_parameter: bool,
}

impl Default for AdafactorConfig {
    fn default() -> Self {
        Self {
            decay_rate: -0.8,
            eps_square: 1e-30,
            eps_scale: 1e-3,
            clip_threshold: 1.0,
            beta1: None,
            weight_decay: 0.0,
            scale_parameter: true,
        }
    }
}

impl AdafactorConfig {
    /// Sets the exponent of the second moment's decay.
    #[must_use]
    pub fn with_decay_rate(mut self, decay_rate: f64) -> Self {
        self.decay_rate = decay_rate;
        self
    }

    /// Sets the largest root mean square of an update.
    #[must_use]
    pub fn with_clip_threshold(mut self, clip_threshold: f64) -> Self {
        self.clip_threshold = clip_threshold;
        self
    }

    /// Sets the decay of the mean of updates, or leaves it out.
    #[must_use]
    pub fn with_beta1(mut self, beta1: Option<f64>) -> Self {
        self.beta1 = beta1;
        self
    }

    /// Sets the weight decay.
    #[must_use]
    pub fn with_weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// Sets whether steps are scaled by the parameter's root mean square.
    #[must_use]
    pub fn with_scale_parameter(mut self, scale_parameter: bool) -> Self {
        self.scale_parameter = scale_parameter;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`OptimError::OutOfRange`] names the first field outside its range.
    pub fn validate(&self) -> std::result::Result<(), OptimError> {
        check("decay_rate", self.decay_rate, self.decay_rate < 0.0 && self.decay_rate.is_finite(), "below 0")?;
        let positive =
            [("eps_square", self.eps_square), ("eps_scale", self.eps_scale), ("clip_threshold", self.clip_threshold)];
        for (name, value) in positive {
            check(name, value, value > 0.0 && value.is_finite(), "above 0 and finite")?;
        }
        if let Some(beta1) = self.beta1 {
            check("beta1", beta1, (0.0..1.0).contains(&beta1), "in [0, 1)")?;
        }
        let decay = self.weight_decay;
        check("weight_decay", decay, decay >= 0.0 && decay.is_finite(), "at least 0 and finite")
    }

    /// Decay of the second moment at a step.
    fn beta2(&self, step: u64) -> f64 {
        1.0 - (step as f64).powf(self.decay_rate)
    }

    /// Learning rate of a parameter of that root mean square.
    fn rate(&self, lr: f64, rms: f64) -> f64 {
        if self.scale_parameter { lr * rms.max(self.eps_scale) } else { lr }
    }
}

/// Adafactor: Shazeer and Stern, *Adaptive Learning Rates with Sublinear Memory Cost*, ICML 2018, algorithm 4.
///
/// For a matrix the second moment is kept as means over rows ($R$, of length rows) and over columns ($C$), so that its
/// memory is rows + columns; a tensor of more axes is a stack of such matrices, one of fewer keeps the whole moment.
/// With gradient $G$ and $\hat\beta_2 = 1 - t^{-0.8}$,
///
/// $$ R \gets \hat\beta_2 R + (1-\hat\beta_2)\,\mathrm{mean}_j(G_{ij}^2 + \epsilon_1), \quad
///    C \gets \hat\beta_2 C + (1-\hat\beta_2)\,\mathrm{mean}_i(G_{ij}^2 + \epsilon_1), $$
/// $$ U = G \Big/ \sqrt{R C^\top / \mathrm{mean}(R)}, \quad
///    \theta \gets \theta - \eta \max(\epsilon_2, \mathrm{RMS}(\theta))\, U / \max(1, \mathrm{RMS}(U)/d). $$
///
/// Moments: `exp_avg_sq_row`, `exp_avg_sq_col` or `exp_avg_sq`, and `exp_avg` with `beta1`, as `transformers` names
/// them.
#[derive(Clone, Debug)]
pub struct Adafactor {
    config: AdafactorConfig,
    state: State,
}

impl Adafactor {
    /// An optimiser for these parameters, with zero moments.
    ///
    /// # Errors
    /// When a hyper-parameter is out of range or the moments cannot be allocated.
    pub fn new(config: AdafactorConfig, params: &Parameters) -> std::result::Result<Self, OptimError> {
        config.validate()?;
        let state = State::new(&config, params)?;
        Ok(Self { config, state })
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &AdafactorConfig {
        &self.config
    }
}

impl Optimizer for Adafactor {
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

fn rms(values: &[f32]) -> f64 {
    (sum_of_squares(values) / values.len().max(1) as f64).sqrt()
}

/// Rows whose squares one task adds up over columns.
const ROWS: usize = 64;

impl AdafactorConfig {
    /// Updates the factored moments from the gradient and writes `G / sqrt(R C / mean(R))` to `update`.
    fn factored(&self, b2: f64, cols: usize, grad: &[f32], row: &mut [f32], col: &mut [f32], update: &mut [f32]) {
        let (b2, c2, eps) = (b2 as f32, (1.0 - b2) as f32, self.eps_square as f32);
        let rows = row.len();
        let square = |g: f32| f64::from(g * g + eps);
        row.par_iter_mut().zip(grad.par_chunks(cols)).with_min_len(ROWS).for_each(|(r, g)| {
            *r = b2 * *r + c2 * (sum(g, square) / cols as f64) as f32;
        });
        let partial: Vec<Vec<f64>> = grad
            .par_chunks(cols * ROWS)
            .map(|block| {
                let mut sums = vec![0f64; cols];
                vectorized(
                    #[inline(always)]
                    || {
                        for g in block.chunks(cols) {
                            sums.iter_mut().zip(g).for_each(|(s, &g)| *s += square(g));
                        }
                    },
                );
                sums
            })
            .collect();
        for (j, c) in col.iter_mut().enumerate() {
            let sum: f64 = partial.iter().map(|sums| sums[j]).sum();
            *c = b2 * *c + c2 * (sum / rows as f64) as f32;
        }
        let row_mean = (row.iter().map(|&r| f64::from(r)).sum::<f64>() / rows as f64) as f32;
        let col_factor: Vec<f32> = col.iter().map(|c| 1.0 / c.sqrt()).collect();
        update.par_chunks_mut(cols).zip(grad.par_chunks(cols)).zip(&*row).with_min_len(ROWS).for_each(
            |((update, grad), r)| {
                let row_factor = 1.0 / (r / row_mean).sqrt();
                vectorized(
                    #[inline(always)]
                    || {
                        for ((u, &g), c) in update.iter_mut().zip(grad).zip(&col_factor) {
                            *u = row_factor * c * g;
                        }
                    },
                );
            },
        );
    }
}

impl Rule for AdafactorConfig {
    fn moments(&self, dims: &[usize]) -> Vec<MomentSpec> {
        let spec = |name, dims| MomentSpec { name, dims, initial: 0.0 };
        let mut specs = match dims {
            [stack @ .., rows, cols] => vec![
                spec("exp_avg_sq_row", [stack, &[*rows]].concat()),
                spec("exp_avg_sq_col", [stack, &[*cols]].concat()),
            ],
            _ => vec![spec("exp_avg_sq", dims.to_vec())],
        };
        if self.beta1.is_some() {
            specs.push(spec("exp_avg", dims.to_vec()));
        }
        specs
    }

    fn update_host(&self, dims: &[usize], step: u64, lr: f64, param: &mut [f32], grad: &[f32], m: &mut [Vec<f32>]) {
        if param.is_empty() {
            return;
        }
        let b2 = self.beta2(step);
        let rate = self.rate(lr, rms(param));
        let mut update = vec![0f32; param.len()];
        let rest = match (dims, m) {
            ([.., rows, cols], [row, col, rest @ ..]) => {
                let matrices = grad.chunks(rows * cols).zip(update.chunks_mut(rows * cols));
                for ((g, u), (r, c)) in matrices.zip(row.chunks_mut(*rows).zip(col.chunks_mut(*cols))) {
                    self.factored(b2, *cols, g, r, c, u);
                }
                rest
            }
            (_, [square, rest @ ..]) => {
                for ((u, &g), v) in update.iter_mut().zip(grad).zip(square) {
                    *v = b2 as f32 * *v + (1.0 - b2) as f32 * (g * g + self.eps_square as f32);
                    *u = g / v.sqrt();
                }
                rest
            }
            _ => return,
        };
        let scale = (rate / (rms(&update) / self.clip_threshold).max(1.0)) as f32;
        let keep = (1.0 - self.weight_decay * rate) as f32;
        let block = elementwise_block(param.len());
        match (self.beta1, rest) {
            (Some(beta1), [mean, ..]) => {
                let (b1, c1) = (beta1 as f32, (1.0 - beta1) as f32);
                param.par_chunks_mut(block).zip(update.par_chunks(block)).zip(mean.par_chunks_mut(block)).for_each(
                    |((param, update), mean)| {
                        for ((p, &u), m) in param.iter_mut().zip(update).zip(mean) {
                            *m = b1 * *m + c1 * (scale * u);
                            *p = keep * *p - *m;
                        }
                    },
                );
            }
            _ => param.par_chunks_mut(block).zip(update.par_chunks(block)).for_each(|(param, update)| {
                vectorized(
                    #[inline(always)]
                    || param.iter_mut().zip(update).for_each(|(p, &u)| *p = keep * *p - scale * u),
                );
            }),
        }
    }

    fn update_tensor(&self, step: u64, lr: f64, param: &Tensor, grad: &Tensor, m: &mut [Tensor]) -> Result<Tensor> {
        if param.elem_count() == 0 {
            return Ok(param.clone());
        }
        let rms = |t: &Tensor| t.sqr()?.mean_all()?.sqrt();
        let b2 = self.beta2(step);
        let rate = if self.scale_parameter {
            (rms(param)?.maximum(self.eps_scale)? * lr)?
        } else {
            Tensor::full(lr, (), param.device())?.to_dtype(param.dtype())?
        };
        let square = (grad.sqr()? + self.eps_square)?;
        let blend = |old: &Tensor, new: &Tensor| (old * b2)? + (new * (1.0 - b2))?;
        let (update, rest) = match (param.rank() >= 2, m) {
            (true, [row, col, rest @ ..]) => {
                *row = blend(row, &square.mean(D::Minus1)?)?;
                *col = blend(col, &square.mean(D::Minus2)?)?;
                let row_factor = row.broadcast_div(&row.mean_keepdim(D::Minus1)?)?.sqrt()?.recip()?;
                let col_factor = col.sqrt()?.recip()?;
                let factor = row_factor.unsqueeze(D::Minus1)?.broadcast_mul(&col_factor.unsqueeze(D::Minus2)?)?;
                ((grad * factor)?, rest)
            }
            (false, [whole, rest @ ..]) => {
                *whole = blend(whole, &square)?;
                ((grad / whole.sqrt()?)?, rest)
            }
            _ => candle_core::bail!("Adafactor keeps one or two second moments a parameter"),
        };
        let clip = (rms(&update)? / self.clip_threshold)?.maximum(1.0)?;
        let mut update = update.broadcast_mul(&(&rate / clip)?)?;
        if let (Some(beta1), [mean, ..]) = (self.beta1, rest) {
            *mean = ((&*mean * beta1)? + (update * (1.0 - beta1))?)?;
            update = mean.clone();
        }
        let decayed = param.broadcast_mul(&(rate * -self.weight_decay)?.affine(1.0, 1.0)?)?;
        decayed - update
    }

    fn at_once(&self, dims: &[usize]) -> bool {
        /// Columns whose sums fit in the memory that a block's threads share.
        const WIDEST: usize = 8_192;
        self.beta1.is_none() && dims.len() <= 2 && dims.get(1).is_none_or(|columns| *columns <= WIDEST)
    }

    fn update_at_once(&self, step: u64, lr: f64, slots: &[Slot<'_>], device: &Device) -> Result<()> {
        let mut widest = 0;
        let mut rows = Vec::with_capacity(slots.len());
        for Slot { param, grad, old, new } in slots {
            rows.push(match (param.dims(), old.as_slice(), new.as_slice()) {
                ([rows, columns], [old_row, old_col], [new_row, new_col]) => {
                    widest = widest.max(*columns);
                    let [p, g, a, b, c, d] = addresses([param, grad, old_row, new_row, old_col, new_col])?;
                    [p, g, a, b, c, d, *rows as u64, *columns as u64]
                }
                (_, [old], [new]) => {
                    let [p, g, a, b] = addresses([param, grad, old, new])?;
                    [p, g, a, b, 0, 0, param.elem_count() as u64, 0]
                }
                _ => candle_core::bail!("Adafactor keeps one or two second moments a parameter"),
            });
        }
        let factors = AdafactorFactors {
            beta2: self.beta2(step),
            eps_square: self.eps_square,
            rate: lr,
            eps_scale: self.eps_scale,
            scaled: self.scale_parameter,
            clip: self.clip_threshold,
            decay: self.weight_decay,
        };
        Table::new(&rows, device)?.adafactor(widest, &factors)
    }
}
