//! Items that training has never seen.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use sid_index::{ItemId, SidIndex, SidVocab};

use crate::{
    decoder::Hypothesis,
    error::{DecodeError, Result},
    resolve::ScoredItem,
};

/// Makes room for unseen items in a list (TIGER, arXiv 2305.05065, section 4.3, "Cold-Start Recommendation").
///
/// A model gives the whole Semantic ID of an item that it was never trained on little probability, but its first codes say
/// what kind of item it is. So every generated sequence stands for the item that it names *and* for the unseen items that
/// agree with it in the first [`prefix`](Self::prefix) codes; at most a share [`epsilon`](Self::epsilon) of the list is theirs.
/// Unseen items come where the sequence stood, after the item that it names, those of one sequence by item.
///
/// With a score of items, that of Semantic-KNN for instance, the two are a hybrid: of the unseen items that all sequences
/// stand for, the best by that score take the whole share, and room is kept for them. With a [`weight`](Self::weight) of the score
/// every unseen item may be chosen, by
///
/// $$ w \, s(i) + \log\big(p(c_0(i)) + 0.01\big) $$
///
/// where $s$ is the score and $p(c_0)$ the probability of all sequences that begin with the item's first code: the model says of what
/// kind the next item is, the score which of that kind. They stand with the first sequence of their kind, the best first, or at the
/// end where there is none. Every unseen item is scored for every user, as any scorer of all items does. On Amazon Beauty (399 items
/// held out, RQ-VAE of 3 x 256 codes) that finds as many of them as Semantic-KNN does with as much room, or a few more; sequences alone,
/// which must agree in all codes, find next to none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ColdStart {
    /// The greatest share of a list that unseen items may have, 0 to 1. Default: 0.1, the paper's figure 5a.
    pub epsilon: f64,
    /// Codes that must agree, at least one; of Semantic IDs that have fewer beside the suffix, all of these. Default: 3, as in
    /// the paper, where a Semantic ID has three and a suffix. Where few items share all codes, as with two levels of 256, most new ones
    /// agree with none: one less finds them. A [`weight`](Self::weight) asks for none.
    pub prefix: usize,
    /// Weight of the score of items, if there is one, against the logarithm of the first code's probability, at least 0. Default: none, so
    /// that unseen items are those that sequences stand for. 20 suits cosines, as Semantic-KNN scores: of 1,178 users of Beauty whose next
    /// item was held out, one unseen item of ten was right for .0705, .0722 and .0739 at 10, 20 and 40, Semantic-KNN's for .0688.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f32>,
}

impl Default for ColdStart {
    fn default() -> Self {
        Self { epsilon: 0.1, prefix: 3, weight: None }
    }
}

/// What is added to the probability of a first code: the search finds but some of the sequences.
const FLOOR: f32 = 0.01;

impl ColdStart {
    /// So large a share.
    pub fn new(epsilon: f64) -> Self {
        Self { epsilon, ..Self::default() }
    }

    /// Sets how many codes must agree.
    #[must_use]
    pub fn with_prefix(mut self, prefix: usize) -> Self {
        self.prefix = prefix;
        self
    }

    /// Sets the weight of a score against the first code's probability.
    #[must_use]
    pub fn with_weight(mut self, weight: Option<f32>) -> Self {
        self.weight = weight;
        self
    }

    /// Checks the share, the prefix and the weight.
    ///
    /// # Errors
    /// [`DecodeError::Epsilon`], [`DecodeError::ColdPrefix`] and [`DecodeError::ColdWeight`].
    pub fn validate(&self) -> Result<()> {
        if self.prefix == 0 {
            return Err(DecodeError::ColdPrefix);
        }
        if let Some(weight) = self.weight.filter(|weight| !(*weight >= 0.0 && weight.is_finite())) {
            return Err(DecodeError::ColdWeight { weight });
        }
        if (0.0..=1.0).contains(&self.epsilon) { Ok(()) } else { Err(DecodeError::Epsilon { epsilon: self.epsilon }) }
    }

    /// How many of `k` items may be unseen: the whole part of `epsilon * k`.
    pub fn quota(&self, k: usize) -> usize {
        // At most k, so within usize; a share such as 0.1 of 10 is not to fall a rounding short of 1.
        (self.epsilon * k as f64 + 1e-9) as usize
    }

    /// The list of `k` items for sequences sorted best first, none twice.
    ///
    /// `unseen` says whether training has not seen an item, `allowed` whether it may be returned, and `score` how well an
    /// unseen item suits the user, if anything does.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate); [`DecodeError::NoResults`] when `k` is zero; [`DecodeError::VocabMismatch`].
    pub fn resolve(
        &self,
        (index, vocab): (&SidIndex, &SidVocab),
        hypotheses: &[Hypothesis],
        k: usize,
        unseen: impl Fn(ItemId) -> bool,
        allowed: impl Fn(ItemId) -> bool,
        score: Option<&dyn Fn(ItemId) -> f32>,
    ) -> Result<Vec<ScoredItem>> {
        self.validate()?;
        if k == 0 {
            return Err(DecodeError::NoResults);
        }
        DecodeError::check_vocab(index, vocab)?;
        let sequences: Vec<Vec<u32>> =
            hypotheses.iter().map(|hypothesis| codes_of(vocab, &hypothesis.tokens).unwrap_or_default()).collect();
        let weight = self.weight.filter(|_| score.is_some());
        let (quota, length) = (self.quota(k), self.prefix.min(index.layout().levels()));
        let mut met = HashSet::new();
        // What sequences stand for beside their items: of those that begin alike, the first for all.
        let mut near: Vec<Vec<ItemId>> = sequences
            .iter()
            .map(|codes| {
                let prefix = codes.get(..length).unwrap_or(codes);
                if prefix.is_empty() || quota == 0 || weight.is_some() || !met.insert(prefix) {
                    return Vec::new();
                }
                let mut near: Vec<ItemId> = index.items_with_prefix(prefix).collect();
                near.retain(|&item| unseen(item) && allowed(item));
                near.sort_unstable();
                near
            })
            .collect();
        let chosen = score.filter(|_| quota > 0).map(|score| {
            let known = |score: f32| if score.is_nan() { f32::NEG_INFINITY } else { score };
            let mut all: Vec<(ItemId, f32)> = match weight {
                Some(weight) => {
                    let kinds = kinds(hypotheses, &sequences);
                    let ids = (0..index.id_bound()).map(ItemId).filter(|&item| unseen(item) && allowed(item));
                    let value = |item: ItemId| {
                        let kind = kinds.get(index.sid(item)?.first()?).copied().unwrap_or(0.0);
                        Some((item, known(weight * score(item) + (kind + FLOOR).ln())))
                    };
                    ids.filter_map(value).collect()
                }
                None => {
                    // A set, since a sequence that is cut short may stand for what a longer one does.
                    let all: BTreeSet<ItemId> = near.iter().flatten().copied().collect();
                    all.into_iter().map(|item| (item, known(score(item)))).collect()
                }
            };
            let best_first = |a: &(ItemId, f32), b: &(ItemId, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
            if quota < all.len() {
                all.select_nth_unstable_by(quota, best_first);
                all.truncate(quota);
            }
            all.sort_unstable_by(best_first);
            all.into_iter().map(|(item, _)| item).collect::<Vec<_>>()
        });
        if weight.is_some() {
            // Each with the first sequence of its kind.
            for &item in chosen.iter().flatten() {
                let Some(kind) = index.sid(item).and_then(|sid| sid.first().copied()) else { continue };
                if let Some(at) = sequences.iter().position(|codes| codes.first() == Some(&kind)) {
                    near[at].push(item);
                }
            }
        }
        let among: Option<HashSet<ItemId>> = chosen.as_ref().map(|chosen| chosen.iter().copied().collect());
        let room = k - chosen.as_ref().map_or(0, Vec::len);
        let (mut items, mut taken, mut from_training, mut cold) = (Vec::new(), HashSet::new(), 0, 0);
        for ((hypothesis, codes), near) in hypotheses.iter().zip(&sequences).zip(&near) {
            let mut push = |item: ItemId| {
                if items.len() < k
                    && taken.insert(item)
                    && let Some(sid) = index.sid(item)
                {
                    items.push(ScoredItem { item, score: hypothesis.log_prob, sid });
                    return true;
                }
                false
            };
            for item in index.items_with_sid(codes).filter(|&item| !unseen(item) && allowed(item)) {
                from_training += usize::from(from_training < room && push(item));
            }
            if cold < quota {
                let wanted = |item: &ItemId| among.as_ref().is_none_or(|among| among.contains(item));
                for item in near.iter().copied().filter(wanted) {
                    cold += usize::from(cold < quota && push(item));
                }
            }
            if items.len() == k {
                break;
            }
        }
        // Of kinds that no sequence is.
        let score = hypotheses.last().map_or(f32::NEG_INFINITY, |last| last.log_prob);
        let rest = chosen.iter().flatten().copied().filter(|item| !taken.contains(item)).take(k - items.len());
        items.extend(rest.filter_map(|item| Some(ScoredItem { item, score, sid: index.sid(item)? })));
        Ok(items)
    }
}

/// The probability of all sequences that begin with each code.
fn kinds(hypotheses: &[Hypothesis], sequences: &[Vec<u32>]) -> HashMap<u32, f32> {
    let mut kinds = HashMap::new();
    for (hypothesis, codes) in hypotheses.iter().zip(sequences) {
        if let Some(&first) = codes.first() {
            *kinds.entry(first).or_insert(0.0) += hypothesis.log_prob.exp();
        }
    }
    kinds
}

/// The codes that tokens stand for, position by position; `None` when one is out of its place.
fn codes_of(vocab: &SidVocab, tokens: &[u32]) -> Option<Vec<u32>> {
    let code = |(position, &token): (usize, &u32)| vocab.code(token).filter(|&(at, _)| at == position).map(|(_, c)| c);
    tokens.iter().enumerate().map(code).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use proptest::prelude::*;
    use sid_index::{CollisionPolicy, SidLayout};

    use super::*;

    /// Items 0 to 6: (0,1,0), (0,1,1), (0,1,2), (0,2,0), (3,3,0), (3,3,1), (3,0,0); those from 4 on are unseen, and 1.
    fn run(cold: ColdStart, sids: &[[u32; 3]], k: usize, score: Option<&dyn Fn(ItemId) -> f32>) -> Vec<u32> {
        let layout = SidLayout::new(vec![4, 4]).unwrap().with_suffix(4);
        let vocab = SidVocab::new(&layout, 1).unwrap();
        let codes = array![[0, 1], [0, 1], [0, 1], [0, 2], [3, 3], [3, 3], [3, 0]];
        let index = SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix).unwrap();
        let tokens = |sid: &[u32; 3]| (0..3).map(|p| vocab.token(p, sid[p]).unwrap()).collect();
        let hypotheses: Vec<Hypothesis> =
            (1u8..).zip(sids).map(|(i, sid)| Hypothesis { tokens: tokens(sid), log_prob: -f32::from(i) }).collect();
        let unseen = |item: ItemId| item.0 >= 4 || item.0 == 1;
        let allowed = |item: ItemId| item.0 != 3;
        let items = cold.resolve((&index, &vocab), &hypotheses, k, unseen, allowed, score).unwrap();
        items.iter().for_each(|found| assert_eq!(index.sid(found.item).as_ref(), Some(&found.sid)));
        items.into_iter().map(|found| found.item.0).collect()
    }

    const FOUND: [[u32; 3]; 4] = [[0, 1, 0], [0, 2, 0], [3, 3, 2], [0, 1, 2]];

    #[test]
    fn unseen_items_take_their_share_and_no_more() {
        let cold = |epsilon| ColdStart::new(epsilon).with_prefix(2);
        assert_eq!(run(cold(0.0), &FOUND, 4, None), [0, 2]);
        assert_eq!(run(cold(0.25), &FOUND, 4, None), [0, 1, 2]);
        assert_eq!(run(cold(0.5), &FOUND, 4, None), [0, 1, 4, 2]);
        assert_eq!(run(cold(1.0), &FOUND, 10, None), [0, 1, 4, 5, 2]);
        // A shorter prefix reaches further.
        assert_eq!(run(cold(1.0).with_prefix(1), &FOUND, 10, None), [0, 1, 4, 5, 6, 2]);
        // No longer than what comes before the suffix.
        assert_eq!(run(cold(1.0).with_prefix(9), &FOUND, 10, None), [0, 1, 4, 5, 2]);
        assert_eq!(run(cold(0.1), &FOUND, 10, None), [0, 1, 2]);
    }

    #[test]
    fn a_score_chooses_among_the_unseen_items_of_all_sequences() {
        let backwards = |item: ItemId| item.0 as f32;
        let cold = |epsilon| ColdStart::new(epsilon).with_prefix(2);
        let unknown = |item: ItemId| if item.0 == 5 { f32::NAN } else { item.0 as f32 };
        assert_eq!(run(cold(0.25), &FOUND, 4, Some(&unknown)), [0, 4, 2]);
        // Of 1, 4 and 5 the two best.
        assert_eq!(run(cold(0.5), &FOUND, 4, Some(&backwards)), [0, 4, 5, 2]);
        // Room is kept for one that a late sequence stands for.
        assert_eq!(run(cold(0.25), &[[0, 1, 0], [0, 1, 2], [0, 2, 0], [3, 3, 0]], 2, Some(&backwards)), [0, 2]);
        assert_eq!(run(cold(0.5), &[[0, 1, 0], [0, 1, 2], [0, 2, 0], [3, 3, 0]], 2, Some(&backwards)), [0, 5]);
        assert_eq!(run(cold(0.0), &FOUND, 4, Some(&backwards)), [0, 2]);
    }

    #[test]
    fn with_a_weight_every_unseen_item_may_be_chosen_by_its_kind_and_its_score() {
        // Unseen are 1, of kind 0, and 4 to 6, of kind 3; item 3 is not allowed. Sequence i has the probability exp(-i).
        let cold = |epsilon, weight| ColdStart::new(epsilon).with_weight(Some(weight));
        let flat = |_: ItemId| 0.5;
        assert_eq!(run(cold(0.25, 1.0), &FOUND, 4, Some(&flat)), [0, 1, 2], "kind 0 is likelier");
        let sixth = |item: ItemId| if item.0 == 6 { 1.0 } else { 0.0 };
        assert_eq!(run(cold(0.25, 20.0), &FOUND, 4, Some(&sixth)), [0, 6, 2], "where the sequence of its kind stood");
        assert_eq!(run(cold(0.25, 1.0), &FOUND, 4, Some(&sixth)), [0, 1, 2], "a score weighs as much as it is told");
        assert_eq!(
            run(cold(0.5, 20.0), &FOUND[..2], 4, Some(&sixth)),
            [0, 1, 6],
            "a kind that no sequence is comes last"
        );
        assert_eq!(run(cold(0.25, 20.0), &FOUND, 4, None), [0, 1, 2], "without a score it says nothing");
        let backwards = |item: ItemId| item.0 as f32;
        assert_eq!(run(cold(0.5, 20.0), &FOUND, 4, Some(&backwards)), [0, 6, 5, 2], "the best of a kind first");
        let none = |_: ItemId| f32::NAN;
        assert_eq!(run(cold(0.25, 20.0), &FOUND, 4, Some(&none)).len(), 3);
    }

    proptest! {
        /// Whatever the sequences: no item twice, no more than asked for, unseen ones within their share.
        #[test]
        fn lists_keep_their_bounds(
            sids in prop::collection::vec((0u32..4, 0u32..4, 0u32..4), 0..12),
            (k, epsilon, prefix) in (1usize..8, 0.0f64..=1.0, 1usize..5),
            scored in any::<bool>(), weight in prop::option::of(0.0f32..30.0),
        ) {
            let sids: Vec<[u32; 3]> = sids.into_iter().map(|(a, b, c)| [a, b, c]).collect();
            let score = |item: ItemId| -(item.0 as f32);
            let cold = ColdStart::new(epsilon).with_prefix(prefix).with_weight(weight);
            let found = run(cold, &sids, k, scored.then_some(&score as &dyn Fn(ItemId) -> f32));
            let distinct: HashSet<u32> = found.iter().copied().collect();
            prop_assert_eq!(distinct.len(), found.len());
            prop_assert!(found.len() <= k);
            prop_assert!(found.iter().filter(|&&item| item >= 4 || item == 1).count() <= cold.quota(k));
        }
    }

    #[test]
    fn shares_outside_their_range_are_refused() {
        for weight in [-0.1, f32::NAN, f32::INFINITY] {
            let cold = ColdStart::default().with_weight(Some(weight));
            assert!(matches!(cold.validate(), Err(DecodeError::ColdWeight { .. })));
        }
        for epsilon in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(ColdStart::new(epsilon).validate(), Err(DecodeError::Epsilon { .. })));
        }
        assert!(matches!(ColdStart::new(0.5).with_prefix(0).validate(), Err(DecodeError::ColdPrefix)));
        assert_eq!([5, 10, 19, 20].map(|k| ColdStart::new(0.1).quota(k)), [0, 1, 1, 2]);
    }
}
