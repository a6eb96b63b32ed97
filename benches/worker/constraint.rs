//! One step of a constraint: what may follow the prefixes of many beams, with its log-probability.

use std::{hint::black_box, path::PathBuf, time::Instant};

use genrec::{
    decode::{Catalogue, Constraint as _},
    index::{CollisionPolicy, Node, SidIndex, SidLayout, SidVocab},
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

pub(crate) struct Constraint {
    index: SidIndex,
    vocab: SidVocab,
    /// Values to mask, as many as the widest step has.
    log_probs: Vec<f32>,
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
        Ok(Self { index, vocab, log_probs: Vec::new() })
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
}
