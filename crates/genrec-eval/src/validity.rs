//! How much of what a generative model writes is no item at all.

use crate::error::{EvalError, Result};
use crate::metric::{Metric, RunningMean};

/// Invalid-id rate@k: the share of the generated top-`k` that resolves to no item.
///
/// A generative recommender writes an item's identifier token by token and can write one that nothing has. Each
/// hypothesis is given as `Some(item)` or `None`; hits and ranks play no part, and the relevant items are ignored.
///
/// $$ \text{Invalid@}k = \sum_u |\\{ i \le k : L_u(i) \text{ is no item} \\}| / \sum_u \min(k, |L_u|) $$
///
/// The rate is over hypotheses, not over users: a list shorter than `k` weighs less, an empty one nothing. Repeats
/// count as often as they were generated. TIGER (arXiv 2305.05065, section 4.5) reports 0.1 to 1.6 % at 10.
///
/// ```
/// use genrec_eval::{InvalidRate, Metric};
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// let mut invalid = InvalidRate::new(2)?;
/// invalid.update(&[Some(4), None, None], &[]); // the third is beyond the cut-off
/// invalid.update(&[Some(4), Some(8)], &[]);
/// assert_eq!(invalid.value(), Some(0.25));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct InvalidRate {
    k: usize,
    rate: RunningMean,
}

impl InvalidRate {
    /// The rate over the first `k` hypotheses of each list.
    ///
    /// # Errors
    /// [`EvalError::ZeroCutoff`] when `k` is 0.
    pub fn new(k: usize) -> Result<Self> {
        if k == 0 {
            return Err(EvalError::ZeroCutoff { metric: "invalid_rate" });
        }
        Ok(Self { k, rate: RunningMean::default() })
    }

    /// Number of hypotheses of each list that count.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Hypotheses counted so far.
    pub fn generated(&self) -> u64 {
        self.rate.count()
    }

    /// Name in reports, with the cut-off.
    pub fn name(&self) -> String {
        format!("invalid_rate@{}", self.k)
    }

    /// The rate over all hypotheses so far, or `None` when there were none.
    pub fn value(&self) -> Option<f64> {
        self.rate.value()
    }

    /// Adds everything that another accumulator of the same cut-off has seen; see [`Metric::merge`].
    pub fn merge(&mut self, other: &Self) {
        self.rate.merge(&other.rate, self.k == other.k);
    }

    /// Forgets every hypothesis.
    pub fn reset(&mut self) {
        self.rate = RunningMean::default();
    }
}

impl<I> Metric<Option<I>> for InvalidRate {
    fn name(&self) -> String {
        self.name()
    }

    fn update(&mut self, ranked: &[Option<I>], _relevant: &[Option<I>]) {
        let top = &ranked[..self.k.min(ranked.len())];
        let invalid = top.iter().filter(|hypothesis| hypothesis.is_none()).count();
        self.rate.add_many(invalid as f64, top.len() as u64);
    }

    fn value(&self) -> Option<f64> {
        self.value()
    }

    fn merge(&mut self, other: &Self) {
        self.merge(other);
    }

    fn reset(&mut self) {
        self.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_hypotheses_within_the_cutoff() {
        let mut metric = InvalidRate::new(3).unwrap();
        assert_eq!(metric.name(), "invalid_rate@3");
        assert_eq!(metric.value(), None);
        metric.update(&[None::<u32>, Some(1), None, None], &[]);
        metric.update(&[Some(1), Some(1)], &[Some(1)]);
        metric.update(&[] as &[Option<u32>], &[]);
        assert_eq!(metric.generated(), 5);
        assert_eq!(metric.value(), Some(2.0 / 5.0));
        metric.reset();
        assert_eq!(metric.value(), None);
    }

    #[test]
    fn merging_equals_one_pass_and_unlike_cutoffs_have_no_value() {
        let (mut left, mut right) = (InvalidRate::new(2).unwrap(), InvalidRate::new(2).unwrap());
        left.update(&[None::<u32>, Some(3)], &[]);
        right.update(&[Some(3u32), Some(4)], &[]);
        left.merge(&right);
        assert_eq!(left.value(), Some(0.25));
        left.merge(&InvalidRate::new(3).unwrap());
        assert_eq!(left.value(), None);
    }

    #[test]
    fn a_cutoff_of_zero_is_refused() {
        assert_eq!(InvalidRate::new(0), Err(EvalError::ZeroCutoff { metric: "invalid_rate" }));
    }
}
