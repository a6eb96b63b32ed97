//! Semantic IDs of items, and items of Semantic IDs.

use ndarray::{ArrayView2, Axis};

use crate::{
    collision::CollisionPolicy,
    error::{IndexError, Result},
    id::{ItemId, SemanticId},
    layout::SidLayout,
    trie::{NodeId, PrefixTrie},
};

/// A Semantic ID inside an index: a slice of codes that prints as `(12, 24, 52, 0)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SidRef<'a>(&'a [u32]);

impl<'a> SidRef<'a> {
    /// Codes in order, the suffix last.
    pub fn codes(self) -> &'a [u32] {
        self.0
    }
}

impl std::ops::Deref for SidRef<'_> {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        self.0
    }
}

impl From<SidRef<'_>> for SemanticId {
    fn from(sid: SidRef<'_>) -> Self {
        Self::from(sid.0)
    }
}

impl std::fmt::Display for SidRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(")?;
        for (i, code) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{code}")?;
        }
        f.write_str(")")
    }
}

/// The two look-up tables of a catalogue: item to Semantic ID, and Semantic ID, or any prefix of one, to items.
///
/// Items are the rows that the index was made from, counted from zero. Their Semantic IDs are given once: neither
/// [`insert`](Self::insert) nor a round trip through [`save`](Self::save) and [`load`](Self::load) changes any.
///
/// Memory: `4 * positions` bytes an item for its Semantic ID, 4 for its place in sorted order, and the
/// [`PrefixTrie`]'s nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidIndex {
    layout: SidLayout,
    policy: CollisionPolicy,
    /// Row-major `(items, positions)`.
    sids: Vec<u32>,
    /// Items sorted by Semantic ID, then by item.
    order: Vec<ItemId>,
    trie: PrefixTrie,
}

impl SidIndex {
    /// An index over the codes that a quantiser gave.
    ///
    /// Under [`CollisionPolicy::Suffix`] the items that share their codes are numbered in item order: which of them gets
    /// suffix 0 depends on the order of the rows, and is kept from then on.
    ///
    /// # Shapes
    /// `codes`: `(items, levels)`; row `i` is the item `ItemId(i)`. No row is a valid index too.
    ///
    /// # Errors
    /// When the layout is not valid or does not fit the policy, the number of columns is not the layout's number of
    /// levels, a code is outside its codebook, more items share their codes than there are suffixes, or there are too
    /// many items.
    #[allow(clippy::needless_pass_by_value, reason = "a view is passed by value, as ndarray does")]
    pub fn from_codes(layout: SidLayout, codes: ArrayView2<'_, u32>, policy: CollisionPolicy) -> Result<Self> {
        let mut index = Self::empty(layout, policy)?;
        index.extend(codes)?;
        Ok(index)
    }

    fn empty(layout: SidLayout, policy: CollisionPolicy) -> Result<Self> {
        layout.validate()?;
        match (policy, layout.suffix_size()) {
            (CollisionPolicy::Suffix, None) => return Err(IndexError::NoSuffix),
            (CollisionPolicy::Share, Some(_)) => return Err(IndexError::UnusedSuffix),
            _ => {}
        }
        let trie = PrefixTrie::from_sorted(layout.positions(), std::iter::empty())
            .ok_or(IndexError::TooManyItems { items: 0, positions: layout.positions() })?;
        Ok(Self { layout, policy, sids: Vec::new(), order: Vec::new(), trie })
    }

    /// An index over whole Semantic IDs, suffixes included, as [`sids`](Self::sids) returns them.
    ///
    /// # Errors
    /// When the layout is not valid or does not fit the policy, `sids` is not a whole number of Semantic IDs, a code is
    /// outside its size, or, under [`CollisionPolicy::Suffix`], two items have one Semantic ID.
    pub fn from_sids(layout: SidLayout, sids: Vec<u32>, policy: CollisionPolicy) -> Result<Self> {
        let Self { layout, .. } = Self::empty(layout, policy)?;
        let positions = layout.positions();
        if !sids.len().is_multiple_of(positions) {
            return Err(IndexError::Positions { expected: positions, got: sids.len() % positions });
        }
        check_item_count(sids.len() / positions, positions)?;
        for (item, sid) in (0..).map(ItemId).zip(sids.chunks_exact(positions)) {
            if let Some((position, code, size)) = layout.first_out_of_range(sid) {
                return Err(IndexError::CodeOutOfRange { item, position, code, size });
            }
        }
        let order = sort_rows(&layout, &sids);
        let row = |item: ItemId| &sids[item.index() * positions..][..positions];
        if policy == CollisionPolicy::Suffix
            && let Some(pair) = order.windows(2).find(|pair| row(pair[0]) == row(pair[1]))
        {
            return Err(IndexError::DuplicateSid { first: pair[0], second: pair[1], sid: row(pair[0]).into() });
        }
        let trie = PrefixTrie::from_sorted(positions, order.iter().map(|&item| row(item)))
            .ok_or(IndexError::TooManyItems { items: order.len(), positions })?;
        Ok(Self { layout, policy, sids, order, trie })
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The form of the Semantic IDs.
    pub fn layout(&self) -> &SidLayout {
        &self.layout
    }

    /// What became of items with equal codes.
    pub fn policy(&self) -> CollisionPolicy {
        self.policy
    }

    /// The Semantic IDs of all items, row-major `(items, positions)`.
    pub fn sids(&self) -> &[u32] {
        &self.sids
    }

    /// The Semantic ID of an item.
    pub fn sid(&self, item: ItemId) -> Option<SidRef<'_>> {
        let positions = self.layout.positions();
        let start = item.index().checked_mul(positions)?;
        self.sids.get(start..start.checked_add(positions)?).map(SidRef)
    }

    /// The item that has a Semantic ID; the lowest where several share it.
    pub fn item(&self, sid: &[u32]) -> Option<ItemId> {
        self.items_with_sid(sid).first().copied()
    }

    /// All items that have a Semantic ID, ascending: at most one under [`CollisionPolicy::Suffix`].
    pub fn items_with_sid(&self, sid: &[u32]) -> &[ItemId] {
        if sid.len() == self.layout.positions() { self.below(sid) } else { &[] }
    }

    /// The items whose Semantic ID begins with `prefix`, sorted by Semantic ID; all items for the empty prefix.
    pub fn items_with_prefix(
        &self,
        prefix: &[u32],
    ) -> impl ExactSizeIterator<Item = ItemId> + DoubleEndedIterator + Clone + '_ {
        self.below(prefix).iter().copied()
    }

    /// The items below a trie node, sorted by Semantic ID.
    pub fn items_below(&self, node: NodeId) -> &[ItemId] {
        let ranks = self.trie.rank_range(node);
        self.order.get(ranks.start as usize..ranks.end as usize).unwrap_or_default()
    }

    fn below(&self, prefix: &[u32]) -> &[ItemId] {
        self.trie.find(prefix).map_or(&[], |node| self.items_below(node))
    }

    /// The prefixes of all Semantic IDs.
    pub fn trie(&self) -> &PrefixTrie {
        &self.trie
    }

    /// Where an item stands among all, sorted by Semantic ID and then by item.
    pub fn rank(&self, item: ItemId) -> Option<u32> {
        let node = self.trie.find(&self.sid(item)?)?;
        let ranks = self.trie.rank_range(node);
        let place = self.items_below(node).binary_search(&item).ok()?;
        Some(ranks.start + u32::try_from(place).ok()?)
    }

    /// The item at a place of the sorted order.
    pub fn item_at_rank(&self, rank: u32) -> Option<ItemId> {
        self.order.get(rank as usize).copied()
    }

    /// Adds an item with the codes that the quantiser gave it and returns its number, the old [`len`](Self::len).
    ///
    /// Under [`CollisionPolicy::Suffix`] it gets the suffix above the greatest that its codes have; Semantic IDs given
    /// before stay as they are, so a trained model stays valid. Takes time proportional to the catalogue: to add many,
    /// use [`extend`](Self::extend).
    ///
    /// # Errors
    /// As [`from_codes`](Self::from_codes); then nothing has changed.
    pub fn insert(&mut self, codes: &[u32]) -> Result<ItemId> {
        let levels = self.layout.levels();
        let row = ArrayView2::from_shape((1, codes.len()), codes)
            .map_err(|_| IndexError::Levels { expected: levels, got: codes.len() })?;
        Ok(ItemId(self.extend(row)?.start))
    }

    /// Adds items as [`insert`](Self::insert) does, in the order of the rows, and returns their numbers.
    ///
    /// # Shapes
    /// `codes`: `(new items, levels)`.
    ///
    /// # Errors
    /// As [`from_codes`](Self::from_codes); then nothing has changed.
    #[allow(clippy::needless_pass_by_value, reason = "a view is passed by value, as ndarray does")]
    pub fn extend(&mut self, codes: ArrayView2<'_, u32>) -> Result<std::ops::Range<u32>> {
        let (levels, positions) = (self.layout.levels(), self.layout.positions());
        if codes.ncols() != levels {
            return Err(IndexError::Levels { expected: levels, got: codes.ncols() });
        }
        let total = self.len().saturating_add(codes.nrows());
        check_item_count(total, positions)?;
        // Both fit in u32: just checked.
        let (start, end) = (self.len() as u32, total as u32);

        let mut sids = self.sids.clone();
        sids.reserve_exact(codes.nrows() * positions);
        for (item, row) in (start..).map(ItemId).zip(codes.axis_iter(Axis(0))) {
            let first = sids.len();
            sids.extend(row.iter().copied());
            if let Some((position, code, size)) = self.layout.first_out_of_range(&sids[first..]) {
                return Err(IndexError::CodeOutOfRange { item, position, code, size });
            }
            sids.resize(first + positions, 0);
        }
        if let Some(suffix_size) = self.layout.suffix_size() {
            self.number_suffixes(&mut sids, suffix_size)?;
        }
        let order = sort_rows(&self.layout, &sids);
        let row = |item: &ItemId| &sids[item.index() * positions..][..positions];
        self.trie = PrefixTrie::from_sorted(positions, order.iter().map(row))
            .ok_or(IndexError::TooManyItems { items: total, positions })?;
        self.sids = sids;
        self.order = order;
        Ok(start..end)
    }

    /// Writes suffixes into the rows that the index does not have yet, in item order above those in use.
    fn number_suffixes(&self, sids: &mut [u32], suffix_size: u32) -> Result<()> {
        let (levels, positions) = (self.layout.levels(), self.layout.positions());
        let old = self.len();
        let mut new: Vec<usize> = (old..sids.len() / positions).collect();
        let codes = |sids: &[u32], item: usize| -> Vec<u32> { sids[item * positions..][..levels].to_vec() };
        new.sort_by(|&a, &b| sids[a * positions..][..levels].cmp(&sids[b * positions..][..levels]));
        let mut rest = new.as_slice();
        while let Some(&head) = rest.first() {
            let shared = codes(sids, head);
            let group = rest.iter().take_while(|&&item| sids[item * positions..][..levels] == shared[..]).count();
            let used = self.trie.find(&shared);
            let next =
                used.and_then(|node| self.trie.children(node).last()).map_or(0, |(suffix, _)| u64::from(suffix) + 1);
            if next + group as u64 > u64::from(suffix_size) {
                let items = used.map_or(0, |node| self.items_below(node).len()) + group;
                return Err(IndexError::SuffixOverflow { items, codes: shared, suffix_size });
            }
            for (suffix, &item) in (next..).zip(&rest[..group]) {
                // Below the suffix size, which is a u32.
                sids[item * positions + levels] = suffix as u32;
            }
            rest = &rest[group..];
        }
        Ok(())
    }

    /// Share of the items that repeat the codes of another: one minus distinct code tuples over items, before any
    /// suffix. Zero for an empty index.
    pub fn collision_rate(&self) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        1.0 - self.trie.nodes_at_depth(self.layout.levels()) as f64 / self.len() as f64
    }
}

pub(crate) fn check_item_count(items: usize, positions: usize) -> Result<()> {
    match u32::try_from(items) {
        Ok(n) if n < u32::MAX => Ok(()),
        _ => Err(IndexError::TooManyItems { items, positions }),
    }
}

/// Items sorted by their rows, then by item. The caller has checked that their number fits in `u32`.
fn sort_rows(layout: &SidLayout, sids: &[u32]) -> Vec<ItemId> {
    let positions = layout.positions();
    let bits = layout.sizes().iter().map(|size| u32::BITS - (size - 1).leading_zeros());
    if bits.clone().sum::<u32>() <= u64::BITS {
        // The usual case, 4 x 8 bits: one integer comparison a pair instead of a slice comparison.
        let mut keyed: Vec<(u64, ItemId)> = (0..)
            .map(ItemId)
            .zip(sids.chunks_exact(positions))
            .map(|(item, sid)| {
                let key =
                    sid.iter().zip(bits.clone()).fold(0, |key: u64, (&code, bits)| (key << bits) | u64::from(code));
                (key, item)
            })
            .collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, item)| item).collect()
    } else {
        let mut rows: Vec<(&[u32], ItemId)> = sids.chunks_exact(positions).zip((0..).map(ItemId)).collect();
        rows.sort_unstable();
        rows.into_iter().map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests;
