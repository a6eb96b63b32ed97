//! Linear maps and norms: packed weights, and where their gradients go.

use genrec_kernels::fused;
use genrec_kernels::gemm::GemmError;
use genrec_kernels::matmul::{Panels, Target, View, product};

use super::grads::Grads;

/// `y = x W^T` with the weight packed for both directions.
#[derive(Debug, Default)]
pub(crate) struct Linear {
    /// Place among the model's parameters, sorted by name.
    pub(crate) id: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// `(inputs, outputs)`.
    forward: Panels,
    /// `(outputs, inputs)`.
    backward: Panels,
}

/// Rows of an activation: the values and the distance of two rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) stride: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(values: &'a [f32], stride: usize) -> Self {
        Self { values, stride }
    }
}

impl Linear {
    pub(crate) fn new(id: usize, dims: &[usize]) -> Self {
        let (outputs, inputs) = (dims.first().copied().unwrap_or(0), dims.get(1).copied().unwrap_or(0));
        Self { id, inputs, outputs, ..Self::default() }
    }

    /// Packs the weight, `(outputs, inputs)` row-major, anew.
    pub(crate) fn pack(&mut self, weight: &[f32], training: bool) -> Result<(), GemmError> {
        let weight = View::new(weight, self.outputs, self.inputs, self.inputs)?;
        self.forward.pack(weight.t());
        if training {
            self.backward.pack(weight);
        }
        Ok(())
    }

    pub(crate) fn forward(&self, x: Rows<'_>, rows: usize, y: Target<'_>) -> Result<(), GemmError> {
        product(View::new(x.values, rows, self.inputs, x.stride)?, &self.forward, y)
    }

    /// The gradient of the input from that of the result.
    pub(crate) fn backward(&self, dy: Rows<'_>, rows: usize, dx: Target<'_>) -> Result<(), GemmError> {
        product(View::new(dy.values, rows, self.outputs, dy.stride)?, &self.backward, dx)
    }

    /// Adds the weight's gradient.
    pub(crate) fn weight_grad(
        &self,
        dy: Rows<'_>,
        x: Rows<'_>,
        rows: usize,
        grads: &mut Grads,
    ) -> Result<(), GemmError> {
        let dy = View::new(dy.values, rows, self.outputs, dy.stride)?;
        let x = View::new(x.values, rows, self.inputs, x.stride)?;
        product(dy.t(), x, grads.target(self.id, self.inputs))
    }
}

/// The weight of an RMSNorm.
#[derive(Debug, Default)]
pub(crate) struct Norm {
    pub(crate) id: usize,
    pub(crate) weight: Vec<f32>,
    pub(crate) epsilon: f32,
}

/// What a norm leaves for its backward pass.
#[derive(Debug, Default)]
pub(crate) struct NormSaved {
    /// The norm's input, `(rows, d_model)`.
    input: Vec<f32>,
    /// Its result, `(rows, d_model)`.
    pub(crate) normed: Vec<f32>,
    inverses: Vec<f32>,
}

impl Norm {
    /// Normalises every row of `x` into `saved.normed`.
    pub(crate) fn forward(&self, x: &[f32], saved: &mut NormSaved) {
        let rows = x.len() / self.weight.len().max(1);
        fit(&mut saved.input, x.len()).copy_from_slice(x);
        let inverses = fit(&mut saved.inverses, rows);
        fused::rms_norm(x, &self.weight, self.epsilon, fit(&mut saved.normed, x.len()), inverses);
    }

    /// Adds to `dx` the gradient of the input and to `grads` that of the weight; `dy` is used up.
    pub(crate) fn backward(&self, saved: &NormSaved, dy: &mut [f32], dx: &mut [f32], grads: &mut Grads) {
        let input = &saved.input[..dx.len()];
        fused::rms_norm_backward(input, &self.weight, &saved.inverses, dy, dx, grads.get(self.id));
    }
}

/// The first `len` elements of a buffer that grows when it is too short and never shrinks.
pub(crate) fn fit(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
