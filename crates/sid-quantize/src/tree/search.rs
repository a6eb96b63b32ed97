//! The way of rows down a tree, on the host.

use std::sync::Arc;

use candle_core::{Error, Result, bail};
use genrec_kernels::nearest::Codebook;
use genrec_kernels::{host, vectorized};
use rayon::prelude::*;

use super::nodes::Nodes;
use crate::coding::Distance;
use crate::encoder::Codes;
use crate::kmeans::{normalize_rows, squared_distance};

/// Rows of a node, and children, from which on these are packed for a product.
const MANY: usize = 16;

/// A tree ready for many rows.
#[derive(Debug)]
pub(super) struct TreeSearch {
    nodes: Arc<Nodes>,
    distance: Distance,
    width: usize,
    /// What rows are compared with at level 0.
    top: Codebook,
}

/// Where a row has come to.
#[derive(Clone, Copy, Debug)]
struct Place {
    node: u32,
    /// The number of the node among its parent's children.
    code: u32,
    row: usize,
}

/// What one thread searches with.
#[derive(Debug, Default)]
struct Buffers {
    directions: Vec<f32>,
    rows: Vec<f32>,
    found: Vec<u32>,
}

impl TreeSearch {
    pub(super) fn new(nodes: Arc<Nodes>, distance: Distance, width: usize) -> Result<Self> {
        let Some(level) = nodes.levels().first() else { bail!("a tree has at least one level") };
        let mut values = host::read(&level.centroids, |values| Ok(values.to_vec()))?;
        if distance == Distance::Cosine {
            normalize_rows(&mut values, width);
        }
        let top = Codebook::new(&values, width).map_err(Error::wrap)?;
        Ok(Self { nodes, distance, width, top })
    }

    /// Takes the rows at one node to its children, which are among the `nodes` of their level.
    fn descend(
        &self,
        level: usize,
        nodes: &[f32],
        xs: &[f32],
        places: &mut [Place],
        buffers: &mut Buffers,
    ) -> Result<()> {
        let Some(children) = places.first().and_then(|place| self.nodes.children(level, place.node as usize)) else {
            bail!("level {level} of the tree has no children for a node of the level above");
        };
        let start = children.start as u32;
        let width = self.width;
        let mut words = &nodes[children.start * width..children.end * width];
        let Buffers { directions, rows, found } = buffers;
        if self.distance == Distance::Cosine && children.len() > 1 {
            directions.clear();
            directions.extend_from_slice(words);
            normalize_rows(directions, width);
            words = directions;
        }
        let row = |place: &Place| &xs[place.row * width..(place.row + 1) * width];
        found.clear();
        found.resize(places.len(), 0);
        if places.len() >= MANY && children.len() >= MANY {
            rows.clear();
            rows.extend(places.iter().flat_map(|place| row(place).iter()));
            Codebook::new(words, width).and_then(|codebook| codebook.assign(rows, found, None)).map_err(Error::wrap)?;
        } else if children.len() > 1 {
            vectorized(
                #[inline(always)]
                || {
                    for (place, code) in places.iter().zip(&mut *found) {
                        *code = nearest(row(place), words, self.distance);
                    }
                },
            );
        }
        for (place, &code) in places.iter_mut().zip(&*found) {
            (place.node, place.code) = (start + code, code);
        }
        Ok(())
    }
}

/// The nearest of a few codewords, or directions; of equally near ones the first.
#[inline(always)]
fn nearest(row: &[f32], words: &[f32], distance: Distance) -> u32 {
    let mut least = (0, f64::INFINITY);
    for (word, code) in words.chunks_exact(row.len()).zip(0..) {
        let cost = match distance {
            Distance::Euclidean => squared_distance(row, word),
            // What a search among many computes: only a direction that has none, all zeros, is not of length 1.
            Distance::Cosine => 0.5 * product(word, word) - product(row, word),
        };
        if cost < least.1 {
            least = (code, cost);
        }
    }
    least.0
}

#[inline(always)]
fn product(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0_f32; 8];
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    for (a, b) in a8.iter().zip(b8) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() + f64::from(rest)
}

impl Codes for TreeSearch {
    fn levels(&self) -> usize {
        self.nodes.levels().len()
    }

    fn codes(&self, xs: &[f32], codes: &mut [u32]) -> Result<()> {
        let levels = self.levels();
        let mut found = vec![0; xs.len() / self.width.max(1)];
        self.top.assign(xs, &mut found, None).map_err(Error::wrap)?;
        let mut places: Vec<Place> =
            found.into_iter().enumerate().map(|(row, code)| Place { node: code, code, row }).collect();
        places.iter().for_each(|place| codes[place.row * levels] = place.code);
        for (number, level) in self.nodes.levels().iter().enumerate().skip(1) {
            places.sort_unstable_by_key(|place| (place.node, place.row));
            host::read(&level.centroids, |nodes| {
                places
                    .par_chunk_by_mut(|a, b| a.node == b.node)
                    .try_for_each_init(Buffers::default, |buffers, at| self.descend(number, nodes, xs, at, buffers))
            })?;
            places.iter().for_each(|place| codes[place.row * levels + number] = place.code);
        }
        Ok(())
    }
}
