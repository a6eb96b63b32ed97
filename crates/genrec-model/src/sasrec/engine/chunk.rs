//! Forward and backward over a chunk of a batch's sequences, on one thread.

use genrec_kernels::fused::{self, Candidates, LogisticGrads};
use genrec_kernels::gemm::GemmError;
use genrec_kernels::matmul::{Target, View, padded, product};

use super::{
    attention::AttentionSaved,
    feed_forward::FeedForwardSaved,
    layers::NormSaved,
    network::{FIRST_SITE, Network},
};
use crate::engine::{
    grads::Grads,
    layers::{Rows, fit},
    pass::{Dropout, Scratch, Span, positions},
};

/// Positions that a chunk is filled up to: its activations then stay near a second-level cache's size.
pub(super) const CHUNK_POSITIONS: usize = 256;

/// Scores that are held at once, rounded to whole positions.
const SCORES: usize = 1 << 20;

/// Sequences that one thread computes at once, without padding.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) spans: Vec<Span>,
    /// Items read, end to end.
    pub(super) items: Vec<u32>,
    /// The item after each; none when scoring.
    pub(super) labels: Vec<u32>,
    /// The candidates of each position, where the loss has them.
    pub(super) candidates: Vec<u32>,
}

impl Chunk {
    /// Whether a sequence of that length goes into the chunk.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.items.is_empty() || self.items.len() + len <= CHUNK_POSITIONS
    }

    pub(super) fn push(&mut self, row: usize, items: &[u32]) {
        self.spans.push(Span { row, start: self.items.len(), len: items.len() });
        self.items.extend_from_slice(items);
    }
}

#[derive(Debug, Default)]
struct BlockSaved {
    attention: AttentionSaved,
    feed_forward: FeedForwardSaved,
}

/// The activations of one chunk; used again by the next.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    blocks: Vec<BlockSaved>,
    norm: NormSaved,
    /// The stream, and its gradient.
    x: Vec<f32>,
    /// The gradient of the states.
    d_states: Vec<f32>,
    scores: Vec<f32>,
    scratch: Scratch,
}

/// What the states are compared with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Objective {
    /// All items; the share of the target that is spread evenly.
    Items { smoothing: f32 },
    /// This many candidates a position.
    Candidates { per_position: usize },
}

/// One pass over chunks of one batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) network: &'a Network,
    pub(super) dropout: Option<&'a Dropout>,
    pub(super) objective: Objective,
    /// Factor of each position's loss.
    pub(super) factor: f32,
}

impl Pass<'_> {
    /// Factor on the items' embeddings.
    fn scale(&self) -> f32 {
        (self.network.d_model as f64).sqrt() as f32
    }

    fn drop(&self, x: &mut [f32], spans: &[Span]) {
        for span in spans {
            let mask = Dropout::mask(self.dropout, span.row, FIRST_SITE);
            fused::drop_in_place(span.of_mut(x, self.network.d_model), mask.as_ref());
        }
    }

    /// Rows of the positions' table that the chunk's positions take, in its order.
    fn places<'c>(&self, chunk: &'c Chunk) -> impl Iterator<Item = usize> + 'c {
        let max_len = self.network.max_len;
        chunk.spans.iter().flat_map(move |span| max_len - span.len..max_len)
    }

    /// The state of each position, `(positions, d_model)`.
    pub(super) fn states<'w>(&self, chunk: &Chunk, ws: &'w mut Workspace) -> Result<&'w [f32], GemmError> {
        let (network, width, scale) = (self.network, self.network.d_model, self.scale());
        let Workspace { blocks, norm, x, scratch, .. } = ws;
        let x = fit(x, positions(&chunk.spans) * width);
        for ((item, place), x) in chunk.items.iter().zip(self.places(chunk)).zip(x.chunks_exact_mut(width)) {
            let embedded = &network.table.values[*item as usize * width..][..width];
            let place = &network.positions.values[place * width..][..width];
            for ((x, e), p) in x.iter_mut().zip(embedded).zip(place) {
                *x = scale * e + p;
            }
        }
        self.drop(x, &chunk.spans);
        blocks.resize_with(network.blocks.len(), BlockSaved::default);
        for (block, saved) in network.blocks.iter().zip(blocks) {
            block.attention.forward(x, &chunk.spans, self.dropout, &mut saved.attention, scratch)?;
            block.feed_forward.forward(x, &chunk.spans, self.dropout, &mut saved.feed_forward, scratch)?;
        }
        network.final_norm.forward(x, norm);
        Ok(&norm.normed[..x.len()])
    }

    /// The sum over the chunk's positions of the loss, in nats; with `grads`, its gradients are added.
    pub(super) fn run(&self, chunk: &Chunk, ws: &mut Workspace, grads: Option<&mut Grads>) -> Result<f64, GemmError> {
        self.states(chunk, ws)?;
        match grads {
            None => self.compare(chunk, ws, None),
            Some(grads) => {
                let loss = self.compare(chunk, ws, Some(grads))?;
                self.backward(chunk, ws, grads)?;
                Ok(loss)
            }
        }
    }

    /// The loss, after [`states`](Self::states); with `grads`, the table's gradient as output layer is added and that of
    /// the states left in `d_states`.
    fn compare(&self, chunk: &Chunk, ws: &mut Workspace, mut grads: Option<&mut Grads>) -> Result<f64, GemmError> {
        let (network, width) = (self.network, self.network.d_model);
        let Workspace { norm, d_states, scores, .. } = ws;
        let len = chunk.items.len() * width;
        let (states, d_states) = (&norm.normed[..len], fit(d_states, len));
        let smoothing = match self.objective {
            Objective::Items { smoothing } => smoothing,
            Objective::Candidates { per_position } => {
                let table = &network.table.values;
                let candidates = Candidates { table, ids: &chunk.candidates, per_row: per_position, width };
                d_states.fill(0.0);
                let into = grads.map(|grads| {
                    let table = grads.get(network.table.id);
                    LogisticGrads { hidden: d_states, table, factor: self.factor }
                });
                return Ok(fused::logistic(states, candidates, into));
            }
        };
        let stride = padded(network.items);
        let rows = (SCORES / stride).clamp(1, CHUNK_POSITIONS);
        let table = View::new(&network.table.values, network.items, width, width)?;
        let mut total = 0.0;
        let blocks = states.chunks(rows * width).zip(d_states.chunks_mut(rows * width)).zip(chunk.labels.chunks(rows));
        for ((states, d_states), labels) in blocks {
            let rows = labels.len();
            let scores = fit(scores, rows * stride);
            network.head.forward(Rows::new(states, width), rows, Target::set(scores, stride).with_padding())?;
            total += fused::smoothed_cross_entropy(scores, stride, network.items, labels, smoothing, self.factor);
            if let Some(grads) = grads.as_deref_mut() {
                let d_scores = View::new(scores, rows, network.items, stride)?;
                let d_table = Target::add(grads.get(network.table.id), width);
                product(d_scores.t(), View::new(states, rows, width, width)?, d_table)?;
                product(d_scores, table, Target::set(d_states, width))?;
            }
        }
        Ok(total)
    }

    /// Adds the gradients of everything before the states, after [`compare`](Self::compare).
    fn backward(&self, chunk: &Chunk, ws: &mut Workspace, grads: &mut Grads) -> Result<(), GemmError> {
        let (network, width, scale) = (self.network, self.network.d_model, self.scale());
        let Workspace { blocks, norm, x: dx, d_states, scratch, .. } = ws;
        let len = chunk.items.len() * width;
        let (dx, d_states) = (fit(dx, len), &mut d_states[..len]);
        dx.fill(0.0);
        network.final_norm.backward(norm, d_states, dx, grads);
        for (block, saved) in network.blocks.iter().zip(blocks).rev() {
            block.feed_forward.backward(dx, &chunk.spans, self.dropout, &saved.feed_forward, grads, scratch)?;
            block.attention.backward(dx, &chunk.spans, self.dropout, &saved.attention, grads, scratch)?;
        }
        self.drop(dx, &chunk.spans);
        let (d_table, d_positions) = grads.pair(network.table.id, network.positions.id);
        for ((item, place), dx) in chunk.items.iter().zip(self.places(chunk)).zip(dx.chunks_exact(width)) {
            let item = &mut d_table[*item as usize * width..][..width];
            item.iter_mut().zip(dx).for_each(|(sum, d)| *sum += scale * d);
            let place = &mut d_positions[place * width..][..width];
            place.iter_mut().zip(dx).for_each(|(sum, d)| *sum += d);
        }
        Ok(())
    }
}
