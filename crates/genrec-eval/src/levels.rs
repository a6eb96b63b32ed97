//! How far into its Semantic ID a target is predicted.

use crate::error::{EvalError, Result, check_cutoff};
use crate::metric::{ListMetric, RunningMean, averaged_over_users};

/// Accuracy of level $l$ @k: the share of users of whose first `k` items one begins with the first $l$ codes of a
/// target.
///
/// Items are given as their codes, coarse to fine: `Vec<u32>`, `&[u32]`, or whatever else is `AsRef<[u32]>`. With $R$
/// the targets:
///
/// $$ \text{Acc}_l\text{@}k = [\exists i \le k, r \in R : L(i)_1 = r_1, \dots, L(i)_l = r_l] $$
///
/// One metric a level in a [`Suite`](crate::Suite) gives the whole curve with its intervals, which never rises from
/// one level to the next: where it falls most is the level at which search goes astray. Over all levels, suffix
/// included, it is the [hit rate](crate::HitRate) of identifiers that are one to one with items. It says nothing of
/// the items themselves: hits are counted on those.
///
/// A repeat takes up a rank and earns nothing. Codes shorter than $l$ match nothing, in the list as among the targets.
/// A user without targets is left out of the mean.
///
/// ```
/// use genrec_eval::{LevelAccuracy, Suite};
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// let mut suite = Suite::new();
/// for level in 1..=3 {
///     suite = suite.with(LevelAccuracy::new(10, level)?)?;
/// }
/// suite.update(&[[5, 2, 7], [5, 9, 1]], &[[5, 9, 4]]);
/// suite.update(&[[8, 8, 0]], &[[8, 3, 0]]);
/// assert_eq!(suite.value("accuracy_level_1@10"), Some(1.0));
/// assert_eq!(suite.value("accuracy_level_2@10"), Some(0.5)); // [5, 9] is shared
/// assert_eq!(suite.value("accuracy_level_3@10"), Some(0.0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LevelAccuracy {
    k: usize,
    level: usize,
    mean: RunningMean,
}

impl LevelAccuracy {
    /// The accuracy of the first `level` codes, counted from 1, among the first `k` ranks; `k` of 1 asks the best item
    /// alone.
    ///
    /// # Errors
    /// [`EvalError::ZeroCutoff`] when `k` is 0, [`EvalError::ZeroLevel`] when `level` is.
    pub fn new(k: usize, level: usize) -> Result<Self> {
        check_cutoff("accuracy_level", k)?;
        if level == 0 {
            return Err(EvalError::ZeroLevel);
        }
        Ok(Self { k, level, mean: RunningMean::default() })
    }

    /// Number of ranks that count.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of leading codes that must agree.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Name in reports, with level and cut-off: `accuracy_level_2@10`.
    pub fn name(&self) -> String {
        format!("accuracy_level_{}@{}", self.level, self.k)
    }

    fn same_settings(&self, other: &Self) -> bool {
        (self.k, self.level) == (other.k, other.level)
    }
}

averaged_over_users!([] LevelAccuracy, AsRef<[u32]>);

impl<I: AsRef<[u32]>> ListMetric<I> for LevelAccuracy {
    fn name(&self) -> String {
        self.name()
    }

    fn score(&self, ranked: &[I], relevant: &[I]) -> Option<f64> {
        let shares = |a: &I, b: &I| match (a.as_ref().get(..self.level), b.as_ref().get(..self.level)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        };
        let hit = ranked.iter().take(self.k).any(|item| relevant.iter().any(|target| shares(item, target)));
        (!relevant.is_empty()).then_some(if hit { 1.0 } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{HitRate, Metric};

    fn score(k: usize, level: usize, ranked: &[Vec<u32>], relevant: &[Vec<u32>]) -> Option<f64> {
        LevelAccuracy::new(k, level).unwrap().score(ranked, relevant)
    }

    fn sids(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Vec<u32>>> {
        prop::collection::vec(prop::collection::vec(0u32..3, 3), count)
    }

    proptest! {
        #[test]
        fn is_the_hit_rate_of_truncated_codes(
            ranked in sids(0..8),
            relevant in sids(0..4),
            k in 1usize..9,
            level in 1usize..4,
        ) {
            let cut = |sids: &[Vec<u32>]| -> Vec<Vec<u32>> { sids.iter().map(|sid| sid[..level].to_vec()).collect() };
            let expected = HitRate::over(k).score(&cut(&ranked), &cut(&relevant));
            prop_assert_eq!(score(k, level, &ranked, &relevant), expected);
        }

        #[test]
        fn grows_with_the_cutoff_and_never_with_the_level(ranked in sids(0..8), relevant in sids(1..4), k in 1usize..8) {
            for level in 1..4 {
                let here = score(k, level, &ranked, &relevant);
                prop_assert!(here <= score(k + 1, level, &ranked, &relevant));
                prop_assert!(here >= score(k, level + 1, &ranked, &relevant));
            }
        }
    }

    #[test]
    fn short_codes_match_nothing() {
        let (short, long) = ([vec![1, 2]], [vec![1, 2, 3]]);
        assert_eq!(score(5, 2, &short, &long), Some(1.0));
        assert_eq!(score(5, 3, &short, &long), Some(0.0));
        assert_eq!(score(5, 3, &long, &short), Some(0.0));
        assert_eq!(score(5, 3, &short, &short), Some(0.0));
        assert_eq!(score(5, 1, &[vec![]], &[vec![]]), Some(0.0));
        assert_eq!(score(5, 1, &[], &[vec![4]]), Some(0.0));
        assert_eq!(score(5, 1, &[vec![4]], &[]), None);
    }

    #[test]
    fn settings_are_checked_named_and_not_mixed() {
        assert_eq!(LevelAccuracy::new(0, 1), Err(EvalError::ZeroCutoff { metric: "accuracy_level" }));
        assert_eq!(LevelAccuracy::new(1, 0), Err(EvalError::ZeroLevel));
        let mut second = LevelAccuracy::new(5, 2).unwrap();
        assert_eq!((second.name(), second.k(), second.level()), ("accuracy_level_2@5".into(), 5, 2));
        second.update(&[[1, 2]], &[[1, 2]]);
        second.merge(&LevelAccuracy::new(5, 1).unwrap());
        assert_eq!((second.users(), second.value()), (1, None));
    }
}
