//! Places that items of an index have already.

use crate::index::SidIndex;

/// How many places below each prefix are taken by items whose Semantic IDs stay.
pub(super) struct Occupied<'a> {
    index: Option<&'a SidIndex>,
    /// Code tuples in use, sorted, `(tuples, levels)`.
    tuples: Vec<u32>,
    /// Places taken by the tuples before each, `(tuples + 1,)`.
    before: Vec<u64>,
}

impl<'a> Occupied<'a> {
    /// No item yet.
    pub(super) fn nothing() -> Self {
        Self { index: None, tuples: Vec::new(), before: Vec::new() }
    }

    /// The items of an index, where a code tuple has `capacity` places.
    ///
    /// A tuple counts as full as well when its suffixes have run out.
    pub(super) fn by(index: &'a SidIndex, capacity: u64) -> Self {
        let levels = index.layout().levels();
        let (mut tuples, mut before, mut taken) = (Vec::new(), vec![0], 0);
        let mut held = 0_u64;
        let mut items = index.items_with_prefix(&[]).filter_map(|item| index.sid(item)).peekable();
        while let Some(sid) = items.next() {
            let codes = &sid[..levels];
            held += 1;
            if items.peek().is_some_and(|next| next[..levels] == *codes) {
                continue;
            }
            let suffixes = index.layout().suffix_size().map_or(u64::MAX, |size| u64::from(size).saturating_sub(held));
            taken += capacity - capacity.saturating_sub(held).min(suffixes);
            tuples.extend_from_slice(codes);
            before.push(taken);
            held = 0;
        }
        Self { index: Some(index), tuples, before }
    }

    /// Places taken below a prefix, of fewer or as many codes as there are levels.
    pub(super) fn below(&self, prefix: &[u32]) -> u64 {
        let Some(levels) = self.index.map(|index| index.layout().levels()) else { return 0 };
        let place = |after: bool| {
            let (mut low, mut high) = (0, self.before.len() - 1);
            while low < high {
                let middle = low.midpoint(high);
                let start = &self.tuples[middle * levels..][..prefix.len().min(levels)];
                if start < prefix || (after && start == prefix) { low = middle + 1 } else { high = middle }
            }
            low
        };
        self.before[place(true)] - self.before[place(false)]
    }

    /// Takes the places below each code after a prefix away from its room.
    pub(super) fn subtract_from(&self, rooms: &mut [u64], prefix: &[u32]) {
        let Some(index) = self.index else { return };
        let Some(node) = index.find(prefix) else { return };
        let mut longer = [prefix, &[0]].concat();
        for (code, _) in index.children(node) {
            if let (Some(room), Some(last)) = (rooms.get_mut(code as usize), longer.last_mut()) {
                *last = code;
                *room = room.saturating_sub(self.below(&longer));
            }
        }
    }
}
