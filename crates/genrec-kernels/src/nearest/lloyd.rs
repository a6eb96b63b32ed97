//! A pass of Lloyd's algorithm: the nearest codeword of every row, and the sums that move the codewords.

use rayon::prelude::*;

use super::{Buffers, Codebook, NearestError, ROWS};
use crate::math::sum_by;
use crate::math::vectorized;

/// Rows that are summed in `f32` before the sums are added up in `f64`: rounding then stays far below that of the rows.
const RECENT: usize = 4096;

/// Of some rows: how many each codeword is nearest to, their sums, and how far they lie from their codewords.
#[derive(Clone, Debug)]
pub struct ClusterSums {
    d: usize,
    counts: Vec<u64>,
    sums: Vec<f64>,
    recent: Vec<f32>,
    recent_rows: usize,
    squared_error: f64,
    changed: usize,
}

impl ClusterSums {
    /// Sums over no rows, for that many codewords of dimension `d`.
    pub fn new(codewords: usize, d: usize) -> Self {
        Self {
            d,
            counts: vec![0; codewords],
            sums: vec![0.0; codewords * d],
            recent: vec![0.0; codewords * d],
            recent_rows: 0,
            squared_error: 0.0,
            changed: 0,
        }
    }

    /// Back to no rows.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.sums.fill(0.0);
        self.recent.fill(0.0);
        (self.recent_rows, self.squared_error, self.changed) = (0, 0.0, 0);
    }

    /// Rows of each codeword.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Sum over the rows of the squared distance to their codewords.
    pub fn squared_error(&self) -> f64 {
        self.squared_error
    }

    /// Rows that had another codeword before.
    pub fn changed(&self) -> usize {
        self.changed
    }

    /// The mean of a codeword's rows; `None` without rows, or without such a codeword.
    pub fn mean(&self, code: usize) -> Option<impl Iterator<Item = f32>> {
        let count = *self.counts.get(code).filter(|count| **count > 0)? as f64;
        let row = code * self.d..(code + 1) * self.d;
        Some(
            self.sums[row.clone()]
                .iter()
                .zip(&self.recent[row])
                .map(move |(s, r)| ((s + f64::from(*r)) / count) as f32),
        )
    }

    /// Adds what another has summed, over as many codewords of the same dimension.
    pub fn merge(&mut self, other: &Self) {
        self.settle();
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        for (a, (sum, recent)) in self.sums.iter_mut().zip(other.sums.iter().zip(&other.recent)) {
            *a += sum + f64::from(*recent);
        }
        self.squared_error += other.squared_error;
        self.changed += other.changed;
    }

    fn settle(&mut self) {
        for (sum, recent) in self.sums.iter_mut().zip(&mut self.recent) {
            *sum += f64::from(std::mem::take(recent));
        }
        self.recent_rows = 0;
    }

    /// Adds rows of these codes.
    fn add(&mut self, x: &[f32], codebook: &Codebook, codes: &[u32], distances: &mut [f32]) {
        let d = self.d;
        if self.recent_rows + codes.len() > RECENT {
            self.settle();
        }
        self.recent_rows += codes.len();
        let Self { counts, recent, squared_error, .. } = self;
        vectorized(
            #[inline(always)]
            || {
                for ((x, &code), distance) in x.chunks_exact(d).zip(codes).zip(&mut *distances) {
                    let at = code as usize * d..(code as usize + 1) * d;
                    *distance = sum_by(x, &codebook.values[at.clone()], |a, b| (a - b) * (a - b));
                    recent[at].iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
                }
            },
        );
        for (&code, &distance) in codes.iter().zip(&*distances) {
            counts[code as usize] += 1;
            *squared_error += f64::from(distance);
        }
    }
}

impl Codebook {
    /// One pass of Lloyd's algorithm over some rows: writes each row's nearest codeword and its squared distance, and
    /// adds the rows to `shares`, each of which takes a fixed part of them, so that no bit depends on the number of
    /// threads.
    ///
    /// `codes` holds the rows' codewords of the pass before, which [`ClusterSums::changed`] counts by.
    ///
    /// # Shapes
    /// `x`: `(n, d)` row-major; `codes`, `distances`: `(n,)`; every share: this codebook's codewords and dimension.
    ///
    /// # Errors
    /// [`NearestError`] when a slice or a share does not fit, or there is no share.
    pub fn assign_and_sum(
        &self,
        x: &[f32],
        codes: &mut [u32],
        distances: &mut [f32],
        shares: &mut [ClusterSums],
    ) -> Result<(), NearestError> {
        self.pass(x, codes, distances, shares, false)
    }

    /// [`assign_and_sum`](Self::assign_and_sum) of rows whose codewords were found elsewhere; no row counts as changed.
    ///
    /// # Shapes
    /// As there.
    ///
    /// # Errors
    /// As there, and when there is no such codeword.
    pub fn sum(
        &self,
        x: &[f32],
        codes: &[u32],
        distances: &mut [f32],
        shares: &mut [ClusterSums],
    ) -> Result<(), NearestError> {
        let codewords = self.codewords();
        if let Some(row) = codes.iter().position(|code| *code as usize >= codewords) {
            return Err(NearestError::Code { row, code: codes[row], codewords });
        }
        self.pass(x, &mut codes.to_vec(), distances, shares, true)
    }

    fn pass(
        &self,
        x: &[f32],
        codes: &mut [u32],
        distances: &mut [f32],
        shares: &mut [ClusterSums],
        known: bool,
    ) -> Result<(), NearestError> {
        let rows = self.check(x, codes.len())?;
        let fits = |share: &ClusterSums| share.d == self.d && share.counts.len() == self.codewords();
        if shares.is_empty() || !shares.iter().all(fits) {
            return Err(NearestError::Shares { shares: shares.len(), codewords: self.codewords(), dim: self.d });
        }
        if distances.len() != rows {
            return Err(NearestError::Output { what: "distances", len: distances.len(), rows });
        }
        let block = self.block();
        let size = rows.div_ceil(shares.len()).next_multiple_of(ROWS).max(1);
        x.par_chunks(size * self.d)
            .zip(codes.par_chunks_mut(size))
            .zip(distances.par_chunks_mut(size))
            .zip(shares)
            .try_for_each_init(Buffers::default, |buffers, (((x, codes), distances), share)| {
                let blocks = x.chunks(block * self.d).zip(codes.chunks_mut(block)).zip(distances.chunks_mut(block));
                for ((x, codes), distances) in blocks {
                    if !known {
                        let mut found = std::mem::take(&mut buffers.codes);
                        found.resize(codes.len(), 0);
                        self.assign_block(x, &mut found, buffers)?;
                        share.changed += found.iter().zip(&*codes).filter(|(new, old)| new != old).count();
                        codes.copy_from_slice(&found);
                        buffers.codes = found;
                    }
                    share.add(x, self, codes, distances);
                }
                Ok(())
            })
    }
}
