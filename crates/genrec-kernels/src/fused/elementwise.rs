//! Dropout, residual connections and the inside of the feed-forward network.

use std::ops::Range;

use crate::dropout::DropoutMask;
use crate::math::vectorized;
use crate::math::{gelu_new, gelu_new_slope};

/// Calls `f(range, factors)` for parts of `len` elements; without a mask every factor is 1.
#[inline(always)]
fn each(mask: Option<&DropoutMask>, len: usize, mut f: impl FnMut(Range<usize>, &[f32])) {
    const ONES: [f32; 128] = [1.0; 128];
    match mask {
        Some(mask) => mask.for_each(0, len, f),
        None => (0..len).step_by(ONES.len()).for_each(|at| {
            let end = len.min(at + ONES.len());
            f(at..end, &ONES[..end - at]);
        }),
    }
}

/// `out = x` with dropout.
///
/// # Panics
/// When another slice is shorter than `x`.
pub fn dropped(x: &[f32], mask: Option<&DropoutMask>, out: &mut [f32]) {
    let out = &mut out[..x.len()];
    vectorized(
        #[inline(always)]
        || {
            each(mask, x.len(), |range, factors| {
                for ((out, x), factor) in out[range.clone()].iter_mut().zip(&x[range]).zip(factors) {
                    *out = x * factor;
                }
            });
        },
    );
}

/// Dropout of `x` itself.
pub fn drop_in_place(x: &mut [f32], mask: Option<&DropoutMask>) {
    let Some(mask) = mask else { return };
    vectorized(
        #[inline(always)]
        || mask.for_each(0, x.len(), |range, factors| x[range].iter_mut().zip(factors).for_each(|(x, f)| *x *= f)),
    );
}

/// `x += branch` with dropout on the branch: a residual connection, and its gradient.
///
/// # Panics
/// When another slice is shorter than `x`.
pub fn add_dropped(x: &mut [f32], branch: &[f32], mask: Option<&DropoutMask>) {
    let branch = &branch[..x.len()];
    vectorized(
        #[inline(always)]
        || {
            each(mask, x.len(), |range, factors| {
                for ((x, branch), factor) in x[range.clone()].iter_mut().zip(&branch[range]).zip(factors) {
                    *x += branch * factor;
                }
            });
        },
    );
}

/// The positive part with dropout, in place.
pub fn relu_dropout(x: &mut [f32], mask: Option<&DropoutMask>) {
    let positive = |x: f32| if x < 0.0 { 0.0 } else { x };
    vectorized(
        #[inline(always)]
        || {
            each(mask, x.len(), |range, factors| {
                x[range].iter_mut().zip(factors).for_each(|(x, factor)| *x = positive(*x) * factor);
            });
        },
    );
}

/// Turns the gradient of [`relu_dropout`]'s result `y` into that of its argument: where `y` is positive, the element was
/// positive and kept.
pub fn relu_dropout_backward(y: &[f32], mask: Option<&DropoutMask>, dy: &mut [f32]) {
    let scale = mask.map_or(1.0, DropoutMask::scale);
    vectorized(
        #[inline(always)]
        || {
            for (dy, &y) in dy.iter_mut().zip(y) {
                *dy = if y > 0.0 { *dy * scale } else { 0.0 };
            }
        },
    );
}

/// `out = gelu(gate) * x` with dropout, GELU in its tanh form.
///
/// # Panics
/// When another slice is shorter than `x`.
pub fn gated_gelu(gate: &[f32], x: &[f32], mask: Option<&DropoutMask>, out: &mut [f32]) {
    let (gate, out) = (&gate[..x.len()], &mut out[..x.len()]);
    vectorized(
        #[inline(always)]
        || {
            each(mask, x.len(), |range, factors| {
                let inputs = gate[range.clone()].iter().zip(&x[range.clone()]);
                for ((out, (gate, x)), factor) in out[range].iter_mut().zip(inputs).zip(factors) {
                    *out = gelu_new(*gate) * x * factor;
                }
            });
        },
    );
}

/// Gradients of [`gated_gelu`]'s arguments from that of its result, written over the arguments.
///
/// # Panics
/// When another slice is shorter than `x`.
pub fn gated_gelu_backward(gate: &mut [f32], x: &mut [f32], mask: Option<&DropoutMask>, dy: &[f32]) {
    let (gate, dy) = (&mut gate[..x.len()], &dy[..x.len()]);
    vectorized(
        #[inline(always)]
        || {
            each(mask, x.len(), |range, factors| {
                let inputs = gate[range.clone()].iter_mut().zip(&mut x[range.clone()]);
                for ((gate, x), (dy, factor)) in inputs.zip(dy[range].iter().zip(factors)) {
                    let (g, a, b) = (dy * factor, *gate, *x);
                    *gate = g * b * gelu_new_slope(a);
                    *x = g * gelu_new(a);
                }
            });
        },
    );
}
