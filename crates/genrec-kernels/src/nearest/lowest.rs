//! The least of a row of distances.

use pulp::{Arch, Simd, WithSimd, bytemuck};

/// For each row of products the index of the least `half_norms[j] - products[j]`, the first of equals; 0 where none is
/// finite.
///
/// `half_norms` is as long as a row, a whole number of vectors.
pub(super) fn lowest(products: &[f32], half_norms: &[f32], codes: &mut [u32]) {
    Arch::new().dispatch(Lowest { products, half_norms, codes, within: None::<(fn(usize) -> f32, _)> });
}

/// [`lowest`] of products that are not exact: the difference of two distances of row `i` may be off by `slack(i)`. Where
/// that leaves more than one code, `(row, code)` of all that are left goes to `unsure`, row by row, codes ascending.
pub(super) fn lowest_within(
    products: &[f32],
    half_norms: &[f32],
    codes: &mut [u32],
    slack: impl Fn(usize) -> f32,
    unsure: &mut Vec<(u32, u32)>,
) {
    Arch::new().dispatch(Lowest { products, half_norms, codes, within: Some((slack, unsure)) });
}

struct Lowest<'a, W> {
    products: &'a [f32],
    half_norms: &'a [f32],
    codes: &'a mut [u32],
    within: Option<(W, &'a mut Vec<(u32, u32)>)>,
}

impl<W: Fn(usize) -> f32> WithSimd for Lowest<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { products, half_norms, codes, mut within } = self;
        let (norms, _) = S::as_simd_f32s(half_norms);
        for (row, (products, code)) in products.chunks_exact(half_norms.len()).zip(codes).enumerate() {
            let (products, _) = S::as_simd_f32s(products);
            // Where one of two is NaN, `min` takes the other, or NaN, which no value below equals.
            let least = products
                .iter()
                .zip(norms)
                .fold(simd.splat_f32s(f32::INFINITY), |least, (&p, &h)| simd.min_f32s(simd.sub_f32s(h, p), least));
            let least = simd.reduce_min_f32s(least);
            *code = 0;
            if !least.is_finite() {
                // Of products that are not exact one may be infinite alone: all are left.
                if let Some((_, unsure)) = &mut within {
                    unsure.extend((0..half_norms.len() as u32).map(|code| (row as u32, code)));
                    continue;
                }
                if least != f32::NEG_INFINITY {
                    continue;
                }
            }
            if let Some((slack, unsure)) = &mut within {
                let bound = simd.splat_f32s(least + slack(row));
                let first = unsure.len();
                for (at, (&p, &h)) in products.iter().zip(norms).enumerate() {
                    // Not above: a bound that is no number leaves all.
                    let above = simd.greater_than_f32s(simd.sub_f32s(h, p), bound);
                    each_unset(simd, above, |lane| unsure.push((row as u32, (at * S::F32_LANES + lane) as u32)));
                }
                if unsure.len() == first + 1 {
                    unsure.truncate(first);
                }
                if unsure.len() > first {
                    continue;
                }
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
