//! The prefixes of a sorted set of Semantic IDs, packed.

mod build;

use std::ops::Range;

pub(crate) use build::TrieBuilder;

use crate::packed::{Ints, Ones, RankBits, SelectBits};

/// How many leaves a [guess](Trie::guess) is mostly within.
pub(crate) const GUESS_ERROR: usize = 8;

/// All prefixes of the Semantic IDs of a catalogue that does not change.
///
/// The nodes of a depth are numbered in the order of their prefixes, so the children of a node are neighbours sorted by
/// code, and so are the items below it. Each depth is kept in the smaller of two forms, both near what information theory
/// allows: a bit for every code that might follow every prefix, or the codes that do follow with one more bit each that
/// marks the first child of a node (as in LOUDS; Jacobson, FOCS 1989).
///
/// Items are counted by *rank*: the place of an item when all are sorted by Semantic ID and, where several share one, by
/// item.
#[derive(Debug)]
pub(crate) struct Trie {
    /// The edges to the nodes of each depth from one on.
    pub(super) levels: Vec<Level>,
    /// Marks the rank of the first item of each Semantic ID, where some have several.
    pub(super) shared: Option<SelectBits>,
    pub(super) items: u32,
}

/// The edges to the nodes of one depth.
#[derive(Debug)]
pub(crate) struct Level {
    /// Values of the codes.
    pub(super) size: u32,
    /// Nodes that the edges lead to.
    pub(super) nodes: u32,
    pub(super) edges: Edges,
}

#[derive(Debug)]
pub(crate) enum Edges {
    /// `size` bits for each parent.
    Dense(RankBits),
    Sparse {
        /// A code for each child.
        codes: Ints,
        /// One for the first child of each parent.
        first: SelectBits,
    },
}

impl Level {
    /// Children of a parent, as node numbers of this depth.
    #[inline]
    fn range(&self, parent: u32) -> Range<u32> {
        match &self.edges {
            Edges::Dense(bits) => {
                let start = u64::from(parent) * u64::from(self.size);
                bits.rank(start)..bits.rank(start + u64::from(self.size))
            }
            Edges::Sparse { first, .. } => {
                let start = first.select(parent);
                // Within `nodes`, a u32.
                start as u32..first.next_one(start + 1) as u32
            }
        }
    }

    /// The first child of a parent, or, past the last parent, the number of nodes.
    #[inline]
    fn first(&self, parent: u32) -> u32 {
        match &self.edges {
            Edges::Dense(bits) => bits.rank(u64::from(parent) * u64::from(self.size)),
            Edges::Sparse { first, .. } => first.select(parent) as u32,
        }
    }

    /// `soon` is told, where it helps, a child that is near the one sought before that one is found.
    #[inline]
    fn child(&self, parent: u32, code: u32, soon: impl FnOnce(u32)) -> Option<u32> {
        match &self.edges {
            Edges::Dense(bits) => {
                let place = u64::from(parent) * u64::from(self.size) + u64::from(code);
                (code < self.size && bits.get(place)).then(|| bits.rank(place))
            }
            Edges::Sparse { codes, .. } => {
                let range = self.range(parent);
                soon(range.start);
                let (mut low, mut high) = (range.start, range.end);
                while low < high {
                    let middle = low.midpoint(high);
                    if codes.get(middle as usize) < code { low = middle + 1 } else { high = middle }
                }
                (low < range.end && codes.get(low as usize) == code).then_some(low)
            }
        }
    }
}

/// The `count` lowest bits, 64 at most.
#[inline]
fn low_bits(count: u32) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

impl Trie {
    /// Number of positions of a Semantic ID.
    #[inline]
    pub(crate) fn positions(&self) -> usize {
        self.levels.len()
    }

    /// Number of items.
    #[inline]
    pub(crate) fn items(&self) -> u32 {
        self.items
    }

    /// Number of distinct prefixes of a length up to that of a Semantic ID.
    pub(crate) fn nodes(&self, depth: usize) -> u32 {
        match depth.checked_sub(1) {
            None => 1,
            Some(level) => self.levels.get(level).map_or(0, |level| level.nodes),
        }
    }

    /// The child of a node that `code` leads to.
    #[inline]
    pub(crate) fn child(&self, depth: usize, node: u32, code: u32) -> Option<u32> {
        self.levels.get(depth)?.child(node, code, |_| ())
    }

    /// The leaf that `code` leads to from a node of the last depth but one. `soon` is told, where it helps, a leaf near it
    /// as soon as one is known.
    #[inline]
    pub(crate) fn leaf(&self, node: u32, code: u32, soon: impl FnOnce(u32)) -> Option<u32> {
        self.levels.last()?.child(node, code, soon)
    }

    /// Children of a node with the code that leads to each, sorted by code.
    #[inline]
    pub(crate) fn children(&self, depth: usize, node: u32) -> Children<'_> {
        let Some(level) = self.levels.get(depth) else { return Children::none() };
        let range = level.range(node);
        match &level.edges {
            Edges::Dense(bits) => {
                let start = u64::from(node) * u64::from(level.size);
                Children {
                    next: range.start,
                    end: range.end,
                    codes: Codes::Dense { bits: bits.ones(start, start + u64::from(level.size)), start },
                }
            }
            Edges::Sparse { codes, .. } => Children { next: range.start, end: range.end, codes: Codes::Sparse(codes) },
        }
    }

    /// Calls `f` with groups of children of a node, ascending: the first code of a group and a bit for each of the 64
    /// from there on.
    #[inline]
    pub(crate) fn for_each_group(&self, depth: usize, node: u32, mut f: impl FnMut(u32, u64)) {
        // Without an item there would be nothing but empty groups, as many as the codebook is large.
        let Some(level) = self.levels.get(depth).filter(|level| level.nodes > 0) else { return };
        match &level.edges {
            Edges::Dense(bits) => {
                let start = u64::from(node) * u64::from(level.size);
                for first in (0..level.size).step_by(64) {
                    let group = bits.group(start + u64::from(first)) & low_bits(level.size - first);
                    if group != 0 {
                        f(first, group);
                    }
                }
            }
            Edges::Sparse { codes, .. } => level.range(node).for_each(|child| f(codes.get(child as usize), 1)),
        }
    }

    /// Has what [`for_each_group`](Self::for_each_group) will read fetched.
    #[inline]
    pub(crate) fn prefetch(&self, depth: usize, node: u32) {
        match self.levels.get(depth).map(|level| (level.size, &level.edges)) {
            Some((size, Edges::Dense(bits))) => bits.touch(u64::from(node) * u64::from(size)),
            Some((_, Edges::Sparse { codes, first })) => {
                let child = first.guess(node);
                first.touch(child);
                codes.touch(child as usize);
            }
            None => {}
        }
    }

    /// About where the leaves with two more codes after a node of the last depth but two are, if that can be told without
    /// a miss in the cache: the codes of a level spread evenly, and what a look-up will read can be fetched early.
    #[inline]
    pub(crate) fn guess(&self, node: u32, code: u32) -> Option<u32> {
        let [.., Level { size, edges: Edges::Dense(bits), .. }, Level { edges: Edges::Sparse { codes, first }, .. }] =
            self.levels.as_slice()
        else {
            return None;
        };
        let start = u64::from(node) * u64::from(*size);
        let (low, high) = (bits.rank(start), bits.rank(start + u64::from(*size)));
        let parent = u64::from(low) + u64::from(high.saturating_sub(low)) * u64::from(code) / u64::from((*size).max(1));
        let leaf = first.guess(parent as u32);
        first.touch(leaf);
        codes.touch((leaf as usize).saturating_sub(GUESS_ERROR));
        codes.touch(leaf as usize + GUESS_ERROR);
        Some(leaf)
    }

    /// About where the first leaf below a node of the last depth but one is: what codes that do not spread evenly
    /// leave for [`guess`](Self::guess) to miss.
    #[inline]
    pub(crate) fn about_first(&self, node: u32) -> Option<u32> {
        let Some(Level { edges: Edges::Sparse { codes, first }, .. }) = self.levels.last() else { return None };
        let leaf = first.guess(node);
        codes.touch(leaf as usize);
        Some(leaf)
    }

    /// Ranks of the items below a node.
    #[inline]
    pub(crate) fn ranks(&self, depth: usize, node: u32) -> Range<u32> {
        let start = self.first_rank(depth, node);
        // A damaged file may say otherwise.
        start..self.first_rank(depth, node.saturating_add(1)).max(start)
    }

    /// Bytes of all arrays.
    pub(crate) fn bytes(&self) -> usize {
        let of = |arrays: &[&[u64]]| arrays.iter().map(|words| words.len()).sum::<usize>();
        let level = |level: &Level| match &level.edges {
            Edges::Dense(bits) => of(&bits.words()),
            Edges::Sparse { codes, first } => codes.words().len() + of(&first.words()),
        };
        8 * (self.levels.iter().map(level).sum::<usize>() + self.shared.as_ref().map_or(0, |bits| of(&bits.words())))
    }

    /// Rank of the first item below a node or, past the last of its depth, the number of items.
    #[inline]
    pub(crate) fn first_rank(&self, depth: usize, node: u32) -> u32 {
        let levels = self.levels.get(depth..).unwrap_or_default();
        let leaf = levels.iter().fold(node, |node, level| level.first(node));
        match &self.shared {
            // Within `items`, a u32.
            Some(shared) => shared.select(leaf) as u32,
            None => leaf.min(self.items),
        }
    }
}

/// Children of a node; see [`Trie::children`].
#[derive(Debug, Clone)]
pub(crate) struct Children<'a> {
    next: u32,
    end: u32,
    codes: Codes<'a>,
}

#[derive(Debug, Clone)]
enum Codes<'a> {
    Dense { bits: Ones<'a>, start: u64 },
    Sparse(&'a Ints),
    None,
}

impl Children<'_> {
    pub(crate) fn none() -> Self {
        Self { next: 0, end: 0, codes: Codes::None }
    }

    /// How many are left.
    pub(crate) fn len(&self) -> usize {
        self.end.saturating_sub(self.next) as usize
    }
}

impl Iterator for Children<'_> {
    /// Code and node.
    type Item = (u32, u32);

    #[inline]
    fn next(&mut self) -> Option<(u32, u32)> {
        if self.next >= self.end {
            return None;
        }
        let node = self.next;
        let code = match &mut self.codes {
            Codes::Dense { bits, start } => (bits.next()? - *start) as u32,
            Codes::Sparse(codes) => codes.get(node as usize),
            Codes::None => return None,
        };
        self.next += 1;
        Some((code, node))
    }
}

#[cfg(test)]
mod tests;
