//! Dot products of pairs of `bf16` by vector instructions (AVX512-BF16: Zen 4, Cooper Lake and later): twice the products of an
//! instruction in `f32`.

#![allow(
    unsafe_code,
    reason = "the instruction is an intrinsic of one kind of processor; every slice is measured before"
)]

use core::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use super::{BLOCK, Block, DEPTH, ELEMENTS, Sums, TILE, each_block};

/// Rows whose sums are in registers at once: twice as many vectors, for two tiles of codewords.
const ROWS: usize = 8;

/// Whether the processor has the instruction.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
}

/// The product of operands that fit each other.
pub(super) fn product(left: &[u16], right: &[u16], chunks: usize, sums: Sums<'_>) {
    each_block(left, right, chunks, sums, |block| {
        for row in (0..BLOCK).step_by(ROWS) {
            let rows = block.rows.wrapping_add(row * block.chunks * DEPTH);
            let out = block.out.wrapping_add(row * block.stride);
            // SAFETY: the processor has the instruction, or it would not have been chosen; `each_block` promises the rows, the
            // tiles and the place of 32 x 32 sums, of which these are eight rows.
            unsafe { add_up(Block { rows, out, ..block }) }
        }
    });
}

/// 8 x 32 sums.
///
/// # Safety
/// The processor has AVX512-BF16. `rows` points to 8 rows of `32 * chunks` values, `tiles` to `1024 * chunks` values, `out` to 8 rows of
/// `stride` `f32` of which 32 are read and written.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn add_up(block: Block) {
    let Block { rows, tiles, chunks, out, stride, add } = block;
    let width = chunks * DEPTH;
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    if add {
        for (row, sums) in sums.iter_mut().enumerate() {
            let out = out.wrapping_add(row * stride);
            // SAFETY: 32 places of a row, by the caller.
            *sums = unsafe { [_mm512_loadu_ps(out), _mm512_loadu_ps(out.add(TILE))] };
        }
    }
    for chunk in 0..chunks {
        for pair in 0..DEPTH / 2 {
            // SAFETY: within a chunk of two tiles, each of 16 pairs of the inner axis by 16 columns; and within a row. A vector of
            // integers and one of `bf16` are the same bits.
            unsafe {
                let words = tiles.add(chunk * 2 * ELEMENTS + pair * DEPTH);
                let [left, right] = [words, words.add(ELEMENTS)]
                    .map(|words| core::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(words.cast())));
                for (row, [low, high]) in sums.iter_mut().enumerate() {
                    let value = rows.add(row * width + chunk * DEPTH + 2 * pair).cast::<i32>().read_unaligned();
                    let value = core::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(value));
                    *low = _mm512_dpbf16_ps(*low, value, left);
                    *high = _mm512_dpbf16_ps(*high, value, right);
                }
            }
        }
    }
    for (row, [low, high]) in sums.into_iter().enumerate() {
        // SAFETY: 32 places of a row, by the caller.
        unsafe {
            let out = out.add(row * stride);
            _mm512_storeu_ps(out, low);
            _mm512_storeu_ps(out.add(TILE), high);
        }
    }
}
