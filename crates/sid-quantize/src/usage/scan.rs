//! Passes over all rows of a source.

use ndarray::{Array2, ArrayView2, Axis, s};

use crate::rows::{SCAN_ROWS, check_finite};
use crate::{QuantizeError, Quantizer, Result, RowSource};

/// The codes of every row of a source, read and encoded `batch` rows at a time (0 counts as 1).
///
/// # Shapes
/// - result: `(xs.len(), levels)`
///
/// # Errors
/// When the width is wrong, the rows cannot be read or hold NaN or an infinity, or a tensor operation fails.
pub fn encode_rows(quantizer: &dyn Quantizer, xs: &mut dyn RowSource, batch: usize) -> Result<Array2<u32>> {
    check_dim(quantizer.dim(), xs)?;
    let mut codes = Array2::zeros((xs.len(), quantizer.codebook_sizes().len()));
    scan(quantizer.dim(), xs, |first, block| {
        let part = quantizer.encode_array(block, batch)?;
        codes.slice_mut(s![first..first + block.nrows(), ..]).assign(&part);
        Ok(())
    })?;
    Ok(codes)
}

fn check_dim(expected: usize, xs: &dyn RowSource) -> Result<()> {
    let got = xs.dim();
    if got == expected { Ok(()) } else { Err(QuantizeError::DimMismatch { expected, got }) }
}

/// Reads all rows in order, checks them, and hands them over block by block with the first row's index.
pub(crate) fn scan(
    dim: usize,
    xs: &mut dyn RowSource,
    mut visit: impl FnMut(usize, ArrayView2<'_, f32>) -> Result<()>,
) -> Result<()> {
    pass(dim, xs, |first, block| {
        check_finite(block.view(), first)?;
        visit(first, block)
    })
}

/// [`scan`] of rows that were checked before.
pub(crate) fn pass(
    dim: usize,
    xs: &mut dyn RowSource,
    mut visit: impl FnMut(usize, ArrayView2<'_, f32>) -> Result<()>,
) -> Result<()> {
    check_dim(dim, xs)?;
    let rows = xs.len();
    let mut buffer = Array2::<f32>::zeros((0, dim));
    for first in (0..rows).step_by(SCAN_ROWS) {
        let count = (rows - first).min(SCAN_ROWS);
        if let Some(view) = xs.slice(first, count).and_then(|flat| ArrayView2::from_shape((count, dim), flat).ok()) {
            visit(first, view)?;
            continue;
        }
        if buffer.is_empty() {
            buffer = Array2::zeros((rows.min(SCAN_ROWS), dim));
        }
        let (mut block, _) = buffer.view_mut().split_at(Axis(0), count);
        xs.read(first, block.view_mut())?;
        visit(first, block.view())?;
    }
    Ok(())
}
