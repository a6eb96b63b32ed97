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

#[cfg(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64"))]
mod split;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64")))]
#[path = "matmul/no_split.rs"]
mod split;
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

/// A right operand laid out for the innermost loop.
///
/// ```
/// use genrec_kernels::matmul::{Panels, Target, View, product};
///
/// let (x, weight) = (vec![0.5; 200 * 40], vec![0.25; 40 * 50]);
/// let mut panels = Panels::for_many_rows();
/// panels.pack(View::new(&weight, 40, 50, 50)?);
/// let mut y = vec![0.0; 200 * 50];
/// product(View::new(&x, 200, 40, 40)?, &panels, Target::set(&mut y, 50))?;
/// assert!(y.iter().all(|y| *y == 5.0));
/// # Ok::<(), genrec_kernels::gemm::GemmError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Panels {
    rows: usize,
    cols: usize,
    layout: Layout,
}

#[derive(Clone, Debug)]
enum Layout {
    /// Panels of [`panel_width`] columns, each row-major, the last filled up with zeros.
    Vectors(Vec<f32>),
    Matrix(split::Tiles),
}

impl Default for Layout {
    fn default() -> Self {
        Self::Vectors(Vec::new())
    }
}

impl Panels {
    /// For products of many rows, a hundred or more: on a processor with a matrix unit (AMX) the operand is laid out for it,
    /// and [`product`] takes both as sums of three `bf16`. That is twice to three times as fast and as precise as `f32`, but
    /// that numbers below 1e-33 lose precision and what is not finite gives NaN. Elsewhere these are panels as any.
    pub fn for_many_rows() -> Self {
        let layout = split::Tiles::new().map_or_else(Layout::default, Layout::Matrix);
        Self { layout, ..Self::default() }
    }

    /// Packs the matrix `b`; the memory held is used again.
    pub fn pack(&mut self, b: View<'_>) {
        (self.rows, self.cols) = (b.rows, b.cols);
        match &mut self.layout {
            Layout::Vectors(values) => {
                let size = reserve(b, values);
                values.chunks_exact_mut(size).enumerate().for_each(|(panel, out)| pack_panel(b, panel, out));
            }
            Layout::Matrix(tiles) => tiles.pack(b),
        }
    }

    /// [`pack`](Self::pack) on all threads, for a large matrix that one call multiplies by.
    pub fn par_pack(&mut self, b: View<'_>) {
        (self.rows, self.cols) = (b.rows, b.cols);
        match &mut self.layout {
            Layout::Vectors(values) => {
                let size = reserve(b, values);
                values.par_chunks_exact_mut(size).enumerate().for_each(|(panel, out)| pack_panel(b, panel, out));
            }
            Layout::Matrix(tiles) => tiles.par_pack(b),
        }
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

/// Makes room for the panels of `b` and returns the elements of one, at least 1.
fn reserve(b: View<'_>, values: &mut Vec<f32>) -> usize {
    let width = panel_width();
    values.resize(b.cols.div_ceil(width) * b.rows * width, 0.0);
    (b.rows * width).max(1)
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
    let right = b.into();
    let (k, n) = match right {
        Right::Panels(panels) => (panels.rows, panels.cols),
        Right::Rows(view) => (view.rows, view.cols),
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
    let width = panel_width();
    let b = match right {
        Right::Panels(Panels { layout: Layout::Matrix(tiles), .. }) => {
            split::product(a, tiles, n, c);
            return Ok(());
        }
        Right::Panels(Panels { layout: Layout::Vectors(values), .. }) => {
            tile::Operand { values, panel_stride: k * width, row_stride: width }
        }
        Right::Rows(view) if view.col_stride == 1 || view.cols <= 1 => {
            tile::Operand { values: view.values, panel_stride: width, row_stride: view.row_stride }
        }
        Right::Rows(view) => {
            // A column-major operand has no contiguous rows to read.
            let mut panels = Panels::default();
            panels.pack(view);
            return product(a, &panels, c);
        }
    };
    tile::product(a, b, n, c);
    Ok(())
}

#[cfg(test)]
mod tests;
