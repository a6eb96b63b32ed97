//! Decoding step by step: the encoder's keys once a user, the beams' own keys where they were computed.

use std::sync::{Arc, Mutex, PoisonError};

use genrec_kernels::fused::{self, Attention, AttentionScratch};
use genrec_kernels::gemm::GemmError;
use genrec_kernels::matmul::{Panels, Target, View, padded, product};
use rayon::prelude::*;

use super::{
    attention::AttentionLayer, chunk::Spread, encode::Encoder, feed_forward::FeedForwardSaved, network::Network,
    shares::CHUNK_POSITIONS,
};
use crate::batch::RaggedBatch;
use crate::engine::{
    layers::{NormSaved, Rows, fit},
    pass::{Scratch, Span},
};

/// Keys and values of one encoded sequence for the cross-attention of every decoder block.
#[derive(Debug)]
pub(super) struct Memory {
    /// Source positions.
    len: usize,
    /// A block after another: keys `(heads * d_kv, padded positions)`, then values `(positions, heads * d_kv)`.
    values: Vec<f32>,
}

impl Memory {
    /// Keys and values of a block.
    fn block(&self, block: usize, inner: usize) -> (&[f32], &[f32]) {
        let keys = inner * padded(self.len);
        let size = keys + self.len * inner;
        self.values[block * size..(block + 1) * size].split_at(keys)
    }
}

/// Keys and values that one step computed, `(rows, blocks, 2 * heads * d_kv)`.
type StepKeys = Arc<Vec<f32>>;

/// The caches of one decoding run.
#[derive(Debug, Clone)]
pub(crate) struct Caches {
    owner: Arc<()>,
    network: Arc<Network>,
    memories: Arc<Vec<Memory>>,
    /// One a step.
    own: Vec<StepKeys>,
    /// For each step the row that every hypothesis had then.
    ancestors: Vec<Vec<u32>>,
}

impl Caches {
    /// Whether the engine of that identity started them.
    pub(super) fn belong_to(&self, identity: &Arc<()>) -> bool {
        Arc::ptr_eq(&self.owner, identity)
    }

    /// Number of steps taken.
    pub(crate) fn position(&self) -> usize {
        self.own.len()
    }

    /// Keeps the given rows: their pasts stay where they are.
    pub(crate) fn select(&mut self, rows: &[u32]) {
        for step in &mut self.ancestors {
            *step = rows.iter().map(|row| step[*row as usize]).collect();
        }
    }
}

/// Buffers of a step over some rows.
#[derive(Debug, Default)]
struct Buffers {
    x: Vec<f32>,
    norm: NormSaved,
    q: Vec<f32>,
    context: Vec<f32>,
    branch: Vec<f32>,
    feed_forward: FeedForwardSaved,
    logits: Vec<f32>,
    scores: Vec<f32>,
    attention: AttentionScratch,
    scratch: Scratch,
}

/// Buffers that one thread encodes with.
#[derive(Debug, Default)]
struct Encoding {
    encoder: Encoder,
    panels: Panels,
}

/// Buffers kept from one call to the next; a thread takes what it needs and gives it back.
#[derive(Debug, Default)]
pub(super) struct Pool {
    encoding: Mutex<Vec<Encoding>>,
    stepping: Mutex<Vec<Buffers>>,
}

/// Calls `work` with buffers from a pool.
fn with<B: Default, T>(pool: &Mutex<Vec<B>>, work: impl FnOnce(&mut B) -> T) -> T {
    let lock = || pool.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = lock().pop();
    let mut buffers = taken.unwrap_or_default();
    let done = work(&mut buffers);
    lock().push(buffers);
    done
}

/// Encodes every sequence of the batch.
pub(super) fn start(
    network: &Arc<Network>,
    batch: &RaggedBatch,
    pool: &Pool,
    identity: &Arc<()>,
) -> Result<Caches, GemmError> {
    let bias = Spread::new(&network.encoder, network.heads, batch.max_len());
    let mut groups: Vec<(Vec<u32>, Vec<Span>)> = Vec::new();
    for (row, tokens) in batch.sequences().enumerate() {
        let room = groups.last().is_some_and(|(group, _)| group.len() + tokens.len() <= CHUNK_POSITIONS);
        if !room {
            groups.push(Default::default());
        }
        if let Some((group, spans)) = groups.last_mut() {
            spans.push(Span { row, start: group.len(), len: tokens.len() });
            group.extend_from_slice(tokens);
        }
    }
    // One group alone has all threads; several keep them busy without waiting for one another.
    let threads = if groups.len() == 1 { rayon::current_num_threads() } else { 1 };
    let memories: Vec<Vec<Memory>> = groups
        .par_iter()
        .map(|(tokens, spans)| {
            with(&pool.encoding, |buffers| {
                let Encoding { encoder, panels } = buffers;
                let encoded = encoder.run(network, bias.view(), tokens, spans, threads)?;
                spans.iter().map(|span| memory(network, span.of(encoded, network.d_model), threads, panels)).collect()
            })
        })
        .collect::<Result<_, GemmError>>()?;
    let memories = Arc::new(memories.into_iter().flatten().collect());
    Ok(Caches {
        owner: Arc::clone(identity),
        network: Arc::clone(network),
        memories,
        own: Vec::new(),
        ancestors: Vec::new(),
    })
}

/// Keys and values of one sequence from the encoder's output, the blocks side by side where there are threads for it.
fn memory(network: &Network, encoded: &[f32], threads: usize, panels: &mut Panels) -> Result<Memory, GemmError> {
    let width = network.d_model;
    let len = encoded.len() / width;
    let stride = padded(len);
    panels.pack(View::new(encoded, len, width, width)?.t());
    let panels = &*panels;
    let layers: Vec<&AttentionLayer> = network.decoder.blocks.iter().filter_map(|block| block.cross.as_ref()).collect();
    let size = layers.first().map_or(0, |cross| cross.inner() * (stride + len));
    let mut values = vec![0.0; layers.len() * size];
    let block = |(cross, block): (&AttentionLayer, &mut [f32])| {
        let inner = cross.inner();
        let (keys, v) = block.split_at_mut(inner * stride);
        let weight = View::new(&cross.k_rows, inner, width, width)?;
        product(weight, panels, Target::set(keys, stride).with_padding())?;
        cross.v.forward(Rows::new(encoded, width), len, Target::set(v, inner))
    };
    if threads > 1 {
        layers.into_par_iter().zip(values.par_chunks_exact_mut(size)).try_for_each(block)?;
    } else {
        layers.into_iter().zip(values.chunks_exact_mut(size)).try_for_each(block)?;
    }
    Ok(Memory { len, values })
}

/// One position of every row: the hypotheses of `users`, fed `tokens`. Returns the log-probabilities of the next token,
/// `(rows, vocabulary)`.
pub(super) fn step(caches: &mut Caches, users: &[u32], tokens: &[u32], pool: &Pool) -> Result<Vec<f32>, GemmError> {
    /// Fewest rows that are worth a thread of their own: it reads every weight once more.
    const ROWS: usize = 8;
    let network = Arc::clone(&caches.network);
    let rows = tokens.len();
    let size = network.decoder.blocks.iter().map(|block| 2 * block.attention.inner()).sum::<usize>();
    let mut own = vec![0.0; rows * size];
    let bias = Spread::new(&network.decoder, network.heads, caches.position() + 1);
    let part = rows.div_ceil((rows / ROWS).clamp(1, rayon::current_num_threads()));
    let run = |(index, own): (usize, &mut [f32])| {
        let rows = index * part..index * part + own.len() / size;
        let step =
            Step { caches, users: &users[rows.clone()], tokens: &tokens[rows.clone()], first: rows.start, bias: &bias };
        with(&pool.stepping, |buffers| step.run(own, size, buffers))
    };
    let out = if part == rows {
        run((0, &mut own))?
    } else {
        own.par_chunks_mut(part * size).enumerate().map(run).collect::<Result<Vec<_>, _>>()?.concat()
    };
    caches.own.push(Arc::new(own));
    // As many as there are tokens, which fitted in a tensor of u32.
    caches.ancestors.push((0..rows as u32).collect());
    Ok(out)
}

/// A step over some of the rows.
struct Step<'a> {
    caches: &'a Caches,
    users: &'a [u32],
    tokens: &'a [u32],
    /// The first of them among all rows.
    first: usize,
    bias: &'a Spread,
}

impl Step<'_> {
    /// Fills `own`, `(rows, size)`, with the keys and values of this position; returns `(rows, vocabulary)`.
    fn run(&self, own: &mut [f32], size: usize, buffers: &mut Buffers) -> Result<Vec<f32>, GemmError> {
        let network = &*self.caches.network;
        let (rows, width, vocab) = (self.tokens.len(), network.d_model, network.head.outputs);
        let all = [Span { row: 0, start: 0, len: rows }];
        let Buffers { x, norm, q, context, branch, feed_forward, logits, scores, attention, scratch } = buffers;
        let (x, branch) = (fit(x, rows * width), fit(branch, rows * width));
        for (token, x) in self.tokens.iter().zip(x.chunks_exact_mut(width)) {
            x.copy_from_slice(&network.shared[*token as usize * width..][..width]);
        }
        let mut at = 0;
        for (index, block) in network.decoder.blocks.iter().enumerate() {
            let layer = &block.attention;
            let inner = layer.inner();
            layer.norm.forward(x, norm);
            let normed = Rows::new(&norm.normed, width);
            let (q, context) = (fit(q, rows * inner), fit(context, rows * inner));
            layer.q.forward(normed, rows, Target::set(q, inner))?;
            layer.k.forward(normed, rows, Target::set(&mut own[at..], size))?;
            layer.v.forward(normed, rows, Target::set(&mut own[at + inner..], size))?;
            self.attend(layer, q, &own[at..], at, size, fit(scores, self.caches.position() + 1), context);
            layer.o.forward(Rows::new(context, inner), rows, Target::set(branch, width))?;
            fused::add_dropped(x, branch, None);
            at += 2 * inner;

            if let Some(layer) = &block.cross {
                layer.norm.forward(x, norm);
                layer.q.forward(Rows::new(&norm.normed, width), rows, Target::set(q, inner))?;
                self.attend_memory(layer, index, q, context, attention)?;
                layer.o.forward(Rows::new(context, inner), rows, Target::set(branch, width))?;
                fused::add_dropped(x, branch, None);
            }
            block.feed_forward.forward(x, &all, None, feed_forward, scratch)?;
        }
        network.decoder.final_norm.forward(x, norm);
        x.iter_mut().zip(&norm.normed).for_each(|(x, v)| *x = v * network.scale);
        let stride = padded(vocab);
        let logits = fit(logits, rows * stride);
        network.head.forward(Rows::new(x, width), rows, Target::set(logits, stride).with_padding())?;
        let mut out = Vec::with_capacity(rows * vocab);
        fused::log_softmax(logits, stride, vocab, &mut out);
        Ok(out)
    }

    /// Self-attention of every row to its own past.
    #[expect(clippy::too_many_arguments, reason = "where the row's own and its ancestors' keys lie")]
    fn attend(
        &self,
        layer: &AttentionLayer,
        q: &[f32],
        own: &[f32],
        at: usize,
        size: usize,
        scores: &mut [f32],
        context: &mut [f32],
    ) {
        let inner = layer.inner();
        let mut past: Vec<&[f32]> = Vec::with_capacity(self.caches.position() + 1);
        for (row, (q, context)) in q.chunks_exact(inner).zip(context.chunks_exact_mut(inner)).enumerate() {
            past.clear();
            for (step, ancestors) in self.caches.own.iter().zip(&self.caches.ancestors) {
                let ancestor = ancestors[self.first + row] as usize;
                past.push(&step[ancestor * size + at..][..2 * inner]);
            }
            past.push(&own[row * size..][..2 * inner]);
            fused::attend_past(layer.heads, layer.d_kv, q, &past, self.bias.view(), scores, context);
        }
    }

    /// Cross-attention: consecutive rows of one user are the queries of one product.
    fn attend_memory(
        &self,
        layer: &AttentionLayer,
        block: usize,
        q: &[f32],
        context: &mut [f32],
        scratch: &mut AttentionScratch,
    ) -> Result<(), GemmError> {
        let inner = layer.inner();
        let mut row = 0;
        for run in self.users.chunk_by(|a, b| a == b) {
            let memory = &self.caches.memories[run[0] as usize];
            let (keys, values) = memory.block(block, inner);
            let attention = Attention {
                heads: layer.heads,
                d_kv: layer.d_kv,
                queries: run.len(),
                keys: memory.len,
                causal: false,
                bias: None,
                dropout: None,
            };
            let range = row * inner..(row + run.len()) * inner;
            attention.forward_transposed(&q[range.clone()], keys, values, &mut context[range], scratch)?;
            row += run.len();
        }
        Ok(())
    }
}
