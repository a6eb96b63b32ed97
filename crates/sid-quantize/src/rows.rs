//! Where embeddings come from: memory or files larger than memory.

mod file;
#[cfg(feature = "parquet")]
mod parquet;

pub use file::FileRows;
#[cfg(feature = "parquet")]
pub use parquet::ParquetRows;

use ndarray::{ArrayView2, ArrayViewMut2, CowArray, Ix2, s};

use crate::{QuantizeError, Result};

/// Rows read in one call while a source is scanned from start to end.
pub(crate) const SCAN_ROWS: usize = 9216;

/// A matrix of f32 rows that can be read in pieces, so that it need not fit in memory.
///
/// Reads may come in any order and more than once. [`ArrayRows`] serves from memory, [`FileRows`] from `.npy` and
/// safetensors files.
pub trait RowSource {
    /// Columns of a row.
    fn dim(&self) -> usize;

    /// Number of rows.
    fn len(&self) -> usize;

    /// Whether there is no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the consecutive rows `start..start + out.nrows()`.
    ///
    /// # Shapes
    /// - `out`: `(rows, dim)`
    ///
    /// # Errors
    /// When the range runs past the end, `out` has another width, or the medium fails.
    fn read(&mut self, start: usize, out: ArrayViewMut2<'_, f32>) -> Result<()>;

    /// The values of `count` rows from `start` on where they lie in memory, row after row; `None` where they have to be
    /// read. What scans the rows reads them there instead of copying them.
    fn slice(&self, start: usize, count: usize) -> Option<&[f32]> {
        let _ = (start, count);
        None
    }

    /// Reads the rows of the given indices, in the order given.
    ///
    /// The default makes one [`read`](Self::read) for each run of consecutive indices.
    ///
    /// # Shapes
    /// - `out`: `(rows.len(), dim)`
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn gather(&mut self, rows: &[usize], mut out: ArrayViewMut2<'_, f32>) -> Result<()> {
        let mut first = 0;
        while first < rows.len() {
            let mut end = first + 1;
            while end < rows.len() && rows[end] == rows[end - 1] + 1 {
                end += 1;
            }
            self.read(rows[first], out.slice_mut(s![first..end, ..]))?;
            first = end;
        }
        Ok(())
    }
}

/// Rows of an array in memory, borrowed or owned.
///
/// ```
/// use ndarray::array;
/// use sid_quantize::{ArrayRows, RowSource};
///
/// let rows = ArrayRows::from(array![[1.0_f32, 2.0], [3.0, 4.0], [5.0, 6.0]]);
/// assert_eq!((rows.len(), rows.dim()), (3, 2));
/// ```
#[derive(Clone, Debug)]
pub struct ArrayRows<'a> {
    rows: CowArray<'a, f32, Ix2>,
}

impl<'a, T: Into<CowArray<'a, f32, Ix2>>> From<T> for ArrayRows<'a> {
    fn from(rows: T) -> Self {
        Self { rows: rows.into() }
    }
}

impl ArrayRows<'_> {
    /// All rows.
    pub fn view(&self) -> ArrayView2<'_, f32> {
        self.rows.view()
    }
}

impl RowSource for ArrayRows<'_> {
    fn dim(&self) -> usize {
        self.rows.ncols()
    }

    fn len(&self) -> usize {
        self.rows.nrows()
    }

    fn read(&mut self, start: usize, mut out: ArrayViewMut2<'_, f32>) -> Result<()> {
        let end = check_read(self.len(), self.dim(), start, &out)?;
        out.assign(&self.rows.slice(s![start..end, ..]));
        Ok(())
    }

    fn slice(&self, start: usize, count: usize) -> Option<&[f32]> {
        let dim = self.dim();
        self.rows.as_slice()?.get(start.checked_mul(dim)?..start.checked_add(count)?.checked_mul(dim)?)
    }
}

/// Checks a read against the source's shape and returns its end.
pub(crate) fn check_read(len: usize, dim: usize, start: usize, out: &ArrayViewMut2<'_, f32>) -> Result<usize> {
    if out.ncols() != dim {
        return Err(QuantizeError::DimMismatch { expected: dim, got: out.ncols() });
    }
    let end = start.saturating_add(out.nrows());
    if end > len {
        return Err(QuantizeError::RowsOutOfRange { start, end, len });
    }
    Ok(end)
}

/// Fails on the first row that holds NaN or an infinity; `first` is the index of the block's first row.
pub(crate) fn check_finite(block: ArrayView2<'_, f32>, first: usize) -> Result<()> {
    for (row, values) in block.outer_iter().enumerate() {
        if let Some(column) = values.iter().position(|value| !value.is_finite()) {
            return Err(QuantizeError::RowNotFinite { row: first + row, column });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
