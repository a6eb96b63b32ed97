//! What levels leave of rows.

use ndarray::{Array2, ArrayViewMut2};

use crate::{Result, RowSource};

/// The rows that the levels so far leave, computed as they are read.
pub(super) struct Residuals<'a> {
    pub(super) source: &'a mut dyn RowSource,
    pub(super) levels: Vec<(Array2<f32>, Vec<u32>)>,
}

impl Residuals<'_> {
    fn subtract(&self, rows: impl Iterator<Item = usize>, mut out: ArrayViewMut2<'_, f32>) {
        for (row, mut residual) in rows.zip(out.outer_iter_mut()) {
            for (centroids, codes) in &self.levels {
                residual -= &centroids.row(codes[row] as usize);
            }
        }
    }
}

impl RowSource for Residuals<'_> {
    fn dim(&self) -> usize {
        self.source.dim()
    }

    fn len(&self) -> usize {
        self.source.len()
    }

    fn read(&mut self, start: usize, mut out: ArrayViewMut2<'_, f32>) -> Result<()> {
        self.source.read(start, out.view_mut())?;
        self.subtract(start.., out);
        Ok(())
    }

    /// The first level's rows are the source's own.
    fn slice(&self, start: usize, count: usize) -> Option<&[f32]> {
        self.levels.is_empty().then(|| self.source.slice(start, count)).flatten()
    }

    fn gather(&mut self, rows: &[usize], mut out: ArrayViewMut2<'_, f32>) -> Result<()> {
        self.source.gather(rows, out.view_mut())?;
        self.subtract(rows.iter().copied(), out);
        Ok(())
    }
}
