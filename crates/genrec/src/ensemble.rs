//! Several runs over one catalogue that recommend together.

use std::collections::BTreeMap;

use genrec_eval::Suite;
use genrec_model::{Seq2Seq, t5::T5};
use sid_index::ItemId;

use crate::{
    Error, Recommender, Result,
    evaluate::{DEPTH, Question},
    tokens::History,
};

/// Several runs over one catalogue, with Semantic IDs or weights of their own, that recommend together.
///
/// Every member searches as it is configured to. The score of an item is the logarithm of its mean probability over the members;
/// an item that a member has not found among its candidates counts there as the last of those that it has. Where members
/// [rank again](crate::Rerank), what that adds counts as part of the probability. Averaging over other
/// Semantic IDs of the same items is what ActionPiece (Hou et al. 2025, [arXiv:2502.13581](https://arxiv.org/abs/2502.13581)) does at
/// inference; over other weights, any ensemble.
///
/// It costs what its members cost together, and gains most where they differ: by seed, quantiser or embedding.
#[derive(Debug)]
pub struct Ensemble<M = T5> {
    members: Vec<Recommender<M>>,
    candidates: usize,
}

/// Candidates of a member, unless told otherwise: beyond fifty beams next to nothing of a catalogue's best is missed.
const CANDIDATES: usize = 50;

impl<M: Seq2Seq> Ensemble<M> {
    /// Puts members together.
    ///
    /// # Errors
    /// [`Error::Config`] when there is no member or two have not the same items in the same order, [`Error::Mismatch`] when they
    /// have not the same number of items.
    pub fn new(members: Vec<Recommender<M>>) -> Result<Self> {
        let Some((first, others)) = members.split_first() else {
            return Err(Error::Config { field: "members", value: "0".to_owned(), expected: "at least 1" });
        };
        let items = first.catalogue().items();
        for other in others {
            let theirs = other.catalogue().items();
            if theirs.len() != items.len() {
                let (left, right) = ("the first member", "another");
                let (left_value, right_value) = (items.len(), theirs.len());
                return Err(Error::Mismatch { what: "items", left, left_value, right, right_value });
            }
            if let Some((item, _)) = items.iter().zip(theirs).find(|(ours, theirs)| ours.id != theirs.id) {
                let (field, value) =
                    ("members", format!("of different catalogues: `{}` stands elsewhere in one", item.id));
                return Err(Error::Config { field, value, expected: "runs over the same items in the same order" });
            }
        }
        Ok(Self { members, candidates: CANDIDATES })
    }

    /// Sets how many candidates each member finds, at least. 50.
    #[must_use]
    pub fn with_candidates(mut self, candidates: usize) -> Self {
        self.candidates = candidates;
        self
    }

    /// The members.
    pub fn members(&self) -> &[Recommender<M>] {
        &self.members
    }

    /// The members, to be searched otherwise or to be put together with others.
    pub fn into_members(self) -> Vec<Recommender<M>> {
        self.members
    }

    /// The `k` best items for each history, best first, with the logarithm (nats) of their mean probability.
    ///
    /// # Errors
    /// [`Error::UnknownItem`] when a history names an item outside the catalogue, and the errors of decoding.
    pub fn rank(&self, histories: &[History<'_>], k: usize) -> Result<Vec<Vec<(ItemId, f32)>>> {
        let wanted = self.candidates.max(k);
        let found = self
            .members
            .iter()
            .map(|member| member.searcher().rank(member.model(), histories, wanted, &mut |_, _| {}))
            .collect::<Result<Vec<_>>>()?;
        Ok((0..histories.len())
            .map(|user| mean(&found.iter().map(|lists| lists[user].items.as_slice()).collect::<Vec<_>>(), k))
            .collect())
    }

    /// Puts questions to the members together.
    ///
    /// # Errors
    /// Those of [`rank`](Self::rank).
    pub fn evaluate(&self, questions: &[Question<'_>]) -> Result<Suite<ItemId>> {
        let histories: Vec<_> = questions.iter().map(|question| question.history).collect();
        let mut suite = Suite::standard();
        for (question, ranked) in questions.iter().zip(self.rank(&histories, DEPTH)?) {
            let items: Vec<_> = ranked.iter().map(|(item, _)| *item).collect();
            suite.update(&items, &[question.target]);
        }
        Ok(suite)
    }
}

/// The items of highest mean probability; ties go to the lower row.
fn mean(lists: &[&[(ItemId, f32)]], k: usize) -> Vec<(ItemId, f32)> {
    let worst = |list: &[(ItemId, f32)]| list.iter().map(|(_, score)| *score).fold(f32::INFINITY, f32::min);
    // Of a member that found nothing every item is impossible.
    let floors: Vec<f64> =
        lists.iter().map(|list| if list.is_empty() { 0.0 } else { f64::from(worst(list)).exp() }).collect();
    let floor: f64 = floors.iter().sum();
    let mut sums: BTreeMap<ItemId, f64> = BTreeMap::new();
    for (list, own_floor) in lists.iter().zip(&floors) {
        for (item, score) in *list {
            *sums.entry(*item).or_insert(floor) += f64::from(*score).exp() - own_floor;
        }
    }
    let mut ranked: Vec<(ItemId, f64)> = sums.into_iter().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked.truncate(k);
    #[allow(clippy::cast_possible_truncation, reason = "a log-probability")]
    let log = |sum: f64| (sum / lists.len() as f64).ln() as f32;
    ranked.into_iter().map(|(item, sum)| (item, log(sum))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(scores: &[(u32, f64)]) -> Vec<(ItemId, f32)> {
        scores.iter().map(|&(item, p)| (ItemId(item), p.ln() as f32)).collect()
    }

    #[test]
    fn probabilities_are_averaged_and_what_is_missing_counts_as_the_last() {
        let (a, b) = (list(&[(1, 0.5), (2, 0.3), (3, 0.1)]), list(&[(2, 0.4), (4, 0.3), (1, 0.2)]));
        let ranked = mean(&[&a, &b], 3);
        let expected = [(1, 0.35), (2, 0.35), (4, 0.2)];
        for ((item, score), (other, p)) in ranked.iter().zip(expected) {
            assert_eq!(item.0, other);
            assert!((f64::from(*score) - f64::ln(p)).abs() < 1e-6, "{ranked:?}");
        }
    }

    #[test]
    fn one_member_alone_keeps_its_order_and_its_scores() {
        let a = list(&[(7, 0.5), (2, 0.3), (3, 0.1)]);
        let ranked = mean(&[&a], 2);
        assert_eq!(ranked.iter().map(|(item, _)| item.0).collect::<Vec<_>>(), [7, 2]);
        assert!((ranked[0].1 - 0.5_f32.ln()).abs() < 1e-6);
        assert_eq!(mean(&[&a, &[]], 3).len(), 3, "a member that found nothing");
        assert!(mean(&[&[], &[]], 3).is_empty());
    }
}
