//! Lloyd's k-means over rows that need not fit in memory.
//!
//! Every pass reads the rows in blocks of one fixed size and shares each block out over a fixed number of sums, so that
//! the result does not depend on the number of threads.

mod assignment;
mod balanced;
mod init;
mod mini_batch;

pub use init::KMeansInit;

use std::ops::ControlFlow;

use assignment::Assignment;
use candle_core::Device;
use genrec_kernels::CounterRng;
use ndarray::Array2;

pub(crate) use assignment::normalize_rows;
pub(crate) use init::{gather, sample_rows, squared_distance};

use crate::coding::Distance;
use crate::{QuantizeError, Result, RowSource};

/// One run of Lloyd's algorithm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lloyd {
    pub(crate) codes: usize,
    pub(crate) iterations: usize,
    pub(crate) tolerance: f64,
    /// Rows that an iteration looks at; all where there are no more.
    pub(crate) batch: Option<usize>,
    pub(crate) rule: Rule,
    pub(crate) init: KMeansInit,
    /// Rows drawn to choose the first centroids from.
    pub(crate) init_rows: usize,
    pub(crate) rng: CounterRng,
}

/// Which centroid a row belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rule {
    pub(crate) distance: Distance,
    /// Most rows of a cluster while it is fitted, in multiples of what all would have if they had the same.
    pub(crate) balance: Option<f64>,
}

impl Rule {
    pub(crate) fn validate(self) -> Result<()> {
        match self.balance {
            Some(balance) if !(balance >= 1.0 && balance.is_finite()) => {
                Err(QuantizeError::config("balance", balance, "below 1 the clusters cannot hold all rows"))
            }
            _ => Ok(()),
        }
    }

    /// Most rows of each of so many clusters.
    fn capacity(self, rows: usize, codes: usize) -> Option<usize> {
        let even = rows.div_ceil(codes.max(1));
        Some(((rows as f64 / codes.max(1) as f64 * self.balance?).ceil() as usize).max(even))
    }
}

/// What a run has found: `codes[i]` is the nearest of `centroids` to row `i`.
#[derive(Clone, Debug)]
pub(crate) struct Clusters {
    pub(crate) centroids: Array2<f32>,
    pub(crate) codes: Vec<u32>,
    /// Mean squared distance of a row to its centroid.
    pub(crate) inertia: f64,
}

/// One iteration, as its watcher sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Iteration {
    /// Mean squared distance of a row to its centroid.
    pub(crate) inertia: f64,
    pub(crate) used: u32,
    pub(crate) reseeded: u32,
}

impl Lloyd {
    /// Clusters all rows. Stops when no row changes its cluster, when an iteration lowers the mean squared distance by
    /// no more than `tolerance` of it, after `iterations`, or when `watch` breaks. With a `batch` smaller than the rows
    /// the iterations look at rows drawn anew, and all rows are only assigned at the end.
    pub(crate) fn run(
        &self,
        rows: &mut dyn RowSource,
        device: &Device,
        watch: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
    ) -> Result<Clusters> {
        let count = rows.len();
        if count < self.codes {
            return Err(QuantizeError::TooFewRows { rows: count, codes: self.codes });
        }
        let centroids = init::first_centroids(self, rows)?;
        self.run_from(centroids, rows, device, watch)
    }

    /// [`run`](Self::run) from the given centroids, one a code.
    pub(crate) fn run_from(
        &self,
        mut centroids: Array2<f32>,
        rows: &mut dyn RowSource,
        device: &Device,
        watch: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
    ) -> Result<Clusters> {
        let count = rows.len();
        let mut assignment = Assignment::new(count, self.codes, rows.dim());
        if let Some(batch) = self.batch.filter(|batch| *batch < count) {
            self.mini_batches(rows, batch, device, &mut centroids, watch)?;
            assignment.assign(rows, &centroids, self.nearest(), device)?;
            return Ok(Clusters { centroids, codes: assignment.codes, inertia: assignment.inertia });
        }
        assignment.assign(rows, &centroids, self.rule, device)?;
        for number in 1..=self.iterations {
            let reseeded = assignment.update(rows, &mut centroids)?;
            let before = assignment.inertia;
            let changed = assignment.assign(rows, &centroids, self.rule, device)?;
            let used = assignment.total.counts().iter().filter(|&&count| count > 0).count() as u32;
            let step = Iteration { inertia: assignment.inertia, used, reseeded };
            tracing::trace!(number, inertia = step.inertia, used, reseeded, changed, "k-means iteration");
            if watch(step).is_break() || changed == 0 {
                break;
            }
            if reseeded == 0 && before - assignment.inertia <= self.tolerance * before {
                break;
            }
        }
        if self.rule.balance.is_some() {
            // Limits shape the centroids; a code is the nearest.
            assignment.assign(rows, &centroids, self.nearest(), device)?;
        }
        Ok(Clusters { centroids, codes: assignment.codes, inertia: assignment.inertia })
    }

    fn nearest(&self) -> Rule {
        Rule { balance: None, ..self.rule }
    }
}

fn index(rows: usize) -> Result<u32> {
    u32::try_from(rows).map_err(|_| QuantizeError::TooManyRows { rows })
}

#[cfg(test)]
mod tests;
