//! Choice of the first centroids.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use candle_core::{Device, Tensor};
use genrec_kernels::CounterRng;
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Lloyd, Rule, index};
use crate::input::to_tensor;
use crate::preprocess::Projection;
use crate::{ArrayRows, Result, RowSource};

/// Weights that are drawn at once.
const WEIGHTS: usize = 1 << 24;

/// Rows for each one drawn from which on no list of all of them is made.
const SPARSE: usize = 64;

/// Rows that one parallel task compares with the candidates.
const BLOCK: usize = 512;

/// Times that the principal axes become more, and Lloyd iterations each time, as in faiss.
const STAGES: u32 = 10;
const STAGE_ITERATIONS: usize = 10;

/// Most columns whose principal axes are found in little time beside that of k-means.
const WIDEST: usize = 2048;

/// How the first centroids are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KMeansInit {
    /// Greedy k-means++ (Arthur and Vassilvitskii, SODA 2007, sections 2.2 and 7): rows are drawn with probability
    /// proportional to their squared distance to the nearest centroid so far, `2 + ln k` of them for each next one of `k`
    /// centroids, and the one is taken that leaves the smallest sum of these distances, as in scikit-learn.
    #[default]
    PlusPlus,
    /// Distinct rows drawn uniformly.
    Points,
    /// Points that are no rows, drawn from the normal distribution of the rows' mean and covariance.
    Random,
    /// The centroids of k-means on ever more of the leading principal axes, each from those before and the first from
    /// k-means++, as faiss trains residual quantisers. Clusters are of evener size, because no centroid starts at an outlier:
    /// on embeddings of Amazon's texts a tenth to a fifth fewer items collide after three levels than from k-means++, at an
    /// error 1 to 3 % higher, and Lloyd's iterations end in less time. Where few factors make most of the variance the error
    /// is lower, by a percent or so. The axes take time and memory by the square of the columns and more: rows of more than
    /// 2,048 columns start from k-means++ instead.
    Progressive,
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
        KMeansInit::Progressive if rows.dim() <= WIDEST => progressive(lloyd, gather(rows, &picked)?),
        KMeansInit::PlusPlus | KMeansInit::Progressive => {
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

/// Greedy k-means++: of a few rows drawn for the next centroid the one is taken that brings the rows nearest to theirs.
fn plus_plus(sample: ArrayView2<'_, f32>, codes: usize, rng: CounterRng) -> Array2<f32> {
    let (count, dim) = sample.dim();
    let standard = sample.as_standard_layout();
    let flat = standard.as_slice().unwrap_or_default();
    let row = |at: usize| &flat[at * dim..(at + 1) * dim];
    let trials = 2 + (codes.max(1) as f64).ln() as usize;
    let mut centroids = Array2::zeros((codes, dim));
    let mut distances = vec![f64::INFINITY; count];
    let mut nearer = vec![0.0; count * trials];
    for code in 0..codes {
        let total: f64 = distances.iter().sum();
        // All rows are centroids, or none is yet.
        let uniform = code == 0 || total <= 0.0;
        let draws = if uniform { 1 } else { trials };
        let candidates: Vec<usize> = (0..draws)
            .map(|draw| {
                let at = (code * trials + draw) as u64;
                if uniform {
                    rng.below(at, count as u64) as usize
                } else {
                    weighted(&distances, rng.f64_at(at) * total)
                }
            })
            .collect();
        // Rows are read once for all candidates, and the sums have one order on any number of threads.
        let sums: Vec<Vec<f64>> = nearer[..count * draws]
            .par_chunks_mut(BLOCK * draws)
            .zip(distances.par_chunks(BLOCK))
            .enumerate()
            .map(|(block, (nearer, distances))| {
                let mut sums = vec![0.0; draws];
                for (at, (nearer, &distance)) in nearer.chunks_exact_mut(draws).zip(distances).enumerate() {
                    let x = row(block * BLOCK + at);
                    for ((slot, sum), &candidate) in nearer.iter_mut().zip(&mut sums).zip(&candidates) {
                        *slot = distance.min(squared_distance(x, row(candidate)));
                        *sum += *slot;
                    }
                }
                sums
            })
            .collect();
        let sum = |draw: usize| sums.iter().map(|sums| sums[draw]).sum::<f64>();
        let best = (0..draws).min_by(|&a, &b| sum(a).total_cmp(&sum(b))).unwrap_or(0);
        for (slot, &x) in centroids.row_mut(code).iter_mut().zip(row(candidates[best])) {
            *slot = x;
        }
        distances.iter_mut().zip(nearer.chunks_exact(draws)).for_each(|(distance, nearer)| *distance = nearer[best]);
    }
    centroids
}

/// The row at which the weights up to it exceed `left`.
fn weighted(weights: &[f64], mut left: f64) -> usize {
    let found = weights.iter().position(|&weight| {
        left -= weight;
        left < 0.0
    });
    // Rounding may leave a rest after the last row: take the last that has any weight.
    found.or_else(|| weights.iter().rposition(|&weight| weight > 0.0)).unwrap_or(0)
}

/// Centroids fitted to more of the principal axes from stage to stage. Distances are Euclidean here and clusters of any size.
fn progressive(lloyd: &Lloyd, mut sample: Array2<f32>) -> Result<Array2<f32>> {
    let (count, dim) = sample.dim();
    // Far from the origin the products with the axes would have no bits left for what tells rows apart.
    let mut mean = Array1::<f64>::zeros(dim);
    for row in sample.outer_iter() {
        mean.zip_mut_with(&row, |mean, &x| *mean += f64::from(x) / count.max(1) as f64);
    }
    let mean = mean.mapv(|mean| mean as f32);
    sample -= &mean;
    let axes = Projection::principal(&mut ArrayRows::from(sample.view()), &Device::Cpu)?;
    let turned = axes.apply_rows(sample.as_standard_layout().as_slice().unwrap_or_default())?;
    let turned = Array2::from_shape_vec((count, dim), turned).unwrap_or_default();
    drop(sample);
    let rule = Rule::default();
    let lloyd = Lloyd { iterations: STAGE_ITERATIONS, batch: None, rule, init: KMeansInit::PlusPlus, ..*lloyd };
    let mut centroids: Option<Array2<f32>> = None;
    // On all axes it is the fit itself that goes on.
    for stage in 1..STAGES {
        let width = ((dim as f64).powf(f64::from(stage) / f64::from(STAGES)).ceil() as usize).clamp(1, dim);
        let mut rows = ArrayRows::from(turned.slice(s![.., ..width]).to_owned());
        let watch = &mut |_| ControlFlow::Continue(());
        let clusters = match centroids {
            Some(before) if before.ncols() == width => {
                centroids = Some(before);
                continue;
            }
            Some(before) => {
                // New axes begin at the mean, which is 0.
                let mut from = Array2::zeros((lloyd.codes, width));
                from.slice_mut(s![.., ..before.ncols()]).assign(&before);
                lloyd.run_from(from, &mut rows, &Device::Cpu, watch)?
            }
            None => lloyd.run(&mut rows, &Device::Cpu, watch)?,
        };
        centroids = Some(clusters.centroids);
    }
    let mut all = Array2::zeros((lloyd.codes, dim));
    if let Some(last) = centroids {
        all.slice_mut(s![.., ..last.ncols()]).assign(&last);
    }
    let back = axes.invert(&to_tensor(all.view(), &Device::Cpu)?)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(Array2::from_shape_vec((lloyd.codes, dim), back).unwrap_or_default() + &mean)
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
