//! How many kinds of things are in a list.

use std::collections::HashMap;
use std::hash::Hash;

use crate::error::{Result, check_cutoff};
use crate::metric::{ListMetric, RunningMean, averaged_over_users};

/// Entropy@k: the entropy, in bits or [nats](Self::in_nats), of the kinds of the first `k` items of a list, averaged
/// over users.
///
/// A list is given as the kinds of its items, for instance their categories. With $p_c$ the share of kind $c$:
///
/// $$ \text{Entropy@}k = -\sum_c p_c \log_2 p_c $$
///
/// 0 where all are of one kind, $\log_2 n$ where `n` kinds are equally frequent. A list shorter than `k` is taken as
/// it is, an empty one is left out of the mean (a [`Suite`](crate::Suite) takes it as 0); what is relevant plays no
/// part. TIGER (arXiv 2305.05065, section 4.3 and table 3) measures how diverse sampling is by it.
///
/// ```
/// use genrec_eval::{Entropy, Metric};
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// let mut entropy = Entropy::new(4)?;
/// entropy.update(&["nails", "nails", "hair", "hair", "skin"], &[]); // the fifth is beyond the cut-off
/// entropy.update(&["nails", "nails", "nails"], &[]);
/// assert_eq!(entropy.value(), Some(0.5));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Entropy {
    k: usize,
    nats: bool,
    mean: RunningMean,
}

impl Entropy {
    /// The entropy in bits of the first `k` ranks, with no user seen yet.
    ///
    /// # Errors
    /// [`EvalError::ZeroCutoff`](crate::EvalError::ZeroCutoff) when `k` is 0.
    pub fn new(k: usize) -> Result<Self> {
        check_cutoff("entropy", k)?;
        Ok(Self { k, nats: false, mean: RunningMean::default() })
    }

    /// The same in nats, a bit being $\ln 2$ of them. Users seen so far are forgotten, and the name becomes
    /// `entropy_nats@k`.
    #[must_use]
    pub fn in_nats(self) -> Self {
        Self { nats: true, mean: RunningMean::default(), ..self }
    }

    /// Number of ranks that count.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Name in reports, with the cut-off: `entropy@k` for bits.
    pub fn name(&self) -> String {
        format!("entropy{}@{}", if self.nats { "_nats" } else { "" }, self.k)
    }

    fn same_settings(&self, other: &Self) -> bool {
        (self.k, self.nats) == (other.k, other.nats)
    }
}

averaged_over_users!([] Entropy, Eq + Hash);

impl<I: Eq + Hash> ListMetric<I> for Entropy {
    fn name(&self) -> String {
        self.name()
    }

    fn score(&self, ranked: &[I], _relevant: &[I]) -> Option<f64> {
        let top = &ranked[..self.k.min(ranked.len())];
        let unit = if self.nats { std::f64::consts::LN_2 } else { 1.0 };
        (!top.is_empty()).then(|| bits(top) * unit)
    }
}

/// Entropy of the kinds of a list, in bits.
fn bits<I: Eq + Hash>(kinds: &[I]) -> f64 {
    let mut counts: HashMap<&I, usize> = HashMap::new();
    for kind in kinds {
        *counts.entry(kind).or_default() += 1;
    }
    // In the order of the counts, so that the sum does not depend on that of the map.
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    let share = |count: usize| count as f64 / kinds.len() as f64;
    // `+ 0.0` makes of a negative zero a zero.
    -counts.into_iter().map(|count| share(count) * share(count).log2()).sum::<f64>() + 0.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{EvalError, Metric};

    #[test]
    fn known_lists() {
        let value = |kinds: &[u32], k| {
            let mut entropy = Entropy::new(k).unwrap();
            entropy.update(kinds, &[]);
            entropy.value()
        };
        assert_eq!(value(&[], 3), None);
        assert_eq!(value(&[5, 5, 5], 3).map(f64::to_bits), Some(0.0f64.to_bits()));
        assert_eq!(value(&[1, 2, 3, 4, 4], 4), Some(2.0));
        let known = -(0.75f64 * 0.75f64.log2() + 0.25 * 0.25f64.log2());
        assert!((value(&[1, 2, 1, 1], 9).unwrap() - known).abs() < 1e-15);
    }

    #[test]
    fn nats_are_another_unit_and_another_metric() {
        let mut bits = Entropy::new(4).unwrap();
        bits.update(&[1, 1, 2, 3], &[]);
        let mut nats = bits.clone().in_nats();
        assert_eq!((bits.name(), nats.name(), nats.users()), ("entropy@4".into(), "entropy_nats@4".into(), 0));
        nats.update(&[1, 1, 2, 3], &[]);
        assert_eq!(nats.value(), bits.value().map(|bits| bits * std::f64::consts::LN_2));
        bits.merge(&nats);
        assert_eq!(bits.value(), None);
    }

    #[test]
    fn merging_equals_one_pass_and_unlike_cutoffs_have_no_value() {
        let lists: [&[u8]; 3] = [&[1, 1, 2], &[3, 4], &[]];
        let (mut one, mut left, mut right) =
            (Entropy::new(3).unwrap(), Entropy::new(3).unwrap(), Entropy::new(3).unwrap());
        lists.iter().for_each(|list| one.update(list, &[]));
        left.update(lists[0], &[]);
        lists[1..].iter().for_each(|list| right.update(list, &[]));
        left.merge(&right);
        assert_eq!((left.value(), left.users()), (one.value(), 2));
        left.merge(&Entropy::new(4).unwrap());
        assert_eq!(left.value(), None);
        left.reset();
        assert_eq!(left.users(), 0);
        assert_eq!(Entropy::new(0), Err(EvalError::ZeroCutoff { metric: "entropy" }));
    }

    proptest! {
        #[test]
        fn neither_order_nor_names_count(kinds in prop::collection::vec(0u32..6, 1..30)) {
            let backwards: Vec<u32> = kinds.iter().rev().map(|kind| kind + 9).collect();
            prop_assert_eq!(bits(&kinds).to_bits(), bits(&backwards).to_bits());
            let distinct = kinds.iter().collect::<std::collections::HashSet<_>>().len();
            prop_assert!(bits(&kinds) >= 0.0 && bits(&kinds) <= (distinct as f64).log2() + 1e-12);
        }
    }
}
