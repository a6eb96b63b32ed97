//! Places that items of an index have already.

use crate::{
    index::SidIndex,
    trie::{NodeId, PrefixTrie},
};

/// How many places below each prefix are taken by items whose Semantic IDs stay.
pub(super) struct Occupied<'a> {
    index: Option<&'a SidIndex>,
    /// Places taken by the items of lower rank, `(items + 1,)`.
    before: Vec<u64>,
}

impl<'a> Occupied<'a> {
    /// No item yet.
    pub(super) fn nothing() -> Self {
        Self { index: None, before: Vec::new() }
    }

    /// The items of an index, where a code tuple has `capacity` places.
    ///
    /// A tuple counts as full as well when its suffixes have run out: new ones are given above the greatest in use.
    pub(super) fn by(index: &'a SidIndex, capacity: u64) -> Self {
        let levels = index.layout().levels();
        let row = |rank: usize| {
            let item = u32::try_from(rank).ok().and_then(|rank| index.item_at_rank(rank));
            item.and_then(|item| index.sid(item)).map(|sid| sid.codes()).unwrap_or_default()
        };
        let mut before = vec![0_u64; index.len() + 1];
        let (mut taken, mut start) = (0, 0);
        for rank in 0..index.len() {
            let sid = row(rank);
            let last = rank + 1 == index.len() || row(rank + 1).get(..levels) != sid.get(..levels);
            if last {
                let held = (rank + 1 - start) as u64;
                let suffixes = index.layout().suffix_size().map_or(u64::MAX, |size| {
                    u64::from(size).saturating_sub(sid.get(levels).map_or(0, |&suffix| u64::from(suffix) + 1))
                });
                taken += capacity - capacity.saturating_sub(held).min(suffixes);
                start = rank + 1;
            }
            before[rank + 1] = taken;
        }
        Self { index: Some(index), before }
    }

    /// Places taken below a prefix, of fewer or as many codes as there are levels.
    pub(super) fn below(&self, prefix: &[u32]) -> u64 {
        self.index.and_then(|index| Some(self.under(index.trie(), index.trie().find(prefix)?))).unwrap_or(0)
    }

    /// Takes the places below each code after a prefix away from its room.
    pub(super) fn subtract_from(&self, rooms: &mut [u64], prefix: &[u32]) {
        let Some(trie) = self.index.map(SidIndex::trie) else { return };
        let Some(node) = trie.find(prefix) else { return };
        for (code, child) in trie.children(node) {
            if let Some(room) = rooms.get_mut(code as usize) {
                *room = room.saturating_sub(self.under(trie, child));
            }
        }
    }

    fn under(&self, trie: &PrefixTrie, node: NodeId) -> u64 {
        let ranks = trie.rank_range(node);
        self.before[ranks.end as usize] - self.before[ranks.start as usize]
    }
}
