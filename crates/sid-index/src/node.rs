//! Walking the prefixes of an index.

use std::ops::Range;

use crate::{id::ItemId, index::SidIndex, trie};

/// No node of the base.
const NONE: u32 = u32::MAX;

/// One prefix that at least one item of a [`SidIndex`] has: 16 bytes, to be copied.
///
/// It belongs to the index that gave it: after items are added, removed or compacted it is to be found anew. An old one
/// leads to other items or to none, never to a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    depth: u16,
    /// The node of the base, or [`NONE`].
    base: u32,
    /// Where the new items with the prefix stand in their order.
    start: u32,
    end: u32,
}

impl Node {
    /// A node without items.
    pub(crate) const NOWHERE: Self = Self { depth: 0, base: NONE, start: 0, end: 0 };

    /// Length of the prefix.
    #[inline]
    pub fn depth(self) -> usize {
        usize::from(self.depth)
    }

    #[inline]
    fn base(self) -> Option<u32> {
        (self.base != NONE).then_some(self.base)
    }

    /// The node one code further.
    #[inline]
    fn deeper(self, base: Option<u32>, overlay: Range<u32>) -> Self {
        Self { depth: self.depth.saturating_add(1), base: base.unwrap_or(NONE), start: overlay.start, end: overlay.end }
    }
}

/// Gathers numbers in groups: a first one, and a bit for each of the 64 from it on. Any order will do; ascending numbers make
/// few groups.
///
/// ```
/// use sid_index::Groups;
///
/// let (mut groups, mut found) = (Groups::default(), Vec::new());
/// let mut f = |first, bits| found.push((first, bits));
/// [3, 4, 66, 67].into_iter().for_each(|number| groups.push(number, &mut f));
/// groups.finish(f);
/// assert_eq!(found, [(3, 1 | 1 << 1 | 1 << 63), (67, 1)]);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Groups {
    first: u32,
    bits: u64,
}

impl Groups {
    /// Adds a number that was not added before; a group that it ends is handed to `f`.
    #[inline]
    pub fn push(&mut self, number: u32, f: &mut impl FnMut(u32, u64)) {
        let offset = number.wrapping_sub(self.first);
        if self.bits != 0 && offset < 64 {
            self.bits |= 1 << offset;
            return;
        }
        std::mem::replace(self, Self { first: number, bits: 1 }).finish(f);
    }

    /// Hands over what is left.
    #[inline]
    pub fn finish(self, mut f: impl FnMut(u32, u64)) {
        if self.bits != 0 {
            f(self.first, self.bits);
        }
    }
}

impl SidIndex {
    /// The empty prefix.
    #[inline]
    pub fn root(&self) -> Node {
        let Range { start, end } = self.overlay.all();
        Node { depth: 0, base: 0, start, end }
    }

    /// The node that `code` leads to, or `None` when no item continues the prefix so.
    #[inline]
    pub fn child(&self, node: Node, code: u32) -> Option<Node> {
        if self.is_leaf(node) {
            return None;
        }
        let base = node.base().and_then(|base| self.base.trie.child(node.depth(), base, code));
        let base = base.filter(|&child| self.lives(node.depth() + 1, child));
        let overlay = match node.start < node.end {
            true => self.overlay.narrow(self.new_items(node), node.depth(), code),
            false => 0..0,
        };
        (base.is_some() || !overlay.is_empty()).then(|| node.deeper(base, overlay))
    }

    /// Children of a node with the code that leads to each, sorted by code; none for a whole Semantic ID. Allocates
    /// nothing.
    #[inline]
    pub fn children(&self, node: Node) -> Children<'_> {
        let base = match node.base() {
            Some(base) => self.base.trie.children(node.depth(), base),
            None => trie::Children::none(),
        };
        let overlay = if node.depth() < self.layout().positions() { self.new_items(node) } else { 0..0 };
        let plain = self.removed.is_empty() && overlay.is_empty();
        Children { index: self, node, base, waiting: None, overlay, plain }
    }

    /// Calls `f` with groups of the codes of a node's children: a first code, and a bit for each of the 64 from it on. What a
    /// search asks that looks at many children and goes on to few of them: [`children`](Self::children) in a quarter
    /// of the time.
    #[inline]
    pub fn for_each_group(&self, node: Node, mut f: impl FnMut(u32, u64)) {
        if self.removed.is_empty()
            && self.new_items(node).is_empty()
            && let Some(base) = node.base()
        {
            return self.base.trie.for_each_group(node.depth(), base, f);
        }
        let mut groups = Groups::default();
        self.children(node).for_each(|(code, _)| groups.push(code, &mut f));
        groups.finish(f);
    }

    /// Has the memory fetched that tells the children of a node. A hint: to be given for all nodes of a step before the first
    /// is asked.
    #[inline]
    pub fn prefetch(&self, node: Node) {
        if let Some(base) = node.base() {
            self.base.trie.prefetch(node.depth(), base);
        }
    }

    /// The node of a prefix, or `None` when no item has it.
    #[inline]
    pub fn find(&self, prefix: &[u32]) -> Option<Node> {
        prefix.iter().try_fold(self.root(), |node, &code| self.child(node, code))
    }

    /// Whether the node is a whole Semantic ID.
    #[inline]
    pub fn is_leaf(&self, node: Node) -> bool {
        node.depth() >= self.layout().positions()
    }

    /// Number of items below a node.
    pub fn count_below(&self, node: Node) -> usize {
        let ranks = self.base_ranks(node);
        let gone = if self.removed.is_empty() { 0 } else { self.removed.range_cardinality(ranks.clone()) };
        ranks.len() - gone as usize + self.new_items(node).len()
    }

    /// The items below a node, sorted by Semantic ID and, where several share one, by item. Allocates nothing.
    pub fn items_below(&self, node: Node) -> Items<'_> {
        Items { index: self, left: self.count_below(node), ranks: self.base_ranks(node), overlay: self.new_items(node) }
    }

    /// Where the new items below a node stand in their order.
    #[inline]
    fn new_items(&self, node: Node) -> Range<u32> {
        // A node of an index that has changed may point past the end.
        node.start.min(self.overlay.len())..node.end.min(self.overlay.len())
    }

    /// Ranks of the items of the base below a node.
    #[inline]
    pub(crate) fn base_ranks(&self, node: Node) -> Range<u32> {
        node.base().map_or(0..0, |base| self.base.trie.ranks(node.depth(), base))
    }

    /// Arrivals of the new items below a node.
    #[inline]
    pub(crate) fn arrivals(&self, node: Node) -> impl Iterator<Item = u32> + '_ {
        self.new_items(node).map(|place| self.overlay.at(place))
    }

    /// Whether an item below the base's node has not been removed.
    #[inline]
    fn lives(&self, depth: usize, node: u32) -> bool {
        self.removed.is_empty() || !self.removed.contains_range(self.base.trie.ranks(depth, node))
    }
}

/// Children of a node; made by [`SidIndex::children`].
#[derive(Debug, Clone)]
pub struct Children<'a> {
    index: &'a SidIndex,
    node: Node,
    base: trie::Children<'a>,
    /// The base's next child that has not been given out.
    waiting: Option<(u32, u32)>,
    overlay: Range<u32>,
    /// Whether there is the base alone.
    plain: bool,
}

impl Children<'_> {
    #[inline]
    fn next_of_base(&mut self) -> Option<(u32, u32)> {
        let depth = self.node.depth() + 1;
        self.base.find(|&(_, child)| self.index.lives(depth, child))
    }
}

impl Children<'_> {
    /// The next child where items were added or removed.
    #[inline(never)]
    fn next_of_both(&mut self) -> Option<(u32, Node)> {
        let base = match self.waiting.take() {
            Some(waiting) => Some(waiting),
            None => self.next_of_base(),
        };
        let of_base = |(code, child)| (code, self.node.deeper(Some(child), 0..0));
        let new = match self.overlay.is_empty() {
            true => None,
            false => self.index.overlay.code(self.overlay.start, self.node.depth()),
        };
        let Some(new) = new else { return base.map(of_base) };
        if base.is_some_and(|(code, _)| code < new) {
            return base.map(of_base);
        }
        let group = self.index.overlay.narrow(self.overlay.clone(), self.node.depth(), new);
        self.overlay.start = group.end.max(self.overlay.start + 1);
        let same = base.filter(|&(code, _)| code == new);
        if same.is_none() {
            self.waiting = base;
        }
        Some((new, self.node.deeper(same.map(|(_, child)| child), group)))
    }
}

impl Iterator for Children<'_> {
    type Item = (u32, Node);

    #[inline]
    fn next(&mut self) -> Option<(u32, Node)> {
        if self.plain {
            let (code, child) = self.base.next()?;
            return Some((code, self.node.deeper(Some(child), 0..0)));
        }
        self.next_of_both()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.base.len() + usize::from(self.waiting.is_some()) + self.overlay.len()))
    }
}

/// Items below a node; made by [`SidIndex::items_below`].
#[derive(Debug, Clone)]
pub struct Items<'a> {
    index: &'a SidIndex,
    left: usize,
    ranks: Range<u32>,
    overlay: Range<u32>,
}

impl Iterator for Items<'_> {
    type Item = ItemId;

    fn next(&mut self) -> Option<ItemId> {
        let Self { index, ranks, overlay, .. } = self;
        while ranks.start < ranks.end && index.removed.contains(ranks.start) {
            ranks.start += 1;
        }
        let of_base = (ranks.start < ranks.end).then(|| index.base.item(ranks.start));
        let of_overlay = (overlay.start < overlay.end).then(|| index.overlay.at(overlay.start));
        self.left = self.left.saturating_sub(1);
        match (of_base, of_overlay) {
            (Some(item), Some(arrival)) if index.base.rows.sid(item.0).codes() > index.overlay.row(arrival) => {
                overlay.start += 1;
                Some(index.item_of_arrival(arrival))
            }
            (Some(item), _) => {
                ranks.start += 1;
                Some(item)
            }
            (None, Some(arrival)) => {
                overlay.start += 1;
                Some(index.item_of_arrival(arrival))
            }
            (None, None) => None,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Items<'_> {}
