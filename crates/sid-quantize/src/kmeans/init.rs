//! Choice of the first centroids.

use std::collections::BTreeSet;

use candle_core::{Device, Tensor};
use genrec_kernels::CounterRng;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Lloyd, index};
use crate::input::to_tensor;
use crate::{Result, RowSource};

/// Weights that are drawn at once.
const WEIGHTS: usize = 1 << 24;

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
    /// Points that are no rows, drawn from the normal distribution of the rows' mean and covariance.
    Random,
}

/// Chooses centroids as a run asks for it.
pub(super) fn first_centroids(lloyd: &Lloyd, rows: &mut dyn RowSource) -> Result<Array2<f32>> {
    let picked = sample_rows(lloyd.rng.named("sample"), rows.len(), lloyd.init_rows.max(lloyd.codes))?;
    let rng = lloyd.rng.named("centroids");
    match lloyd.init {
        KMeansInit::Points => {
            let mut order = rng.permutation(index(picked.len())?);
            order.truncate(lloyd.codes);
            let chosen: Vec<usize> = order.into_iter().map(|at| picked[at as usize]).collect();
            gather(rows, &chosen)
        }
        KMeansInit::PlusPlus => {
            let sample = gather(rows, &picked)?;
            Ok(plus_plus(sample.view(), lloyd.codes, rng))
        }
        KMeansInit::Random => gaussian(&gather(rows, &picked)?, lloyd.codes, &rng),
    }
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
pub(super) fn sample_sparse(rng: CounterRng, rows: u32, wanted: usize) -> Vec<usize> {
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

#[inline(always)]
pub(crate) fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
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

/// Points of the normal distribution that has the mean and the covariance of the sample: each the mean plus a sum of the
/// rows' deviations, weighted by independent normal numbers.
fn gaussian(sample: &Array2<f32>, codes: usize, rng: &CounterRng) -> Result<Array2<f32>> {
    let (rows, dim) = sample.dim();
    let mean = sample.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(dim));
    let deviations = to_tensor((sample - &mean).view(), &Device::Cpu)?;
    let scale = 1.0 / (rows.max(1) as f32).sqrt();
    let mut points = Array2::zeros((codes, dim));
    // A part of the points at a time: their weights, one a row, are far more than they are.
    let part = (WEIGHTS / rows.max(1)).max(1);
    for (number, mut points) in points.axis_chunks_iter_mut(Axis(0), part).enumerate() {
        let mut weights = vec![0.0; points.nrows() * rows];
        rng.stream(number as u64).fill_normal(&mut weights);
        weights.iter_mut().for_each(|weight| *weight *= scale);
        let weights = Tensor::from_vec(weights, (points.nrows(), rows), &Device::Cpu)?;
        let sums = weights.matmul(&deviations)?.flatten_all()?.to_vec1::<f32>()?;
        points.iter_mut().zip(sums).for_each(|(slot, sum)| *slot = sum);
        points += &mean;
    }
    Ok(points)
}
