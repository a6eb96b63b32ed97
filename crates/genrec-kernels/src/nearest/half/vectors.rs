//! Dot products of pairs of `bf16` by vector instructions (AVX512-BF16: Zen 4, Cooper Lake and later): twice the products of an
//! instruction in `f32`.

#![allow(
    unsafe_code,
    reason = "the instruction is an intrinsic of one kind of processor; every slice is measured before"
)]

use core::arch::x86_64::{
    __m256bh, __m256i, __m512bh, __m512i, _mm256_mask_storeu_epi16, _mm512_cvtneps_pbh, _mm512_cvtpbh_ps,
    _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_maskz_loadu_ps, _mm512_reduce_add_ps,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::{BLOCK, DEPTH, ELEMENTS, Lengths, Operands, TILE};

/// Rows whose sums are in registers at once: twice as many vectors, for two tiles of codewords.
const ROWS: usize = 8;

/// Whether the processor has the instruction.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
}

/// Writes the rounded values of a row, `out` as long or longer, and returns the lengths.
pub(super) fn round_row(row: &[f32], out: &mut [u16]) -> Lengths {
    assert!(out.len() >= row.len());
    // SAFETY: the processor has the instructions, or the unit would not have been chosen; `out` is long enough.
    unsafe { round(row, out) }
}

/// # Safety
/// The processor has AVX512-BF16; `out` is as long as `row` or longer.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
unsafe fn round(row: &[f32], out: &mut [u16]) -> Lengths {
    let (mut whole, mut lost) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    for (row, out) in row.chunks(TILE).zip(out.chunks_mut(TILE)) {
        let lanes = u16::MAX >> (TILE - row.len());
        // SAFETY: the mask leaves the lanes of this part of the row, which `out` has too.
        unsafe {
            let values = _mm512_maskz_loadu_ps(lanes, row.as_ptr());
            let near = _mm512_cvtneps_pbh(values);
            _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), lanes, core::mem::transmute::<__m256bh, __m256i>(near));
            let off = _mm512_sub_ps(values, _mm512_cvtpbh_ps(near));
            whole = _mm512_fmadd_ps(values, values, whole);
            lost = _mm512_fmadd_ps(off, off, lost);
        }
    }
    Lengths { whole: _mm512_reduce_add_ps(whole).sqrt(), lost: _mm512_reduce_add_ps(lost).sqrt() }
}

/// All products; what fits what was checked.
pub(super) fn products(operands: &Operands<'_>, out: &mut [f32]) {
    let Operands { rows, words, chunks, stride } = *operands;
    let width = chunks * DEPTH;
    for (block, words) in words.chunks_exact(chunks * 2 * ELEMENTS).enumerate() {
        for (rows, out) in rows.chunks_exact(ROWS * width).zip(out.chunks_mut(ROWS * stride)) {
            let place = out[block * BLOCK..].as_mut_ptr();
            // SAFETY: the processor has the instruction, or it would not have been chosen; `rows` holds 8 rows of `chunks` times
            // 32 values, `words` two tiles a chunk, and `out` 8 rows of `stride` with 32 places from `block * 32` on, by the
            // caller's assertion.
            unsafe { block_of_products(rows.as_ptr(), words.as_ptr(), chunks, place, stride) };
        }
    }
}

/// 8 x 32 products over `chunks` times 32 dimensions.
///
/// # Safety
/// The processor has AVX512-BF16. `rows` points to 8 rows of `32 * chunks` values, `words` to `1024 * chunks` values, `out` to 8 rows of
/// `stride` `f32` of which 32 are written.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn block_of_products(rows: *const u16, words: *const u16, chunks: usize, out: *mut f32, stride: usize) {
    let width = chunks * DEPTH;
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for chunk in 0..chunks {
        for pair in 0..DEPTH / 2 {
            // SAFETY: within a chunk of two tiles, each of 16 pairs of dimensions by 16 codewords; and within a row. A vector of
            // integers and one of `bf16` are the same bits.
            unsafe {
                let words = words.add(chunk * 2 * ELEMENTS + pair * DEPTH);
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
