//! The encoder for decoding: no activation is kept, and a sequence alone is split over the threads.

use genrec_kernels::fused::{self, Attention, AttentionInputs, RelativeBias};
use genrec_kernels::gemm::GemmError;
use genrec_kernels::matmul::Target;
use rayon::prelude::*;

use super::{
    attention::{AttentionLayer, Sight},
    feed_forward::FeedForwardSaved,
    network::{Block, Network},
};
use crate::engine::{
    layers::{NormSaved, Rows, fit},
    pass::{Scratch, Span, positions},
};

/// Fewest positions that are worth a thread of their own.
const POSITIONS: usize = 16;

/// Buffers of an encoder.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    x: Vec<f32>,
    /// `(positions, 2 * heads * d_kv)`: keys, then values.
    kv: Vec<f32>,
    parts: Vec<Part>,
}

/// Buffers for some of the positions.
#[derive(Debug, Default)]
struct Part {
    norm: NormSaved,
    q: Vec<f32>,
    probs: Vec<f32>,
    context: Vec<f32>,
    branch: Vec<f32>,
    feed_forward: FeedForwardSaved,
    scratch: Scratch,
}

impl Encoder {
    /// The encoder's output for these sequences, `(positions, d_model)`. Its positions are shared out over at most
    /// `threads` threads, which wait for one another twice a block.
    pub(super) fn run(
        &mut self,
        network: &Network,
        bias: RelativeBias<'_>,
        tokens: &[u32],
        spans: &[Span],
        threads: usize,
    ) -> Result<&[f32], GemmError> {
        let (width, rows) = (network.d_model, positions(spans));
        let size = rows.div_ceil((rows / POSITIONS).clamp(1, threads.max(1))).max(1);
        let Self { x, kv, parts } = self;
        parts.resize_with(parts.len().max(rows.div_ceil(size)), Part::default);
        let x = fit(x, rows * width);
        for (token, x) in tokens.iter().zip(x.chunks_exact_mut(width)) {
            x.copy_from_slice(&network.shared[*token as usize * width..][..width]);
        }
        let sight = Sight { queries: spans, memory: None, bias: Some(bias), causal: network.causal_encoder };
        for block in &network.encoder.blocks {
            let layer = &block.attention;
            let inner = layer.inner();
            let kv = fit(kv, rows * 2 * inner);
            each(size, width, x, parts, Some((kv, 2 * inner)), |_, x, part, kv| part.project(layer, x, kv))?;
            let kv = &*kv;
            each(size, width, x, parts, None, |first, x, part, _| {
                part.attend(layer, x, kv, first, sight)?;
                part.feed_forward(block, x)
            })?;
        }
        each(size, width, x, parts, None, |_, x, part, _| {
            network.encoder.final_norm.forward(x, &mut part.norm);
            x.copy_from_slice(&part.norm.normed[..x.len()]);
            Ok(())
        })?;
        Ok(x)
    }
}

/// Calls `work(first row, rows of x, buffers, rows of kv)` for each `size` rows, side by side where there are several.
fn each(
    size: usize,
    width: usize,
    x: &mut [f32],
    parts: &mut [Part],
    kv: Option<(&mut [f32], usize)>,
    work: impl Fn(usize, &mut [f32], &mut Part, &mut [f32]) -> Result<(), GemmError> + Sync,
) -> Result<(), GemmError> {
    let (kv, kv_width) = kv.unwrap_or((&mut [], 0));
    if x.len() <= size * width {
        return parts.first_mut().map_or(Ok(()), |part| work(0, x, part, kv));
    }
    let mut rest = kv;
    let mut kvs = Vec::with_capacity(parts.len());
    for x in x.chunks(size * width) {
        let (own, next) = rest.split_at_mut(x.len() / width * kv_width);
        kvs.push(own);
        rest = next;
    }
    x.par_chunks_mut(size * width)
        .zip(parts)
        .zip(kvs)
        .enumerate()
        .try_for_each(|(index, ((x, part), kv))| work(index * size, x, part, kv))
}

impl Part {
    /// Norm, queries, keys and values of the rows.
    fn project(&mut self, layer: &AttentionLayer, x: &[f32], kv: &mut [f32]) -> Result<(), GemmError> {
        let (inner, width) = (layer.inner(), layer.q.inputs);
        let rows = x.len() / width;
        layer.norm.forward(x, &mut self.norm);
        let normed = Rows::new(&self.norm.normed, width);
        layer.q.forward(normed, rows, Target::set(fit(&mut self.q, rows * inner), inner))?;
        layer.k.forward(normed, rows, Target::set(kv, 2 * inner))?;
        layer.v.forward(normed, rows, Target::set(&mut kv[inner..], 2 * inner))
    }

    /// Adds the attention of the rows from `first` on to the keys of their sequences.
    fn attend(
        &mut self,
        layer: &AttentionLayer,
        x: &mut [f32],
        kv: &[f32],
        first: usize,
        sight: Sight<'_>,
    ) -> Result<(), GemmError> {
        let (inner, width) = (layer.inner(), layer.q.inputs);
        let rows = x.len() / width;
        let context = fit(&mut self.context, rows * inner);
        for span in sight.queries {
            let (start, end) = (span.start.max(first), (span.start + span.len).min(first + rows));
            if start >= end {
                continue;
            }
            let attention = Attention {
                heads: layer.heads,
                d_kv: layer.d_kv,
                queries: end - start,
                keys: if sight.causal { end - span.start } else { span.len },
                causal: sight.causal,
                bias: sight.bias.map(|bias| RelativeBias { centre: bias.centre - (start - span.start), ..bias }),
                dropout: None,
            };
            let kv = span.of(kv, 2 * inner);
            let own = (start - first) * inner..(end - first) * inner;
            let inputs = AttentionInputs {
                q: &self.q[own.clone()],
                q_stride: inner,
                k: kv,
                v: &kv[inner..],
                kv_stride: 2 * inner,
            };
            let probs = fit(&mut self.probs, attention.probs_len());
            attention.forward(inputs, probs, &mut context[own], inner, &mut self.scratch.attention)?;
        }
        let branch = fit(&mut self.branch, x.len());
        layer.o.forward(Rows::new(context, inner), rows, Target::set(branch, width))?;
        fused::add_dropped(x, branch, None);
        Ok(())
    }

    fn feed_forward(&mut self, block: &Block, x: &mut [f32]) -> Result<(), GemmError> {
        let rows = x.len() / block.feed_forward.input.inputs.max(1);
        let all = [Span { row: 0, start: 0, len: rows }];
        block.feed_forward.forward(x, &all, None, &mut self.feed_forward, &mut self.scratch)
    }
}
