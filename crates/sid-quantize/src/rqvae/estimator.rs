//! How the gradient of the reconstruction passes the quantiser, which itself has none.

use std::ops::Range;

use candle_core::{Result, Tensor};
use genrec_kernels::CounterRng;
use serde::{Deserialize, Serialize};

use crate::{QuantizeError, Result as Outcome};

/// How the gradient with respect to the quantised latent vector `z^` becomes one with respect to `z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Estimator {
    /// It is passed on unchanged: the decoder sees `z + sg[z^ - z]` (van den Oord et al. 2017, arXiv 1711.00937).
    #[default]
    StraightThrough,
    /// It is rotated and scaled as `z` has to be to become `z^`: the decoder sees `(|z^| / |z|) R z` with the rotation `R`
    /// of `z` onto `z^` held constant, so that the angle between a gradient and its vector is kept (Fifty et al. 2024,
    /// *Restructuring Vector Quantization with the Rotation Trick*, arXiv 2410.06424, section 4). Of a partitioned vector
    /// each part is rotated by itself.
    RotationTrick,
    /// The decoder sees a mixture of the codewords, by a softmax of their negative squared distances with Gumbel noise; the
    /// temperature falls during the training (Jang et al. 2017, arXiv 1611.01144). Codes are those of the nearest codewords,
    /// as after the training.
    GumbelSoftmax(GumbelSoftmax),
}

/// Temperatures of the Gumbel-softmax, in units of squared distance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GumbelSoftmax {
    /// At the start; 1 by default.
    pub temperature: f64,
    /// At the end, reached exponentially; 0.1 by default, where a mixture is nearly one codeword.
    pub final_temperature: f64,
}

impl Default for GumbelSoftmax {
    fn default() -> Self {
        Self { temperature: 1.0, final_temperature: 0.1 }
    }
}

impl GumbelSoftmax {
    /// Sets the temperatures at the start and at the end.
    #[must_use]
    pub fn with_temperatures(mut self, start: f64, end: f64) -> Self {
        (self.temperature, self.final_temperature) = (start, end);
        self
    }

    pub(super) fn validate(self) -> Outcome<()> {
        for (field, value) in [("temperature", self.temperature), ("final_temperature", self.final_temperature)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(QuantizeError::config(field, value, "it must be finite and above 0"));
            }
        }
        Ok(())
    }

    /// The temperature when that share of the training is done.
    pub(super) fn at(self, progress: f64) -> f64 {
        self.temperature * (self.final_temperature / self.temperature).powf(progress)
    }
}

impl Estimator {
    /// The gradient of the reconstruction with respect to `z`, for the estimators that quantise hard.
    ///
    /// # Shapes
    /// - `grad`: gradient with respect to `z^`, `(n, latent)`, as are `z`, `latent` and the result; `columns`: the parts that
    ///   are quantised by themselves
    pub(super) fn backward(self, z: &Tensor, latent: &Tensor, grad: &Tensor, parts: &[Range<usize>]) -> Result<Tensor> {
        match self {
            Self::RotationTrick => {
                let part = |t: &Tensor, columns: &Range<usize>| t.narrow(1, columns.start, columns.len());
                let rotated = parts
                    .iter()
                    .map(|columns| rotate_back(&part(z, columns)?, &part(latent, columns)?, &part(grad, columns)?))
                    .collect::<Result<Vec<_>>>()?;
                Tensor::cat(&rotated, 1)
            }
            _ => Ok(grad.clone()),
        }
    }
}

/// `(|q| / |e|) R^T g` for each row, where `R` is the rotation in the plane of `e` and `q` that turns `e` towards `q`.
///
/// With the unit vectors `e'`, `q'` and `s = (e' + q') / |e' + q'|`, `R = I - 2 s s^T + 2 q' e'^T`, so that
/// `R^T g = g - 2 (g . s) s + 2 (g . q') e'`. Where `e` or `q` is 0, or they are opposite, the products with the vectors that
/// do not exist are 0.
pub(super) fn rotate_back(e: &Tensor, q: &Tensor, g: &Tensor) -> Result<Tensor> {
    const EPSILON: f64 = 1e-6;
    let length = |x: &Tensor| x.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(EPSILON);
    let dot = |a: &Tensor, b: &Tensor| (a * b)?.sum_keepdim(1);
    let (e_length, q_length) = (length(e)?, length(q)?);
    let (e, q) = (e.broadcast_div(&e_length)?, q.broadcast_div(&q_length)?);
    let s = (&e + &q)?;
    let s = s.broadcast_div(&length(&s)?)?;
    let turned =
        ((g - s.broadcast_mul(&dot(g, &s)?)?.affine(2.0, 0.0)?)? + e.broadcast_mul(&dot(g, &q)?)?.affine(2.0, 0.0)?)?;
    turned.broadcast_mul(&(q_length / e_length)?)
}

/// A mixture of codewords for each row, and what its gradient needs.
#[derive(Clone, Debug)]
pub(crate) struct Mixture {
    /// Weights of the codewords, `(n, codes)`.
    weights: Tensor,
    temperature: f64,
    /// The mixed codewords, `(n, columns)`.
    pub(super) word: Tensor,
}

impl Mixture {
    /// Mixes codewords by `softmax((g - d) / temperature)` with Gumbel noise `g` and squared distances `d`.
    ///
    /// # Shapes
    /// - `distances`: `(n, codes)`; `codebook`: `(codes, columns)`
    pub(super) fn new(distances: &Tensor, codebook: &Tensor, temperature: f64, rng: &CounterRng) -> Result<Self> {
        let mut noise = vec![0.0; distances.elem_count()];
        rng.fill_uniform(&mut noise);
        for x in &mut noise {
            // Uniform in [0, 1): kept off both ends, where the noise would be infinite.
            *x = -(-(x.clamp(1e-7, 1.0 - 1e-7)).ln()).ln();
        }
        let noise = Tensor::from_vec(noise, distances.dims(), distances.device())?.to_dtype(distances.dtype())?;
        let logits = (noise - distances)?.affine(1.0 / temperature, 0.0)?;
        let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?)?.exp()?;
        let weights = shifted.broadcast_div(&shifted.sum_keepdim(1)?)?;
        let word = weights.matmul(codebook)?;
        Ok(Self { weights, temperature, word })
    }

    /// The gradients with respect to the row and to the codebook, given the one with respect to the mixture.
    ///
    /// With weights `w`, `dL/dw_k = g . e_k`, the softmax's `dL/dl_k = w_k (dL/dw_k - sum_j w_j dL/dw_j)` and
    /// `l_k = -||r - e_k||^2 / temperature`.
    pub(super) fn backward(&self, r: &Tensor, codebook: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
        let by_weight = grad.matmul(&codebook.t()?)?;
        let mean = (&by_weight * &self.weights)?.sum_keepdim(1)?;
        let by_logit = (by_weight.broadcast_sub(&mean)? * &self.weights)?;
        // With respect to the squared distances.
        let by_distance = by_logit.affine(-1.0 / self.temperature, 0.0)?;
        // d||r - e_k||^2 / dr = 2 (r - e_k), and the gradients of a row's distances add up to 0.
        let grad_r = by_distance.matmul(codebook)?.affine(-2.0, 0.0)?;
        let moved = by_distance.t()?.matmul(r)?.affine(-2.0, 0.0)?;
        let kept = codebook.broadcast_mul(&by_distance.sum(0)?.unsqueeze(1)?.affine(2.0, 0.0)?)?;
        let grad_codebook = ((self.weights.t()?.matmul(grad)? + moved)? + kept)?;
        Ok((grad_r, grad_codebook))
    }
}
