//! Truncated singular value decomposition of a sparse symmetric matrix.

use faer::{Mat, MatRef};
use genrec::kernels::CounterRng;

use super::Entry;
use crate::BoxError;

/// Directions beyond those kept, so that the last kept ones are right too (Halko et al., section 4.2).
const OVERSAMPLE: usize = 10;
/// Products by the matrix between two looks at the basis: mutual information has a slowly falling spectrum.
const ITERATIONS: usize = 8;

/// `U sqrt(S)` of the leading singular triplets of a symmetric matrix `A`, by subspace iteration from a random start with
/// an orthonormal basis after every product (Halko, Martinsson and Tropp 2011, algorithm 4.4), then the decomposition of
/// `A Q` (algorithm 5.1, with `A = A^T`). The strongest component of every column is positive.
///
/// # Shapes
/// - `matrix`: entries of `(n, n)`, sorted by row
/// - result: `(n, k)`
pub(super) fn left_scaled(matrix: &[Entry], n: usize, k: usize, seed: u64) -> Result<Mat<f64>, BoxError> {
    let sketch = (k + OVERSAMPLE).min(n);
    let rng = CounterRng::new(seed).named("behaviour");
    let start = Mat::from_fn(n, sketch, |i, j| f64::from(rng.normal_at((i * sketch + j) as u64)));
    let mut basis = orthonormal(times(matrix, start.as_ref()).as_ref());
    for _ in 0..ITERATIONS {
        basis = orthonormal(times(matrix, basis.as_ref()).as_ref());
    }
    // A ~ Q Q^T A = Q (A Q)^T, and A Q = W S Z^T, so that A ~ (Q Z) S W^T.
    let projected = times(matrix, basis.as_ref());
    let svd = projected.thin_svd().map_err(|error| format!("co-occurrences have no decomposition: {error:?}"))?;
    let left = basis * svd.V();
    let values = svd.S().column_vector();
    let columns: Vec<f64> = (0..k)
        .map(|j| {
            let column = left.col(j);
            let strongest = column.iter().copied().fold(0.0_f64, |most, x| if x.abs() > most.abs() { x } else { most });
            values[j].max(0.0).sqrt() * if strongest < 0.0 { -1.0 } else { 1.0 }
        })
        .collect();
    Ok(Mat::from_fn(n, k, |i, j| left[(i, j)] * columns[j]))
}

fn orthonormal(matrix: MatRef<'_, f64>) -> Mat<f64> {
    matrix.qr().compute_thin_Q()
}

fn times(matrix: &[Entry], dense: MatRef<'_, f64>) -> Mat<f64> {
    let mut product = Mat::zeros(dense.nrows(), dense.ncols());
    // Columns are contiguous.
    for column in 0..dense.ncols() {
        for &(i, j, value) in matrix {
            product[(i, column)] += value * dense[(j, column)];
        }
    }
    product
}
