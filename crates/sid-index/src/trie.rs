//! The prefixes of all Semantic IDs.

use std::ops::Range;

/// A node of a [`PrefixTrie`]: one prefix that at least one item has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The node's number: the root is 0, then come the nodes of depth 1 in order, then those of depth 2, and so on.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// All prefixes of a set of Semantic IDs, packed into three sorted arrays.
///
/// Nodes are numbered level by level and, inside a level, in the order of their prefixes, so the children of a node are
/// neighbours sorted by code, and so are the items below it. Each node takes 12 bytes (8 in the last level). A look-up
/// neither hashes nor allocates: going to a child is one array access where the codes of a node are dense, a binary
/// search among its children otherwise.
///
/// Items are counted by *rank*: the place of an item when all are sorted by Semantic ID and, where several share one,
/// by item. The items below a node have the ranks of [`rank_range`](Self::rank_range).
///
/// ```
/// use ndarray::array;
/// use sid_index::{CollisionPolicy, PrefixTrie, SidIndex, SidLayout};
///
/// let layout = SidLayout::new(vec![4, 4])?.without_suffix();
/// let index = SidIndex::from_codes(layout, array![[3, 3], [1, 2], [1, 0]].view(), CollisionPolicy::Share)?;
/// let trie = index.trie();
/// let one = trie.child(PrefixTrie::ROOT, 1).unwrap();
/// assert_eq!(trie.children(one).map(|(code, _)| code).collect::<Vec<_>>(), [0, 2]);
/// assert_eq!(trie.rank_range(one), 0..2);
/// assert_eq!(trie.child(one, 1), None);
/// # Ok::<(), sid_index::IndexError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixTrie {
    /// Code on the edge to each node; the root's is 0 and means nothing.
    codes: Vec<u32>,
    /// First child of each node above the last level, and one entry past them for the end.
    first_child: Vec<u32>,
    /// Rank of the first item below each node.
    first_rank: Vec<u32>,
    /// First node of each depth, and one entry past them for the end.
    levels: Vec<u32>,
    items: u32,
}

impl PrefixTrie {
    /// The empty prefix.
    pub const ROOT: NodeId = NodeId(0);

    /// Builds the trie over rows already sorted, equal ones next to each other. `None` when nodes outnumber `u32`.
    pub(crate) fn from_sorted<'a>(
        positions: usize,
        rows: impl ExactSizeIterator<Item = &'a [u32]> + Clone,
    ) -> Option<Self> {
        let items = u32::try_from(rows.len()).ok()?;
        let counts = count_nodes(positions, rows.clone());
        let mut levels = Vec::with_capacity(positions + 2);
        let mut next = 0u64;
        for count in std::iter::once(1).chain(counts) {
            levels.push(u32::try_from(next).ok()?);
            next += count;
        }
        let nodes = u32::try_from(next).ok()?;
        levels.push(nodes);

        let inner = levels[positions] as usize;
        let mut codes = vec![0; nodes as usize];
        let mut first_rank = vec![0; nodes as usize];
        let mut first_child = vec![0; inner + 1];
        first_child[inner] = nodes;
        first_child[0] = 1;
        // The node that each depth's next new prefix becomes.
        let mut cursor = levels.clone();
        cursor[0] = 1;
        let mut previous: &[u32] = &[];
        for (rank, row) in (0..items).zip(rows) {
            for depth in first_difference(previous, row)..positions {
                let node = cursor[depth + 1] as usize;
                codes[node] = row[depth];
                first_rank[node] = rank;
                if depth + 1 < positions {
                    first_child[node] = cursor[depth + 2];
                }
                cursor[depth + 1] += 1;
            }
            previous = row;
        }
        Some(Self { codes, first_child, first_rank, levels, items })
    }

    /// Children of a node with the code that leads to each, sorted by code; none for a leaf.
    pub fn children(&self, node: NodeId) -> impl ExactSizeIterator<Item = (u32, NodeId)> + '_ {
        let range = self.child_range(node);
        // Node numbers fit in u32 by construction.
        self.codes[range.clone()].iter().copied().zip(range.map(|child| NodeId(child as u32)))
    }

    /// The node that `code` leads to, or `None` when no item continues the prefix so.
    pub fn child(&self, node: NodeId, code: u32) -> Option<NodeId> {
        let range = self.child_range(node);
        let codes = &self.codes[range.clone()];
        // Dense nodes, such as the root of a large catalogue, need no search.
        let place = match codes.get(code as usize) {
            Some(&found) if found == code => code as usize,
            _ => codes.binary_search(&code).ok()?,
        };
        Some(NodeId((range.start + place) as u32))
    }

    /// The node of a prefix, or `None` when no item has it.
    pub fn find(&self, prefix: &[u32]) -> Option<NodeId> {
        prefix.iter().try_fold(Self::ROOT, |node, &code| self.child(node, code))
    }

    /// Whether the node is a whole Semantic ID.
    pub fn is_leaf(&self, node: NodeId) -> bool {
        node.index() + 1 >= self.first_child.len()
    }

    /// Length of the node's prefix.
    pub fn depth(&self, node: NodeId) -> usize {
        self.levels.partition_point(|&first| first <= node.0).saturating_sub(1).min(self.levels.len() - 2)
    }

    /// Ranks of the items below the node.
    pub fn rank_range(&self, node: NodeId) -> Range<u32> {
        let Some(&start) = self.first_rank.get(node.index()) else { return 0..0 };
        // The next node of the same depth starts above rank zero; that of the next depth starts at it.
        match self.first_rank.get(node.index() + 1) {
            Some(&end) if end > 0 => start..end,
            _ => start..self.items,
        }
    }

    /// Number of distinct prefixes of a length; zero past the length of a Semantic ID.
    pub fn nodes_at_depth(&self, depth: usize) -> usize {
        match self.levels.get(depth..depth.saturating_add(2)) {
            Some(&[start, end]) => (end - start) as usize,
            _ => 0,
        }
    }

    /// Number of nodes, the root included.
    pub fn num_nodes(&self) -> usize {
        self.codes.len()
    }

    fn child_range(&self, node: NodeId) -> Range<usize> {
        match self.first_child.get(node.index()..node.index().saturating_add(2)) {
            Some(&[start, end]) => start as usize..end as usize,
            _ => 0..0,
        }
    }
}

/// Number of distinct prefixes of each length from one on.
fn count_nodes<'a>(positions: usize, rows: impl Iterator<Item = &'a [u32]>) -> Vec<u64> {
    let mut counts = vec![0u64; positions];
    let mut previous: &[u32] = &[];
    for row in rows {
        for count in &mut counts[first_difference(previous, row)..] {
            *count += 1;
        }
        previous = row;
    }
    counts
}

/// Length of the longest common prefix.
fn first_difference(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
