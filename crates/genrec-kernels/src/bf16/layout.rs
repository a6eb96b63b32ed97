//! Operands as the units read them: `f32` rounded to the nearest `bf16` and paired along the inner axis, a pair being a word of 32
//! bits.

#![allow(
    unsafe_code,
    reason = "the instructions are intrinsics of one kind of processor; every slice is measured before"
)]

use core::arch::x86_64::{
    __m256bh, __m256i, __m512bh, __m512i, _mm256_mask_storeu_epi16, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh,
    _mm512_cvtneps_pbh, _mm512_cvtpbh_ps, _mm512_fmadd_ps, _mm512_maskz_loadu_ps, _mm512_or_si512,
    _mm512_reduce_add_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_slli_epi32,
    _mm512_storeu_si512, _mm512_sub_ps, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64,
};

use super::{BLOCK, DEPTH, ELEMENTS, Lengths, Matrix, TILE, chunks};

/// The mask of the first lanes of a vector.
fn mask(lanes: usize) -> u16 {
    if lanes >= TILE { u16::MAX } else { (1 << lanes) - 1 }
}

/// Writes the rounded values of a row, `out` as long or longer, and returns the lengths.
pub(super) fn measured(row: &[f32], out: &mut [u16]) -> Lengths {
    assert!(out.len() >= row.len());
    // SAFETY: there is a unit, so the processor has the instructions; `out` is long enough.
    unsafe { round(row, out) }
}

/// # Safety
/// The processor has AVX512-BF16; `out` is as long as `row` or longer.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
unsafe fn round(row: &[f32], out: &mut [u16]) -> Lengths {
    let (mut whole, mut lost) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    for (row, out) in row.chunks(TILE).zip(out.chunks_mut(TILE)) {
        let lanes = mask(row.len());
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

/// Rows as they are.
pub(super) fn left(a: Matrix<'_>, out: &mut [u16]) {
    let width = chunks(a.cols) * DEPTH;
    for (row, out) in (0..a.rows).zip(out.chunks_exact_mut(width)) {
        for (chunk, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            // SAFETY: there is a unit, so the processor has the instructions.
            unsafe { store(along(a, row, chunk * DEPTH), out) }
        }
    }
}

/// Rows that are the columns of `a`.
pub(super) fn left_transposed(a: Matrix<'_>, out: &mut [u16]) {
    let width = chunks(a.rows) * DEPTH;
    for (first, out) in (0..a.cols).step_by(TILE).zip(out.chunks_exact_mut(TILE * width)) {
        for chunk in 0..chunks(a.rows) {
            // SAFETY: there is a unit, so the processor has the instructions.
            let words = unsafe { turned(across(a, chunk * DEPTH, first)) };
            for (words, out) in words.into_iter().zip(out.chunks_exact_mut(width)) {
                // SAFETY: as above.
                unsafe { store(words, &mut out.as_chunks_mut().0[chunk]) }
            }
        }
    }
}

/// Columns that are the columns of `b`.
pub(super) fn right(b: Matrix<'_>, out: &mut [u16]) {
    // SAFETY: there is a unit, so the processor has the instructions.
    tiles(b.rows, b.cols, out, |chunk, first| unsafe { across(b, chunk * DEPTH, first) });
}

/// Columns that are the rows of `b`.
pub(super) fn right_transposed(b: Matrix<'_>, out: &mut [u16]) {
    tiles(b.cols, b.rows, out, |chunk, first| {
        // SAFETY: there is a unit, so the processor has the instructions.
        unsafe { turned(core::array::from_fn(|row| along(b, first + row, chunk * DEPTH))) }
    });
}

/// Fills the tiles of a right operand; `tile(chunk, first column)` gives one.
#[inline(always)]
fn tiles(inner: usize, cols: usize, out: &mut [u16], tile: impl Fn(usize, usize) -> [__m512i; TILE]) {
    let chunks = chunks(inner);
    let firsts = (0..cols).step_by(BLOCK);
    for (first, out) in firsts.zip(out.chunks_exact_mut(chunks * 2 * ELEMENTS)) {
        for (index, out) in out.chunks_exact_mut(ELEMENTS).enumerate() {
            let words = tile(index / 2, first + index % 2 * TILE);
            for (words, out) in words.into_iter().zip(out.as_chunks_mut().0) {
                // SAFETY: there is a unit, so the processor has the instructions.
                unsafe { store(words, out) }
            }
        }
    }
}

/// 16 pairs of neighbours in a row from column `from` on, zeros beyond its ends.
///
/// # Safety
/// The processor has AVX512-BF16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
unsafe fn along(a: Matrix<'_>, row: usize, from: usize) -> __m512i {
    if row >= a.rows {
        return _mm512_setzero_si512();
    }
    let row = &a.values[row * a.stride..][..a.cols];
    let values = row.get(from..).unwrap_or_default();
    let (low, high) = values.split_at(values.len().min(TILE));
    // SAFETY: the masks leave what the slices hold. A vector of integers and one of `bf16` are the same bits.
    unsafe {
        let low = _mm512_maskz_loadu_ps(mask(low.len()), low.as_ptr());
        let high = _mm512_maskz_loadu_ps(mask(high.len()), high.as_ptr());
        core::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
    }
}

/// For 16 pairs of rows from row `from` on the pairs of 16 columns from column `first` on, zeros beyond the matrix.
///
/// # Safety
/// The processor has AVX512-BF16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
unsafe fn across(a: Matrix<'_>, from: usize, first: usize) -> [__m512i; TILE] {
    let rounded = |row: usize| {
        if row >= a.rows || first >= a.cols {
            return _mm512_setzero_si512();
        }
        let width = TILE.min(a.cols - first);
        let values = &a.values[row * a.stride + first..][..width];
        // SAFETY: the mask leaves what the slice holds. A vector of integers and one of `bf16` are the same bits.
        unsafe {
            let near = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask(width), values.as_ptr()));
            _mm512_cvtepu16_epi32(core::mem::transmute::<__m256bh, __m256i>(near))
        }
    };
    core::array::from_fn(|pair| {
        let row = from + 2 * pair;
        _mm512_or_si512(rounded(row), _mm512_slli_epi32::<16>(rounded(row + 1)))
    })
}

/// # Safety
/// The processor has AVX-512.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(words: __m512i, out: &mut [u16; DEPTH]) {
    // SAFETY: both are 64 bytes.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), words) }
}

/// Rows for columns, of 16 x 16 words: first within quarters of vectors, then the quarters.
#[inline]
#[target_feature(enable = "avx512f")]
fn turned(rows: [__m512i; TILE]) -> [__m512i; TILE] {
    let mut quads = rows;
    for (rows, quads) in rows.as_chunks::<4>().0.iter().zip(quads.as_chunks_mut::<4>().0) {
        let [a, b, c, d] = *rows;
        let (low, high) = ([a, c], [b, d]);
        let [ab, cd] = [0, 1].map(|i| _mm512_unpacklo_epi32(low[i], high[i]));
        let [ab_high, cd_high] = [0, 1].map(|i| _mm512_unpackhi_epi32(low[i], high[i]));
        *quads = [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ];
    }
    let mut out = quads;
    for column in 0..4 {
        let [a, b, c, d] = core::array::from_fn(|quad| quads[4 * quad + column]);
        let (even_ab, odd_ab) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        let (even_cd, odd_cd) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
        out[column] = _mm512_shuffle_i32x4::<0x88>(even_ab, even_cd);
        out[4 + column] = _mm512_shuffle_i32x4::<0x88>(odd_ab, odd_cd);
        out[8 + column] = _mm512_shuffle_i32x4::<0xdd>(even_ab, even_cd);
        out[12 + column] = _mm512_shuffle_i32x4::<0xdd>(odd_ab, odd_cd);
    }
    out
}
