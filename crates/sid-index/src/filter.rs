//! Sets of allowed items, asked by trie node.

use std::ops::Range;

use crate::{
    error::{IndexError, Result},
    id::ItemId,
    index::SidIndex,
};

/// Which items of an index are allowed, in a form that says at once whether any of them lies below a trie node.
///
/// Kept as the sorted ranks of the listed items, so its size and the time of a question depend on how many are listed
/// and not on the catalogue. It belongs to the index that it was made from: after an insertion ranks differ and the
/// filter must be made anew.
///
/// ```
/// use ndarray::array;
/// use sid_index::{CollisionPolicy, ItemFilter, ItemId, PrefixTrie, SidIndex, SidLayout};
///
/// let layout = SidLayout::new(vec![4, 4])?;
/// let index = SidIndex::from_codes(layout, array![[1, 0], [1, 2], [3, 3]].view(), CollisionPolicy::Suffix)?;
/// let filter = ItemFilter::excluding(&index, [ItemId(0), ItemId(1)])?;
/// let ones = index.trie().child(PrefixTrie::ROOT, 1).unwrap();
/// let threes = index.trie().child(PrefixTrie::ROOT, 3).unwrap();
/// assert!(!filter.any_in(index.trie().rank_range(ones)));
/// assert!(filter.any_in(index.trie().rank_range(threes)));
/// # Ok::<(), sid_index::IndexError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemFilter {
    /// Sorted, without repetition.
    ranks: Vec<u32>,
    listed: Listed,
    items: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    Excluded,
    Allowed,
}

impl ItemFilter {
    /// Allows every item but the given ones, which may repeat.
    ///
    /// # Errors
    /// When an item is not in the index.
    pub fn excluding(index: &SidIndex, items: impl IntoIterator<Item = ItemId>) -> Result<Self> {
        Self::new(index, items, Listed::Excluded)
    }

    /// Allows the given items, which may repeat, and no other.
    ///
    /// # Errors
    /// When an item is not in the index.
    pub fn only(index: &SidIndex, items: impl IntoIterator<Item = ItemId>) -> Result<Self> {
        Self::new(index, items, Listed::Allowed)
    }

    fn new(index: &SidIndex, items: impl IntoIterator<Item = ItemId>, listed: Listed) -> Result<Self> {
        let mut ranks = items
            .into_iter()
            .map(|item| index.rank(item).ok_or(IndexError::UnknownItem { item, items: index.len() }))
            .collect::<Result<Vec<u32>>>()?;
        ranks.sort_unstable();
        ranks.dedup();
        Ok(Self { ranks, listed, items: index.trie().rank_range(crate::PrefixTrie::ROOT).end })
    }

    /// Number of allowed items whose rank lies in the range.
    pub fn count_in(&self, ranks: Range<u32>) -> u32 {
        let ranks = ranks.start.min(self.items)..ranks.end.min(self.items);
        let below = |bound| self.ranks.partition_point(|&rank| rank < bound);
        // No more than there are ranks, hence within u32.
        let listed = below(ranks.end).saturating_sub(below(ranks.start)) as u32;
        match self.listed {
            Listed::Allowed => listed,
            Listed::Excluded => (ranks.end.saturating_sub(ranks.start)) - listed,
        }
    }

    /// Whether an allowed item's rank lies in the range.
    pub fn any_in(&self, ranks: Range<u32>) -> bool {
        self.count_in(ranks) > 0
    }

    /// Whether no item at all is allowed.
    pub fn is_empty(&self) -> bool {
        !self.any_in(0..self.items)
    }
}
