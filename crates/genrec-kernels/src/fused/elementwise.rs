//! Dropout, residual connections and the inside of the feed-forward network.

use crate::dropout::DropoutMask;
use crate::math::{gelu_new, gelu_new_slope};

/// Calls `f(i, factor)` for each of `len` elements; without a mask every factor is 1.
#[inline(always)]
fn each(mask: Option<&DropoutMask>, len: usize, mut f: impl FnMut(usize, f32)) {
    match mask {
        Some(mask) => mask.for_each(0, len, f),
        None => (0..len).for_each(|i| f(i, 1.0)),
    }
}

/// `out = x` with dropout.
///
/// # Panics
/// When another slice is shorter than `x`.
pub fn dropped(x: &[f32], mask: Option<&DropoutMask>, out: &mut [f32]) {
    let out = &mut out[..x.len()];
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || each(mask, x.len(), |i, factor| out[i] = x[i] * factor),
    );
}

/// Dropout of `x` itself.
pub fn drop_in_place(x: &mut [f32], mask: Option<&DropoutMask>) {
    let Some(mask) = mask else { return };
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || mask.for_each(0, x.len(), |i, factor| x[i] *= factor),
    );
}

/// `x += branch` with dropout on the branch: a residual connection, and its gradient.
///
/// # Panics
/// When another slice is shorter than `x`.
pub fn add_dropped(x: &mut [f32], branch: &[f32], mask: Option<&DropoutMask>) {
    let branch = &branch[..x.len()];
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || each(mask, x.len(), |i, factor| x[i] += branch[i] * factor),
    );
}

/// The positive part with dropout, in place.
pub fn relu_dropout(x: &mut [f32], mask: Option<&DropoutMask>) {
    let positive = |x: f32| if x < 0.0 { 0.0 } else { x };
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || each(mask, x.len(), |i, factor| x[i] = positive(x[i]) * factor),
    );
}

/// Turns the gradient of [`relu_dropout`]'s result `y` into that of its argument: where `y` is positive, the element was
/// positive and kept.
pub fn relu_dropout_backward(y: &[f32], mask: Option<&DropoutMask>, dy: &mut [f32]) {
    let scale = mask.map_or(1.0, DropoutMask::scale);
    pulp::Arch::new().dispatch(
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
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || each(mask, x.len(), |i, factor| out[i] = gelu_new(gate[i]) * x[i] * factor),
    );
}

/// Gradients of [`gated_gelu`]'s arguments from that of its result, written over the arguments.
///
/// # Panics
/// When another slice is shorter than `x`.
pub fn gated_gelu_backward(gate: &mut [f32], x: &mut [f32], mask: Option<&DropoutMask>, dy: &[f32]) {
    let (gate, dy) = (&mut gate[..x.len()], &dy[..x.len()]);
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            each(mask, x.len(), |i, factor| {
                let g = dy[i] * factor;
                let (a, b) = (gate[i], x[i]);
                gate[i] = g * b * gelu_new_slope(a);
                x[i] = g * gelu_new(a);
            });
        },
    );
}
