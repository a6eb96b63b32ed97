//! Products in `bf16` with sums in `f32`, by units of x86-64 processors that make more of them than `f32` allows.
//!
//! Either unit adds to sums the products of pairs of values along the inner axis: a row's pair with those of 16 columns, which is
//! how the right operand is laid out.

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod layout;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64", target_os = "linux"))]
mod tiles;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod vectors;

use std::sync::OnceLock;

/// Rows or columns of a tile.
const TILE: usize = 16;

/// Extent of a tile along the inner axis.
pub(crate) const DEPTH: usize = 32;

/// Elements of a tile of `bf16`.
const ELEMENTS: usize = TILE * DEPTH;

/// Rows, and columns, of the block of sums that stays in registers: two tiles each way.
pub(crate) const BLOCK: usize = 2 * TILE;

/// What multiplies. There is none on processors without such a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// The matrix unit, some ten times as fast as `f32`.
    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64", target_os = "linux"))]
    Tiles,
    /// Vector instructions, twice as fast.
    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
    Vectors,
}

/// A matrix in `f32`, row-major, whose rows start `stride` elements apart; its last row may end with the slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) stride: usize,
}

/// Of a vector: its length, and that of what rounding to `bf16` took away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    pub(crate) whole: f32,
    pub(crate) lost: f32,
}

/// Where sums go: the first `rows` rows and `cols` columns of a row-major matrix whose rows start `stride` elements apart.
#[derive(Debug)]
pub(crate) struct Sums<'a> {
    pub(crate) values: &'a mut [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) stride: usize,
    /// Whether to add to what is there, instead of overwriting it.
    pub(crate) add: bool,
    /// Whether columns up to the stride may be overwritten too, with products of what fills up the right operand.
    pub(crate) spill: bool,
}

/// Length of an axis in whole chunks of the inner axis.
pub(crate) fn chunks(inner: usize) -> usize {
    inner.div_ceil(DEPTH)
}

/// Elements of a left operand: rows to a multiple of 32, each of whole chunks.
pub(crate) fn left_len(rows: usize, inner: usize) -> usize {
    rows.next_multiple_of(BLOCK) * chunks(inner) * DEPTH
}

/// Elements of a right operand: for each 32 columns and each 32 of the inner axis two tiles of 16 columns: row by row
/// pairs along the inner axis, of all of them.
pub(crate) fn right_len(inner: usize, cols: usize) -> usize {
    cols.div_ceil(BLOCK) * chunks(inner) * 2 * ELEMENTS
}

impl Unit {
    /// The faster of the units that the processor has and the system lets this process use.
    pub(crate) fn fastest() -> Option<Self> {
        static UNIT: OnceLock<Option<Unit>> = OnceLock::new();
        *UNIT.get_or_init(|| Self::all().into_iter().next())
    }

    /// All units there are, the fastest first.
    pub(crate) fn all() -> Vec<Self> {
        #[cfg_attr(
            not(all(target_arch = "x86_64", target_pointer_width = "64")),
            expect(unused_mut, reason = "other processors have none")
        )]
        let mut units = Vec::new();
        #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
        if vectors::available() {
            #[cfg(target_os = "linux")]
            if tiles::available() {
                units.push(Self::Tiles);
            }
            units.push(Self::Vectors);
        }
        units
    }

    /// Inner extent below which rounding the rows of the left operand, and looking twice at the products, takes longer than
    /// what is saved.
    pub(crate) fn fewest_dimensions(self) -> usize {
        match self {
            #[cfg(all(target_arch = "x86_64", target_pointer_width = "64", target_os = "linux"))]
            Self::Tiles => 16,
            #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
            Self::Vectors => 64,
        }
    }

    /// Rounds a row into `out`, as long or longer, and measures what that took away.
    pub(crate) fn round_row(self, row: &[f32], out: &mut [u16]) -> Lengths {
        match self {
            #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
            _ => layout::measured(row, out),
        }
    }

    /// Lays out a left operand, or the transposed of a matrix as one; `out` has its [length](left_len). Rows beyond the
    /// last are left as they are.
    pub(crate) fn left(self, a: Matrix<'_>, transposed: bool, out: &mut [u16]) {
        match self {
            #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
            _ if transposed => layout::left_transposed(a, out),
            #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
            _ => layout::left(a, out),
        }
    }

    /// Lays out a right operand, or the transposed of a matrix as one; `out` has its [length](right_len).
    pub(crate) fn right(self, b: Matrix<'_>, transposed: bool, out: &mut [u16]) {
        match self {
            #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
            _ if transposed => layout::right_transposed(b, out),
            #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
            _ => layout::right(b, out),
        }
    }

    /// Multiplies a left by a right operand. Each sum runs from the first to the last of the inner axis, whatever its neighbours.
    pub(crate) fn product(self, left: &[u16], right: &[u16], inner: usize, sums: Sums<'_>) {
        if sums.rows == 0 || sums.cols == 0 {
            return;
        }
        let fits = left.len() >= left_len(sums.rows, inner) && right.len() >= right_len(inner, sums.cols);
        let end = sums.rows.saturating_sub(1) * sums.stride + sums.cols;
        assert!(fits && inner > 0 && sums.stride >= sums.cols && sums.values.len() >= end);
        match self {
            #[cfg(all(target_arch = "x86_64", target_pointer_width = "64", target_os = "linux"))]
            Self::Tiles => tiles::product(left, right, chunks(inner), sums),
            #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
            Self::Vectors => vectors::product(left, right, chunks(inner), sums),
        }
    }
}

/// Where one block of sums is computed: pointers to 32 rows of the left operand, to the tiles of 32 columns, and to 32 rows of
/// sums that start `stride` elements apart.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[derive(Clone, Copy)]
struct Block {
    rows: *const u16,
    tiles: *const u16,
    chunks: usize,
    out: *mut f32,
    stride: usize,
    add: bool,
}

/// Calls `block` for every 32 x 32 sums; those at an edge, which have no room of their own, are computed aside.
///
/// The tiles of 32 columns stay in the first-level cache while all rows pass by.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
fn each_block(left: &[u16], right: &[u16], chunks: usize, sums: Sums<'_>, block: impl Fn(Block)) {
    let Sums { values, rows, cols, stride, add, spill } = sums;
    let room = if spill { stride } else { cols };
    let mut aside = [0f32; BLOCK * BLOCK];
    for (first, tiles) in (0..cols).step_by(BLOCK).zip(right.chunks_exact(chunks * 2 * ELEMENTS)) {
        for (top, left) in (0..rows).step_by(BLOCK).zip(left.chunks_exact(BLOCK * chunks * DEPTH)) {
            let start = top * stride + first;
            let (left, tiles) = (left.as_ptr(), tiles.as_ptr());
            let whole =
                top + BLOCK <= rows && first + BLOCK <= room && start + (BLOCK - 1) * stride + BLOCK <= values.len();
            if whole {
                let out = values[start..].as_mut_ptr();
                block(Block { rows: left, tiles, chunks, out, stride, add });
                continue;
            }
            block(Block { rows: left, tiles, chunks, out: aside.as_mut_ptr(), stride: BLOCK, add: false });
            let width = BLOCK.min(cols - first);
            for (row, sums) in aside.chunks_exact(BLOCK).take(rows - top).enumerate() {
                let out = &mut values[start + row * stride..][..width];
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = if add { *out + sum } else { *sum };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
