//! The least of a row of distances.

use pulp::{Arch, Simd, WithSimd, bytemuck};

/// For each row of products the index of the least `half_norms[j] - products[j]`, the first of equals; 0 where none is
/// finite.
///
/// `half_norms` is as long as a row, a whole number of vectors.
pub(super) fn lowest(products: &[f32], half_norms: &[f32], codes: &mut [u32]) {
    Arch::new().dispatch(Lowest { products, half_norms, codes });
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
            if least.is_nan() || least == f32::INFINITY {
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
