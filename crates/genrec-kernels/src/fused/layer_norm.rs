//! Layer normalisation.

use crate::math::{sum_by, vectorized};

/// $y = w \hat x + b$ with $\hat x = (x - \mathrm{mean}(x)) / \sqrt{\mathrm{var}(x) + \epsilon}$ for each row; see
/// [`graph::layer_norm`](crate::graph::layer_norm).
///
/// # Shapes
/// `x`, `y`: `(rows, d)`; `w`, `b`: `(d,)`; `hats`: `(rows, d)`, the $\hat x$, and `inverses`: `(rows,)`, the inverse
/// standard deviations, for the backward pass. What does not fit is left out.
pub fn layer_norm(x: &[f32], w: &[f32], b: &[f32], eps: f32, hats: &mut [f32], y: &mut [f32], inverses: &mut [f32]) {
    let d = w.len().max(1);
    vectorized(
        #[inline(always)]
        || {
            let rows = x.chunks_exact(d).zip(hats.chunks_exact_mut(d)).zip(y.chunks_exact_mut(d)).zip(&mut *inverses);
            for (((x, hats), y), inverse) in rows {
                let mean = sum_by(x, x, |v, _| v) / d as f32;
                let variance = sum_by(x, x, |v, _| (v - mean) * (v - mean)) / d as f32;
                *inverse = 1.0 / (variance + eps).sqrt();
                for (hat, x) in hats.iter_mut().zip(x) {
                    *hat = (x - mean) * *inverse;
                }
                for (((y, hat), w), b) in y.iter_mut().zip(&*hats).zip(w).zip(b) {
                    *y = hat * w + b;
                }
            }
        },
    );
}

/// Where the gradients of [`layer_norm`]'s arguments are added.
#[derive(Debug)]
pub struct LayerNormGrads<'a> {
    /// `(rows, d)`.
    pub x: &'a mut [f32],
    /// `(d,)`.
    pub w: &'a mut [f32],
    /// `(d,)`.
    pub b: &'a mut [f32],
}

/// Adds the gradients of [`layer_norm`]'s arguments, and writes over `dy`.
///
/// # Shapes
/// As [`layer_norm`]; `dy`: `(rows, d)`.
pub fn layer_norm_backward(hats: &[f32], w: &[f32], inverses: &[f32], dy: &mut [f32], grads: &mut LayerNormGrads<'_>) {
    let d = w.len().max(1);
    vectorized(
        #[inline(always)]
        || {
            let rows = hats.chunks_exact(d).zip(dy.chunks_exact_mut(d)).zip(grads.x.chunks_exact_mut(d)).zip(inverses);
            for (((hats, dy), dx), inverse) in rows {
                for (((dw, db), hat), dy) in grads.w.iter_mut().zip(&mut *grads.b).zip(hats).zip(&*dy) {
                    *dw += dy * hat;
                    *db += dy;
                }
                dy.iter_mut().zip(w).for_each(|(dy, w)| *dy *= w);
                let mean = sum_by(dy, dy, |g, _| g) / d as f32;
                let along = sum_by(dy, hats, |g, hat| g * hat) / d as f32;
                for ((dx, dy), hat) in dx.iter_mut().zip(&*dy).zip(hats) {
                    *dx += inverse * (dy - mean - hat * along);
                }
            }
        },
    );
}
