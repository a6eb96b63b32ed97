//! The position-wise network with its norm and residual connection.

use genrec_kernels::fused;
use genrec_kernels::gemm::GemmError;
use genrec_kernels::matmul::Target;

use crate::engine::{
    grads::Grads,
    layers::{Linear, Norm, NormSaved, Rows, fit},
    pass::{Dropout, Scratch, Span, positions},
};

/// `W_o relu(W_i x)` or `W_o (gelu(W_0 x) * W_1 x)`.
#[derive(Debug, Default)]
pub(super) struct FeedForward {
    pub(super) norm: Norm,
    pub(super) input: Linear,
    pub(super) gate: Option<Linear>,
    pub(super) output: Linear,
    /// The first of its two dropout sites: the inner activation's, then the residual's.
    pub(super) site: u64,
}

/// What the network leaves for its backward pass.
#[derive(Debug, Default)]
pub(super) struct FeedForwardSaved {
    norm: NormSaved,
    /// What the output layer reads, `(rows, d_ff)`.
    hidden: Vec<f32>,
    /// `W_0 x`, then its gradient; empty without a gate.
    gate: Vec<f32>,
    /// `W_1 x`, then its gradient; empty without a gate.
    linear: Vec<f32>,
}

impl FeedForward {
    /// Adds the network's branch to the residual stream `x`, `(rows, d_model)`.
    pub(super) fn forward(
        &self,
        x: &mut [f32],
        spans: &[Span],
        dropout: Option<&Dropout>,
        saved: &mut FeedForwardSaved,
        scratch: &mut Scratch,
    ) -> Result<(), GemmError> {
        let (rows, width, d_ff) = (positions(spans), self.input.inputs, self.input.outputs);
        self.norm.forward(x, &mut saved.norm);
        let normed = Rows::new(&saved.norm.normed, width);
        let hidden = fit(&mut saved.hidden, rows * d_ff);
        let mask = |span: &Span| Dropout::mask(dropout, span.row, self.site);
        match &self.gate {
            None => {
                self.input.forward(normed, rows, Target::set(hidden, d_ff))?;
                for span in spans {
                    fused::relu_dropout(span.of_mut(hidden, d_ff), mask(span).as_ref());
                }
            }
            Some(gate) => {
                let (gated, linear) = (fit(&mut saved.gate, rows * d_ff), fit(&mut saved.linear, rows * d_ff));
                gate.forward(normed, rows, Target::set(gated, d_ff))?;
                self.input.forward(normed, rows, Target::set(linear, d_ff))?;
                for span in spans {
                    let (gated, linear) = (span.of(gated, d_ff), span.of(linear, d_ff));
                    fused::gated_gelu(gated, linear, mask(span).as_ref(), span.of_mut(hidden, d_ff));
                }
            }
        }
        let branch = fit(&mut scratch.branch, x.len());
        self.output.forward(Rows::new(hidden, d_ff), rows, Target::set(branch, width))?;
        for span in spans {
            let mask = Dropout::mask(dropout, span.row, self.site + 1);
            fused::add_dropped(span.of_mut(x, width), span.of(branch, width), mask.as_ref());
        }
        Ok(())
    }

    /// Turns `dx`, the gradient of the residual stream after the network, into that before it.
    pub(super) fn backward(
        &self,
        dx: &mut [f32],
        spans: &[Span],
        dropout: Option<&Dropout>,
        saved: &mut FeedForwardSaved,
        grads: &mut Grads,
        scratch: &mut Scratch,
    ) -> Result<(), GemmError> {
        let (rows, width, d_ff) = (positions(spans), self.input.inputs, self.input.outputs);
        let branch = fit(&mut scratch.branch, dx.len());
        for span in spans {
            let mask = Dropout::mask(dropout, span.row, self.site + 1);
            fused::dropped(span.of(dx, width), mask.as_ref(), span.of_mut(branch, width));
        }
        let branch = Rows::new(branch, width);
        let hidden = &saved.hidden[..rows * d_ff];
        self.output.weight_grad(branch, Rows::new(hidden, d_ff), rows, grads)?;
        let d_hidden = fit(&mut scratch.inner, rows * d_ff);
        self.output.backward(branch, rows, Target::set(d_hidden, d_ff))?;

        let mask = |span: &Span| Dropout::mask(dropout, span.row, self.site);
        let normed = Rows::new(&saved.norm.normed, width);
        let d_normed = fit(&mut scratch.normed, dx.len());
        match &self.gate {
            None => {
                for span in spans {
                    let d_hidden = span.of_mut(d_hidden, d_ff);
                    fused::relu_dropout_backward(span.of(hidden, d_ff), mask(span).as_ref(), d_hidden);
                }
                let d_hidden = Rows::new(d_hidden, d_ff);
                self.input.weight_grad(d_hidden, normed, rows, grads)?;
                self.input.backward(d_hidden, rows, Target::set(d_normed, width))?;
            }
            Some(gate) => {
                for span in spans {
                    let (gated, linear) = (span.of_mut(&mut saved.gate, d_ff), span.of_mut(&mut saved.linear, d_ff));
                    fused::gated_gelu_backward(gated, linear, mask(span).as_ref(), span.of(d_hidden, d_ff));
                }
                let (d_gate, d_linear) = (Rows::new(&saved.gate, d_ff), Rows::new(&saved.linear, d_ff));
                gate.weight_grad(d_gate, normed, rows, grads)?;
                self.input.weight_grad(d_linear, normed, rows, grads)?;
                gate.backward(d_gate, rows, Target::set(d_normed, width))?;
                self.input.backward(d_linear, rows, Target::add(d_normed, width))?;
            }
        }
        self.norm.backward(&saved.norm, d_normed, dx, grads);
        Ok(())
    }
}
