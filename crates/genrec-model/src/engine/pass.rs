//! What every layer of one pass over a chunk of examples shares.

use genrec_kernels::CounterRng;
use genrec_kernels::fused::{AttentionScratch, DropoutMask};

/// One sequence of a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// The example's row in the batch.
    pub(crate) row: usize,
    /// Its first position among the chunk's.
    pub(crate) start: usize,
    /// Number of its positions.
    pub(crate) len: usize,
}

impl Span {
    /// Its part of an activation of that width.
    pub(crate) fn of<'a>(&self, values: &'a [f32], width: usize) -> &'a [f32] {
        &values[self.start * width..(self.start + self.len) * width]
    }

    /// Its part of an activation of that width.
    pub(crate) fn of_mut<'a>(&self, values: &'a mut [f32], width: usize) -> &'a mut [f32] {
        &mut values[self.start * width..(self.start + self.len) * width]
    }
}

/// Number of positions of all spans.
pub(crate) fn positions(spans: &[Span]) -> usize {
    spans.last().map_or(0, |span| span.start + span.len)
}

/// Dropout: its probability and the randomness of the batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropout {
    pub(crate) rate: f64,
    pub(crate) rng: CounterRng,
}

impl Dropout {
    /// The mask of one example at one site, counted in the order of the forward pass.
    pub(crate) fn mask(this: Option<&Self>, row: usize, site: u64) -> Option<DropoutMask> {
        let Self { rate, rng } = this?;
        // The rate was checked with the configuration.
        DropoutMask::new(*rate, &rng.stream(row as u64).stream(site)).ok().flatten()
    }
}

/// Buffers that layers use and leave.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) attention: AttentionScratch,
    /// `(rows, d_model)`: a branch before it joins the residual stream, or its gradient.
    pub(crate) branch: Vec<f32>,
    /// Gradient of a norm's result, `(rows, d_model)`.
    pub(crate) normed: Vec<f32>,
    /// Gradient of a layer's inner activation.
    pub(crate) inner: Vec<f32>,
    pub(crate) q: Vec<f32>,
    pub(crate) kv: Vec<f32>,
    /// One query's part of `kv`, where several see the same positions.
    pub(crate) part: Vec<f32>,
}
