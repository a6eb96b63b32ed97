//! From sorted rows to a packed trie.

use super::{Edges, Level, Trie};
use crate::{
    layout::SidLayout,
    packed::{BitsBuilder, Ints, IntsBuilder, width_of},
};

/// Takes sorted rows, equal ones next to each other, one at a time.
#[derive(Debug)]
pub(crate) struct TrieBuilder {
    levels: Vec<Growing>,
    /// Marks the first row of each value.
    shared: BitsBuilder,
    last: Vec<u32>,
    items: u32,
}

/// One depth in the sparse form.
#[derive(Debug)]
struct Growing {
    size: u32,
    codes: IntsBuilder,
    first: BitsBuilder,
}

impl TrieBuilder {
    pub(crate) fn new(layout: &SidLayout) -> Self {
        let level =
            |&size: &u32| Growing { size, codes: IntsBuilder::new(width_of(size), 0), first: BitsBuilder::default() };
        Self {
            levels: layout.sizes().iter().map(level).collect(),
            shared: BitsBuilder::default(),
            last: Vec::new(),
            items: 0,
        }
    }

    /// Adds a row that does not sort before the last; fewer than 2^32 in all. Says whether it differs from the last.
    pub(crate) fn push(&mut self, row: &[u32]) -> bool {
        let same = self.last.iter().zip(row).take_while(|(a, b)| a == b).count();
        let first_row = self.items == 0;
        for (depth, (level, &code)) in self.levels.iter_mut().zip(row).enumerate().skip(same) {
            level.codes.push(code);
            level.first.push(first_row || depth > same);
        }
        let new = first_row || same < self.levels.len();
        self.shared.push(new);
        self.last.clear();
        self.last.extend_from_slice(row);
        self.items += 1;
        new
    }

    pub(crate) fn finish(self) -> Trie {
        // The root is a prefix of nothing where there is no item.
        let mut parents = u32::from(self.items > 0);
        let mut levels = Vec::with_capacity(self.levels.len());
        for level in self.levels {
            let nodes = level.codes.len() as u32;
            levels.push(level.finish(parents));
            parents = nodes;
        }
        let shared = (parents < self.items).then(|| self.shared.into());
        Trie { levels, shared, items: self.items }
    }
}

impl Level {
    /// Whether a bit for every code of every parent takes no more room than a code and a bit for every child.
    pub(crate) fn is_dense(parents: u32, size: u32, nodes: u32) -> bool {
        u64::from(parents) * u64::from(size) <= u64::from(nodes) * u64::from(width_of(size) + 1)
    }
}

impl Growing {
    fn finish(self, parents: u32) -> Level {
        let Self { size, codes, first } = self;
        // No more than the items.
        let nodes = codes.len() as u32;
        let codes: Ints = codes.finish();
        if !Level::is_dense(parents, size, nodes) {
            return Level { size, nodes, edges: Edges::Sparse { codes, first: first.into() } };
        }
        let mut bits = BitsBuilder::zeros(u64::from(parents) * u64::from(size));
        let mut parent = 0_u64;
        for node in 0..nodes {
            if node > 0 && first.get(u64::from(node)) {
                parent += 1;
            }
            bits.set(parent * u64::from(size) + u64::from(codes.get(node as usize)));
        }
        Level { size, nodes, edges: Edges::Dense(bits.into()) }
    }
}
