//! The least of a row of distances.

use pulp::{Arch, Simd, WithSimd, bytemuck};

/// For each row of products the index of the least `half_norms[j] - products[j]`, the first of equals; 0 where none is
/// finite.
///
/// `half_norms` is as long as a row, a whole number of vectors.
pub(super) fn lowest(products: &[f32], half_norms: &[f32], codes: &mut [u32]) {
    Arch::new().dispatch(Lowest { products, half_norms, codes });
}

/// What is known of products that are not exact: of the half distance of row `i` to codeword `j` that it is off by no more
/// than `slack(i).0 * lengths[j] + slack(i).1`.
pub(super) struct Within<'a, F> {
    pub(super) slack: F,
    /// As long as a row.
    pub(super) lengths: &'a [f32],
    /// Gets `(row, code)` of all codes that are left for a row where they are more than one: row by row, codes ascending.
    pub(super) unsure: &'a mut Vec<(u32, u32)>,
}

/// [`lowest`] of products that are not exact.
pub(super) fn lowest_within(
    products: &[f32],
    half_norms: &[f32],
    codes: &mut [u32],
    within: Within<'_, impl Fn(usize) -> (f32, f32)>,
) {
    Arch::new().dispatch(LowestWithin { products, half_norms, codes, within });
}

struct Lowest<'a> {
    products: &'a [f32],
    half_norms: &'a [f32],
    codes: &'a mut [u32],
}

impl WithSimd for Lowest<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { products, half_norms, codes } = self;
        let (norms, _) = S::as_simd_f32s(half_norms);
        for (products, code) in products.chunks_exact(half_norms.len()).zip(codes) {
            let (products, _) = S::as_simd_f32s(products);
            // Where one of two is NaN, `min` takes the other, or NaN, which no value below equals.
            let least = products
                .iter()
                .zip(norms)
                .fold(simd.splat_f32s(f32::INFINITY), |least, (&p, &h)| simd.min_f32s(simd.sub_f32s(h, p), least));
            let least = simd.reduce_min_f32s(least);
            *code = 0;
            if !least.is_finite() && least != f32::NEG_INFINITY {
                continue;
            }
            let wanted = simd.splat_f32s(least);
            for (at, (&p, &h)) in products.iter().zip(norms).enumerate() {
                let equal = simd.equal_f32s(simd.sub_f32s(h, p), wanted);
                if let Some(lane) = first(simd, equal) {
                    *code = (at * S::F32_LANES + lane) as u32;
                    break;
                }
            }
        }
    }
}

struct LowestWithin<'a, F> {
    products: &'a [f32],
    half_norms: &'a [f32],
    codes: &'a mut [u32],
    within: Within<'a, F>,
}

impl<F: Fn(usize) -> (f32, f32)> WithSimd for LowestWithin<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { products, half_norms, codes, within: Within { slack, lengths, unsure } } = self;
        let ((norms, _), (lengths, _)) = (S::as_simd_f32s(half_norms), S::as_simd_f32s(lengths));
        for (row, (products, code)) in products.chunks_exact(half_norms.len()).zip(codes).enumerate() {
            let (products, _) = S::as_simd_f32s(products);
            let (factor, rest) = slack(row);
            let factor = simd.splat_f32s(factor);
            // The least that any distance is at most.
            let mut least = simd.splat_f32s(f32::INFINITY);
            for ((&p, &h), &length) in products.iter().zip(norms).zip(lengths) {
                least = simd.min_f32s(simd.mul_add_f32s(factor, length, simd.sub_f32s(h, p)), least);
            }
            let least = simd.reduce_min_f32s(least);
            *code = 0;
            if !least.is_finite() {
                // Of products that are not exact one may be infinite alone: all are left.
                unsure.extend((0..half_norms.len() as u32).map(|code| (row as u32, code)));
                continue;
            }
            let bound = simd.splat_f32s(least + 2.0 * rest);
            let before = unsure.len();
            for (at, ((&p, &h), &length)) in products.iter().zip(norms).zip(lengths).enumerate() {
                let at_least = simd.sub_f32s(simd.sub_f32s(h, p), simd.mul_f32s(factor, length));
                // Not above: a bound that is no number leaves all.
                let above = simd.greater_than_f32s(at_least, bound);
                each_unset(simd, above, |lane| unsure.push((row as u32, (at * S::F32_LANES + lane) as u32)));
            }
            if let [(_, only)] = unsure[before..] {
                *code = only;
                unsure.truncate(before);
            }
        }
    }
}

/// The first lane that is set.
///
/// Of a mask of bits pulp 0.22's `first_true_m32s` counts from the last lane: here it only tells whether there is one.
#[inline(always)]
fn first<S: Simd>(simd: S, mask: S::m32s) -> Option<usize> {
    let any = simd.first_true_m32s(mask);
    if any >= S::F32_LANES {
        return None;
    }
    Some(match size_of::<S::m32s>() {
        1 => bytemuck::cast::<_, u8>(mask).trailing_zeros() as usize,
        2 => bytemuck::cast::<_, u16>(mask).trailing_zeros() as usize,
        _ => any,
    })
}

/// Calls `f` with every lane that is not set.
#[inline(always)]
fn each_unset<S: Simd>(simd: S, mask: S::m32s, mut f: impl FnMut(usize)) {
    let mut left = match size_of::<S::m32s>() {
        2 if S::F32_LANES == 16 => !bytemuck::cast::<_, u16>(mask),
        _ => {
            let marks = simd.select_f32s(mask, simd.splat_f32s(0.0), simd.splat_f32s(1.0));
            let marks: &[f32] = bytemuck::cast_slice(core::slice::from_ref(&marks));
            return (0..).zip(marks).filter(|(_, mark)| **mark == 1.0).for_each(|(lane, _)| f(lane));
        }
    };
    while left != 0 {
        f(left.trailing_zeros() as usize);
        left &= left - 1;
    }
}
