//! Metrics of where the relevant items stand in a ranked list: Recall, NDCG, MRR and hit rate.
//!
//! With $L_k$ the first $k$ items of a list and $R$ the set of relevant items, all of them follow the same rules:
//!
//! - An item that is ranked twice counts at its first rank; the repeat takes up a rank and earns nothing.
//! - A relevant item that is named twice counts once.
//! - A list shorter than $k$ is not padded: the missing ranks are misses. An empty list scores 0.
//! - A user without relevant items is left out of the mean.
//! - Nothing is removed from the list: whether items already seen may be recommended is the caller's choice.

use std::collections::HashSet;
use std::hash::Hash;

use crate::metric::{ListMetric, RunningMean, averaged_over_users, first_ranks};

/// Ranks, from 0, at which a relevant item appears for the first time among the first `k`, and the number of distinct
/// relevant items. `None` without relevant items.
fn hits<I: Eq + Hash>(ranked: &[I], relevant: &[I], k: usize) -> Option<(Vec<usize>, usize)> {
    let mut wanted: HashSet<&I> = relevant.iter().collect();
    let distinct = wanted.len();
    if distinct == 0 {
        return None;
    }
    let mut ranks = Vec::new();
    for (rank, item) in ranked.iter().take(k).enumerate() {
        if wanted.remove(item) {
            ranks.push(rank);
        }
    }
    Some((ranks, distinct))
}

/// What an item at a rank (from 0) is worth in DCG.
fn discount(rank: usize) -> f64 {
    1.0 / (rank as f64 + 2.0).log2()
}

/// Recall@k: the share of a user's relevant items that are among the first `k` ranked, averaged over users.
///
/// $$ \text{Recall@}k = |L_k \cap R| / |R| $$
///
/// The denominator is all relevant items, also when there are more of them than ranks. With one relevant item, as in
/// leave-one-out evaluation, it equals [`HitRate`].
///
/// ```
/// use genrec_eval::{Metric, Recall};
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// let mut recall = Recall::new(3)?;
/// recall.update(&[7, 2, 9, 4], &[9, 4]); // 9 is within three ranks, 4 is not
/// recall.update(&[1, 2, 3], &[1]);
/// assert_eq!(recall.value(), Some(0.75));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Recall {
    k: usize,
    mean: RunningMean,
}

first_ranks!(Recall, "recall");
averaged_over_users!([] Recall, Eq + Hash);

impl<I: Eq + Hash> ListMetric<I> for Recall {
    fn name(&self) -> String {
        self.name()
    }

    fn score(&self, ranked: &[I], relevant: &[I]) -> Option<f64> {
        hits(ranked, relevant, self.k).map(|(ranks, distinct)| ranks.len() as f64 / distinct as f64)
    }
}

/// NDCG@k: normalised discounted cumulative gain with binary gains and base-2 logarithms, averaged over users.
///
/// With ranks $i$ from 1 and $[\cdot]$ worth 1 where the condition holds and 0 elsewhere:
///
/// $$ \text{DCG@}k = \sum_{i=1}^{k} [L(i) \in R] / \log_2(i + 1) $$
///
/// $$ \text{NDCG@}k = \text{DCG@}k / \sum_{i=1}^{\min(k, |R|)} 1 / \log_2(i + 1) $$
///
/// The ideal list has its relevant items first, and no more of them than there are ranks. Järvelin and Kekäläinen,
/// *Cumulated gain-based evaluation of IR techniques*, ACM TOIS 20(4), 2002.
///
/// ```
/// use genrec_eval::{ListMetric, Ndcg};
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// // One relevant item, at the third rank: 1 / log2(4).
/// assert_eq!(Ndcg::new(10)?.score(&["a", "b", "c"], &["c"]), Some(0.5));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Ndcg {
    k: usize,
    mean: RunningMean,
}

first_ranks!(Ndcg, "ndcg");
averaged_over_users!([] Ndcg, Eq + Hash);

impl<I: Eq + Hash> ListMetric<I> for Ndcg {
    fn name(&self) -> String {
        self.name()
    }

    fn score(&self, ranked: &[I], relevant: &[I]) -> Option<f64> {
        let (ranks, distinct) = hits(ranked, relevant, self.k)?;
        let gained: f64 = ranks.into_iter().map(discount).sum();
        let ideal: f64 = (0..self.k.min(distinct)).map(discount).sum();
        Some(gained / ideal)
    }
}

/// MRR@k: one over the rank of the first relevant item, 0 when it is not among the first `k`, averaged over users.
///
/// $$ \text{RR@}k = 1 / \min \\{ i \le k : L(i) \in R \\} $$
///
/// Voorhees, *The TREC-8 question answering track report*, 1999.
#[derive(Debug, Clone, PartialEq)]
pub struct Mrr {
    k: usize,
    mean: RunningMean,
}

first_ranks!(Mrr, "mrr");
averaged_over_users!([] Mrr, Eq + Hash);

impl<I: Eq + Hash> ListMetric<I> for Mrr {
    fn name(&self) -> String {
        self.name()
    }

    fn score(&self, ranked: &[I], relevant: &[I]) -> Option<f64> {
        let (ranks, _) = hits(ranked, relevant, self.k)?;
        Some(ranks.first().map_or(0.0, |&rank| 1.0 / (rank as f64 + 1.0)))
    }
}

/// Hit rate@k: the share of users with at least one relevant item among the first `k`.
///
/// $$ \text{Hit@}k = [L_k \cap R \ne \emptyset] $$
#[derive(Debug, Clone, PartialEq)]
pub struct HitRate {
    k: usize,
    mean: RunningMean,
}

first_ranks!(HitRate, "hit_rate");
averaged_over_users!([] HitRate, Eq + Hash);

impl<I: Eq + Hash> ListMetric<I> for HitRate {
    fn name(&self) -> String {
        self.name()
    }

    fn score(&self, ranked: &[I], relevant: &[I]) -> Option<f64> {
        hits(ranked, relevant, self.k).map(|(ranks, _)| if ranks.is_empty() { 0.0 } else { 1.0 })
    }
}

#[cfg(test)]
mod tests;
