//! An attention layer with its norm and residual connection.

use genrec_kernels::fused::{self, Attention, AttentionGrads, AttentionInputs, RelativeBias};
use genrec_kernels::gemm::GemmError;
use genrec_kernels::matmul::Target;

use crate::engine::{
    grads::Grads,
    layers::{Linear, Norm, NormSaved, Rows, fit},
    pass::{Dropout, Scratch, Span, positions},
};

/// Self-attention, or attention over the encoder's output.
#[derive(Debug, Default)]
pub(super) struct AttentionLayer {
    pub(super) norm: Norm,
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) o: Linear,
    pub(super) heads: usize,
    pub(super) d_kv: usize,
    /// In cross-attention, the weight of `k` as stored: the encoder's keys are computed transposed for decoding.
    pub(super) k_rows: Vec<f32>,
    /// The first of its two dropout sites: the probabilities', then the residual's.
    pub(super) site: u64,
}

/// What an attention layer leaves for its backward pass.
#[derive(Debug, Default)]
pub(super) struct AttentionSaved {
    norm: NormSaved,
    /// `(queries, heads * d_kv)`.
    q: Vec<f32>,
    /// `(keys, 2 * heads * d_kv)`: keys, then values.
    kv: Vec<f32>,
    probs: Vec<f32>,
    /// `(queries, heads * d_kv)`.
    context: Vec<f32>,
}

/// What the queries of a layer look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) queries: &'a [Span],
    /// The encoder's output, and what each query sees of it; `None` for self-attention. Several may see the same
    /// positions.
    pub(super) memory: Option<(&'a [f32], &'a [Span])>,
    pub(super) bias: Option<RelativeBias<'a>>,
    pub(super) causal: bool,
}

impl<'a> Sight<'a> {
    fn keys(&self) -> &'a [Span] {
        self.memory.map_or(self.queries, |(_, spans)| spans)
    }

    /// Positions that keys and values are computed of.
    fn positions(&self, width: usize) -> usize {
        self.memory.map_or(positions(self.queries), |(memory, _)| memory.len() / width)
    }

    /// Whether two queries see the same positions.
    fn overlaps(&self, positions: usize) -> bool {
        self.keys().iter().map(|key| key.len).sum::<usize>() > positions
    }
}

/// Where the gradients of a layer go, all of them to be added to.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    pub(super) memory: Option<&'a mut [f32]>,
    pub(super) bias: Option<&'a mut [f32]>,
    pub(super) grads: &'a mut Grads,
}

impl AttentionLayer {
    pub(super) fn inner(&self) -> usize {
        self.heads * self.d_kv
    }

    fn attention<'a>(&self, sight: Sight<'a>, example: usize, dropout: Option<&Dropout>) -> Attention<'a> {
        let (query, key) = (sight.queries[example], sight.keys()[example]);
        Attention {
            heads: self.heads,
            d_kv: self.d_kv,
            queries: query.len,
            keys: key.len,
            causal: sight.causal,
            bias: sight.bias,
            dropout: Dropout::mask(dropout, query.row, self.site),
        }
    }

    /// Adds the layer's branch to the residual stream `x`, `(queries, d_model)`.
    pub(super) fn forward(
        &self,
        x: &mut [f32],
        sight: Sight<'_>,
        dropout: Option<&Dropout>,
        saved: &mut AttentionSaved,
        scratch: &mut Scratch,
    ) -> Result<(), GemmError> {
        let (inner, width) = (self.inner(), self.q.inputs);
        let (queries, keys) = (positions(sight.queries), sight.positions(width));
        self.norm.forward(x, &mut saved.norm);
        let normed = Rows::new(&saved.norm.normed, width);
        let source = sight.memory.map_or(normed, |(memory, _)| Rows::new(memory, width));
        let q = fit(&mut saved.q, queries * inner);
        self.q.forward(normed, queries, Target::set(q, inner))?;
        let kv = fit(&mut saved.kv, keys * 2 * inner);
        self.k.forward(source, keys, Target::set(kv, 2 * inner))?;
        self.v.forward(source, keys, Target::set(&mut kv[inner..], 2 * inner))?;

        let context = fit(&mut saved.context, queries * inner);
        let shapes = |example| self.attention(sight, example, dropout);
        let probs = (0..sight.queries.len()).map(|example| shapes(example).probs_len()).sum();
        let mut probs = fit(&mut saved.probs, probs);
        for (example, (query, key)) in sight.queries.iter().zip(sight.keys()).enumerate() {
            let attention = shapes(example);
            let (own, rest) = probs.split_at_mut(attention.probs_len());
            probs = rest;
            let inputs = inputs(query.of(q, inner), key.of(kv, 2 * inner), inner);
            attention.forward(inputs, own, query.of_mut(context, inner), inner, &mut scratch.attention)?;
        }

        let branch = fit(&mut scratch.branch, x.len());
        self.o.forward(Rows::new(context, inner), queries, Target::set(branch, width))?;
        for span in sight.queries {
            let mask = Dropout::mask(dropout, span.row, self.site + 1);
            fused::add_dropped(span.of_mut(x, width), span.of(branch, width), mask.as_ref());
        }
        Ok(())
    }

    /// Turns `dx`, the gradient of the residual stream after the layer, into that before it.
    pub(super) fn backward(
        &self,
        dx: &mut [f32],
        sight: Sight<'_>,
        dropout: Option<&Dropout>,
        saved: &AttentionSaved,
        into: Sink<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), GemmError> {
        let Sink { memory: d_memory, bias: mut d_bias, grads } = into;
        let (inner, width) = (self.inner(), self.q.inputs);
        let (queries, keys) = (positions(sight.queries), sight.positions(width));
        let branch = fit(&mut scratch.branch, dx.len());
        for span in sight.queries {
            let mask = Dropout::mask(dropout, span.row, self.site + 1);
            fused::dropped(span.of(dx, width), mask.as_ref(), span.of_mut(branch, width));
        }
        let branch = Rows::new(branch, width);
        self.o.weight_grad(branch, Rows::new(&saved.context, inner), queries, grads)?;
        let d_context = fit(&mut scratch.inner, queries * inner);
        self.o.backward(branch, queries, Target::set(d_context, inner))?;

        let dq = fit(&mut scratch.q, queries * inner);
        let dkv = fit(&mut scratch.kv, keys * 2 * inner);
        let overlaps = sight.overlaps(keys);
        if overlaps {
            dkv.fill(0.0);
        }
        let mut probs = saved.probs.as_slice();
        for (example, (query, key)) in sight.queries.iter().zip(sight.keys()).enumerate() {
            let attention = self.attention(sight, example, dropout);
            let (own, rest) = probs.split_at(attention.probs_len());
            probs = rest;
            let inputs = inputs(query.of(&saved.q, inner), key.of(&saved.kv, 2 * inner), inner);
            // The keys' and values' gradients interleave row by row: each is written at its own columns.
            let sum = key.of_mut(dkv, 2 * inner);
            let mut part = overlaps.then(|| fit(&mut scratch.part, sum.len()));
            let kv = part.as_deref_mut().unwrap_or(sum);
            let mut own_grads =
                AttentionGrads { q: query.of_mut(dq, inner), kv, v_start: inner, bias: d_bias.as_deref_mut() };
            attention.backward(
                inputs,
                own,
                query.of(d_context, inner),
                inner,
                &mut own_grads,
                &mut scratch.attention,
            )?;
            if let Some(part) = part {
                fused::add_dropped(key.of_mut(dkv, 2 * inner), part, None);
            }
        }

        let normed = Rows::new(&saved.norm.normed, width);
        let source = sight.memory.map_or(normed, |(memory, _)| Rows::new(memory, width));
        let (dq, dk, dv) = (Rows::new(dq, inner), Rows::new(dkv, 2 * inner), Rows::new(&dkv[inner..], 2 * inner));
        self.q.weight_grad(dq, normed, queries, grads)?;
        self.k.weight_grad(dk, source, keys, grads)?;
        self.v.weight_grad(dv, source, keys, grads)?;
        let d_normed = fit(&mut scratch.normed, dx.len());
        self.q.backward(dq, queries, Target::set(d_normed, width))?;
        match d_memory {
            None => {
                self.k.backward(dk, keys, Target::add(d_normed, width))?;
                self.v.backward(dv, keys, Target::add(d_normed, width))?;
            }
            Some(d_memory) => {
                self.k.backward(dk, keys, Target::add(d_memory, width))?;
                self.v.backward(dv, keys, Target::add(d_memory, width))?;
            }
        }
        self.norm.backward(&saved.norm, d_normed, dx, grads);
        Ok(())
    }
}

fn inputs<'a>(q: &'a [f32], kv: &'a [f32], inner: usize) -> AttentionInputs<'a> {
    AttentionInputs { q, q_stride: inner, k: kv, v: &kv[inner..], kv_stride: 2 * inner }
}
