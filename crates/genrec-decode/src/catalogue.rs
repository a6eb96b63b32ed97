//! The Semantic IDs that exist.

use std::sync::Arc;

use sid_index::{Groups, ItemFilter, ItemId, Node, SidIndex, SidVocab};

use crate::{
    constraint::Constraint,
    error::{DecodeError, Result},
};

/// Only Semantic IDs of items, optionally of some items only.
///
/// A prefix is allowed as long as an allowed item lies below it, so there are no dead ends however many items are left
/// out: every hypothesis ends as an item. One state is one [`Node`].
///
/// Filters are intersected as they are added, so that a search asks one question a prefix however many there are. To serve
/// many users, add what they have in common first (stock, category) and clone the catalogue for what differs (items seen).
///
/// ```
/// use genrec_decode::{Catalogue, Constraint};
/// use ndarray::array;
/// use sid_index::{CollisionPolicy, ItemId, SidIndex, SidLayout, SidVocab};
///
/// let layout = SidLayout::new(vec![4, 4])?;
/// let vocab = SidVocab::new(&layout, 1)?;
/// let index = SidIndex::from_codes(layout, array![[1, 0], [1, 2], [3, 3]].view(), CollisionPolicy::Suffix)?;
///
/// let catalogue = Catalogue::new(&index, &vocab)?.excluding([ItemId(0), ItemId(1)])?;
/// let mut allowed = Vec::new();
/// catalogue.for_each_allowed(&catalogue.start(), &mut |token| allowed.push(vocab.code(token)));
/// assert_eq!(allowed, [Some((0, 3))]);
/// # Ok::<(), genrec_decode::DecodeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Catalogue<'a> {
    index: &'a SidIndex,
    vocab: &'a SidVocab,
    /// Shared by clones: that of a large catalogue takes a megabyte.
    filter: Option<Arc<ItemFilter>>,
}

impl<'a> Catalogue<'a> {
    /// All items of the index.
    ///
    /// # Errors
    /// [`DecodeError::VocabMismatch`] when the vocabulary was made for another layout, and
    /// [`DecodeError::NoItems`] when the index is empty.
    pub fn new(index: &'a SidIndex, vocab: &'a SidVocab) -> Result<Self> {
        DecodeError::check_vocab(index, vocab)?;
        if index.is_empty() {
            return Err(DecodeError::NoItems);
        }
        Ok(Self { index, vocab, filter: None })
    }

    /// Leaves out the given items, for instance those that the user has seen.
    ///
    /// Where items share a Semantic ID it stays allowed while one of them is;
    /// [`allows`](Self::allows) tells them apart when hypotheses are resolved.
    ///
    /// # Errors
    /// When an item is not in the index, or [`DecodeError::Emptied`] when no item is left.
    pub fn excluding(self, items: impl IntoIterator<Item = ItemId>) -> Result<Self> {
        let filter = ItemFilter::excluding(self.index, items)?;
        self.filtered("excluded items", &filter)
    }

    /// Keeps the given items only, for instance one category or the newly added ones.
    ///
    /// # Errors
    /// As [`excluding`](Self::excluding).
    pub fn only(self, items: impl IntoIterator<Item = ItemId>) -> Result<Self> {
        let filter = ItemFilter::only(self.index, items)?;
        self.filtered("listed items", &filter)
    }

    /// Keeps what a filter allows; `name` says in an error which filter it was.
    ///
    /// # Errors
    /// [`IndexError::StaleFilter`](sid_index::IndexError::StaleFilter) when the filter was made from another index, and
    /// [`DecodeError::Emptied`] when no item is left.
    pub fn filtered(mut self, name: &str, filter: &ItemFilter) -> Result<Self> {
        filter.check(self.index)?;
        let both = match &self.filter {
            Some(earlier) => earlier.intersect(filter)?,
            None => filter.clone(),
        };
        if !both.any_below(self.index, self.index.root()) {
            return Err(DecodeError::Emptied { filter: name.to_owned(), before: self.num_items() });
        }
        self.filter = Some(Arc::new(both));
        Ok(self)
    }

    /// Number of items that may be generated.
    pub fn num_items(&self) -> usize {
        self.filter.as_ref().map_or(self.index.len(), |filter| filter.count(self.index))
    }

    /// Whether the item exists and is not left out.
    pub fn allows(&self, item: ItemId) -> bool {
        match &self.filter {
            Some(filter) => filter.allows(self.index, item),
            None => self.index.contains(item),
        }
    }

    pub(crate) fn index(&self) -> &SidIndex {
        self.index
    }

    pub(crate) fn vocab(&self) -> &SidVocab {
        self.vocab
    }

    pub(crate) fn allows_below(&self, node: Node) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.any_below(self.index, node))
    }
}

impl Constraint for Catalogue<'_> {
    type State = Node;

    fn start(&self) -> Node {
        self.index.root()
    }

    fn accept(&self, node: &Node, token: u32) -> Option<Node> {
        let (position, code) = self.vocab.code(token)?;
        if position != node.depth() {
            return None;
        }
        self.index.child(*node, code).filter(|&child| self.allows_below(child))
    }

    fn for_each_allowed(&self, node: &Node, f: &mut dyn FnMut(u32)) {
        let first = self.vocab.position_range(node.depth()).start;
        for (code, child) in self.index.children(*node) {
            if self.allows_below(child) {
                f(first + code);
            }
        }
    }

    fn for_each_group(&self, node: &Node, f: &mut dyn FnMut(u32, u64)) {
        let start = self.vocab.position_range(node.depth()).start;
        if self.filter.is_none() {
            return self.index.for_each_group(*node, |code, group| f(start + code, group));
        }
        let mut groups = Groups::default();
        let allowed = self.index.children(*node).filter(|&(_, child)| self.allows_below(child));
        allowed.for_each(|(code, _)| groups.push(start + code, &mut |first, group| f(first, group)));
        groups.finish(f);
    }

    fn prepare(&self, node: &Node) {
        self.index.prefetch(*node);
    }

    fn is_complete(&self, node: &Node) -> bool {
        self.index.is_leaf(*node)
    }
}
