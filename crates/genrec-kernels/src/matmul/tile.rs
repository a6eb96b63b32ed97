//! The innermost loop: a tile of the result held in registers over a block of the inner axis.

use core::mem::MaybeUninit;
use core::ptr::{read_unaligned, write_unaligned};

use pulp::{Arch, Simd, WithSimd};

use super::{Store, Target, View};

/// Length of a block of the inner axis: a panel of it takes half of a 48 KiB first-level cache.
const INNER: usize = 256;

/// Rows of a tile where there are 32 vector registers: 24 sums, two vectors of the right operand, one of the left.
const ROWS_32: usize = 12;

/// Rows of a tile where there are 16 of them.
const ROWS_16: usize = 6;

/// The widest panel of any processor, in elements.
const MAX_WIDTH: usize = 32;

struct Width;

impl WithSimd for Width {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        2 * S::F32_LANES
    }
}

pub(super) fn panel_width() -> usize {
    Arch::new().dispatch(Width)
}

/// The right operand: element (k, j) of panel p is `values[p * panel_stride + k * row_stride + j]`.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) values: &'a [f32],
    pub(super) panel_stride: usize,
    pub(super) row_stride: usize,
}

/// The product of operands that fit each other: `a` is not empty and `c` has the rows of `a` and `n` columns.
pub(super) fn product(a: View<'_>, b: Operand<'_>, n: usize, c: Target<'_>) {
    Arch::new().dispatch(Product { a, b, n, c });
}

struct Product<'a> {
    a: View<'a>,
    b: Operand<'a>,
    n: usize,
    c: Target<'a>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Product { a, b, n, c } = self;
        let Target { values, stride, store, spill } = c;
        let width = 2 * S::F32_LANES;
        // Not filled with zeros: most products never use it.
        let mut tail = MaybeUninit::<[f32; INNER * MAX_WIDTH]>::uninit();
        for start in (0..a.cols).step_by(INNER) {
            let inner = INNER.min(a.cols - start);
            let add = start > 0 || store == Store::Add;
            for (panel, first) in (0..n).step_by(width).enumerate() {
                let columns = width.min(n - first);
                let offset = panel * b.panel_stride + start * b.row_stride;
                let right = &b.values[offset..];
                // Whether the panel's last row can be read to its full width.
                let whole = right.len() >= (inner - 1) * b.row_stride + width;
                let block = if whole {
                    Block { values: right.as_ptr(), stride: b.row_stride, inner }
                } else {
                    let tail = tail.write([0.0; INNER * MAX_WIDTH]);
                    for (k, row) in tail.chunks_exact_mut(width).take(inner).enumerate() {
                        row[..columns].copy_from_slice(&right[k * b.row_stride..][..columns]);
                    }
                    Block { values: tail.as_ptr(), stride: width, inner }
                };
                let left = Left { view: a, start };
                let room = if spill { stride - first } else { columns };
                let mut out = Out { values: &mut *values, first, stride, columns, whole: room >= width, add };
                let mut row = 0;
                if S::REGISTER_COUNT >= 32 {
                    while row + ROWS_32 <= a.rows {
                        tile::<S, ROWS_32>(simd, left, row, block, &mut out);
                        row += ROWS_32;
                    }
                    match a.rows - row {
                        11 => tile::<S, 11>(simd, left, row, block, &mut out),
                        10 => tile::<S, 10>(simd, left, row, block, &mut out),
                        9 => tile::<S, 9>(simd, left, row, block, &mut out),
                        8 => tile::<S, 8>(simd, left, row, block, &mut out),
                        7 => tile::<S, 7>(simd, left, row, block, &mut out),
                        6 => tile::<S, 6>(simd, left, row, block, &mut out),
                        _ => {}
                    }
                    if a.rows - row >= ROWS_16 {
                        continue;
                    }
                }
                while row + ROWS_16 <= a.rows {
                    tile::<S, ROWS_16>(simd, left, row, block, &mut out);
                    row += ROWS_16;
                }
                match a.rows - row {
                    5 => tile::<S, 5>(simd, left, row, block, &mut out),
                    4 => tile::<S, 4>(simd, left, row, block, &mut out),
                    3 => tile::<S, 3>(simd, left, row, block, &mut out),
                    2 => tile::<S, 2>(simd, left, row, block, &mut out),
                    1 => tile::<S, 1>(simd, left, row, block, &mut out),
                    _ => {}
                }
            }
        }
    }
}

/// A block of the left operand's columns.
#[derive(Clone, Copy)]
struct Left<'a> {
    view: View<'a>,
    start: usize,
}

/// One panel of the right operand over a block of the inner axis; every row can be read to the panel's width.
#[derive(Clone, Copy)]
struct Block {
    values: *const f32,
    stride: usize,
    inner: usize,
}

/// The columns of the result under one panel.
struct Out<'a> {
    values: &'a mut [f32],
    first: usize,
    stride: usize,
    columns: usize,
    /// Whether the panel's whole width may be written.
    whole: bool,
    add: bool,
}

/// Computes `MR` rows of the result from row `row` on.
///
/// The sums are indexed by constants alone once the loops are unrolled, which is what keeps them in registers.
#[inline(always)]
fn tile<S: Simd, const MR: usize>(simd: S, left: Left<'_>, row: usize, block: Block, out: &mut Out<'_>) {
    let lanes = S::F32_LANES;
    let width = 2 * lanes;
    let View { values, row_stride, col_stride, .. } = left.view;
    let mut sums = [[simd.splat_f32s(0.0); 2]; MR];
    let mut a = values.as_ptr().wrapping_add(row * row_stride + left.start * col_stride);
    let mut b = block.values;
    for _ in 0..block.inner {
        // SAFETY: `Block` promises the panel's width in each of its rows.
        let (b0, b1): (S::f32s, S::f32s) =
            unsafe { (read_unaligned(b.cast()), read_unaligned(b.wrapping_add(lanes).cast())) };
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: rows `row..row + MR` and the block's columns lie within the view, which was checked against its
            // slice.
            let x = simd.splat_f32s(unsafe { *a.wrapping_add(i * row_stride) });
            sums[0] = simd.mul_add_e_f32s(x, b0, sums[0]);
            sums[1] = simd.mul_add_e_f32s(x, b1, sums[1]);
        }
        a = a.wrapping_add(col_stride);
        b = b.wrapping_add(block.stride);
    }
    let start = row * out.stride + out.first;
    if out.whole && start + (MR - 1) * out.stride + width <= out.values.len() {
        let c = out.values[start..].as_mut_ptr();
        for (i, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                let at = c.wrapping_add(i * out.stride + j * lanes).cast::<S::f32s>();
                // SAFETY: the last row's end was compared with the slice's just above.
                unsafe {
                    let value = if out.add { simd.add_f32s(read_unaligned(at), sum) } else { sum };
                    write_unaligned(at, value);
                }
            }
        }
        return;
    }
    let mut buffer = MaybeUninit::<[f32; ROWS_32 * MAX_WIDTH]>::uninit();
    let at = buffer.as_mut_ptr().cast::<f32>();
    for (i, sums) in sums.iter().enumerate() {
        for (j, &sum) in sums.iter().enumerate() {
            // SAFETY: a tile has at most `ROWS_32` rows of at most `MAX_WIDTH` elements.
            unsafe { write_unaligned(at.wrapping_add(i * width + j * lanes).cast(), sum) };
        }
    }
    // SAFETY: the first `MR * width` elements were written just above.
    let buffer = unsafe { core::slice::from_raw_parts(at, MR * width) };
    for (i, sums) in buffer.chunks_exact(width).enumerate() {
        let row = &mut out.values[start + i * out.stride..][..out.columns];
        for (c, &sum) in row.iter_mut().zip(sums) {
            *c = if out.add { *c + sum } else { sum };
        }
    }
}
