//! The part of an index that does not change.

use crate::{
    collision::CollisionPolicy,
    error::{IndexError, Result},
    id::ItemId,
    layout::SidLayout,
    packed::{BitsBuilder, Ints, IntsBuilder, Words, width_of},
    rows::{Rows, RowsBuilder},
    trie::{GUESS_ERROR, Trie, TrieBuilder},
};

/// Both look-up tables and the trie of the items that there were when it was made.
#[derive(Debug)]
pub(crate) struct Base {
    /// Item to Semantic ID; the rows of items that are gone mean nothing.
    pub(crate) rows: Rows,
    /// Rank to item.
    pub(crate) order: Ints,
    pub(crate) trie: Trie,
    /// A bit for each item that is there, where some are gone.
    pub(crate) present: Option<Words>,
}

impl Base {
    /// Items that have ever been given a number.
    pub(crate) fn id_bound(&self) -> u32 {
        self.rows.len()
    }

    /// Items that are there.
    pub(crate) fn len(&self) -> u32 {
        self.trie.items()
    }

    /// Whether the item was there when the base was made.
    #[inline]
    pub(crate) fn contains(&self, item: u32) -> bool {
        item < self.rows.len()
            && self
                .present
                .as_deref()
                .is_none_or(|bits| bits.get(item as usize / 64).is_some_and(|w| w >> (item % 64) & 1 == 1))
    }

    /// The item at a rank.
    #[inline]
    pub(crate) fn item(&self, rank: u32) -> ItemId {
        ItemId(self.order.get(rank as usize))
    }

    /// The leaf of a whole Semantic ID.
    #[inline]
    pub(crate) fn find(&self, sid: &[u32]) -> Option<u32> {
        let (&last, prefix) = sid.split_last()?;
        let mut node = 0;
        for (depth, &code) in prefix.iter().enumerate() {
            if depth + 1 == prefix.len()
                && let Some(leaf) = self.trie.guess(node, code)
            {
                self.order.touch((leaf as usize).saturating_sub(GUESS_ERROR));
                self.order.touch(leaf as usize + GUESS_ERROR);
            }
            node = self.trie.child(depth, node, code)?;
        }
        if let Some(leaf) = self.trie.about_first(node) {
            self.order.touch(leaf as usize);
        }
        self.trie.leaf(node, last, |first| self.order.touch(first as usize))
    }

    /// Where the item stands among all. It must be there.
    pub(crate) fn rank(&self, item: u32) -> Option<u32> {
        let ranks = self.trie.ranks(self.trie.positions(), self.find(&self.rows.sid(item))?);
        let (mut low, mut high) = (ranks.start, ranks.end);
        while low < high {
            let middle = low.midpoint(high);
            if self.item(middle).0 < item { low = middle + 1 } else { high = middle }
        }
        (low < ranks.end && self.item(low).0 == item).then_some(low)
    }
}

/// Takes items in the order of their Semantic IDs.
#[derive(Debug)]
pub(crate) struct BaseBuilder {
    policy: CollisionPolicy,
    rows: RowsBuilder,
    order: IntsBuilder,
    trie: TrieBuilder,
    present: BitsBuilder,
    items: u32,
    id_bound: u32,
    last: ItemId,
}

impl BaseBuilder {
    /// A builder for up to `items` of the items below `id_bound`.
    pub(crate) fn new(layout: &SidLayout, policy: CollisionPolicy, items: u32, id_bound: u32) -> Self {
        Self {
            policy,
            rows: RowsBuilder::new(layout, id_bound),
            order: IntsBuilder::new(width_of(id_bound), items as usize),
            trie: TrieBuilder::new(layout),
            present: BitsBuilder::zeros(u64::from(id_bound)),
            items: 0,
            id_bound,
            last: ItemId(0),
        }
    }

    /// Adds an item that sorts behind the last.
    ///
    /// # Errors
    /// [`IndexError::DuplicateSid`] where each item has a Semantic ID of its own and this one has the last one's.
    pub(crate) fn push(&mut self, item: ItemId, sid: &[u32]) -> Result<()> {
        let new = self.trie.push(sid);
        if !new && self.policy == CollisionPolicy::Suffix {
            return Err(IndexError::DuplicateSid { first: self.last, second: item, sid: sid.into() });
        }
        self.rows.set(item.0, sid);
        self.order.push(item.0);
        self.present.set(u64::from(item.0));
        self.items += 1;
        self.last = item;
        Ok(())
    }

    pub(crate) fn finish(self) -> Base {
        let present = (self.items < self.id_bound).then(|| self.present.into_words());
        Base { rows: self.rows.finish(), order: self.order.finish(), trie: self.trie.finish(), present }
    }
}
