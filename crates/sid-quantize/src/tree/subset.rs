//! Some rows of a source as a source of their own.

use ndarray::{ArrayViewMut2, s};

use crate::rows::check_read;
use crate::{Result, RowSource};

/// The rows of a source that a list names, read when they are asked for.
pub(super) struct Subset<'a> {
    source: &'a mut dyn RowSource,
    rows: &'a [usize],
}

impl<'a> Subset<'a> {
    /// The rows of these indices, which ascend.
    pub(super) fn new(source: &'a mut dyn RowSource, rows: &'a [usize]) -> Self {
        Self { source, rows }
    }
}

impl RowSource for Subset<'_> {
    fn dim(&self) -> usize {
        self.source.dim()
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn read(&mut self, start: usize, out: ArrayViewMut2<'_, f32>) -> Result<()> {
        let end = check_read(self.len(), self.dim(), start, &out)?;
        self.source.gather(&self.rows[start..end], out)
    }

    fn slice(&self, start: usize, count: usize) -> Option<&[f32]> {
        let rows = self.rows.get(start..start.checked_add(count)?)?;
        let (first, last) = (*rows.first()?, *rows.last()?);
        // Ascending indices that are as many as the numbers between their ends leave none out.
        (last - first + 1 == count).then(|| self.source.slice(first, count)).flatten()
    }

    fn gather(&mut self, rows: &[usize], mut out: ArrayViewMut2<'_, f32>) -> Result<()> {
        if let Some(&past) = rows.iter().find(|&&row| row >= self.len()) {
            check_read(self.len(), self.dim(), past, &out.slice_mut(s![..1, ..]))?;
        }
        let rows: Vec<usize> = rows.iter().map(|&row| self.rows[row]).collect();
        self.source.gather(&rows, out)
    }
}
