//! Some columns of rows, for the k-means of one part.

use std::ops::Range;

use ndarray::{Array2, ArrayViewMut2, s};

use crate::{Result, RowSource};

/// Some columns of a source, taken as its rows are read.
pub(super) struct Part<'a> {
    pub(super) source: &'a mut dyn RowSource,
    pub(super) columns: Range<usize>,
}

impl Part<'_> {
    fn is_whole(&self) -> bool {
        self.columns == (0..self.source.dim())
    }

    fn fill(
        &mut self,
        mut out: ArrayViewMut2<'_, f32>,
        read: impl FnOnce(&mut dyn RowSource, ArrayViewMut2<'_, f32>) -> Result<()>,
    ) -> Result<()> {
        if self.is_whole() {
            return read(self.source, out);
        }
        let mut rows = Array2::zeros((out.nrows(), self.source.dim()));
        read(self.source, rows.view_mut())?;
        out.assign(&rows.slice(s![.., self.columns.clone()]));
        Ok(())
    }
}

impl RowSource for Part<'_> {
    fn dim(&self) -> usize {
        self.columns.len()
    }

    fn len(&self) -> usize {
        self.source.len()
    }

    fn read(&mut self, start: usize, mut out: ArrayViewMut2<'_, f32>) -> Result<()> {
        let dim = self.source.dim();
        if let Some(rows) = self.source.slice(start, out.nrows()) {
            for (mut out, row) in out.outer_iter_mut().zip(rows.chunks_exact(dim)) {
                out.iter_mut().zip(&row[self.columns.clone()]).for_each(|(slot, &x)| *slot = x);
            }
            return Ok(());
        }
        self.fill(out, |source, out| source.read(start, out))
    }

    fn slice(&self, start: usize, count: usize) -> Option<&[f32]> {
        self.is_whole().then(|| self.source.slice(start, count)).flatten()
    }

    fn gather(&mut self, rows: &[usize], out: ArrayViewMut2<'_, f32>) -> Result<()> {
        self.fill(out, |source, out| source.gather(rows, out))
    }
}
