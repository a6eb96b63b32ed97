//! Layers that T5 has none of: linear maps with a bias, and layer norms.

use genrec_kernels::fused::{self, LayerNormGrads};
use genrec_kernels::gemm::GemmError;
use genrec_kernels::matmul::Target;
use genrec_kernels::vectorized;

use crate::engine::{
    grads::Grads,
    layers::{Linear, Rows, fit},
};

/// A vector of weights.
#[derive(Debug, Default)]
pub(super) struct Vector {
    /// Place among the model's parameters, sorted by name.
    pub(super) id: usize,
    pub(super) values: Vec<f32>,
}

/// `y = x W^T + b`, or without `b`.
#[derive(Debug, Default)]
pub(super) struct Dense {
    pub(super) linear: Linear,
    pub(super) bias: Option<Vector>,
}

impl Dense {
    /// Overwrites the first `outputs` elements of each row of `y`, whose rows start `stride` elements apart.
    pub(super) fn forward(&self, x: Rows<'_>, rows: usize, y: &mut [f32], stride: usize) -> Result<(), GemmError> {
        let Some(bias) = &self.bias else {
            return self.linear.forward(x, rows, Target::set(y, stride));
        };
        for y in y.chunks_mut(stride).take(rows) {
            y[..self.linear.outputs].copy_from_slice(&bias.values);
        }
        self.linear.forward(x, rows, Target::add(y, stride))
    }

    /// The gradient of the input from that of the result.
    pub(super) fn backward(&self, dy: Rows<'_>, rows: usize, dx: Target<'_>) -> Result<(), GemmError> {
        self.linear.backward(dy, rows, dx)
    }

    /// Adds the gradients of the weight and the bias.
    pub(super) fn weight_grad(
        &self,
        dy: Rows<'_>,
        x: Rows<'_>,
        rows: usize,
        grads: &mut Grads,
    ) -> Result<(), GemmError> {
        if let Some(bias) = &self.bias {
            let (sum, outputs) = (grads.get(bias.id), self.linear.outputs);
            vectorized(
                #[inline(always)]
                || {
                    for dy in dy.values.chunks(dy.stride).take(rows) {
                        sum.iter_mut().zip(&dy[..outputs]).for_each(|(sum, dy)| *sum += dy);
                    }
                },
            );
        }
        self.linear.weight_grad(dy, x, rows, grads)
    }
}

/// A layer norm.
#[derive(Debug, Default)]
pub(super) struct Norm {
    pub(super) weight: Vector,
    pub(super) bias: Vector,
    pub(super) epsilon: f32,
}

/// What a norm leaves for its backward pass.
#[derive(Debug, Default)]
pub(super) struct NormSaved {
    /// The result before weight and bias, `(rows, d_model)`.
    hats: Vec<f32>,
    /// The result, `(rows, d_model)`.
    pub(super) normed: Vec<f32>,
    inverses: Vec<f32>,
}

impl Norm {
    /// Normalises every row of `x` into `saved.normed`.
    pub(super) fn forward(&self, x: &[f32], saved: &mut NormSaved) {
        let rows = x.len() / self.weight.values.len().max(1);
        let NormSaved { hats, normed, inverses } = saved;
        let (hats, normed, inverses) = (fit(hats, x.len()), fit(normed, x.len()), fit(inverses, rows));
        fused::layer_norm(x, &self.weight.values, &self.bias.values, self.epsilon, hats, normed, inverses);
    }

    /// Adds to `dx` the gradient of the input and to `grads` those of weight and bias; `dy` is used up.
    pub(super) fn backward(&self, saved: &NormSaved, dy: &mut [f32], dx: &mut [f32], grads: &mut Grads) {
        let (w, b) = grads.pair(self.weight.id, self.bias.id);
        let hats = &saved.hats[..dx.len()];
        let mut sums = LayerNormGrads { x: dx, w, b };
        fused::layer_norm_backward(hats, &self.weight.values, &saved.inverses, dy, &mut sums);
    }
}
