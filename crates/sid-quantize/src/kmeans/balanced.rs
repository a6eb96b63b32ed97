//! Assignment of rows to clusters of limited size.

use std::collections::BinaryHeap;

use candle_core::Error;
use genrec_kernels::gemm::GemmError;
use genrec_kernels::matmul::{Panels, Target, View, product};
use ndarray::Array2;
use rayon::prelude::*;

use super::assignment::normalize_rows;
use super::gather;
use crate::coding::Distance;
use crate::{Result, RowSource};

/// Rows whose distances to all centroids are held at once.
const ROWS: usize = 4096;

/// Rows that one parallel task measures.
const BLOCK: usize = 128;

/// The code of each row, at most `capacity` rows a code, which must suffice for all.
///
/// It is the stable assignment in which no row and cluster would both be better off together: rows ask for their nearest
/// cluster, a full cluster keeps the rows nearest to it, and who is turned away asks the next (Gale and Shapley, *College
/// Admissions and the Stability of Marriage*, 1962). Of rows that are equally near the earlier comes first. No list of all
/// distances is held: who is turned away is read and measured again, which a source in memory bears better than a file.
pub(super) fn assign(
    rows: &mut dyn RowSource,
    centroids: &Array2<f32>,
    capacity: usize,
    distance: Distance,
) -> Result<Vec<u32>> {
    let measure = Measure::new(centroids, distance)?;
    let codes = centroids.nrows();
    let mut clusters: Vec<BinaryHeap<(u32, u32)>> = vec![BinaryHeap::new(); codes];
    let mut waiting: Vec<usize> = (0..rows.len()).collect();
    while !waiting.is_empty() {
        let mut turned_away = Vec::new();
        for asking in waiting.chunks(ROWS) {
            let block = gather(rows, asking)?;
            let distances = measure.distances(block.as_slice().unwrap_or_default())?;
            for (&row, distances) in asking.iter().zip(distances.chunks_exact(codes.max(1))) {
                let row = row as u32;
                // Distances are not negative: their bits have their order.
                let would_take = |&(code, distance): &(usize, &f32)| {
                    let members = &clusters[code];
                    members.len() < capacity || members.peek().is_some_and(|&last| (distance.to_bits(), row) < last)
                };
                let best = distances.iter().enumerate().filter(would_take).min_by(|a, b| a.1.total_cmp(b.1));
                let Some((code, distance)) = best else { continue };
                let distance = distance.to_bits();
                clusters[code].push((distance, row));
                if clusters[code].len() > capacity
                    && let Some((_, last)) = clusters[code].pop()
                {
                    turned_away.push(last as usize);
                }
            }
        }
        turned_away.sort_unstable();
        waiting = turned_away;
    }
    let mut found = vec![0; rows.len()];
    for (members, code) in clusters.iter().zip(0..) {
        members.iter().for_each(|&(_, row)| found[row as usize] = code);
    }
    Ok(found)
}

/// Distances of rows to all centroids.
struct Measure {
    /// `(dim, codes)`.
    panels: Panels,
    /// Squared lengths of the centroids.
    norms: Vec<f32>,
    distance: Distance,
}

impl Measure {
    fn new(centroids: &Array2<f32>, distance: Distance) -> Result<Self> {
        let (codes, dim) = centroids.dim();
        let mut values = centroids.iter().copied().collect::<Vec<f32>>();
        if distance == Distance::Cosine {
            normalize_rows(&mut values, dim);
        }
        let mut panels = Panels::default();
        panels.pack(View::new(&values, codes, dim, dim).map_err(Error::wrap)?.t());
        let norms = values.chunks_exact(dim.max(1)).map(|word| word.iter().map(|x| x * x).sum()).collect();
        Ok(Self { panels, norms, distance })
    }

    /// `(n, dim)` to `(n, codes)`, none below 0.
    fn distances(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let (dim, codes) = (self.panels.rows().max(1), self.norms.len().max(1));
        let mut out = vec![0.0; rows.len() / dim * codes];
        rows.par_chunks(BLOCK * dim)
            .zip(out.par_chunks_mut(BLOCK * codes))
            .try_for_each(|(rows, out)| {
                product(View::new(rows, rows.len() / dim, dim, dim)?, &self.panels, Target::set(out, codes))?;
                for (row, out) in rows.chunks_exact(dim).zip(out.chunks_exact_mut(codes)) {
                    let square: f32 = row.iter().map(|x| x * x).sum();
                    for (out, norm) in out.iter_mut().zip(&self.norms) {
                        let distance = match self.distance {
                            Distance::Euclidean => square - 2.0 * *out + norm,
                            Distance::Cosine => 1.0 - *out / square.sqrt().max(f32::MIN_POSITIVE),
                        };
                        *out = distance.max(0.0);
                    }
                }
                Ok(())
            })
            .map_err(|error: GemmError| Error::wrap(error))?;
        Ok(out)
    }
}
