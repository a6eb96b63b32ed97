//! The Semantic IDs that exist.

use sid_index::{ItemFilter, ItemId, NodeId, PrefixTrie, SidIndex, SidVocab};

use crate::{
    constraint::Constraint,
    error::{DecodeError, Result},
};

/// Only Semantic IDs of items, optionally of some items only.
///
/// A prefix is allowed as long as an allowed item lies below it, so there are no dead ends however many items are left
/// out: every hypothesis ends as an item. One state is one trie node, four bytes.
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
    filter: Option<ItemFilter>,
}

impl<'a> Catalogue<'a> {
    /// All items of the index.
    ///
    /// # Errors
    /// [`DecodeError::VocabMismatch`] when the vocabulary was made for another layout, and
    /// [`DecodeError::NothingAllowed`] when the index is empty.
    pub fn new(index: &'a SidIndex, vocab: &'a SidVocab) -> Result<Self> {
        if index.layout() != vocab.layout() {
            return Err(DecodeError::VocabMismatch {
                vocab: vocab.layout().sizes().to_vec(),
                index: index.layout().sizes().to_vec(),
            });
        }
        if index.is_empty() {
            return Err(DecodeError::NothingAllowed { items: 0 });
        }
        Ok(Self { index, vocab, filter: None })
    }

    /// Leaves out the given items, for instance those that the user has seen.
    ///
    /// Where items share a Semantic ID it stays allowed while one of them is;
    /// [`allows`](Self::allows) tells them apart when hypotheses are resolved.
    ///
    /// # Errors
    /// When an item is not in the index, or [`DecodeError::NothingAllowed`] when no item is left.
    pub fn excluding(self, items: impl IntoIterator<Item = ItemId>) -> Result<Self> {
        let filter = ItemFilter::excluding(self.index, items)?;
        self.filtered(filter)
    }

    /// Keeps the given items only, for instance one category or the newly added ones.
    ///
    /// # Errors
    /// As [`excluding`](Self::excluding).
    pub fn only(self, items: impl IntoIterator<Item = ItemId>) -> Result<Self> {
        let filter = ItemFilter::only(self.index, items)?;
        self.filtered(filter)
    }

    fn filtered(mut self, filter: ItemFilter) -> Result<Self> {
        let filter = match self.filter.take() {
            Some(earlier) => earlier.intersect(&filter),
            None => filter,
        };
        if filter.is_empty() {
            return Err(DecodeError::NothingAllowed { items: self.index.len() });
        }
        self.filter = Some(filter);
        Ok(self)
    }

    /// Whether the item exists and is not left out.
    pub fn allows(&self, item: ItemId) -> bool {
        self.index.rank(item).is_some_and(|rank| match &self.filter {
            Some(filter) => filter.any_in(rank..rank + 1),
            None => true,
        })
    }

    pub(crate) fn index(&self) -> &SidIndex {
        self.index
    }

    pub(crate) fn vocab(&self) -> &SidVocab {
        self.vocab
    }

    pub(crate) fn allows_below(&self, node: NodeId) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.any_in(self.index.trie().rank_range(node)))
    }
}

impl Constraint for Catalogue<'_> {
    type State = NodeId;

    fn start(&self) -> NodeId {
        PrefixTrie::ROOT
    }

    fn accept(&self, node: &NodeId, token: u32) -> Option<NodeId> {
        let trie = self.index.trie();
        let (position, code) = self.vocab.code(token)?;
        if position != trie.depth(*node) {
            return None;
        }
        trie.child(*node, code).filter(|&child| self.allows_below(child))
    }

    fn for_each_allowed(&self, node: &NodeId, f: &mut dyn FnMut(u32)) {
        let trie = self.index.trie();
        let first = self.vocab.position_range(trie.depth(*node)).start;
        for (code, child) in trie.children(*node) {
            if self.allows_below(child) {
                f(first + code);
            }
        }
    }

    fn is_complete(&self, node: &NodeId) -> bool {
        self.index.trie().is_leaf(*node)
    }
}
