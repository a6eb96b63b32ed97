//! From generated sequences to items.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use sid_index::{ItemId, Node, SemanticId, SidIndex, SidVocab};

use crate::{
    decoder::Hypothesis,
    error::{DecodeError, Result},
};

/// How generated sequences become items, and what is done with one that is no item.
///
/// A constraint by [`Catalogue`](crate::Catalogue) makes every sequence an item; this decides about free generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Resolve {
    /// It is passed over. The default; with a beam wider than the list, others take its place.
    #[default]
    Exact,
    /// It stands for the items that share the longest prefix with it (TIGER, arXiv 2305.05065, "Invalid IDs"), provided
    /// that the prefix has `at_least` codes; it is passed over otherwise. Among themselves these items are sorted by
    /// Semantic ID, all have the sequence's score, and they come where the sequence stood.
    LongestPrefix {
        /// Codes that must agree.
        at_least: usize,
    },
}

/// An item and the score of the sequence that retrieved it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredItem {
    /// The item.
    pub item: ItemId,
    /// Log-probability of the sequence, in nats.
    pub score: f32,
    /// The item's own Semantic ID, which differs from the sequence when only a prefix agreed.
    pub sid: SemanticId,
}

/// The items that a user's sequences stand for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolved {
    /// At most as many as asked for, best first, none twice.
    pub items: Vec<ScoredItem>,
    /// How many of the first [`generated`](Self::generated) sequences are no item's Semantic ID.
    pub invalid: usize,
    /// How many sequences the invalid ones are counted among: as many as items were asked for, or all if there are
    /// fewer. The invalid-id rate at k is `invalid / generated`, over all users.
    pub generated: usize,
}

impl Resolve {
    /// The best `k` items that the sequences, sorted best first, stand for.
    ///
    /// Items that share a Semantic ID come in item order.
    ///
    /// # Errors
    /// [`DecodeError::NoResults`] when `k` is zero, [`DecodeError::VocabMismatch`] when the vocabulary was made for
    /// another layout than the index's.
    pub fn resolve(&self, index: &SidIndex, vocab: &SidVocab, hypotheses: &[Hypothesis], k: usize) -> Result<Resolved> {
        self.resolve_where(index, vocab, hypotheses, k, |_| true)
    }

    /// As [`resolve`](Self::resolve), passing over the items that `allowed` refuses.
    ///
    /// With a filtered [`Catalogue`](crate::Catalogue) pass its [`allows`](crate::Catalogue::allows): where several items
    /// share a Semantic ID, or only a prefix agrees, a sequence may stand for allowed and refused items at once.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_where(
        &self,
        index: &SidIndex,
        vocab: &SidVocab,
        hypotheses: &[Hypothesis],
        k: usize,
        mut allowed: impl FnMut(ItemId) -> bool,
    ) -> Result<Resolved> {
        if k == 0 {
            return Err(DecodeError::NoResults);
        }
        DecodeError::check_vocab(index, vocab)?;
        let mut resolved = Resolved { generated: k.min(hypotheses.len()), ..Resolved::default() };
        let mut seen = HashSet::new();
        for (place, hypothesis) in hypotheses.iter().enumerate() {
            let (node, agreeing) = deepest(index, vocab, &hypothesis.tokens);
            let valid = index.is_leaf(node) && agreeing == hypothesis.tokens.len();
            if !valid && place < k {
                resolved.invalid += 1;
            }
            let retrieves = match *self {
                Self::Exact => valid,
                Self::LongestPrefix { at_least } => valid || agreeing >= at_least,
            };
            if !retrieves {
                continue;
            }
            for item in index.items_below(node) {
                if resolved.items.len() == k {
                    break;
                }
                if !seen.contains(&item)
                    && allowed(item)
                    && let Some(sid) = index.sid(item)
                {
                    seen.insert(item);
                    resolved.items.push(ScoredItem { item, score: hypothesis.log_prob, sid });
                }
            }
            if resolved.items.len() == k && place + 1 >= k {
                break;
            }
        }
        Ok(resolved)
    }
}

/// The longest prefix of the tokens that some item has: its node and its length.
fn deepest(index: &SidIndex, vocab: &SidVocab, tokens: &[u32]) -> (Node, usize) {
    let mut node = index.root();
    for (position, &token) in tokens.iter().enumerate() {
        let code = vocab.code(token).filter(|&(at, _)| at == position);
        match code.and_then(|(_, code)| index.child(node, code)) {
            Some(child) => node = child,
            None => return (node, position),
        }
    }
    (node, tokens.len())
}

#[cfg(test)]
mod tests;
