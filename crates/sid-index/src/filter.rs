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

    /// Allows what both filters allow. Both must come from the same index.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let (ranks, listed) = match (self.listed, other.listed) {
            (Listed::Excluded, Listed::Excluded) => {
                let mut ranks = [self.ranks.as_slice(), &other.ranks].concat();
                ranks.sort_unstable();
                ranks.dedup();
                (ranks, Listed::Excluded)
            }
            (Listed::Allowed, _) => {
                (self.ranks.iter().copied().filter(|&r| other.allows(r)).collect(), Listed::Allowed)
            }
            (Listed::Excluded, Listed::Allowed) => {
                (other.ranks.iter().copied().filter(|&r| self.allows(r)).collect(), Listed::Allowed)
            }
        };
        Self { ranks, listed, items: self.items.min(other.items) }
    }

    fn allows(&self, rank: u32) -> bool {
        self.any_in(rank..rank.saturating_add(1))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ndarray::Array2;
    use proptest::prelude::*;

    use super::*;
    use crate::{CollisionPolicy, SidLayout};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn counts_equal_those_of_a_set(
            codes in prop::collection::vec(0u32..3, 20),
            first in prop::collection::vec(0u32..10, 0..8),
            second in prop::collection::vec(0u32..10, 0..8),
            kinds in (any::<bool>(), any::<bool>()),
            range in (0u32..12, 0u32..12),
        ) {
            let layout = SidLayout::new(vec![3, 3]).unwrap();
            let codes = Array2::from_shape_vec((10, 2), codes).unwrap();
            let index = SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix).unwrap();
            let make = |items: &[u32], only: bool| {
                let listed = items.iter().map(|&i| ItemId(i));
                let filter =
                    if only { ItemFilter::only(&index, listed) } else { ItemFilter::excluding(&index, listed) }.unwrap();
                let allowed: BTreeSet<u32> = (0..10)
                    .filter(|i| items.contains(i) == only)
                    .map(|i| index.rank(ItemId(i)).unwrap())
                    .collect();
                (filter, allowed)
            };
            let (a, in_a) = make(&first, kinds.0);
            let (b, in_b) = make(&second, kinds.1);
            let both = a.intersect(&b);
            for (filter, allowed) in [(&a, &in_a), (&b, &in_b), (&both, &(&in_a & &in_b))] {
                let expected = (range.0..range.1).filter(|rank| allowed.contains(rank)).count();
                prop_assert_eq!(filter.count_in(range.0..range.1) as usize, expected);
                prop_assert_eq!(filter.is_empty(), allowed.is_empty());
            }
        }
    }

    #[test]
    fn unknown_items_are_refused() {
        let layout = SidLayout::new(vec![3]).unwrap();
        let index = SidIndex::from_sids(layout, vec![0, 0], CollisionPolicy::Suffix).unwrap();
        assert!(matches!(
            ItemFilter::excluding(&index, [ItemId(1)]),
            Err(IndexError::UnknownItem { item: ItemId(1), items: 1 })
        ));
    }
}
