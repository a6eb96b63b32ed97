//! What the model finds, ranked again by what came near the items of the history.

use std::{cmp::Ordering, collections::BTreeMap};

use genrec_model::baseline::CoOccurrence;
use serde::{Deserialize, Serialize};
use sid_index::ItemId;

use crate::{Error, Result, tokens::History};

/// Ranks what the model finds again, together with what came near the items of a history in training: a model of Semantic IDs
/// knows what is alike, and misses pairs that go together for no other reason.
///
/// The score of an item $i$ after a history $h$ is
///
/// $$ \log p(i \mid h) + w \, \log\big(1 + c(i, h) / f\big) $$
///
/// where $c$ is the score of [`CoOccurrence`], $w$ the [`weight`](Self::weight) and $f$ the [`floor`](Self::floor): a product of experts, in
/// which what was never near keeps the model's score. An item that came near, but that the search has not found, takes the
/// least log-probability of those that it has.
///
/// Sampling and diverse groups have an order of their own, so that only beams and the exact search are ranked again. Of items that were
/// added since training nothing is known, and those with co-occurrences pass them: where new items matter take
/// [`ColdStart`](genrec_decode::ColdStart) instead, which excludes this.
///
/// The defaults were chosen on validation items of Amazon Beauty, where NDCG@10 rises by a fifth; `docs/results.md` has the sweeps, the
/// test, and that of another set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Rerank {
    /// Weight of the co-occurrences beside the log-probability, 0 to 1000. 1.
    pub weight: f32,
    /// What counts as one more co-occurrence, 1e-6 to 1e6. 0.01.
    pub floor: f32,
    /// Sequences that the search finds at least, however few [`beams`](super::DecodeConfig::beams) there are, and co-occurring items that
    /// join them. 50; fewer are worse, more not much better.
    pub candidates: usize,
}

impl Default for Rerank {
    fn default() -> Self {
        Self { weight: 1.0, floor: 0.01, candidates: 50 }
    }
}

impl Rerank {
    /// Sets the weight of the co-occurrences.
    #[must_use]
    pub fn with_weight(mut self, weight: f32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets what counts as one more co-occurrence.
    #[must_use]
    pub fn with_floor(mut self, floor: f32) -> Self {
        self.floor = floor;
        self
    }

    /// Sets how many candidates there are of either kind.
    #[must_use]
    pub fn with_candidates(mut self, candidates: usize) -> Self {
        self.candidates = candidates;
        self
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`Error::Config`] names the first setting outside its bounds.
    pub fn validate(&self) -> Result<()> {
        let check = |field, ok: bool, value: String, expected| {
            if ok { Ok(()) } else { Err(Error::Config { field, value, expected }) }
        };
        let Self { weight, floor, candidates } = *self;
        check("rerank.weight", (0.0..=1e3).contains(&weight), weight.to_string(), "from 0 to 1000")?;
        check("rerank.floor", (1e-6..=1e6).contains(&floor), floor.to_string(), "from 1e-6 to 1e6")?;
        check("rerank.candidates", candidates > 0, candidates.to_string(), "at least 1")
    }

    /// Ranks anew what was found, best first; of other items those that are allowed join. Ties go to the lower row.
    pub(super) fn apply(
        &self,
        near: &CoOccurrence,
        history: &History<'_>,
        found: &[(ItemId, f32)],
        allowed: impl Fn(ItemId) -> bool,
    ) -> Vec<(ItemId, f32)> {
        let near = near.near(history.items.iter().map(|item| item.0));
        let bonus = |c: f32| self.weight * (c / self.floor).ln_1p();
        let Some(least) = found.iter().map(|&(_, score)| score).reduce(f32::min) else { return Vec::new() };
        let of =
            |item: ItemId| near.binary_search_by_key(&item.0, |&(item, _)| item).map_or(0.0, |at| bonus(near[at].1));
        let mut scores: BTreeMap<ItemId, f32> = found.iter().map(|&(item, score)| (item, score + of(item))).collect();
        let others = near.iter().map(|&(item, c)| (ItemId(item), c));
        let mut others: Vec<(ItemId, f32)> =
            others.filter(|&(item, _)| !scores.contains_key(&item) && allowed(item)).collect();
        if self.candidates < others.len() {
            others.select_nth_unstable_by(self.candidates, best_first);
            others.truncate(self.candidates);
        }
        scores.extend(others.into_iter().map(|(item, c)| (item, least + bonus(c))));
        let mut ranked: Vec<(ItemId, f32)> = scores.into_iter().collect();
        ranked.sort_unstable_by(best_first);
        ranked
    }
}

fn best_first(a: &(ItemId, f32), b: &(ItemId, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(rerank: Rerank, found: &[(u32, f32)], allowed: impl Fn(ItemId) -> bool) -> Vec<(u32, f32)> {
        let near = CoOccurrence::fit([vec![0, 1], vec![0, 1], vec![0, 2], vec![3, 4]], 6).unwrap();
        let history = History { user: None, items: &[ItemId(0)] };
        let found: Vec<_> = found.iter().map(|&(item, score)| (ItemId(item), score)).collect();
        rerank.apply(&near, &history, &found, allowed).into_iter().map(|(item, score)| (item.0, score)).collect()
    }

    #[test]
    fn what_came_near_moves_up_and_joins() {
        let c = [2.0 / (4.0_f32 * 3.0).sqrt(), 1.0 / (4.0_f32 * 2.0).sqrt()];
        let found = [(5, -1.0), (2, -3.0), (4, -4.0)];
        let got = ranked(Rerank::default(), &found, |_| true);
        let bonus = c.map(|c| (1.0 + c / 0.01).ln());
        let expected = [(2, -3.0 + bonus[1]), (1, -4.0 + bonus[0]), (5, -1.0), (4, -4.0)];
        assert_eq!(got.iter().map(|(item, _)| *item).collect::<Vec<_>>(), expected.map(|(item, _)| item));
        assert!(got.iter().zip(expected).all(|(got, want)| (got.1 - want.1).abs() < 1e-5), "{got:?} {expected:?}");
    }

    #[test]
    fn what_is_not_wanted_does_not_join_and_no_weight_changes_nothing() {
        let found = [(5, -1.0), (2, -3.0), (4, -3.0)];
        assert_eq!(ranked(Rerank::default(), &found, |item| item.0 != 1).len(), 3);
        let same = ranked(Rerank::default().with_weight(0.0), &found, |_| false);
        assert_eq!(same, found);
        assert!(ranked(Rerank::default(), &[], |_| true).is_empty());
        let one = ranked(Rerank::default().with_candidates(1), &[(5, -1.0)], |_| true);
        assert_eq!(one.len(), 2);
    }

    #[test]
    fn every_field_is_checked() {
        let field = |rerank: Rerank| match rerank.validate() {
            Err(Error::Config { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        let ok = Rerank::default();
        assert!(ok.validate().is_ok());
        for bad in [-1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(field(ok.with_weight(bad)), "rerank.weight");
            assert_eq!(field(ok.with_floor(bad)), "rerank.floor");
        }
        assert_eq!(field(ok.with_floor(0.0)), "rerank.floor");
        assert_eq!(field(ok.with_candidates(0)), "rerank.candidates");
    }
}
