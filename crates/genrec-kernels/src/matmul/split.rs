//! Products in the precision of `f32` on the matrix unit, which multiplies `bf16`: each `f32` is the sum of three of them.
//!
//! $x = x_1 + x_2 + x_3$, where each part is what the first 8 bits of the rest hold, so that nothing is lost. Of the nine
//! products of parts the six largest are taken; those left out are below the rounding of `f32`. The five small ones come
//! first, as sums of small numbers lose little.

#![allow(unsafe_code, reason = "tile registers are reached by assembly alone; every slice is measured before")]

use core::arch::asm;
use std::cell::RefCell;
use std::ops::Range;

use pulp::bytemuck;
use rayon::prelude::*;

use super::{Store, Target, View};
use crate::amx::{BLOCK, DEPTH, TILE, available, with_tiles};
use crate::math::vectorized;

/// Parts of a number.
const PARTS: usize = 3;

/// Pairs of values in a tile.
const PAIRS: usize = TILE * DEPTH / 2;

/// Pairs of values of a block's 32 rows, or columns, over one depth: for each part two tiles.
const CHUNK: usize = PARTS * 2 * PAIRS;

/// Sums of a block: four tiles, one after another.
const SUMS: usize = BLOCK * BLOCK;

/// Rows of the left operand that pass by the right one together: their parts and sums stay in the second-level cache.
const GROUP: usize = 4 * BLOCK;

/// Blocks of the right operand's columns that pass together, for the same reason.
const COLUMNS: usize = 8;

/// Chunks that are multiplied before the sums go back to memory: those of 32 rows stay in the first-level cache.
const INNER: usize = 4;

/// What a thread's current product works with.
#[derive(Default)]
struct Buffers {
    /// The parts of the left operand.
    left: Vec<u32>,
    sums: Vec<f32>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// A right operand as the unit reads it: for each 32 columns and each 32 rows a chunk.
#[derive(Clone, Debug)]
pub(super) struct Tiles(Vec<u32>);

impl Tiles {
    /// None, where there is no unit.
    pub(super) fn new() -> Option<Self> {
        available().then(|| Self(Vec::new()))
    }

    pub(super) fn pack(&mut self, b: View<'_>) {
        let size = self.reserve(b);
        self.0.chunks_exact_mut(size).enumerate().for_each(|(block, out)| split_block(b.t(), block, Side::Right, out));
    }

    pub(super) fn par_pack(&mut self, b: View<'_>) {
        let size = self.reserve(b);
        let blocks = self.0.par_chunks_exact_mut(size).enumerate();
        blocks.for_each(|(block, out)| split_block(b.t(), block, Side::Right, out));
    }

    /// Makes room and returns the size of a block, at least 1.
    fn reserve(&mut self, b: View<'_>) -> usize {
        let size = b.rows.div_ceil(DEPTH) * CHUNK;
        self.0.resize(b.cols.div_ceil(BLOCK) * size, 0);
        size.max(1)
    }
}

/// Whose tiles: rows of values one after another, or rows of pairs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Writes the tiles of 32 rows, those of the left operand or of the transposed right one.
fn split_block(view: View<'_>, block: usize, side: Side, out: &mut [u32]) {
    vectorized(
        #[inline(always)]
        || {
            for (chunk, out) in out.chunks_exact_mut(CHUNK).enumerate() {
                for tile in 0..2 {
                    let parts = split_tile(view, block * BLOCK + tile * TILE, chunk * DEPTH, side);
                    for (part, values) in parts.iter().enumerate() {
                        out[(part * 2 + tile) * PAIRS..][..PAIRS].copy_from_slice(values);
                    }
                }
            }
        },
    );
}

/// The three parts of up to 16 rows and 32 columns, zeros beyond.
#[inline(always)]
fn split_tile(view: View<'_>, first: usize, start: usize, side: Side) -> [[u32; PAIRS]; PARTS] {
    let View { values, rows, cols, row_stride, col_stride } = view;
    let (rows, depth) = (rows.saturating_sub(first).min(TILE), cols.saturating_sub(start).min(DEPTH));
    let mut block = [0f32; TILE * DEPTH];
    let by_row = col_stride == 1;
    if by_row {
        for (row, out) in block.chunks_exact_mut(DEPTH).take(rows).enumerate() {
            out[..depth].copy_from_slice(&values[(first + row) * row_stride + start..][..depth]);
        }
    } else {
        for (col, out) in block.chunks_exact_mut(TILE).take(depth).enumerate() {
            // Of a view either rows or columns are contiguous.
            out[..rows].copy_from_slice(&values[(start + col) * col_stride + first..][..rows]);
        }
    }
    let mut parts = [[0u32; PAIRS]; PARTS];
    for part in &mut parts {
        let top = |value: &mut f32| {
            let bits = value.to_bits() & 0xffff_0000;
            *value -= f32::from_bits(bits);
            bits
        };
        if by_row {
            let halves: &mut [u16] = bytemuck::cast_slice_mut(part);
            halves.iter_mut().zip(&mut block).for_each(|(half, value)| *half = (top(value) >> 16) as u16);
        } else {
            for (pairs, values) in part.chunks_exact_mut(TILE).zip(block.chunks_exact_mut(2 * TILE)) {
                let (even, odd) = values.split_at_mut(TILE);
                for ((pair, even), odd) in pairs.iter_mut().zip(even).zip(odd) {
                    *pair = (top(even) >> 16) | top(odd);
                }
            }
        }
    }
    if by_row == (side == Side::Left) {
        return parts;
    }
    parts.map(|part| std::array::from_fn(|at| part[at % TILE * TILE + at / TILE]))
}

/// The product of operands that fit each other: `a` is not empty and `c` has the rows of `a` and `n` columns.
pub(super) fn product(a: View<'_>, b: &Tiles, n: usize, mut c: Target<'_>) {
    let chunks = a.cols.div_ceil(DEPTH);
    let size = chunks * CHUNK;
    assert!(b.0.len() == n.div_ceil(BLOCK) * size);
    BUFFERS.with_borrow_mut(|Buffers { left, sums }| {
        for top in (0..a.rows).step_by(GROUP) {
            let blocks = GROUP.min(a.rows - top).div_ceil(BLOCK);
            left.resize(blocks * size, 0);
            for (block, out) in left.chunks_exact_mut(size).enumerate() {
                split_block(a, top / BLOCK + block, Side::Left, out);
            }
            for (right, first) in b.0.chunks(COLUMNS * size).zip((0..n).step_by(COLUMNS * BLOCK)) {
                let across = right.len() / size * SUMS;
                sums.clear();
                sums.resize(blocks * across, 0.0);
                with_tiles(|| {
                    for start in (0..size).step_by(INNER * CHUNK) {
                        let inner = start..size.min(start + INNER * CHUNK);
                        for (left, sums) in left.chunks_exact(size).zip(sums.chunks_exact_mut(across)) {
                            for (right, sums) in right.chunks_exact(size).zip(sums.as_chunks_mut().0) {
                                add_products(&left[inner.clone()], &right[inner.clone()], sums);
                            }
                        }
                    }
                });
                let columns = first..n.min(first + COLUMNS * BLOCK);
                for (sums, block) in sums.chunks_exact(across).zip(0..) {
                    let row = top + block * BLOCK;
                    store_rows(sums, row..a.rows.min(row + BLOCK), columns.clone(), &mut c);
                }
            }
        }
    });
}

/// Takes the sums of up to 32 rows where they go.
fn store_rows(sums: &[f32], rows: Range<usize>, columns: Range<usize>, c: &mut Target<'_>) {
    let Target { stride, store, spill, .. } = *c;
    let end = if spill { columns.end.next_multiple_of(BLOCK).min(stride) } else { columns.end };
    vectorized(
        #[inline(always)]
        || {
            for (row, at) in rows.clone().zip(0..) {
                // The slice may end before the last row's padding does.
                let range = row * stride + columns.start..c.values.len().min(row * stride + end);
                let tiles = sums
                    .chunks_exact(SUMS)
                    .flat_map(|block| block[at / TILE * 2 * TILE * TILE..].chunks_exact(TILE * TILE).take(2));
                for (out, tile) in c.values[range].chunks_mut(TILE).zip(tiles) {
                    let sums = &tile[at % TILE * TILE..][..out.len()];
                    match store {
                        Store::Set => out.copy_from_slice(sums),
                        Store::Add => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
                    }
                }
            }
        },
    );
}

/// Adds 32 x 32 products over whole chunks; only within [`with_tiles`].
fn add_products(left: &[u32], right: &[u32], sums: &mut [f32; SUMS]) {
    assert!(left.len() == right.len() && left.len().is_multiple_of(CHUNK) && !left.is_empty());
    // SAFETY: either operand holds as many chunks as are read, `sums` four tiles; the tiles are configured, or the
    // processor would refuse the first instruction.
    unsafe {
        asm!(
            "tileloadd tmm0, [{sums} + {row}*1]",
            "tileloadd tmm1, [{sums} + {row}*1 + 1024]",
            "tileloadd tmm2, [{sums} + {row}*1 + 2048]",
            "tileloadd tmm3, [{sums} + {row}*1 + 3072]",
            "mov {a}, {left}",
            "mov {b}, {right}",
            "mov {count}, {chunks}",
            "2:",
            // 1 x 3
            "tileloadd tmm4, [{a} + {row}*1]",
            "tileloadd tmm6, [{b} + {row}*1 + 4096]",
            "tileloadd tmm7, [{b} + {row}*1 + 5120]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {row}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // 1 x 2
            "tileloadd tmm6, [{b} + {row}*1 + 2048]",
            "tileloadd tmm7, [{b} + {row}*1 + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // 2 x 2
            "tileloadd tmm4, [{a} + {row}*1 + 2048]",
            "tileloadd tmm5, [{a} + {row}*1 + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // 2 x 1
            "tileloadd tmm6, [{b} + {row}*1]",
            "tileloadd tmm7, [{b} + {row}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // 3 x 1
            "tileloadd tmm4, [{a} + {row}*1 + 4096]",
            "tileloadd tmm5, [{a} + {row}*1 + 5120]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 6144",
            "add {b}, 6144",
            "dec {count}",
            "jnz 2b",
            "mov {a}, {left}",
            "mov {b}, {right}",
            "mov {count}, {chunks}",
            "3:",
            // 1 x 1
            "tileloadd tmm4, [{a} + {row}*1]",
            "tileloadd tmm6, [{b} + {row}*1]",
            "tileloadd tmm7, [{b} + {row}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {row}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 6144",
            "add {b}, 6144",
            "dec {count}",
            "jnz 3b",
            "tilestored [{sums} + {row}*1], tmm0",
            "tilestored [{sums} + {row}*1 + 1024], tmm1",
            "tilestored [{sums} + {row}*1 + 2048], tmm2",
            "tilestored [{sums} + {row}*1 + 3072], tmm3",
            left = in(reg) left.as_ptr(),
            right = in(reg) right.as_ptr(),
            chunks = in(reg) left.len() / CHUNK,
            a = out(reg) _,
            b = out(reg) _,
            count = out(reg) _,
            row = in(reg) 64usize,
            sums = in(reg) sums.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
