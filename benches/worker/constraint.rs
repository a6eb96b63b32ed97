//! What a constraint costs: one step of it, and searches of a model that costs nothing.

use std::{hint::black_box, path::PathBuf, time::Instant};

use candle_core::{Device, Tensor};
use genrec::{
    decode::{BeamSearch, Catalogue, Constraint as _, Decoder as _},
    index::{CollisionPolicy, Node, SidIndex, SidLayout, SidVocab},
    model::{DecodeState, RaggedBatch, Seq2Seq},
};
use ndarray::ArrayView2;
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::BoxError;

#[derive(Debug, Deserialize)]
pub(crate) struct Load {
    /// Little-endian u32, `(items, levels)`.
    codes: PathBuf,
    sizes: Vec<u32>,
}

/// Steps one after the other.
#[derive(Debug, Deserialize)]
pub(crate) struct Steps {
    /// For each step the prefixes of its beams, all of one length.
    steps: Vec<Vec<Vec<u32>>>,
    /// Whether to answer with what is allowed at the first.
    list: bool,
}

/// Log-probabilities that searches will meet, whatever they generate.
#[derive(Debug, Deserialize)]
pub(crate) struct Answers {
    /// Little-endian f32, `(levels, rows, codes)`; search `i` meets rows from `i` on.
    log_probs: PathBuf,
    rows: usize,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Search {
    users: usize,
    beams: usize,
    /// For each search, one after the other, the first row of the log-probabilities.
    firsts: Vec<usize>,
    /// Whether to answer with what is found.
    list: bool,
}

pub(crate) struct Constraint {
    index: SidIndex,
    vocab: SidVocab,
    /// Values to mask, as many as the widest step has.
    log_probs: Vec<f32>,
    /// The model's output at every step.
    answers: Vec<Tensor>,
}

/// Says what was prepared.
struct Prepared<'a> {
    vocab_size: usize,
    steps: &'a [Tensor],
    first: usize,
}

struct Place {
    rows: usize,
    step: usize,
}

impl DecodeState for Place {
    fn rows(&self) -> usize {
        self.rows
    }

    fn select_rows(&mut self, rows: &Tensor) -> candle_core::Result<()> {
        self.rows = rows.dims1()?;
        Ok(())
    }
}

impl Seq2Seq for Prepared<'_> {
    type State = Place;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn decoder_start_token(&self) -> u32 {
        0
    }

    fn start(&self, batch: &RaggedBatch) -> candle_core::Result<Place> {
        Ok(Place { rows: batch.len(), step: 0 })
    }

    fn step(&self, _: &Tensor, state: &mut Place) -> candle_core::Result<Tensor> {
        state.step += 1;
        self.steps[state.step - 1].narrow(0, self.first, state.rows)
    }
}

impl Constraint {
    pub(crate) fn load(request: &Load) -> Result<Self, BoxError> {
        let bytes = std::fs::read(&request.codes)?;
        let codes: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|&word| u32::from_le_bytes(word)).collect();
        let layout = SidLayout::new(request.sizes.clone())?.without_suffix();
        let levels = request.sizes.len();
        let codes = ArrayView2::from_shape((codes.len() / levels, levels), &codes)?;
        let index = SidIndex::from_codes(layout, codes, CollisionPolicy::Share)?;
        let vocab = SidVocab::new(index.layout(), 0)?;
        Ok(Self { index, vocab, log_probs: Vec::new(), answers: Vec::new() })
    }

    pub(crate) fn steps(&mut self, request: &Steps) -> Result<Value, BoxError> {
        let prefixes = request.steps.iter().flatten();
        let nodes: Vec<Node> =
            prefixes.map(|prefix| self.index.find(prefix)).collect::<Option<_>>().ok_or("no such prefix")?;
        let first = request.steps.first().ok_or("no step")?;
        let depth = first.first().map_or(0, Vec::len);
        let width = *self.index.layout().sizes().get(depth).ok_or("a prefix that is whole")? as usize;
        self.log_probs.resize(first.len() * width, -1.0);
        let catalogue = Catalogue::new(&self.index, &self.vocab)?;
        let token = self.vocab.position_range(depth).start;
        let start = Instant::now();
        for nodes in nodes.chunks(first.len().max(1)) {
            // What a search does: every allowed token's log-probability is looked at, none is copied.
            let best: Vec<f32> = nodes
                .par_chunks(50)
                .zip(self.log_probs.par_chunks(50 * width))
                .flat_map_iter(|(nodes, rows)| {
                    nodes.iter().for_each(|node| catalogue.prepare(node));
                    nodes.iter().zip(rows.chunks(width)).map(|(node, row)| {
                        let mut best = f32::NEG_INFINITY;
                        catalogue.for_each_group(node, &mut |first, mut group| {
                            while group != 0 {
                                best = best.max(row[(first - token + group.trailing_zeros()) as usize]);
                                group &= group - 1;
                            }
                        });
                        best
                    })
                })
                .collect();
            black_box(best);
        }
        let seconds = start.elapsed().as_secs_f64();
        let codes = |node: &Node| self.index.children(*node).map(|(code, _)| code).collect::<Vec<_>>();
        let allowed: Vec<_> = nodes.iter().take(if request.list { first.len() } else { 0 }).map(codes).collect();
        Ok(json!({ "seconds": seconds, "allowed": allowed }))
    }

    pub(crate) fn answers(&mut self, request: &Answers) -> Result<Value, BoxError> {
        let bytes = std::fs::read(&request.log_probs)?;
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word)).collect();
        let sizes = self.index.layout().sizes();
        let width = *sizes.first().ok_or("no level")? as usize;
        let step = |(position, values): (usize, &[f32])| {
            let first = self.vocab.position_range(position).start as usize;
            let mut all = vec![f32::NEG_INFINITY; request.rows * self.vocab.size()];
            for (row, values) in all.chunks_mut(self.vocab.size()).zip(values.chunks(width)) {
                row[first..first + width].copy_from_slice(values);
            }
            Tensor::from_vec(all, (request.rows, self.vocab.size()), &Device::Cpu)
        };
        self.answers = values.chunks(request.rows * width).enumerate().map(step).collect::<Result<_, _>>()?;
        Ok(json!({ "steps": self.answers.len() }))
    }

    /// Whole beam searches under the catalogue, of which the model takes nothing.
    pub(crate) fn search(&self, request: &Search) -> Result<Value, BoxError> {
        let catalogue = Catalogue::new(&self.index, &self.vocab)?;
        let mut batch = RaggedBatch::new();
        for _ in 0..request.users {
            batch.push(&[0], &[])?;
        }
        let search = BeamSearch::new(request.beams);
        let mut all = Vec::new();
        let start = Instant::now();
        for &first in &request.firsts {
            let model = Prepared { vocab_size: self.vocab.size(), steps: &self.answers, first };
            all.push(search.decode(&model, &batch, &[&catalogue])?);
        }
        let seconds = start.elapsed().as_secs_f64();
        let codes = |tokens: &[u32]| self.vocab.decode_tokens(tokens).map(|sid| sid.to_vec());
        let users = all.iter().flatten().take(if request.list { usize::MAX } else { 0 });
        let found: Vec<Vec<_>> = users.map(|user| user.iter().map(|found| codes(&found.tokens)).collect()).collect();
        Ok(json!({ "seconds": seconds, "found": found }))
    }
}
