//! Arithmetic on slices that the compiler turns into vector instructions.

use pulp::{Arch, Simd, WithSimd};

const LANES: usize = 16;

/// Runs `f`, a closure marked `#[inline(always)]`, compiled for the widest vector instructions that the processor has.
///
/// ```
/// let mut x = [1.0_f32, 2.0];
/// genrec_kernels::vectorized(
///     #[inline(always)]
///     || x.iter_mut().for_each(|x| *x *= 2.0),
/// );
/// assert_eq!(x, [2.0, 4.0]);
/// ```
pub fn vectorized<R>(f: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Vectorized(f))
}

// pulp takes a closure as `FnOnce`: calling one that is `FnMut` so goes through a shim, which is compiled for the oldest
// processor and inlined only where it is small.
struct Vectorized<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Vectorized<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// Sum of `f` over pairs of elements, in sixteen running sums: one order, whatever the processor.
#[inline(always)]
pub(crate) fn sum_by(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += f(a[lane], b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f(a, b)).sum();
    total(sums) + rest
}

/// In halves: sixteen additions after one another would take longer than most rows.
#[inline(always)]
fn total(mut sums: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0]
}

/// The products of `x` and of each other vector, all as long, in the order of [`sum_by`].
#[inline(always)]
pub(crate) fn dots<const N: usize>(x: &[f32], others: [&[f32]; N]) -> [f32; N] {
    let mut sums = [[0f32; LANES]; N];
    let (chunks, rest) = x.as_chunks::<LANES>();
    let others = others.map(|other| other[..x.len()].as_chunks::<LANES>());
    for (at, x) in chunks.iter().enumerate() {
        for (sums, (other, _)) in sums.iter_mut().zip(&others) {
            for lane in 0..LANES {
                sums[lane] += x[lane] * other[at][lane];
            }
        }
    }
    std::array::from_fn(|n| total(sums[n]) + rest.iter().zip(others[n].1).map(|(a, b)| a * b).sum::<f32>())
}

/// The largest element; negative infinity when there is none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            best[lane] = if chunk[lane] > best[lane] { chunk[lane] } else { best[lane] };
        }
    }
    best.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
}

/// The exponential, to about 2 units in the last place, without a branch or a table (the polynomial of Cephes'
/// `expf`). Below -87.3 it is 0, above 88.3 it stands still.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and taking off 1.5 * 2^23 rounds to the nearest integer, which then sits in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let y = p * r * r + r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.3 { 0.0 } else { y * power }
}

/// The hyperbolic tangent, by [`exp`].
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

const GELU_ROOT: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;

/// The Gaussian error linear unit in its tanh form.
#[inline(always)]
pub(crate) fn gelu_new(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(GELU_ROOT * (x + GELU_CUBIC * x * x * x)))
}

/// The derivative of [`gelu_new`].
#[inline(always)]
pub(crate) fn gelu_new_slope(x: f32) -> f32 {
    let t = tanh(GELU_ROOT * (x + GELU_CUBIC * x * x * x));
    let slope = GELU_ROOT * (1.0 + 3.0 * GELU_CUBIC * x * x);
    0.5 * (1.0 + t + x * (1.0 - t * t) * slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_tanh_are_accurate() {
        let mut worst = 0f64;
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / want - 1.0).abs());
            let t = f64::from(x * 0.1);
            assert!((f64::from(tanh(x * 0.1)) - t.tanh()).abs() < 3e-7, "{x}");
        }
        assert!(worst < 2.5e-7, "{worst}");
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
    }
}
