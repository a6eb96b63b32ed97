//! Softmax cross-entropy and log-probabilities over the vocabulary.

use crate::math::vectorized;
use crate::math::{exp, max, sum_by};

/// Negative log-likelihood of the label of each row, summed, in nats; the logits become their gradient times `factor`.
///
/// A label without a logit counts as nothing and gets no gradient.
///
/// # Shapes
/// `logits`: rows of `width` at distance `stride`, the rest of each row is set to zero; `labels`: `(rows,)`.
pub fn cross_entropy(logits: &mut [f32], stride: usize, width: usize, labels: &[u32], factor: f32) -> f64 {
    smoothed_cross_entropy(logits, stride, width, labels, 0.0, factor)
}

/// [`cross_entropy`] with a share `smoothing` of the target spread evenly over all columns (Szegedy et al. 2016, section 7):
/// $\log \sum_j e^{z_j} - (1 - \epsilon) z_y - \epsilon\, \mathrm{mean}(z)$.
///
/// # Shapes
/// As [`cross_entropy`].
pub fn smoothed_cross_entropy(
    logits: &mut [f32],
    stride: usize,
    width: usize,
    labels: &[u32],
    smoothing: f32,
    factor: f32,
) -> f64 {
    let mut total = 0.0;
    let (kept, share) = (1.0 - smoothing, factor * smoothing / width.max(1) as f32);
    vectorized(
        #[inline(always)]
        || {
            for (row, &label) in logits.chunks_mut(stride.max(1)).zip(labels) {
                let (x, rest) = row.split_at_mut(width.min(row.len()));
                rest.fill(0.0);
                let Some(&at_label) = x.get(label as usize) else {
                    x.fill(0.0);
                    continue;
                };
                let top = max(x);
                let mean = if smoothing > 0.0 { sum_by(x, x, |v, _| v - top) / x.len() as f32 } else { 0.0 };
                x.iter_mut().for_each(|v| *v = exp(*v - top));
                let sum = sum_by(x, x, |v, _| v);
                total += f64::from(sum.ln() - (kept * (at_label - top) + smoothing * mean));
                let scale = factor / sum;
                x.iter_mut().for_each(|v| *v = *v * scale - share);
                x[label as usize] -= factor * kept;
            }
        },
    );
    total
}

/// Appends the logarithm of the softmax of each row to `out`, in nats.
///
/// # Shapes
/// `logits`: rows of `width` at distance `stride`; appended: `(rows, width)`.
pub fn log_softmax(logits: &[f32], stride: usize, width: usize, out: &mut Vec<f32>) {
    vectorized(
        #[inline(always)]
        || {
            for row in logits.chunks(stride.max(1)) {
                let x = &row[..width.min(row.len())];
                let top = max(x);
                let log = sum_by(x, x, |v, _| exp(v - top)).ln() + top;
                out.extend(x.iter().map(|v| v - log));
            }
        },
    );
}
