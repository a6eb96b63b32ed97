//! Semantic IDs of items, and items of Semantic IDs.

use std::sync::Arc;

use ndarray::ArrayView2;
use roaring::RoaringBitmap;

use crate::{
    base::{Base, BaseBuilder},
    collision::CollisionPolicy,
    error::{IndexError, Result},
    id::{CodebookId, ItemId, SemanticId},
    layout::SidLayout,
    node::{Items, Node},
    overlay::Overlay,
    rows::for_each_sorted,
};

/// The two look-up tables of a catalogue and the trie of its prefixes: item to Semantic ID, and Semantic ID, or any prefix
/// of one, to items.
///
/// Items are the rows that the index was made from, counted from zero. Their Semantic IDs are given once: neither
/// [`insert`](Self::insert) nor [`remove`](Self::remove) nor [`compact`](Self::compact) nor a round trip through
/// [`save`](Self::save) and [`open`](Self::open) changes any.
///
/// # How it is kept
/// A *base* of sorted, packed arrays that never change, and what came since: new items in a small sorted list, removed
/// ones in a bitmap. So an insertion costs no rebuild, [`Clone`] copies only what came since, and a clone is a
/// snapshot. [`compact`](Self::compact) makes a new base of all.
///
/// # Memory
/// With 4 codes of 8 bits, 8.4 bytes an item at ten million and 8.5 at a hundred million: 4 for the Semantic ID, 1.2 to
/// 1.4 for the trie, the rest for the item's place in sorted order. Where two tables of 64 bits a row, as the paper
/// counts them (TIGER, arXiv 2305.05065, section 3.3), take 16. [`bytes`](Self::bytes) tells.
#[derive(Debug, Clone)]
pub struct SidIndex {
    pub(crate) layout: SidLayout,
    pub(crate) policy: CollisionPolicy,
    pub(crate) codebook: Option<CodebookId>,
    pub(crate) base: Arc<Base>,
    pub(crate) overlay: Overlay,
    /// Ranks of items that were removed from the base.
    pub(crate) removed: RoaringBitmap,
    /// The same items by number.
    pub(crate) removed_items: RoaringBitmap,
}

/// What an index takes, in bytes; made by [`SidIndex::bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexBytes {
    /// The prefixes of all Semantic IDs: all that a constrained decoder asks.
    pub trie: usize,
    /// From item to Semantic ID.
    pub rows: usize,
    /// From a place in sorted order to the item.
    pub order: usize,
    /// Items that were added or removed since the last [`SidIndex::compact`].
    pub overlay: usize,
}

impl IndexBytes {
    /// All together.
    pub fn total(self) -> usize {
        self.trie + self.rows + self.order + self.overlay
    }
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
        check_policy(&layout, policy)?;
        if codes.ncols() != layout.levels() {
            return Err(IndexError::Levels { expected: layout.levels(), got: codes.ncols() });
        }
        let items = check_item_count(codes.nrows(), layout.positions())?;
        check_codes(&layout, 0, codes.rows().into_iter().map(|row| row.into_iter().copied()))?;
        let mut builder = BaseBuilder::new(&layout, policy, items, items);
        let fill = |item: u32, row: &mut [u32]| {
            for (to, &from) in row.iter_mut().zip(codes.row(item as usize)) {
                *to = from;
            }
        };
        match layout.suffix_size() {
            None => for_each_sorted(layout.sizes(), items, fill, |item, row| builder.push(ItemId(item), row))?,
            Some(suffix_size) => {
                let mut sid: Vec<u32> = Vec::with_capacity(layout.positions());
                for_each_sorted(layout.codebook_sizes(), items, fill, |item, row| {
                    let suffix = match sid.split_last() {
                        Some((&last, codes)) if codes == row => last + 1,
                        _ => 0,
                    };
                    if suffix >= suffix_size {
                        let items = codes.rows().into_iter().filter(|other| other.iter().eq(row)).count();
                        return Err(IndexError::SuffixOverflow { items, codes: row.to_vec(), suffix_size });
                    }
                    sid.clear();
                    sid.extend_from_slice(row);
                    sid.push(suffix);
                    builder.push(ItemId(item), &sid)
                })?;
            }
        }
        Ok(Self::of_base(layout, policy, None, builder.finish()))
    }

    /// An index over whole Semantic IDs, suffixes included, one behind the other.
    ///
    /// # Errors
    /// When the layout is not valid or does not fit the policy, `sids` is not a whole number of Semantic IDs, a code is
    /// outside its size, or, under [`CollisionPolicy::Suffix`], two items have one Semantic ID.
    pub fn from_sids(layout: SidLayout, sids: &[u32], policy: CollisionPolicy) -> Result<Self> {
        check_policy(&layout, policy)?;
        let positions = layout.positions();
        if !sids.len().is_multiple_of(positions) {
            return Err(IndexError::Positions { expected: positions, got: sids.len() % positions });
        }
        let items = check_item_count(sids.len() / positions, positions)?;
        check_codes(&layout, 0, sids.chunks_exact(positions).map(|sid| sid.iter().copied()))?;
        let mut builder = BaseBuilder::new(&layout, policy, items, items);
        for_each_sorted(
            layout.sizes(),
            items,
            |item, row| row.copy_from_slice(&sids[item as usize * positions..][..positions]),
            |item, row| builder.push(ItemId(item), row),
        )?;
        Ok(Self::of_base(layout, policy, None, builder.finish()))
    }

    pub(crate) fn of_base(
        layout: SidLayout,
        policy: CollisionPolicy,
        codebook: Option<CodebookId>,
        base: Base,
    ) -> Self {
        let overlay = Overlay::new(layout.positions());
        let (removed, removed_items) = (RoaringBitmap::new(), RoaringBitmap::new());
        Self { layout, policy, codebook, base: Arc::new(base), overlay, removed, removed_items }
    }

    /// Records which codebook the codes come from.
    #[must_use]
    pub fn with_codebook(mut self, codebook: CodebookId) -> Self {
        self.codebook = Some(codebook);
        self
    }

    /// Which codebook the codes come from, where it was recorded.
    pub fn codebook(&self) -> Option<CodebookId> {
        self.codebook
    }

    /// Checks that codes of a quantiser may be looked up here. An index that records no codebook accepts any.
    ///
    /// # Errors
    /// [`IndexError::Codebook`] when the index belongs to another.
    pub fn check_codebook(&self, codebook: CodebookId) -> Result<()> {
        match self.codebook {
            Some(expected) if expected != codebook => Err(IndexError::Codebook { expected, got: codebook }),
            _ => Ok(()),
        }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.base.len() as usize - self.removed.len() as usize + self.overlay.len() as usize
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number that the next new item will get: one more than the greatest ever given. Above [`len`](Self::len) once an
    /// item was removed, whose number is not given again.
    pub fn id_bound(&self) -> u32 {
        self.base.id_bound() + self.overlay.arrivals()
    }

    /// The form of the Semantic IDs.
    pub fn layout(&self) -> &SidLayout {
        &self.layout
    }

    /// What became of items with equal codes.
    pub fn policy(&self) -> CollisionPolicy {
        self.policy
    }

    /// All items with their Semantic IDs, by item.
    pub fn sids(&self) -> impl Iterator<Item = (ItemId, SemanticId)> + '_ {
        (0..self.id_bound()).map(ItemId).filter_map(|item| Some((item, self.sid(item)?)))
    }

    /// The Semantic ID of an item.
    #[inline]
    pub fn sid(&self, item: ItemId) -> Option<SemanticId> {
        match item.0.checked_sub(self.base.id_bound()) {
            Some(arrival) => self.overlay.sid(arrival),
            None => self.base_has(item.0).then(|| self.base.rows.sid(item.0)),
        }
    }

    /// Whether there is such an item.
    #[inline]
    pub fn contains(&self, item: ItemId) -> bool {
        match item.0.checked_sub(self.base.id_bound()) {
            Some(arrival) => self.overlay.sid(arrival).is_some(),
            None => self.base_has(item.0),
        }
    }

    #[inline]
    fn base_has(&self, item: u32) -> bool {
        self.base.contains(item) && (self.removed_items.is_empty() || !self.removed_items.contains(item))
    }

    /// The item that has a Semantic ID; the lowest where several share it.
    #[inline]
    pub fn item(&self, sid: &[u32]) -> Option<ItemId> {
        if sid.len() != self.layout.positions() {
            return None;
        }
        if self.overlay.len() == 0 && self.removed.is_empty() {
            let leaf = self.base.find(sid)?;
            return Some(self.base.item(self.base.trie.first_rank(sid.len(), leaf)));
        }
        self.items_with_sid(sid).next()
    }

    /// All items that have a Semantic ID, ascending: at most one under [`CollisionPolicy::Suffix`].
    pub fn items_with_sid(&self, sid: &[u32]) -> Items<'_> {
        let node = if sid.len() == self.layout.positions() { self.find(sid) } else { None };
        self.items_below(node.unwrap_or(Node::NOWHERE))
    }

    /// The items whose Semantic ID begins with `prefix`, sorted by Semantic ID; all items for the empty prefix.
    pub fn items_with_prefix(&self, prefix: &[u32]) -> Items<'_> {
        self.items_below(self.find(prefix).unwrap_or(Node::NOWHERE))
    }

    #[inline]
    pub(crate) fn item_of_arrival(&self, arrival: u32) -> ItemId {
        ItemId(self.base.id_bound().saturating_add(arrival))
    }

    /// Share of the items that repeat the codes of another: one minus distinct code tuples over items, before any
    /// suffix. Zero for an empty index.
    pub fn collision_rate(&self) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        1.0 - self.count_prefixes(self.layout.levels()) as f64 / self.len() as f64
    }

    /// Number of distinct prefixes of a length that the items have; zero past that of a Semantic ID.
    pub fn count_prefixes(&self, length: usize) -> usize {
        if self.pending() == 0 {
            return self.base.trie.nodes(length) as usize;
        }
        let (mut found, mut open) = (0, vec![self.root()]);
        while let Some(node) = open.pop() {
            match node.depth() == length {
                true => found += 1,
                false => open.extend(self.children(node).map(|(_, child)| child)),
            }
        }
        found
    }

    /// What the index takes. Shared with its clones, all but `overlay`; read from the disk as needed where it is mapped.
    pub fn bytes(&self) -> IndexBytes {
        let present = self.base.present.as_ref().map_or(0, |words| words.len());
        IndexBytes {
            trie: self.base.trie.bytes(),
            rows: 8 * (self.base.rows.words().len() + present),
            order: 8 * self.base.order.words().len(),
            overlay: self.overlay.bytes() + self.removed.serialized_size() + self.removed_items.serialized_size(),
        }
    }
}

/// Indexes are equal when they hold the same items with the same Semantic IDs, whatever was compacted.
impl PartialEq for SidIndex {
    fn eq(&self, other: &Self) -> bool {
        self.layout == other.layout
            && self.policy == other.policy
            && self.codebook == other.codebook
            && self.id_bound() == other.id_bound()
            && (0..self.id_bound()).map(ItemId).all(|item| self.sid(item) == other.sid(item))
    }
}

impl Eq for SidIndex {}

pub(crate) fn check_policy(layout: &SidLayout, policy: CollisionPolicy) -> Result<()> {
    layout.validate()?;
    match (policy, layout.suffix_size()) {
        (CollisionPolicy::Suffix, None) => Err(IndexError::NoSuffix),
        (CollisionPolicy::Share, Some(_)) => Err(IndexError::UnusedSuffix),
        _ => Ok(()),
    }
}

/// The number of items, which is to fit in `u32` with one to spare.
pub(crate) fn check_item_count(items: usize, positions: usize) -> Result<u32> {
    match u32::try_from(items) {
        Ok(n) if n < u32::MAX => Ok(n),
        _ => Err(IndexError::TooManyItems { items, positions }),
    }
}

/// Checks that every code of every row is one of its position; the first row is that of item `first`.
pub(crate) fn check_codes(
    layout: &SidLayout,
    first: u32,
    rows: impl Iterator<Item = impl Iterator<Item = u32>>,
) -> Result<()> {
    for (item, row) in (first..).map(ItemId).zip(rows) {
        for (position, (code, &size)) in row.zip(layout.sizes()).enumerate() {
            if code >= size {
                return Err(IndexError::CodeOutOfRange { item, position, code, size });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
