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

/// Iterations without gain after which a run that need not fall steadily ends.
const STALE: usize = 8;

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
    /// Whether no iteration can raise the mean squared distance, as the first that does not lower it then says that the run is
    /// over. Limits and angles are not what the mean minimises.
    fn is_monotone(self) -> bool {
        self.balance.is_none() && self.distance == Distance::Euclidean
    }

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
    /// The codes within the limits of the rule, if it has any.
    pub(crate) limited: Option<Vec<u32>>,
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
    /// no more than `tolerance` of it, after `iterations`, or when `watch` breaks. Where it may rise again, it stops after some
    /// iterations without gain and the best centroids are kept. With a `batch` smaller than the rows the iterations look at
    /// rows drawn anew, and all rows are only assigned at the end.
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
            check_inertia(0, assignment.inertia)?;
            return Ok(Clusters { centroids, codes: assignment.codes, inertia: assignment.inertia, limited: None });
        }
        assignment.assign(rows, &centroids, self.rule, device)?;
        check_inertia(0, assignment.inertia)?;
        let mut best = Best { inertia: assignment.inertia, stale: 0, kept: None };
        for number in 1..=self.iterations {
            let reseeded = assignment.update(rows, &mut centroids)?;
            let before = assignment.inertia;
            let changed = assignment.assign(rows, &centroids, self.rule, device)?;
            let used = assignment.total.counts().iter().filter(|&&count| count > 0).count() as u32;
            let step = Iteration { inertia: assignment.inertia, used, reseeded };
            tracing::trace!(number, inertia = step.inertia, used, reseeded, changed, "k-means iteration");
            check_inertia(number, step.inertia)?;
            let settled = match self.rule.is_monotone() {
                true => reseeded == 0 && before - step.inertia <= self.tolerance * before,
                false => best.is_stale(&assignment, &centroids, self.tolerance),
            };
            if watch(step).is_break() || changed == 0 || settled {
                break;
            }
        }
        if let Some((kept, codes)) = best.kept.filter(|_| best.inertia < assignment.inertia) {
            centroids = kept;
            assignment.codes = codes;
            assignment.inertia = best.inertia;
        }
        let mut limited = None;
        if self.rule.balance.is_some() {
            limited = Some(assignment.codes.clone());
            // Limits shape the centroids; a code is the nearest.
            assignment.assign(rows, &centroids, self.nearest(), device)?;
        }
        Ok(Clusters { centroids, codes: assignment.codes, inertia: assignment.inertia, limited })
    }

    fn nearest(&self) -> Rule {
        Rule { balance: None, ..self.rule }
    }
}

/// The best iteration so far.
struct Best {
    inertia: f64,
    /// Iterations since it improved by more than the tolerance.
    stale: usize,
    kept: Option<(Array2<f32>, Vec<u32>)>,
}

impl Best {
    /// Takes note of an iteration and says whether the last ones were of no use.
    fn is_stale(&mut self, assignment: &Assignment, centroids: &Array2<f32>, tolerance: f64) -> bool {
        let gained = assignment.inertia < self.inertia * (1.0 - tolerance);
        self.stale = if gained { 0 } else { self.stale + 1 };
        if assignment.inertia < self.inertia {
            self.inertia = assignment.inertia;
            self.kept = Some((centroids.clone(), assignment.codes.clone()));
        }
        self.stale >= STALE
    }
}

fn check_inertia(iteration: usize, inertia: f64) -> Result<()> {
    if inertia.is_finite() {
        return Ok(());
    }
    Err(QuantizeError::LossNotFinite { epoch: iteration.max(1), step: 1, loss: inertia })
}

fn index(rows: usize) -> Result<u32> {
    u32::try_from(rows).map_err(|_| QuantizeError::TooManyRows { rows })
}

#[cfg(test)]
mod tests;
