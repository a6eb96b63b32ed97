//! Assignment of rows to clusters of limited size.

use std::collections::BinaryHeap;

use candle_core::Error;
use genrec_kernels::nearest::Codebook;
use ndarray::Array2;

use super::assignment::normalize_rows;
use super::gather;
use crate::coding::Distance;
use crate::{Result, RowSource};

/// Rows whose distances to all centroids are held at once.
const ROWS: usize = 4096;

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
    codebook: Codebook,
    distance: Distance,
}

impl Measure {
    fn new(centroids: &Array2<f32>, distance: Distance) -> Result<Self> {
        let dim = centroids.ncols();
        let mut values = centroids.iter().copied().collect::<Vec<f32>>();
        if distance == Distance::Cosine {
            normalize_rows(&mut values, dim);
        }
        Ok(Self { codebook: Codebook::for_distances(&values, dim).map_err(Error::wrap)?, distance })
    }

    /// `(n, dim)` to `(n, codes)`, none below 0. Of directions the squared distance is twice one minus the cosine.
    fn distances(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let dim = self.codebook.dim();
        let mut rows = std::borrow::Cow::Borrowed(rows);
        if self.distance == Distance::Cosine {
            normalize_rows(rows.to_mut(), dim);
        }
        let mut out = vec![0.0; rows.len() / dim * self.codebook.codewords()];
        self.codebook.distances(&rows, &mut out).map_err(Error::wrap)?;
        Ok(out)
    }
}
