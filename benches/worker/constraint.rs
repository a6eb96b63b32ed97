//! One step of a constraint: what may follow the prefixes of many beams, with its log-probability.

use std::{path::PathBuf, time::Instant};

use genrec::index::{CollisionPolicy, Node, SidIndex, SidLayout};
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

#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    /// One a beam, all of one length.
    prefixes: Vec<Vec<u32>>,
    /// Whether to answer with what is allowed.
    list: bool,
}

pub(crate) struct Constraint {
    index: SidIndex,
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
        Ok(Self { index, log_probs: Vec::new() })
    }

    pub(crate) fn step(&mut self, request: &Step) -> Result<Value, BoxError> {
        let beams = request.prefixes.iter().map(|prefix| self.index.find(prefix));
        let nodes: Vec<Node> = beams.collect::<Option<_>>().ok_or("a prefix that no item has")?;
        let depth = request.prefixes.first().map_or(0, Vec::len);
        let width = *self.index.layout().sizes().get(depth).ok_or("a prefix that is whole")? as usize;
        self.log_probs.resize(nodes.len() * width, -1.0);
        let start = Instant::now();
        let candidates: Vec<Vec<(u32, f32, Node)>> = nodes
            .par_iter()
            .zip(self.log_probs.par_chunks(width))
            .map(|(&node, row)| {
                self.index.children(node).map(|(code, child)| (code, row[code as usize], child)).collect()
            })
            .collect();
        let seconds = start.elapsed().as_secs_f64();
        let allowed: Vec<Vec<u32>> = match request.list {
            true => candidates.iter().map(|beam| beam.iter().map(|(code, ..)| *code).collect()).collect(),
            false => Vec::new(),
        };
        Ok(json!({ "seconds": seconds, "allowed": allowed }))
    }
}
