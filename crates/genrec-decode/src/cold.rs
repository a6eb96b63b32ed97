//! Items that training has never seen.

use std::collections::HashSet;

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
/// Unseen items come where the sequence stood, after the item that it names; those of one sequence are sorted by a score where
/// there is one, of Semantic-KNN for instance, and by item otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ColdStart {
    /// The greatest share of a list that unseen items may have, 0 to 1. Default: 0.1, the paper's figure 5a.
    pub epsilon: f64,
    /// Codes that must agree. Default: 3, as in the paper, where a Semantic ID has three and a suffix.
    pub prefix: usize,
}

impl Default for ColdStart {
    fn default() -> Self {
        Self { epsilon: 0.1, prefix: 3 }
    }
}

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

    /// Checks the share.
    ///
    /// # Errors
    /// [`DecodeError::Epsilon`].
    pub fn validate(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.epsilon) { Ok(()) } else { Err(DecodeError::Epsilon { epsilon: self.epsilon }) }
    }

    /// How many of `k` items may be unseen: the whole part of `epsilon * k`.
    pub fn quota(&self, k: usize) -> usize {
        // Less than k, so within usize; a share such as 0.1 of 10 is not to fall a rounding short of 1.
        (self.epsilon * k as f64 + 1e-9) as usize
    }

    /// The list of `k` items for sequences sorted best first, none twice.
    ///
    /// `unseen` says whether training has not seen an item, `allowed` whether it may be returned, and `score` how well an
    /// unseen item suits the user, if anything does.
    ///
    /// # Errors
    /// [`DecodeError::Epsilon`]; [`DecodeError::NoResults`] when `k` is zero; [`DecodeError::VocabMismatch`].
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
        let (mut items, mut taken, mut quota) = (Vec::new(), HashSet::new(), self.quota(k));
        for hypothesis in hypotheses {
            let Some(codes) = codes_of(vocab, &hypothesis.tokens) else { continue };
            let mut push = |item: ItemId| {
                if items.len() < k
                    && allowed(item)
                    && taken.insert(item)
                    && let Some(sid) = index.sid(item)
                {
                    items.push(ScoredItem { item, score: hypothesis.log_prob, sid });
                    return true;
                }
                false
            };
            for item in index.items_with_sid(&codes).filter(|&item| !unseen(item)) {
                push(item);
            }
            if quota > 0 {
                let prefix = codes.get(..self.prefix).unwrap_or(&codes);
                let mut near: Vec<ItemId> = index.items_with_prefix(prefix).filter(|&item| unseen(item)).collect();
                match score {
                    Some(score) => near.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b))),
                    None => near.sort_unstable(),
                }
                for item in near {
                    if quota > 0 && push(item) {
                        quota -= 1;
                    }
                }
            }
            if items.len() == k {
                break;
            }
        }
        Ok(items)
    }
}

/// The codes that tokens stand for, position by position; `None` when one is out of its place.
fn codes_of(vocab: &SidVocab, tokens: &[u32]) -> Option<Vec<u32>> {
    let code = |(position, &token): (usize, &u32)| vocab.code(token).filter(|&(at, _)| at == position).map(|(_, c)| c);
    tokens.iter().enumerate().map(code).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::array;
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
        assert_eq!(run(cold(1.0).with_prefix(9), &FOUND, 10, None), [0, 2]);
        assert_eq!(run(cold(0.1), &FOUND, 10, None), [0, 1, 2]);
    }

    #[test]
    fn a_score_orders_the_unseen_items_of_a_sequence() {
        let backwards = |item: ItemId| item.0 as f32;
        let cold = ColdStart::new(0.5).with_prefix(2);
        assert_eq!(run(cold, &[[3, 3, 3], [0, 1, 0]], 4, Some(&backwards)), [5, 4, 0]);
    }

    #[test]
    fn shares_outside_their_range_are_refused() {
        for epsilon in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(ColdStart::new(epsilon).validate(), Err(DecodeError::Epsilon { .. })));
        }
        assert_eq!([5, 10, 19, 20].map(|k| ColdStart::new(0.1).quota(k)), [0, 1, 1, 2]);
    }
}
