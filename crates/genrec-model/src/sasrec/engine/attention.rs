//! Causal self-attention with its norm and residual connection.

use genrec_kernels::fused::{Attention, AttentionGrads, AttentionInputs};
use genrec_kernels::gemm::GemmError;
use genrec_kernels::matmul::Target;

use super::layers::{Dense, Norm, NormSaved};
use crate::engine::{
    grads::Grads,
    layers::{Rows, fit},
    pass::{Dropout, Scratch, Span, positions},
};
use crate::sasrec::config::NormPlacement;

/// Attention without an output projection.
#[derive(Debug, Default)]
pub(super) struct AttentionLayer {
    pub(super) norm: Norm,
    pub(super) placement: NormPlacement,
    pub(super) q: Dense,
    pub(super) k: Dense,
    pub(super) v: Dense,
    pub(super) heads: usize,
    pub(super) d_head: usize,
    /// The dropout site of the probabilities.
    pub(super) site: u64,
}

/// What an attention layer leaves for its backward pass.
#[derive(Debug, Default)]
pub(super) struct AttentionSaved {
    norm: NormSaved,
    /// The stream before the layer, `(positions, d_model)`.
    input: Vec<f32>,
    /// Queries times the scale of the scores, `(positions, d_model)`.
    q: Vec<f32>,
    /// `(positions, 2 * d_model)`: keys, then values.
    kv: Vec<f32>,
    probs: Vec<f32>,
}

impl AttentionLayer {
    fn attention(&self, span: &Span, dropout: Option<&Dropout>) -> Attention<'static> {
        Attention {
            heads: self.heads,
            d_kv: self.d_head,
            queries: span.len,
            keys: span.len,
            causal: true,
            bias: None,
            dropout: Dropout::mask(dropout, span.row, self.site),
        }
    }

    /// Factor on the scores, which queries carry.
    fn scale(&self) -> f32 {
        (self.d_head as f64).sqrt().recip() as f32
    }

    /// What keys and values are of.
    fn source<'a>(&self, saved_input: &'a [f32], normed: &'a [f32]) -> &'a [f32] {
        match self.placement {
            NormPlacement::Queries => saved_input,
            NormPlacement::Branches => normed,
        }
    }

    /// Turns the stream `x`, `(positions, d_model)`, into that after the layer.
    pub(super) fn forward(
        &self,
        x: &mut [f32],
        spans: &[Span],
        dropout: Option<&Dropout>,
        saved: &mut AttentionSaved,
        scratch: &mut Scratch,
    ) -> Result<(), GemmError> {
        let (rows, width) = (positions(spans), self.heads * self.d_head);
        let AttentionSaved { norm, input, q, kv, probs } = saved;
        self.norm.forward(x, norm);
        let normed = &norm.normed[..x.len()];
        let input = fit(input, x.len());
        input.copy_from_slice(x);
        let source = Rows::new(self.source(input, normed), width);
        let q = fit(q, rows * width);
        self.q.forward(Rows::new(normed, width), rows, q, width)?;
        let scale = self.scale();
        q.iter_mut().for_each(|q| *q *= scale);
        let kv = fit(kv, rows * 2 * width);
        self.k.forward(source, rows, kv, 2 * width)?;
        self.v.forward(source, rows, &mut kv[width..], 2 * width)?;

        let context = fit(&mut scratch.branch, x.len());
        let mut probs = fit(probs, spans.iter().map(|span| self.attention(span, None).probs_len()).sum());
        for span in spans {
            let attention = self.attention(span, dropout);
            let (own, rest) = probs.split_at_mut(attention.probs_len());
            probs = rest;
            let inputs = inputs(span.of(q, width), span.of(kv, 2 * width), width);
            attention.forward(inputs, own, span.of_mut(context, width), width, &mut scratch.attention)?;
        }
        if self.placement == NormPlacement::Queries {
            x.copy_from_slice(normed);
        }
        x.iter_mut().zip(&*context).for_each(|(x, context)| *x += context);
        Ok(())
    }

    /// Turns `dx`, the gradient of the stream after the layer, into that before it.
    pub(super) fn backward(
        &self,
        dx: &mut [f32],
        spans: &[Span],
        dropout: Option<&Dropout>,
        saved: &AttentionSaved,
        grads: &mut Grads,
        scratch: &mut Scratch,
    ) -> Result<(), GemmError> {
        let (rows, width) = (positions(spans), self.heads * self.d_head);
        let dq = fit(&mut scratch.q, rows * width);
        let dkv = fit(&mut scratch.kv, rows * 2 * width);
        let mut probs = saved.probs.as_slice();
        for span in spans {
            let attention = self.attention(span, dropout);
            let (own, rest) = probs.split_at(attention.probs_len());
            probs = rest;
            let inputs = inputs(span.of(&saved.q, width), span.of(&saved.kv, 2 * width), width);
            let (q, kv) = (span.of_mut(dq, width), span.of_mut(dkv, 2 * width));
            let mut into = AttentionGrads { q, kv, v_start: width, bias: None };
            attention.backward(inputs, own, span.of(dx, width), width, &mut into, &mut scratch.attention)?;
        }
        let scale = self.scale();
        dq.iter_mut().for_each(|dq| *dq *= scale);

        let normed = &saved.norm.normed[..dx.len()];
        let source = Rows::new(self.source(&saved.input[..dx.len()], normed), width);
        let (dq, dk, dv) = (Rows::new(dq, width), Rows::new(dkv, 2 * width), Rows::new(&dkv[width..], 2 * width));
        self.q.weight_grad(dq, Rows::new(normed, width), rows, grads)?;
        self.k.weight_grad(dk, source, rows, grads)?;
        self.v.weight_grad(dv, source, rows, grads)?;
        let d_normed = fit(&mut scratch.normed, dx.len());
        match self.placement {
            NormPlacement::Queries => {
                d_normed.copy_from_slice(dx);
                self.q.backward(dq, rows, Target::add(d_normed, width))?;
                self.k.backward(dk, rows, Target::set(dx, width))?;
                self.v.backward(dv, rows, Target::add(dx, width))?;
            }
            NormPlacement::Branches => {
                self.q.backward(dq, rows, Target::set(d_normed, width))?;
                self.k.backward(dk, rows, Target::add(d_normed, width))?;
                self.v.backward(dv, rows, Target::add(d_normed, width))?;
            }
        }
        self.norm.backward(&saved.norm, d_normed, dx, grads);
        Ok(())
    }
}

fn inputs<'a>(q: &'a [f32], kv: &'a [f32], width: usize) -> AttentionInputs<'a> {
    AttentionInputs { q, q_stride: width, k: kv, v: &kv[width..], kv_stride: 2 * width }
}
