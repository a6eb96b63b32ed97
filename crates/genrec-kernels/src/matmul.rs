//! Products of matrices that stay in the cache, on the calling thread: strided operands, weights packed once.
//!
//! [`mod@crate::gemm`] packs both operands anew in every call and shares one large product among threads. A model that
//! gives each thread examples of its own multiplies small matrices by the same weights thousands of times: here the
//! right operand is packed once ([`Panels`]), the left one is read where it lies, and nothing is allocated but for a right
//! operand that is column-major and not packed.
//!
//! The sum over the inner axis runs in blocks of a fixed length from first to last, so that an element of a product
//! depends on its row and column alone, not on how many rows are multiplied with it.

#![allow(unsafe_code, reason = "the innermost loop reads through pointers; every view is checked when it is made")]

mod tile;

use std::ops::Range;

use rayon::prelude::*;

use crate::gemm::GemmError;
use crate::math::vectorized;

/// Columns of a panel: two vectors of the processor.
pub fn panel_width() -> usize {
    tile::panel_width()
}

/// `columns` rounded up to whole panels: the row stride at which no product has an edge to treat apart.
pub fn padded(columns: usize) -> usize {
    columns.next_multiple_of(panel_width())
}

/// A matrix in a slice, with any distance between rows and between columns.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix whose rows start `stride` elements apart.
    ///
    /// # Errors
    /// [`GemmError::Length`], which calls the matrix `view`, when the slice ends before the last element, or rows overlap.
    pub fn new(values: &'a [f32], rows: usize, cols: usize, stride: usize) -> Result<Self, GemmError> {
        check("view", values.len(), rows, cols, stride)?;
        Ok(Self { values, rows, cols, row_stride: stride, col_stride: 1 })
    }

    /// Some of its rows.
    ///
    /// # Errors
    /// [`GemmError::Length`], which calls the matrix `rows`, when there are fewer.
    pub fn rows(self, range: Range<usize>) -> Result<Self, GemmError> {
        let Range { start, end } = range;
        if start > end || end > self.rows {
            let (rows, got) = (end.saturating_sub(start), self.rows.saturating_sub(start));
            return Err(GemmError::Length { operand: "rows", rows, cols: self.cols, expected: rows, got });
        }
        let values = self.values.get(start * self.row_stride..).unwrap_or_default();
        Ok(Self { values, rows: end - start, ..self })
    }

    /// The same elements with rows for columns.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            values: self.values,
        }
    }
}

/// Checks that a row-major matrix lies within `len` elements.
fn check(operand: &'static str, len: usize, rows: usize, cols: usize, stride: usize) -> Result<(), GemmError> {
    let expected = match rows {
        0 => 0,
        rows => (rows - 1).saturating_mul(stride).saturating_add(cols),
    };
    if len < expected || (rows > 1 && stride < cols) {
        return Err(GemmError::Length { operand, rows, cols, expected: expected.max(cols), got: len });
    }
    Ok(())
}

/// A right operand laid out for the innermost loop: panels of [`panel_width`] columns, each row-major, the last filled
/// up with zeros.
#[derive(Clone, Debug, Default)]
pub struct Panels {
    rows: usize,
    cols: usize,
    width: usize,
    values: Vec<f32>,
}

impl Panels {
    /// Packs the matrix `b`; the memory held is used again.
    pub fn pack(&mut self, b: View<'_>) {
        let size = self.reserve(b);
        for (panel, out) in self.values.chunks_exact_mut(size).enumerate() {
            pack_panel(b, panel, out);
        }
    }

    /// [`pack`](Self::pack) on all threads, for a large matrix that one call multiplies by.
    pub fn par_pack(&mut self, b: View<'_>) {
        let size = self.reserve(b);
        self.values.par_chunks_exact_mut(size).enumerate().for_each(|(panel, out)| pack_panel(b, panel, out));
    }

    /// Takes the shape of `b` and returns the elements of a panel, at least 1.
    fn reserve(&mut self, b: View<'_>) -> usize {
        let width = panel_width();
        self.values.resize(b.cols.div_ceil(width) * b.rows * width, 0.0);
        (self.rows, self.cols, self.width) = (b.rows, b.cols, width);
        (b.rows * width).max(1)
    }

    /// The inner axis.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns packed, without the zeros.
    pub fn cols(&self) -> usize {
        self.cols
    }
}

/// Writes one panel, filled up with zeros.
fn pack_panel(b: View<'_>, panel: usize, out: &mut [f32]) {
    let width = panel_width();
    let first = panel * width;
    let cols = width.min(b.cols - first);
    if b.col_stride != 1 {
        return transpose(b, first, cols, out, width);
    }
    for (row, out) in out.chunks_exact_mut(width).enumerate() {
        let start = row * b.row_stride + first;
        out[..cols].copy_from_slice(&b.values[start..start + cols]);
        out[cols..].fill(0.0);
    }
}

/// Writes columns `first..first + cols` of a matrix whose columns are contiguous row by row, a square at a time so that both sides stay
/// in the cache.
fn transpose(b: View<'_>, first: usize, cols: usize, out: &mut [f32], width: usize) {
    const SIDE: usize = 16;
    vectorized(
        #[inline(always)]
        || {
            for (block, out) in out.chunks_mut(SIDE * width).enumerate() {
                let top = block * SIDE;
                for col in 0..cols {
                    let start = (first + col) * b.col_stride + top;
                    let rows = out.len() / width;
                    for (out, &value) in out[col..].iter_mut().step_by(width).zip(&b.values[start..start + rows]) {
                        *out = value;
                    }
                }
                for out in out.chunks_exact_mut(width) {
                    out[cols..].fill(0.0);
                }
            }
        },
    );
}

/// The right operand of a [`product`].
#[derive(Clone, Copy, Debug)]
pub enum Right<'a> {
    /// Packed beforehand.
    Panels(&'a Panels),
    /// Row-major, read where it lies: right for a product that is computed once.
    Rows(View<'a>),
}

impl<'a> From<&'a Panels> for Right<'a> {
    fn from(panels: &'a Panels) -> Self {
        Self::Panels(panels)
    }
}

impl<'a> From<View<'a>> for Right<'a> {
    fn from(view: View<'a>) -> Self {
        Self::Rows(view)
    }
}

/// What a [`product`] does with the values that its result replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Overwrites them; they are not read.
    Set,
    /// Adds to them.
    Add,
}

/// Where the result of a [`product`] goes: a row-major matrix.
#[derive(Debug)]
pub struct Target<'a> {
    values: &'a mut [f32],
    stride: usize,
    store: Store,
    spill: bool,
}

impl<'a> Target<'a> {
    /// Rows that start `stride` elements apart, to be overwritten. What lies between the rows is left as it is.
    pub fn set(values: &'a mut [f32], stride: usize) -> Self {
        Self { values, stride, store: Store::Set, spill: false }
    }

    /// Rows that start `stride` elements apart, to be added to. What lies between the rows is left as it is.
    pub fn add(values: &'a mut [f32], stride: usize) -> Self {
        Self { values, stride, store: Store::Add, spill: false }
    }

    /// Lets a product by packed [`Panels`] write zeros into the rest of each row, up to the next multiple of
    /// [`panel_width`] where the stride has room for it: at a stride of [`padded`] no column is treated apart. Products
    /// by rows leave the rest undefined there.
    #[must_use]
    pub fn with_padding(mut self) -> Self {
        self.spill = true;
        self
    }
}

/// `c = a b`, or `c += a b`.
///
/// # Shapes
/// `a`: `(m, k)`; `b`: `(k, n)`; `c`: `(m, n)`.
///
/// ```
/// use genrec_kernels::matmul::{Panels, Target, View, product};
///
/// let (x, weight) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
/// let mut panels = Panels::default();
/// panels.pack(View::new(&weight, 2, 2, 2)?.t());
/// let mut y = [0.0; 4];
/// product(View::new(&x, 2, 2, 2)?, &panels, Target::set(&mut y, 2))?;
/// assert_eq!(y, [17.0, 23.0, 39.0, 53.0]);
/// # Ok::<(), genrec_kernels::gemm::GemmError>(())
/// ```
///
/// # Errors
/// [`GemmError::Length`] when an operand does not fit the others.
pub fn product<'b>(a: View<'_>, b: impl Into<Right<'b>>, c: Target<'_>) -> Result<(), GemmError> {
    let (b, k, n) = match b.into() {
        Right::Panels(p) => {
            let panel = tile::Operand { values: &p.values, panel_stride: p.rows * p.width, row_stride: p.width };
            (panel, p.rows, p.cols)
        }
        Right::Rows(view) if view.col_stride == 1 || view.cols <= 1 => {
            let rows = tile::Operand { values: view.values, panel_stride: panel_width(), row_stride: view.row_stride };
            (rows, view.rows, view.cols)
        }
        Right::Rows(view) => {
            // A column-major operand has no contiguous rows to read.
            let mut panels = Panels::default();
            panels.pack(view);
            return product(a, &panels, c);
        }
    };
    if a.cols != k {
        return Err(GemmError::Inner { a: a.cols, b: k });
    }
    check("c", c.values.len(), a.rows, n, c.stride)?;
    let mut c = c;
    if a.rows == 1 {
        // One row has no stride; a shorter one would only mislead.
        c.stride = c.stride.max(n);
    }
    if a.rows == 0 || n == 0 {
        return Ok(());
    }
    if k == 0 {
        if c.store == Store::Set {
            c.values.chunks_mut(c.stride.max(1)).take(a.rows).for_each(|row| row[..n].fill(0.0));
        }
        return Ok(());
    }
    tile::product(a, b, n, c);
    Ok(())
}

#[cfg(test)]
mod tests;
