//! Lloyd's k-means over rows that need not fit in memory.
//!
//! Every pass reads the rows in blocks of one fixed size and shares each block out over a fixed number of sums, so that
//! the result does not depend on the number of threads.

mod mini_batch;

use std::{collections::BTreeSet, ops::ControlFlow};

use candle_core::{Device, Tensor};
use genrec_kernels::CounterRng;
use genrec_kernels::nearest::{ClusterSums, Codebook, nearest_codes};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::codebook::to_tensor;
use crate::usage::pass;
use crate::{QuantizeError, Result, RowSource};

/// Parts of the sums over the rows, and so the most threads that a pass uses.
const SHARES: usize = 16;

/// Rows for each one drawn from which on no list of all of them is made.
const SPARSE: usize = 64;

/// How the first centroids are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KMeansInit {
    /// k-means++ (Arthur and Vassilvitskii, SODA 2007): each next centroid is a row drawn with probability
    /// proportional to its squared distance to the nearest centroid so far.
    #[default]
    PlusPlus,
    /// Distinct rows drawn uniformly.
    Points,
}

/// One run of Lloyd's algorithm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lloyd {
    pub(crate) codes: usize,
    pub(crate) iterations: usize,
    pub(crate) tolerance: f64,
    /// Rows that an iteration looks at; all where there are no more.
    pub(crate) batch: Option<usize>,
    pub(crate) init: KMeansInit,
    /// Rows drawn to choose the first centroids from.
    pub(crate) init_rows: usize,
    pub(crate) rng: CounterRng,
}

/// What a run has found: `codes[i]` is the nearest of `centroids` to row `i`.
#[derive(Clone, Debug)]
pub(crate) struct Clusters {
    pub(crate) centroids: Array2<f32>,
    pub(crate) codes: Vec<u32>,
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
        let mut centroids = self.first_centroids(rows)?;
        let mut assignment = Assignment::new(count, self.codes, rows.dim());
        if let Some(batch) = self.batch.filter(|batch| *batch < count) {
            self.mini_batches(rows, batch, device, &mut centroids, watch)?;
            assignment.assign(rows, &centroids, device)?;
            return Ok(Clusters { centroids, codes: assignment.codes });
        }
        assignment.assign(rows, &centroids, device)?;
        for number in 1..=self.iterations {
            let reseeded = assignment.update(rows, &mut centroids)?;
            let before = assignment.inertia;
            let changed = assignment.assign(rows, &centroids, device)?;
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
        Ok(Clusters { centroids, codes: assignment.codes })
    }

    fn first_centroids(&self, rows: &mut dyn RowSource) -> Result<Array2<f32>> {
        let picked = sample_rows(self.rng.named("sample"), rows.len(), self.init_rows.max(self.codes))?;
        let rng = self.rng.named("centroids");
        match self.init {
            KMeansInit::Points => {
                let mut order = rng.permutation(index(picked.len())?);
                order.truncate(self.codes);
                let chosen: Vec<usize> = order.into_iter().map(|at| picked[at as usize]).collect();
                gather(rows, &chosen)
            }
            KMeansInit::PlusPlus => {
                let sample = gather(rows, &picked)?;
                Ok(plus_plus(sample.view(), self.codes, rng))
            }
        }
    }
}

fn index(rows: usize) -> Result<u32> {
    u32::try_from(rows).map_err(|_| QuantizeError::TooManyRows { rows })
}

/// `wanted` distinct row indices in ascending order, or all of them.
pub(crate) fn sample_rows(rng: CounterRng, rows: usize, wanted: usize) -> Result<Vec<usize>> {
    if wanted >= rows {
        return Ok((0..rows).collect());
    }
    if rows / wanted.max(1) >= SPARSE {
        return Ok(sample_sparse(rng, index(rows)?, wanted));
    }
    let mut order = rng.permutation(index(rows)?);
    order.truncate(wanted);
    order.sort_unstable();
    Ok(order.into_iter().map(|row| row as usize).collect())
}

/// [`sample_rows`] without a list of all rows: what was drawn before is drawn again.
fn sample_sparse(rng: CounterRng, rows: u32, wanted: usize) -> Vec<usize> {
    let mut picked = BTreeSet::new();
    let mut draws = 0..;
    while picked.len() < wanted.min(rows as usize) {
        picked.extend(draws.next().map(|draw| rng.below(draw, u64::from(rows)) as usize));
    }
    picked.into_iter().collect()
}

pub(crate) fn gather(rows: &mut dyn RowSource, which: &[usize]) -> Result<Array2<f32>> {
    let mut out = Array2::zeros((which.len(), rows.dim()));
    rows.gather(which, out.view_mut())?;
    Ok(out)
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    // Eight running sums let the compiler use wide registers while the order of additions stays fixed.
    let mut sums = [0.0_f32; 8];
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    for (a, b) in a8.iter().zip(b8) {
        for lane in 0..8 {
            let d = a[lane] - b[lane];
            sums[lane] += d * d;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
    sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() + f64::from(rest)
}

fn plus_plus(sample: ArrayView2<'_, f32>, codes: usize, rng: CounterRng) -> Array2<f32> {
    let (count, dim) = sample.dim();
    let standard = sample.as_standard_layout();
    let flat = standard.as_slice().unwrap_or_default();
    let row = |at: usize| &flat[at * dim..(at + 1) * dim];
    let mut centroids = Array2::zeros((codes, dim));
    let mut distances = vec![f64::INFINITY; count];
    let mut chosen = rng.below(0, count as u64) as usize;
    for code in 0..codes {
        if code > 0 {
            let total: f64 = distances.iter().sum();
            chosen = if total > 0.0 {
                let mut left = rng.f64_at(code as u64) * total;
                let found = distances.iter().position(|&distance| {
                    left -= distance;
                    left < 0.0
                });
                // Rounding may leave a rest after the last row: take the last that has any weight.
                found.or_else(|| distances.iter().rposition(|&d| d > 0.0)).unwrap_or(0)
            } else {
                rng.below(code as u64, count as u64) as usize
            };
        }
        for (slot, &x) in centroids.row_mut(code).iter_mut().zip(row(chosen)) {
            *slot = x;
        }
        let newest = row(chosen);
        distances.par_iter_mut().with_min_len(512).enumerate().for_each(|(at, distance)| {
            *distance = distance.min(squared_distance(row(at), newest));
        });
    }
    centroids
}

/// The centroids of one pass, prepared on the host, and as they lie on a device.
struct Search {
    codebook: Codebook,
    device: Option<Tensor>,
}

impl Search {
    fn new(centroids: &Array2<f32>, device: &Device) -> Result<Self> {
        let values = centroids.as_slice().unwrap_or_default();
        let codebook = Codebook::new(values, centroids.ncols()).map_err(candle_core::Error::wrap)?;
        let device = if device.is_cpu() { None } else { Some(to_tensor(centroids.view(), device)?) };
        Ok(Self { codebook, device })
    }
}

/// Where each row belongs, and what is needed to move the centroids.
struct Assignment {
    codes: Vec<u32>,
    distances: Vec<f32>,
    shares: Vec<ClusterSums>,
    total: ClusterSums,
    inertia: f64,
    dim: usize,
}

impl Assignment {
    fn new(rows: usize, codes: usize, dim: usize) -> Self {
        let empty = ClusterSums::new(codes, dim);
        Self {
            codes: vec![u32::MAX; rows],
            distances: vec![0.0; rows],
            shares: vec![empty.clone(); SHARES],
            total: empty,
            inertia: f64::INFINITY,
            dim,
        }
    }

    /// Gives each row its nearest centroid and returns how many rows changed.
    fn assign(&mut self, rows: &mut dyn RowSource, centroids: &Array2<f32>, device: &Device) -> Result<usize> {
        self.shares.iter_mut().for_each(ClusterSums::clear);
        let Search { codebook, device } = Search::new(centroids, device)?;
        let mut changed = 0;
        pass(self.dim, rows, |first, block| {
            let flat = block.as_slice().unwrap_or_default();
            let range = first..first + block.nrows();
            let (codes, distances) = (&mut self.codes[range.clone()], &mut self.distances[range]);
            match &device {
                None => codebook.assign_and_sum(flat, codes, distances, &mut self.shares),
                Some(centroids) => {
                    let found = nearest_codes(&to_tensor(block, centroids.device())?, centroids)?.to_vec1::<u32>()?;
                    changed += codes.iter().zip(&found).filter(|(old, new)| old != new).count();
                    codes.copy_from_slice(&found);
                    codebook.sum(flat, codes, distances, &mut self.shares)
                }
            }
            .map_err(candle_core::Error::wrap)?;
            Ok(())
        })?;
        self.total.clear();
        for share in &self.shares {
            self.total.merge(share);
        }
        self.inertia = self.total.squared_error() / self.codes.len().max(1) as f64;
        Ok(changed + self.total.changed())
    }

    /// Moves each centroid to the mean of its rows, and each that has none to one of the rows farthest from theirs.
    /// Returns how many were moved so.
    fn update(&mut self, rows: &mut dyn RowSource, centroids: &mut Array2<f32>) -> Result<u32> {
        let mut empty = Vec::new();
        for (code, mut centroid) in centroids.outer_iter_mut().enumerate() {
            match self.total.mean(code) {
                Some(mean) => centroid.iter_mut().zip(mean).for_each(|(slot, mean)| *slot = mean),
                None => empty.push(code),
            }
        }
        if empty.is_empty() {
            return Ok(0);
        }
        let far = self.farthest(empty.len());
        let seeds = gather(rows, &far)?;
        for (&code, seed) in empty.iter().zip(seeds.outer_iter()) {
            centroids.row_mut(code).assign(&seed);
        }
        Ok(far.len() as u32)
    }

    /// Up to `count` rows that are not their centroids, those farthest from theirs first.
    fn farthest(&self, count: usize) -> Vec<usize> {
        if count == 0 {
            return Vec::new();
        }
        let mut far: Vec<usize> = (0..self.distances.len()).filter(|&row| self.distances[row] > 0.0).collect();
        far.sort_by(|&a, &b| self.distances[b].total_cmp(&self.distances[a]));
        far.truncate(count);
        far
    }
}

#[cfg(test)]
mod tests;
