//! Whether what is popular anyway is recommended.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::error::{Result, check_cutoff};
use crate::metric::{ListMetric, RunningMean, averaged_over_users};

/// How often each item was interacted with, in the training data as a rule. A clone shares the counts.
#[derive(Debug, Clone)]
pub struct ItemCounts<I> {
    counts: Arc<HashMap<I, u64>>,
    total: u64,
}

impl<I: Eq + Hash> ItemCounts<I> {
    /// Counts by item; those of an item that comes again are added. They stop at `u64::MAX` rather than overflow.
    ///
    /// ```
    /// let counts: genrec_eval::ItemCounts<_> = ["soap", "comb", "soap"].into_iter().map(|item| (item, 1)).collect();
    /// assert_eq!((counts.count(&"soap"), counts.count(&"brush"), counts.total()), (2, 0, 3));
    /// ```
    pub fn new(counts: impl IntoIterator<Item = (I, u64)>) -> Self {
        let mut by_item: HashMap<I, u64> = HashMap::new();
        let mut total = 0u64;
        for (item, count) in counts {
            let sum = by_item.entry(item).or_default();
            *sum = sum.saturating_add(count);
            total = total.saturating_add(count);
        }
        Self { counts: Arc::new(by_item), total }
    }

    /// Interactions with an item, 0 with one that is not there.
    pub fn count(&self, item: &I) -> u64 {
        self.counts.get(item).copied().unwrap_or(0)
    }

    /// Interactions with all items.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.counts, &other.counts) || self.counts == other.counts
    }
}

impl<I: Eq + Hash> FromIterator<(I, u64)> for ItemCounts<I> {
    fn from_iter<T: IntoIterator<Item = (I, u64)>>(counts: T) -> Self {
        Self::new(counts)
    }
}

/// What [`Popularity`] takes of an item's count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PopularityScale {
    /// The count $c$ itself, in interactions: `popularity@k`, 0 or more.
    Count,
    /// $\ln(1 + c)$, which one blockbuster does not dominate: `log_popularity@k`, 0 or more.
    Log,
    /// Self-information $-\log_2(\max(c, 1) / T)$ in bits, with $T$ the interactions with all items: `novelty@k`, from
    /// 0 to $\log_2 T$. An item without interactions, whose information would be infinite, is taken as one with a
    /// single one.
    Novelty,
}

impl PopularityScale {
    fn name(self) -> &'static str {
        match self {
            Self::Count => "popularity",
            Self::Log => "log_popularity",
            Self::Novelty => "novelty",
        }
    }

    fn of(self, count: u64, total: u64) -> f64 {
        match self {
            Self::Count => count as f64,
            Self::Log => (count as f64).ln_1p(),
            Self::Novelty => (total.max(1) as f64 / count.max(1) as f64).log2(),
        }
    }
}

/// Popularity@k: the mean popularity of the first `k` items of a list, averaged over users.
///
/// With $s$ the [scale](PopularityScale) and $c_i$ the count of item $i$:
///
/// $$ \text{Popularity@}k = \sum_{i \in L_k} s(c_i) / |L_k| $$
///
/// A list shorter than `k` is taken as it is, repeats included; an empty one is left out of the mean (a
/// [`Suite`](crate::Suite) takes it as 0), and what is relevant plays no part. With counts it is the average
/// recommendation popularity of Yin et al., *Challenging the long tail recommendation*, VLDB 2012; the
/// self-information is that of Zhou et al., *Solving the apparent diversity-accuracy dilemma of recommender systems*,
/// PNAS 107(10), 2010.
///
/// ```
/// use genrec_eval::{ItemCounts, Metric, Popularity, PopularityScale};
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// let counts = ItemCounts::new([("soap", 6), ("comb", 2)]);
/// let mut popularity = Popularity::new(2, counts.clone(), PopularityScale::Count)?;
/// popularity.update(&["soap", "comb", "brush"], &[]);
/// popularity.update(&["brush"], &[]); // nobody ever took a brush
/// assert_eq!(popularity.value(), Some(2.0));
/// let mut novelty = Popularity::new(2, counts, PopularityScale::Novelty)?;
/// novelty.update(&["comb", "brush"], &[]);
/// assert_eq!(novelty.value(), Some(2.5)); // log2(8 / 2) and log2(8 / 1)
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Popularity<I> {
    k: usize,
    scale: PopularityScale,
    counts: ItemCounts<I>,
    mean: RunningMean,
}

impl<I: Eq + Hash> Popularity<I> {
    /// The popularity of the first `k` ranks, with no user seen yet.
    ///
    /// # Errors
    /// [`EvalError::ZeroCutoff`](crate::EvalError::ZeroCutoff) when `k` is 0.
    pub fn new(k: usize, counts: ItemCounts<I>, scale: PopularityScale) -> Result<Self> {
        check_cutoff(scale.name(), k)?;
        Ok(Self { k, scale, counts, mean: RunningMean::default() })
    }

    /// Number of ranks that count.
    pub fn k(&self) -> usize {
        self.k
    }

    /// What is taken of a count.
    pub fn scale(&self) -> PopularityScale {
        self.scale
    }

    /// Name in reports, by the scale, with the cut-off. It does not tell which counts are behind it.
    pub fn name(&self) -> String {
        format!("{}@{}", self.scale.name(), self.k)
    }

    fn same_settings(&self, other: &Self) -> bool {
        (self.k, self.scale) == (other.k, other.scale) && self.counts.same(&other.counts)
    }
}

averaged_over_users!([<I: Eq + Hash>] Popularity<I>, Eq + Hash);

impl<I: Eq + Hash> ListMetric<I> for Popularity<I> {
    fn name(&self) -> String {
        self.name()
    }

    fn score(&self, ranked: &[I], _relevant: &[I]) -> Option<f64> {
        let top = &ranked[..self.k.min(ranked.len())];
        let sum: f64 = top.iter().map(|item| self.scale.of(self.counts.count(item), self.counts.total())).sum();
        (!top.is_empty()).then(|| sum / top.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EvalError, Metric};

    const SCALES: [PopularityScale; 3] = [PopularityScale::Count, PopularityScale::Log, PopularityScale::Novelty];

    fn score(scale: PopularityScale, counts: &[(u8, u64)], k: usize, ranked: &[u8]) -> Option<f64> {
        Popularity::new(k, ItemCounts::new(counts.iter().copied()), scale).unwrap().score(ranked, &[])
    }

    #[test]
    fn known_lists() {
        let counts = [(1, 3), (2, 4), (2, 1), (3, 0)];
        let values = |ranked: &[u8]| SCALES.map(|scale| score(scale, &counts, 3, ranked));
        assert_eq!(values(&[]), [None; 3]);
        assert_eq!(values(&[1]), [Some(3.0), Some(4f64.ln()), Some((8f64 / 3.0).log2())]);
        assert_eq!(values(&[9]), [Some(0.0), Some(0.0), Some(3.0)]);
        assert_eq!(values(&[3]), values(&[9]));
        assert_eq!(values(&[2, 2, 1, 1])[0], Some(13.0 / 3.0));
    }

    #[test]
    fn no_counts_and_the_largest_ones_are_numbers() {
        for scale in SCALES {
            assert_eq!(score(scale, &[], 2, &[1, 2]), Some(0.0));
            let largest = score(scale, &[(1, u64::MAX), (1, 7), (2, 5)], 2, &[1, 2]).unwrap();
            assert!(largest.is_finite() && largest > 0.0);
        }
    }

    #[test]
    fn settings_are_named_and_not_mixed() {
        let counts = ItemCounts::new([(1, 3)]);
        let names = SCALES.map(|scale| Popularity::new(5, counts.clone(), scale).unwrap().name());
        assert_eq!(names, ["popularity@5", "log_popularity@5", "novelty@5"]);
        let error = Popularity::new(0, counts.clone(), PopularityScale::Log).unwrap_err();
        assert_eq!(error, EvalError::ZeroCutoff { metric: "log_popularity" });
        let with = |counts, scale| {
            let mut metric = Popularity::new(5, counts, scale).unwrap();
            metric.update(&[1], &[]);
            metric
        };
        let mut one = with(counts.clone(), PopularityScale::Count);
        one.merge(&with(ItemCounts::new([(1, 1), (1, 2)]), PopularityScale::Count));
        assert_eq!((one.value(), one.users(), one.k(), one.scale()), (Some(3.0), 2, 5, PopularityScale::Count));
        for other in [with(counts, PopularityScale::Log), with(ItemCounts::new([(1, 4)]), PopularityScale::Count)] {
            let mut merged = one.clone();
            merged.merge(&other);
            assert_eq!(merged.value(), None);
        }
    }
}
