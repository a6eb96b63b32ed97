//! How much of what a generative model writes is no item at all.

use crate::error::{Result, check_cutoff};
use crate::metric::Metric;

/// Invalid-id rate@k: the share of the generated top-`k` that resolves to no item.
///
/// A generative recommender writes an item's identifier token by token and can write one that nothing has. Each
/// hypothesis is given as `Some(item)` or `None`; hits and ranks play no part, and the relevant items are ignored.
///
/// $$ \text{Invalid@}k = \sum_u |\\{ i \le k : L_u(i) \text{ is no item} \\}| / \sum_u \min(k, |L_u|) $$
///
/// The rate is over hypotheses, not over users: a list shorter than `k` weighs less, an empty one nothing. Repeats
/// count as often as they were generated. TIGER (arXiv 2305.05065, section 4.5) reports 0.1 to 1.6 % at 10, and figure
/// 6 the rate by `k`: one accumulator of the largest `k` gives the others [as well](Self::value_at). Counts are whole
/// numbers, so merging in any order gives the same bits.
///
/// ```
/// use genrec_eval::{InvalidRate, Metric};
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// let mut invalid = InvalidRate::new(2)?;
/// invalid.update(&[Some(4), None, None], &[]); // the third is beyond the cut-off
/// invalid.update(&[Some(4), Some(8)], &[]);
/// assert_eq!(invalid.value(), Some(0.25));
/// assert_eq!(invalid.value_at(1), Some(0.0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct InvalidRate {
    k: usize,
    /// By rank, as far as lists reach.
    ranks: Vec<Generated>,
    spoilt: bool,
}

/// Hypotheses at one rank.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Generated {
    all: u64,
    invalid: u64,
}

impl InvalidRate {
    /// The rate over the first `k` hypotheses of each list.
    ///
    /// # Errors
    /// [`EvalError::ZeroCutoff`](crate::EvalError::ZeroCutoff) when `k` is 0.
    pub fn new(k: usize) -> Result<Self> {
        check_cutoff("invalid_rate", k)?;
        Ok(Self { k, ranks: Vec::new(), spoilt: false })
    }

    /// Number of hypotheses of each list that count.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Hypotheses counted so far.
    pub fn generated(&self) -> u64 {
        self.ranks.iter().map(|rank| rank.all).sum()
    }

    /// Name in reports, with the cut-off.
    pub fn name(&self) -> String {
        format!("invalid_rate@{}", self.k)
    }

    /// The rate over all hypotheses so far, or `None` when there were none.
    pub fn value(&self) -> Option<f64> {
        self.value_at(self.k)
    }

    /// The rate over the first `k` hypotheses of each list, for any `k` up to the [cut-off](Self::k). `None` for a
    /// larger one and for 0, and when there were no hypotheses.
    pub fn value_at(&self, k: usize) -> Option<f64> {
        if k > self.k || self.spoilt {
            return None;
        }
        let top = &self.ranks[..k.min(self.ranks.len())];
        let (all, invalid) = top.iter().fold((0, 0), |(all, invalid), rank| (all + rank.all, invalid + rank.invalid));
        (all > 0).then(|| invalid as f64 / all as f64)
    }

    /// Adds everything that another accumulator of the same cut-off has seen; see [`Metric::merge`].
    pub fn merge(&mut self, other: &Self) {
        self.reach(other.ranks.len());
        for (rank, more) in self.ranks.iter_mut().zip(&other.ranks) {
            rank.all += more.all;
            rank.invalid += more.invalid;
        }
        self.spoilt |= other.spoilt || self.k != other.k;
    }

    /// Forgets every hypothesis.
    pub fn reset(&mut self) {
        self.ranks.clear();
        self.spoilt = false;
    }

    /// Makes room for lists of a length.
    fn reach(&mut self, ranks: usize) {
        self.ranks.resize(self.ranks.len().max(ranks), Generated::default());
    }
}

impl<I> Metric<Option<I>> for InvalidRate {
    fn name(&self) -> String {
        self.name()
    }

    fn update(&mut self, ranked: &[Option<I>], _relevant: &[Option<I>]) {
        let top = &ranked[..self.k.min(ranked.len())];
        self.reach(top.len());
        for (rank, hypothesis) in self.ranks.iter_mut().zip(top) {
            rank.all += 1;
            rank.invalid += u64::from(hypothesis.is_none());
        }
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
    use proptest::prelude::*;

    use super::*;
    use crate::EvalError;

    proptest! {
        #[test]
        fn one_accumulator_has_the_rate_of_every_smaller_cutoff(
            lists in prop::collection::vec(prop::collection::vec(prop::option::of(0u8..4), 0..9), 0..10),
            k in 1usize..10,
        ) {
            let mut widest = InvalidRate::new(k)?;
            lists.iter().for_each(|list| widest.update(list, &[]));
            for narrower in 1..=k {
                let mut alone = InvalidRate::new(narrower)?;
                lists.iter().for_each(|list| alone.update(list, &[]));
                prop_assert_eq!(widest.value_at(narrower), alone.value());
            }
            prop_assert_eq!((widest.value_at(0), widest.value_at(k + 1)), (None, None));
        }
    }

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
        assert_eq!((left.value(), left.value_at(1)), (None, None));
    }

    #[test]
    fn a_cutoff_of_zero_is_refused() {
        assert_eq!(InvalidRate::new(0), Err(EvalError::ZeroCutoff { metric: "invalid_rate" }));
    }
}
