//! The randomised truncated singular value decomposition.

use ndarray::{Array2, Axis, Zip, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::sparse::Csr;

/// Most row blocks of a dense product; their partial sums are added in order.
const BLOCKS: usize = 32;
/// A column that keeps less than this share of its squared length after projection is dependent.
const DEPENDENT: f64 = 1e-12;
/// An eigenvalue below this share of the largest is rounding.
const NEGLIGIBLE: f64 = 1e-10;

/// How the leading singular vectors are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subspace {
    /// Vectors that are wanted.
    pub(crate) dim: usize,
    /// Directions beyond those, so that the last ones are right too (Halko et al., section 4.2).
    pub(crate) oversample: usize,
    /// Products by the matrix and its transpose between the first and the last look at the basis.
    pub(crate) power_iterations: usize,
    /// Seed of the random start.
    pub(crate) seed: u64,
}

/// Singular values, in decreasing order, and their right singular vectors.
#[derive(Debug, Clone)]
pub(crate) struct Singular {
    pub(crate) values: Vec<f64>,
    /// `(columns, k)`.
    pub(crate) vectors: Array2<f32>,
}

/// The leading right singular vectors of a matrix, with their values.
///
/// Subspace iteration with orthonormalisation after every product (Halko, Martinsson and Tropp 2011,
/// algorithm 4.4), then the small eigenproblem of `B B^T` with `B = Q^T A` (algorithm 5.1). The
/// component of greatest magnitude of every vector is positive.
///
/// # Shapes
/// Vectors: `(columns, k)` with `k = min(dim, rank)`.
pub(crate) fn right_singular(matrix: &Csr, subspace: Subspace) -> Singular {
    let (height, width) = matrix.dim();
    let transposed = matrix.transpose();
    let sketch = subspace.dim.saturating_add(subspace.oversample).min(height).min(width);
    let mut basis = orthonormal(&matrix.dot(&gaussian(width, sketch, subspace.seed)));
    for _ in 0..subspace.power_iterations {
        let other = orthonormal(&transposed.dot(&basis));
        basis = orthonormal(&matrix.dot(&other));
    }
    // (columns, sketch): the transpose of B.
    let projected = transposed.dot(&basis);
    let (eigenvalues, rotation) = symmetric_eigen(gram(&projected));
    let largest = eigenvalues.first().copied().unwrap_or(0.0);
    let rank = eigenvalues.iter().take_while(|value| **value > NEGLIGIBLE * largest).count();
    let kept = rank.min(subspace.dim);
    let mut scaled = rotation.slice(s![.., ..kept]).to_owned();
    for (mut column, value) in scaled.axis_iter_mut(Axis(1)).zip(&eigenvalues) {
        column /= value.sqrt();
    }
    let mut vectors = times(&projected, &scaled);
    for mut column in vectors.axis_iter_mut(Axis(1)) {
        let extreme = column
            .iter()
            .copied()
            .fold(0.0_f64, |extreme, value| if value.abs() > extreme.abs() { value } else { extreme });
        if extreme < 0.0 {
            column.mapv_inplace(|value| -value);
        }
    }
    #[allow(clippy::cast_possible_truncation, reason = "components of unit vectors")]
    let vectors = vectors.mapv(|value| value as f32);
    Singular { values: eigenvalues.iter().take(kept).map(|value| value.sqrt()).collect(), vectors }
}

/// Standard normal numbers by Box and Muller's transform.
fn gaussian(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_simple_fn((rows, columns), || {
        // In (0, 1]: the logarithm is finite.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
    })
}

/// Rows of a block; depends on the matrix alone, never on the number of threads.
fn block(rows: usize) -> usize {
    rows.div_ceil(BLOCKS).max(256)
}

/// `Y^T Y`.
fn gram(y: &Array2<f64>) -> Array2<f64> {
    let blocks: Vec<_> = y.axis_chunks_iter(Axis(0), block(y.nrows())).collect();
    let parts: Vec<Array2<f64>> = blocks.into_par_iter().map(|part| part.t().dot(&part)).collect();
    parts.into_iter().fold(Array2::zeros((y.ncols(), y.ncols())), |sum, part| sum + part)
}

/// `Y T`, block by block.
fn times(y: &Array2<f64>, t: &Array2<f64>) -> Array2<f64> {
    let mut product = Array2::zeros((y.nrows(), t.ncols()));
    let size = block(y.nrows());
    let blocks: Vec<_> = product.axis_chunks_iter_mut(Axis(0), size).zip(y.axis_chunks_iter(Axis(0), size)).collect();
    blocks.into_par_iter().for_each(|(mut out, part)| out.assign(&part.dot(t)));
    product
}

/// An orthonormal basis of the columns' span; dependent columns become zero. Cholesky QR, twice.
fn orthonormal(y: &Array2<f64>) -> Array2<f64> {
    let once = times(y, &inverse_cholesky(&gram(y)));
    times(&once, &inverse_cholesky(&gram(&once)))
}

/// `R^-1` of `G = R^T R`, with zero columns where `G` is singular.
fn inverse_cholesky(gram: &Array2<f64>) -> Array2<f64> {
    let n = gram.nrows();
    // Row i of `lower` is column i of R, so that inner products run along rows.
    let mut lower = Array2::<f64>::zeros((n, n));
    for j in 0..n {
        for i in 0..j {
            let pivot = lower[(i, i)];
            if pivot > 0.0 {
                let dot = lower.slice(s![i, ..i]).dot(&lower.slice(s![j, ..i]));
                lower[(j, i)] = (gram[(i, j)] - dot) / pivot;
            }
        }
        let rest = gram[(j, j)] - lower.slice(s![j, ..j]).mapv(|value| value * value).sum();
        lower[(j, j)] = if rest > DEPENDENT * gram[(j, j)] && rest > f64::MIN_POSITIVE { rest.sqrt() } else { 0.0 };
    }
    // Row j of `inverse` solves R t = e_j backwards.
    let mut inverse = Array2::<f64>::zeros((n, n));
    let upper = lower.t().as_standard_layout().into_owned();
    for j in 0..n {
        if lower[(j, j)] <= 0.0 {
            continue;
        }
        inverse[(j, j)] = 1.0 / lower[(j, j)];
        for i in (0..j).rev() {
            if lower[(i, i)] > 0.0 {
                let dot = upper.slice(s![i, i + 1..=j]).dot(&inverse.slice(s![j, i + 1..=j]));
                inverse[(j, i)] = -dot / lower[(i, i)];
            }
        }
    }
    inverse.reversed_axes().as_standard_layout().into_owned()
}

/// Eigenvalues in descending order and eigenvectors as columns, by cyclic Jacobi rotations.
fn symmetric_eigen(mut a: Array2<f64>) -> (Vec<f64>, Array2<f64>) {
    let n = a.nrows();
    // Eigenvectors as rows while rotating, so that every update runs along memory.
    let mut vectors = Array2::<f64>::eye(n);
    let scale = a.iter().map(|value| value * value).sum::<f64>();
    for _sweep in 0..60 {
        let off: f64 = (0..n).map(|i| a.slice(s![i, i + 1..]).mapv(|value| value * value).sum()).sum();
        if off <= 1e-26 * scale {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|x, y| a[(*y, *y)].total_cmp(&a[(*x, *x)]));
    let eigenvalues = order.iter().map(|i| a[(*i, *i)]).collect();
    (eigenvalues, vectors.select(Axis(0), &order).reversed_axes())
}

/// Annuls `a[(p, q)]`.
fn rotate(a: &mut Array2<f64>, vectors: &mut Array2<f64>, p: usize, q: usize) {
    let (app, aqq, apq) = (a[(p, p)], a[(q, q)], a[(p, q)]);
    if apq == 0.0 {
        return;
    }
    let theta = (aqq - app) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let sine = t * c;
    for matrix in [&mut *a, vectors] {
        let (row_p, row_q) = matrix.multi_slice_mut((s![p, ..], s![q, ..]));
        Zip::from(row_p).and(row_q).for_each(|x, y| (*x, *y) = (c * *x - sine * *y, sine * *x + c * *y));
    }
    for k in 0..a.nrows() {
        if k != p && k != q {
            a[(k, p)] = a[(p, k)];
            a[(k, q)] = a[(q, k)];
        }
    }
    a[(p, p)] = app - t * apq;
    a[(q, q)] = aqq + t * apq;
    a[(p, q)] = 0.0;
    a[(q, p)] = 0.0;
}

#[cfg(test)]
mod tests;
