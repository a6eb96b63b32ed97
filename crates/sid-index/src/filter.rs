//! Sets of allowed items, asked by node.

use std::sync::{Arc, Weak};

use roaring::RoaringBitmap;

use crate::{
    base::Base,
    error::{IndexError, Result},
    id::ItemId,
    index::SidIndex,
    node::Node,
};

/// Which items of an index are allowed, in a form that says at once whether any of them lies below a node.
///
/// Kept as a [Roaring bitmap](https://roaringbitmap.org) over the items in the order of their Semantic IDs, so that the items
/// below a node are a range: a few bytes an item where few are listed, a bit an item at most. It belongs to the index
/// that it was made from, and stays valid when items are added or removed, until the next [`SidIndex::compact`]: a
/// later item counts as not listed.
///
/// ```
/// use ndarray::array;
/// use sid_index::{CollisionPolicy, ItemFilter, ItemId, SidIndex, SidLayout};
///
/// let layout = SidLayout::new(vec![4, 4])?;
/// let index = SidIndex::from_codes(layout, array![[1, 0], [1, 2], [3, 3]].view(), CollisionPolicy::Suffix)?;
/// let filter = ItemFilter::excluding(&index, [ItemId(0), ItemId(1)])?;
/// let below = |code| index.find(&[code]).is_some_and(|node| filter.any_below(&index, node));
/// assert!(!below(1));
/// assert!(below(3));
/// # Ok::<(), sid_index::IndexError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ItemFilter {
    /// Ranks of items of the base, and arrivals of others behind them.
    slots: RoaringBitmap,
    listed: Listed,
    /// What the slots count; weak, so that a filter keeps no old base alive.
    base: Weak<Base>,
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
    /// [`IndexError::UnknownItem`] when an item is not in the index.
    pub fn excluding(index: &SidIndex, items: impl IntoIterator<Item = ItemId>) -> Result<Self> {
        Self::listing(index, items, Listed::Excluded)
    }

    /// Allows the given items, which may repeat, and no other.
    ///
    /// # Errors
    /// [`IndexError::UnknownItem`] when an item is not in the index.
    pub fn only(index: &SidIndex, items: impl IntoIterator<Item = ItemId>) -> Result<Self> {
        Self::listing(index, items, Listed::Allowed)
    }

    fn listing(index: &SidIndex, items: impl IntoIterator<Item = ItemId>, listed: Listed) -> Result<Self> {
        let slot = |item| slot(index, item).ok_or(IndexError::UnknownItem { item, items: index.len() });
        let slots = items.into_iter().map(slot).collect::<Result<RoaringBitmap>>()?;
        Ok(Self { slots, listed, base: Arc::downgrade(&index.base) })
    }

    /// Allows the items that `allowed` says yes to: those in stock, of a category, below a price. It is asked once about each
    /// item, so that a filter of a large catalogue is made once and used for many searches.
    pub fn matching(index: &SidIndex, mut allowed: impl FnMut(ItemId) -> bool) -> Self {
        let base = &index.base;
        let mut slots = RoaringBitmap::new();
        for rank in 0..base.len() {
            if !index.removed.contains(rank) && allowed(base.item(rank)) {
                slots.insert(rank);
            }
        }
        for arrival in 0..index.overlay.arrivals() {
            if index.overlay.sid(arrival).is_some() && allowed(index.item_of_arrival(arrival)) {
                slots.insert(base.len().saturating_add(arrival));
            }
        }
        slots.optimize();
        Self { slots, listed: Listed::Allowed, base: Arc::downgrade(base) }
    }

    /// Allows what both filters allow.
    ///
    /// # Errors
    /// [`IndexError::StaleFilter`] when they come from different indexes.
    pub fn intersect(&self, other: &Self) -> Result<Self> {
        if !Weak::ptr_eq(&self.base, &other.base) {
            return Err(IndexError::StaleFilter);
        }
        let (slots, listed) = match (self.listed, other.listed) {
            (Listed::Excluded, Listed::Excluded) => (&self.slots | &other.slots, Listed::Excluded),
            (Listed::Allowed, Listed::Allowed) => (&self.slots & &other.slots, Listed::Allowed),
            (Listed::Allowed, Listed::Excluded) => (&self.slots - &other.slots, Listed::Allowed),
            (Listed::Excluded, Listed::Allowed) => (&other.slots - &self.slots, Listed::Allowed),
        };
        Ok(Self { slots, listed, base: self.base.clone() })
    }

    /// Checks that the filter was made from this index, or from one that it was changed from without
    /// [`SidIndex::compact`]. The answers about any other mean nothing; of two clones that were given different items since, each
    /// takes the filters of the other, but for the items added.
    ///
    /// # Errors
    /// [`IndexError::StaleFilter`] otherwise.
    pub fn check(&self, index: &SidIndex) -> Result<()> {
        if std::ptr::eq(self.base.as_ptr(), Arc::as_ptr(&index.base)) { Ok(()) } else { Err(IndexError::StaleFilter) }
    }

    /// Whether the item is in the index and allowed.
    pub fn allows(&self, index: &SidIndex, item: ItemId) -> bool {
        slot(index, item).is_some_and(|slot| self.passes(slot))
    }

    #[inline]
    fn passes(&self, slot: u32) -> bool {
        self.slots.contains(slot) == (self.listed == Listed::Allowed)
    }

    /// Whether an allowed item lies below the node.
    pub fn any_below(&self, index: &SidIndex, node: Node) -> bool {
        let mut ranks = index.base_ranks(node);
        let of_base = match (self.listed, index.removed.is_empty()) {
            _ if ranks.is_empty() => false,
            (Listed::Excluded, true) => !self.slots.contains_range(ranks),
            (Listed::Excluded, false) => {
                let listed =
                    self.slots.range_cardinality(ranks.clone()) + index.removed.range_cardinality(ranks.clone());
                listed < ranks.len() as u64 || ranks.any(|rank| self.passes(rank) && !index.removed.contains(rank))
            }
            (Listed::Allowed, _) => self.slots.range(ranks).any(|rank| !index.removed.contains(rank)),
        };
        of_base || index.arrivals(node).any(|arrival| self.passes(index.base.len().saturating_add(arrival)))
    }

    /// Number of allowed items.
    pub fn count(&self, index: &SidIndex) -> usize {
        let arrivals = index.arrivals(index.root());
        let of_overlay = arrivals.filter(|&arrival| self.passes(index.base.len().saturating_add(arrival))).count();
        let ranks = 0..index.base.len();
        let of_base = match self.listed {
            _ if ranks.is_empty() => 0,
            Listed::Allowed => self.slots.range_cardinality(ranks) - self.slots.intersection_len(&index.removed),
            Listed::Excluded => {
                let listed = self.slots.range_cardinality(ranks) + index.removed.len();
                u64::from(index.base.len()) - (listed - self.slots.intersection_len(&index.removed))
            }
        };
        of_base as usize + of_overlay
    }
}

/// Where an item that is there stands among the items of the base, or behind them.
fn slot(index: &SidIndex, item: ItemId) -> Option<u32> {
    if !index.contains(item) {
        return None;
    }
    match item.0.checked_sub(index.base.id_bound()) {
        Some(arrival) => index.base.len().checked_add(arrival),
        None => index.base.rank(item.0),
    }
}

#[cfg(test)]
mod tests;
