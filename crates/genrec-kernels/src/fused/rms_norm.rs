//! Root-mean-square normalisation.

use crate::math::sum_by;
use crate::math::vectorized;

/// The inverse of the root mean square of a row.
#[inline(always)]
pub(crate) fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_by(x, x, |a, b| a * b) / x.len() as f32 + eps).sqrt()
}

/// Turns the gradient of one row's result into that of its input.
#[inline(always)]
pub(crate) fn backward_row(x: &[f32], w: &[f32], inverse: f32, g: &mut [f32]) {
    for (g, w) in g.iter_mut().zip(w) {
        *g *= w * inverse;
    }
    let along = sum_by(g, x, |a, b| a * b) * inverse * inverse / x.len() as f32;
    for (g, x) in g.iter_mut().zip(x) {
        *g -= x * along;
    }
}

/// $y = w x / \sqrt{\mathrm{mean}(x^2) + \epsilon}$ for each row; see [`graph::rms_norm`](crate::graph::rms_norm).
///
/// # Shapes
/// `x`, `y`: `(rows, d)`; `w`: `(d,)`; `inverses`: `(rows,)`, the inverse root mean squares, for the backward pass.
/// What does not fit is left out.
pub fn rms_norm(x: &[f32], w: &[f32], eps: f32, y: &mut [f32], inverses: &mut [f32]) {
    let d = w.len().max(1);
    vectorized(
        #[inline(always)]
        || {
            for ((x, y), inverse) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(&mut *inverses) {
                *inverse = inverse_rms(x, eps);
                for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                    *y = x * *inverse * w;
                }
            }
        },
    );
}

/// Adds to `dx` the gradient of [`rms_norm`]'s input and to `dw` that of its weight, and writes over `dy`.
///
/// # Shapes
/// As [`rms_norm`]; `dy`: `(rows, d)`, `dx`: `(rows, d)`, `dw`: `(d,)`.
pub fn rms_norm_backward(x: &[f32], w: &[f32], inverses: &[f32], dy: &mut [f32], dx: &mut [f32], dw: &mut [f32]) {
    let d = w.len().max(1);
    vectorized(
        #[inline(always)]
        || {
            let rows = x.chunks_exact(d).zip(dy.chunks_exact_mut(d)).zip(dx.chunks_exact_mut(d)).zip(inverses);
            for (((x, dy), dx), &inverse) in rows {
                for ((dw, x), dy) in dw.iter_mut().zip(x).zip(&*dy) {
                    *dw += dy * (x * inverse);
                }
                backward_row(x, w, inverse, dy);
                dx.iter_mut().zip(&*dy).for_each(|(dx, dy)| *dx += dy);
            }
        },
    );
}
