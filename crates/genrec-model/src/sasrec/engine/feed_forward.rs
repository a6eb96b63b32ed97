//! The position-wise network with its norm and residual connection.

use genrec_kernels::fused;
use genrec_kernels::gemm::GemmError;
use genrec_kernels::matmul::Target;

use super::layers::{Dense, Norm, NormSaved};
use crate::engine::{
    grads::Grads,
    layers::{Rows, fit},
    pass::{Dropout, Scratch, Span, positions},
};
use crate::sasrec::config::NormPlacement;

/// `W_2 relu(W_1 x + b_1) + b_2`.
#[derive(Debug, Default)]
pub(super) struct FeedForward {
    pub(super) norm: Norm,
    pub(super) placement: NormPlacement,
    pub(super) input: Dense,
    pub(super) output: Dense,
    /// The first of its two dropout sites: the inner activation's, then the branch's.
    pub(super) site: u64,
}

/// What the network leaves for its backward pass.
#[derive(Debug, Default)]
pub(super) struct FeedForwardSaved {
    norm: NormSaved,
    /// What the output layer reads, `(positions, d_ff)`.
    hidden: Vec<f32>,
}

impl FeedForward {
    /// Turns the stream `x`, `(positions, d_model)`, into that after the network.
    pub(super) fn forward(
        &self,
        x: &mut [f32],
        spans: &[Span],
        dropout: Option<&Dropout>,
        saved: &mut FeedForwardSaved,
        scratch: &mut Scratch,
    ) -> Result<(), GemmError> {
        let (rows, width, d_ff) = (positions(spans), self.input.linear.inputs, self.input.linear.outputs);
        let FeedForwardSaved { norm, hidden } = saved;
        self.norm.forward(x, norm);
        let normed = &norm.normed[..x.len()];
        let hidden = fit(hidden, rows * d_ff);
        self.input.forward(Rows::new(normed, width), rows, hidden, d_ff)?;
        for span in spans {
            let mask = Dropout::mask(dropout, span.row, self.site);
            fused::relu_dropout(span.of_mut(hidden, d_ff), mask.as_ref());
        }
        let branch = fit(&mut scratch.branch, x.len());
        self.output.forward(Rows::new(hidden, d_ff), rows, branch, width)?;
        if self.placement == NormPlacement::Queries {
            x.copy_from_slice(normed);
        }
        for span in spans {
            let mask = Dropout::mask(dropout, span.row, self.site + 1);
            fused::add_dropped(span.of_mut(x, width), span.of(branch, width), mask.as_ref());
        }
        Ok(())
    }

    /// Turns `dx`, the gradient of the stream after the network, into that before it.
    pub(super) fn backward(
        &self,
        dx: &mut [f32],
        spans: &[Span],
        dropout: Option<&Dropout>,
        saved: &FeedForwardSaved,
        grads: &mut Grads,
        scratch: &mut Scratch,
    ) -> Result<(), GemmError> {
        let (rows, width, d_ff) = (positions(spans), self.input.linear.inputs, self.input.linear.outputs);
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
        for span in spans {
            let mask = Dropout::mask(dropout, span.row, self.site);
            fused::relu_dropout_backward(span.of(hidden, d_ff), mask.as_ref(), span.of_mut(d_hidden, d_ff));
        }
        let d_hidden = Rows::new(d_hidden, d_ff);
        self.input.weight_grad(d_hidden, Rows::new(&saved.norm.normed, width), rows, grads)?;
        let d_normed = fit(&mut scratch.normed, dx.len());
        match self.placement {
            NormPlacement::Queries => {
                d_normed.copy_from_slice(dx);
                self.input.backward(d_hidden, rows, Target::add(d_normed, width))?;
                dx.fill(0.0);
            }
            NormPlacement::Branches => self.input.backward(d_hidden, rows, Target::set(d_normed, width))?,
        }
        self.norm.backward(&saved.norm, d_normed, dx, grads);
        Ok(())
    }
}
