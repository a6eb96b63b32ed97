//! Binary cross-entropy of a few candidates.

use crate::math::{exp, sum_by, vectorized};

/// Rows of a table, some of which each hidden state is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// `(n, width)`.
    pub table: &'a [f32],
    /// `(rows, per_row)`: rows of the table. The first of each is the right one, the rest are wrong; an id that is not below
    /// `n` stands for none.
    pub ids: &'a [u32],
    /// Candidates of each hidden state.
    pub per_row: usize,
    /// Elements of a row of the table.
    pub width: usize,
}

/// Where the gradients of [`logistic`]'s arguments are added.
#[derive(Debug)]
pub struct LogisticGrads<'a> {
    /// `(rows, width)`.
    pub hidden: &'a mut [f32],
    /// `(n, width)`.
    pub table: &'a mut [f32],
    /// Multiplies the gradients.
    pub factor: f32,
}

/// $-\log\sigma(h \cdot e_+) - \sum_- \log(1 - \sigma(h \cdot e_-))$, summed over the rows, in nats (Kang and McAuley 2018,
/// section III-E), and its gradients where they are asked for.
///
/// # Shapes
/// `hidden`: `(rows, width)`. What does not fit is left out.
pub fn logistic(hidden: &[f32], candidates: Candidates<'_>, mut grads: Option<LogisticGrads<'_>>) -> f64 {
    let Candidates { table, ids, per_row, width } = candidates;
    let width = width.max(1);
    let mut total = 0.0;
    vectorized(
        #[inline(always)]
        || {
            for (row, (h, ids)) in hidden.chunks_exact(width).zip(ids.chunks_exact(per_row.max(1))).enumerate() {
                for (place, id) in ids.iter().enumerate() {
                    let at = *id as usize * width;
                    let Some(e) = table.get(at..at.saturating_add(width)) else { continue };
                    let score = sum_by(h, e, |h, e| h * e);
                    // -log sigma(s) is softplus(-s), and -log(1 - sigma(s)) is softplus(s).
                    let signed = if place == 0 { -score } else { score };
                    total += f64::from(signed.max(0.0) + exp(-signed.abs()).ln_1p());
                    let Some(grads) = &mut grads else { continue };
                    let slope = grads.factor / (1.0 + exp(-signed));
                    let slope = if place == 0 { -slope } else { slope };
                    if let Some(dh) = grads.hidden.get_mut(row * width..(row + 1) * width) {
                        dh.iter_mut().zip(e).for_each(|(d, e)| *d += slope * e);
                    }
                    if let Some(de) = grads.table.get_mut(at..at + width) {
                        de.iter_mut().zip(h).for_each(|(d, h)| *d += slope * h);
                    }
                }
            }
        },
    );
    total
}
