//! Forward and backward over a chunk of a batch's examples, on one thread.

use genrec_kernels::fused::{self, RelativeBias};
use genrec_kernels::gemm::GemmError;
use genrec_kernels::matmul::{Target, padded};

use super::{
    attention::{AttentionSaved, Sight, Sink},
    feed_forward::FeedForwardSaved,
    network::{Network, Stack},
};
use crate::engine::{
    grads::Grads,
    layers::{NormSaved, Rows, fit},
    pass::{Dropout, Scratch, Span, positions},
};

/// Examples that one thread computes at once, without padding.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// The sequences that are encoded.
    pub(super) sources: Vec<Span>,
    pub(super) targets: Vec<Span>,
    /// What each target sees of the encoded sequences: one of them, or the start of one.
    pub(super) seen: Vec<Span>,
    /// Source tokens, end to end.
    pub(super) tokens: Vec<u32>,
    /// Target tokens shifted right, end to end.
    pub(super) inputs: Vec<u32>,
    pub(super) labels: Vec<u32>,
}

impl Chunk {
    /// Positions of sources and targets together: the measure of its work.
    pub(super) fn positions(&self) -> usize {
        self.tokens.len() + self.labels.len()
    }
}

/// The relative position biases of a batch, spread over distances.
#[derive(Debug)]
pub(super) struct Biases {
    pub(super) encoder: Spread,
    pub(super) decoder: Spread,
}

/// The biases of one stack for sequences of up to `positions`.
#[derive(Debug)]
pub(super) struct Spread {
    positions: usize,
    values: Vec<f32>,
}

impl Spread {
    pub(super) fn new(stack: &Stack, heads: usize, positions: usize) -> Self {
        Self { positions, values: stack.spread_bias(heads, positions) }
    }

    pub(super) fn view(&self) -> RelativeBias<'_> {
        RelativeBias { values: &self.values, span: 2 * self.positions - 1, centre: self.positions - 1 }
    }
}

#[derive(Debug, Default)]
struct BlockSaved {
    attention: AttentionSaved,
    cross: AttentionSaved,
    feed_forward: FeedForwardSaved,
}

/// What a stack leaves for its backward pass, and the gradients that come back to it.
#[derive(Debug, Default)]
struct StackSaved {
    blocks: Vec<BlockSaved>,
    norm: NormSaved,
    /// The stack's output, `(positions, d_model)`.
    out: Vec<f32>,
    /// Gradient of the output.
    d_out: Vec<f32>,
    /// Gradient of the position biases, spread over distances; summed over the chunks of a share.
    d_bias: Vec<f32>,
}

/// Buffers that both stacks use in turn.
#[derive(Debug, Default)]
struct Shared {
    /// The residual stream, and its gradient.
    x: Vec<f32>,
    scratch: Scratch,
}

/// The activations of one chunk and the gradients of its stacks' biases; used again by the next.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    encoder: StackSaved,
    decoder: StackSaved,
    /// The output layer's input, `(target tokens, d_model)`.
    scaled: Vec<f32>,
    logits: Vec<f32>,
    shared: Shared,
}

/// What a stack reads.
#[derive(Debug, Clone, Copy)]
struct Feed<'a> {
    tokens: &'a [u32],
    sight: Sight<'a>,
    /// The encoder's output and what each sequence sees of it, for the decoder.
    memory: Option<(&'a [f32], &'a [Span])>,
}

/// One pass over chunks of one batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) network: &'a Network,
    pub(super) biases: &'a Biases,
    pub(super) dropout: Option<&'a Dropout>,
    /// Factor of each target token's loss.
    pub(super) factor: f32,
}

impl Pass<'_> {
    fn sources<'c>(&'c self, chunk: &'c Chunk) -> Feed<'c> {
        let bias = Some(self.biases.encoder.view());
        let sight = Sight { queries: &chunk.sources, memory: None, bias, causal: self.network.causal_encoder };
        Feed { tokens: &chunk.tokens, sight, memory: None }
    }

    fn targets<'c>(&'c self, chunk: &'c Chunk, encoded: &'c [f32]) -> Feed<'c> {
        let bias = Some(self.biases.decoder.view());
        let sight = Sight { queries: &chunk.targets, memory: None, bias, causal: true };
        let encoded = &encoded[..chunk.tokens.len() * self.network.d_model];
        Feed { tokens: &chunk.inputs, sight, memory: Some((encoded, &chunk.seen)) }
    }

    /// Drops from every span of an activation at a site of a stack.
    fn drop(&self, values: &mut [f32], spans: &[Span], site: u64) {
        for span in spans {
            let mask = Dropout::mask(self.dropout, span.row, site);
            fused::drop_in_place(span.of_mut(values, self.network.d_model), mask.as_ref());
        }
    }

    /// Runs a stack over its tokens; what it returns lies in `saved.out`.
    fn forward(
        &self,
        stack: &Stack,
        feed: Feed<'_>,
        saved: &mut StackSaved,
        shared: &mut Shared,
    ) -> Result<(), GemmError> {
        let (width, spans) = (self.network.d_model, feed.sight.queries);
        let Shared { x, scratch } = shared;
        let x = fit(x, positions(spans) * width);
        for (token, x) in feed.tokens.iter().zip(x.chunks_exact_mut(width)) {
            x.copy_from_slice(&self.network.shared[*token as usize * width..][..width]);
        }
        self.drop(x, spans, stack.first_site);
        saved.blocks.resize_with(stack.blocks.len(), BlockSaved::default);
        for (block, saved) in stack.blocks.iter().zip(&mut saved.blocks) {
            block.attention.forward(x, feed.sight, self.dropout, &mut saved.attention, scratch)?;
            if let Some(cross) = &block.cross {
                let sight = Sight { queries: spans, memory: feed.memory, bias: None, causal: false };
                cross.forward(x, sight, self.dropout, &mut saved.cross, scratch)?;
            }
            block.feed_forward.forward(x, spans, self.dropout, &mut saved.feed_forward, scratch)?;
        }
        stack.final_norm.forward(x, &mut saved.norm);
        let out = fit(&mut saved.out, x.len());
        out.copy_from_slice(&saved.norm.normed[..x.len()]);
        self.drop(out, spans, stack.last_site);
        Ok(())
    }

    /// From the gradient of a stack's output in `saved.d_out` to those of its weights; adds that of the memory to
    /// `d_memory`.
    fn backward_stack(
        &self,
        stack: &Stack,
        feed: Feed<'_>,
        mut d_memory: Option<&mut [f32]>,
        saved: &mut StackSaved,
        shared: &mut Shared,
        grads: &mut Grads,
    ) -> Result<(), GemmError> {
        let (width, spans) = (self.network.d_model, feed.sight.queries);
        let Shared { x: dx, scratch } = shared;
        let StackSaved { blocks, norm, d_out, d_bias, .. } = saved;
        let dx = fit(dx, positions(spans) * width);
        let d_out = &mut d_out[..dx.len()];
        self.drop(d_out, spans, stack.last_site);
        dx.fill(0.0);
        stack.final_norm.backward(norm, d_out, dx, grads);
        for (block, saved) in stack.blocks.iter().zip(blocks).rev() {
            block.feed_forward.backward(dx, spans, self.dropout, &mut saved.feed_forward, grads, scratch)?;
            if let Some(cross) = &block.cross {
                let sight = Sight { queries: spans, memory: feed.memory, bias: None, causal: false };
                let into = Sink { memory: d_memory.as_deref_mut(), bias: None, grads };
                cross.backward(dx, sight, self.dropout, &saved.cross, into, scratch)?;
            }
            let into = Sink { memory: None, bias: Some(d_bias), grads };
            block.attention.backward(dx, feed.sight, self.dropout, &saved.attention, into, scratch)?;
        }
        self.drop(dx, spans, stack.first_site);
        let d_shared = grads.get(self.network.shared_id);
        for (token, dx) in feed.tokens.iter().zip(dx.chunks_exact(width)) {
            let row = &mut d_shared[*token as usize * width..][..width];
            row.iter_mut().zip(dx).for_each(|(sum, d)| *sum += d);
        }
        Ok(())
    }

    /// The sum over the chunk's target tokens of the cross-entropy, in nats. The logits become their gradients.
    pub(super) fn loss(&self, chunk: &Chunk, ws: &mut Workspace) -> Result<f64, GemmError> {
        let Workspace { encoder, decoder, scaled, logits, shared } = ws;
        let network = self.network;
        self.forward(&network.encoder, self.sources(chunk), encoder, shared)?;
        self.forward(&network.decoder, self.targets(chunk, &encoder.out), decoder, shared)?;

        let (rows, width, vocab) = (chunk.labels.len(), network.d_model, network.head.outputs);
        let scaled = fit(scaled, rows * width);
        scaled.iter_mut().zip(&decoder.out).for_each(|(s, v)| *s = v * network.scale);
        let stride = padded(vocab);
        let logits = fit(logits, rows * stride);
        network.head.forward(Rows::new(scaled, width), rows, Target::set(logits, stride).with_padding())?;
        Ok(fused::cross_entropy(logits, stride, vocab, &chunk.labels, self.factor))
    }

    /// Adds the chunk's gradients, after [`loss`](Self::loss).
    pub(super) fn backward(&self, chunk: &Chunk, ws: &mut Workspace, grads: &mut Grads) -> Result<(), GemmError> {
        let Workspace { encoder, decoder, scaled, logits, shared } = ws;
        let network = self.network;
        let (rows, width, stride) = (chunk.labels.len(), network.d_model, padded(network.head.outputs));
        let d_logits = Rows::new(&logits[..rows * stride], stride);
        network.head.weight_grad(d_logits, Rows::new(scaled, width), rows, grads)?;
        let d_out = fit(&mut decoder.d_out, rows * width);
        network.head.backward(d_logits, rows, Target::set(d_out, width))?;
        d_out.iter_mut().for_each(|d| *d *= network.scale);

        let StackSaved { out: encoded, d_out: d_encoded, .. } = encoder;
        let d_memory = fit(d_encoded, chunk.tokens.len() * width);
        d_memory.fill(0.0);
        let feed = self.targets(chunk, encoded);
        self.backward_stack(&network.decoder, feed, Some(d_memory), decoder, shared, grads)?;
        self.backward_stack(&network.encoder, self.sources(chunk), None, encoder, shared, grads)
    }

    /// Sets the bias gradients to zero, before the first chunk of a sum.
    pub(super) fn begin(&self, ws: &mut Workspace) {
        fit(&mut ws.encoder.d_bias, self.biases.encoder.values.len()).fill(0.0);
        fit(&mut ws.decoder.d_bias, self.biases.decoder.values.len()).fill(0.0);
    }

    /// Adds the bias gradients of all chunks since [`begin`](Self::begin) to the tables'.
    pub(super) fn end(&self, ws: &Workspace, grads: &mut Grads) {
        let (network, heads) = (self.network, self.network.heads);
        for (stack, spread, saved) in [
            (&network.encoder, &self.biases.encoder, &ws.encoder),
            (&network.decoder, &self.biases.decoder, &ws.decoder),
        ] {
            stack.gather_bias(heads, spread.positions, &saved.d_bias, grads.get(stack.bias_id));
        }
    }
}
