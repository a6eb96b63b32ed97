//! `index.json`: what an index is and which arrays its payload holds.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    files::{either, read_at_most},
    payload::{NEXT_PAYLOAD, PAYLOAD, Payload},
    v1::DescriptionV1,
};
use crate::{
    base::Base,
    collision::CollisionPolicy,
    error::{IndexError, Result},
    id::CodebookId,
    index::SidIndex,
    layout::SidLayout,
    packed::{Ints, RankBits, SelectBits, Words, width_of},
    rows::{RowFormat, Rows},
    trie::{Edges, Level, Trie},
};

pub(super) const DESCRIPTION: &str = "index.json";
const FORMAT_VERSION: u32 = 2;
/// Far above the description of the longest layout, far below what would hurt.
pub(super) const MAX_DESCRIPTION: u64 = 1 << 16;

/// A description of any version that this release reads.
pub(super) enum Saved {
    V1(DescriptionV1),
    V2(Description),
}

#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

/// `index.json` of version 2. The order of the fields is part of the checksum.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Description {
    pub(super) format_version: u32,
    pub(super) layout: SidLayout,
    pub(super) collision_policy: CollisionPolicy,
    pub(super) codebook: Option<CodebookId>,
    pub(super) items: u32,
    pub(super) id_bound: u32,
    /// Distinct prefixes of each length from one on.
    pub(super) prefixes: Vec<u32>,
    pub(super) payload_bytes: u64,
    pub(super) header_crc32: u32,
    pub(super) data_crc32: u32,
    /// CRC-32 of this object as compact JSON with this field zero.
    pub(super) crc32: u32,
}

impl Saved {
    /// The description and its file, by which it is known again.
    pub(super) fn read(path: &Path) -> Result<(Self, File)> {
        let (bytes, file) = read_at_most(path, MAX_DESCRIPTION)?;
        // The version first: another version's fields are not an error in themselves.
        let Version { format_version } = serde_json::from_slice(&bytes).map_err(description_error(path))?;
        let saved = match format_version {
            1 => DescriptionV1::parse(&bytes, path).map(Self::V1),
            FORMAT_VERSION => Description::parse(&bytes, path).map(Self::V2),
            got => Err(IndexError::FormatVersion { path: path.to_owned(), got, supported: FORMAT_VERSION }),
        };
        Ok((saved?, file))
    }
}

impl Saved {
    /// Its own checksum, by which two saves are told apart.
    pub(super) fn crc32(&self) -> u32 {
        match self {
            Self::V1(description) => description.crc32,
            Self::V2(description) => description.crc32,
        }
    }
}

impl Description {
    fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let description: Self = serde_json::from_slice(bytes).map_err(description_error(path))?;
        let got = description.checksum(path)?;
        if got != description.crc32 {
            return Err(IndexError::Checksum { path: path.to_owned(), expected: description.crc32, got });
        }
        description.check(path)?;
        Ok(description)
    }

    pub(super) fn checksum(&self, path: &Path) -> Result<u32> {
        let unsigned = Self { crc32: 0, ..self.clone() };
        Ok(crc32fast::hash(&serde_json::to_vec(&unsigned).map_err(description_error(path))?))
    }

    pub(super) fn to_json(&self, path: &Path) -> Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self).map_err(description_error(path))?;
        json.push(b'\n');
        Ok(json)
    }

    /// Checks that the numbers can be those of an index.
    fn check(&self, path: &Path) -> Result<()> {
        let wrong = |what| Err(IndexError::Contradiction { path: path.to_owned(), what });
        crate::index::check_policy(&self.layout, self.collision_policy)?;
        if self.items > self.id_bound {
            return wrong("it counts more items than it has numbers for");
        }
        if self.id_bound == u32::MAX {
            return wrong("it has given more item numbers than there are");
        }
        if self.prefixes.len() != self.layout.positions() {
            return wrong("it does not count the prefixes of every length");
        }
        let mut shorter = u32::from(self.items > 0);
        for (&prefixes, &size) in self.prefixes.iter().zip(self.layout.sizes()) {
            if prefixes < shorter {
                return wrong("it counts fewer prefixes of a length than of the length before");
            }
            if u64::from(prefixes) > u64::from(shorter) * u64::from(size) {
                return wrong("it counts more prefixes of a length than those of the length before can lead to");
            }
            shorter = prefixes;
        }
        let distinct = self.collision_policy == CollisionPolicy::Suffix;
        if shorter > self.items {
            return wrong("it counts Semantic IDs that no item has");
        }
        if distinct && shorter < self.items {
            return wrong("it counts items without a Semantic ID of their own");
        }
        Ok(())
    }

    /// Describes an index whose payload it writes.
    pub(super) fn write_payload(index: &SidIndex, path: &Path) -> Result<Self> {
        let base = &index.base;
        let mut description = Self {
            format_version: FORMAT_VERSION,
            layout: index.layout.clone(),
            collision_policy: index.policy,
            codebook: index.codebook,
            items: base.len(),
            id_bound: base.id_bound(),
            prefixes: base.trie.levels.iter().map(|level| level.nodes).collect(),
            payload_bytes: 0,
            header_crc32: 0,
            data_crc32: 0,
            crc32: 0,
        };
        Payload::write(&mut description, &arrays_of(base), path)?;
        description.crc32 = description.checksum(path)?;
        Ok(description)
    }

    /// The arrays of the payload with their lengths in words, by name.
    pub(super) fn arrays(&self) -> Vec<(String, u64)> {
        let mut arrays = vec![
            ("rows".to_owned(), RowFormat::new(&self.layout).words_for(self.id_bound)),
            ("order".to_owned(), Ints::words_for(u64::from(self.items), width_of(self.id_bound))),
        ];
        if self.items < self.id_bound {
            arrays.push(("present".to_owned(), u64::from(self.id_bound).div_ceil(64)));
        }
        for (depth, parents, nodes, size) in self.levels() {
            if Level::is_dense(parents, size, nodes) {
                let words = RankBits::words_for(u64::from(parents) * u64::from(size));
                arrays.extend(rank_names(depth).into_iter().zip(words));
            } else {
                arrays.push((format!("level.{depth}.codes"), Ints::words_for(u64::from(nodes), width_of(size))));
                let words = SelectBits::words_for(u64::from(nodes), parents);
                arrays.extend(select_names(&format!("level.{depth}.first")).into_iter().zip(words));
            }
        }
        if let Some(sids) = self.shared() {
            arrays.extend(select_names("shared").into_iter().zip(SelectBits::words_for(u64::from(self.items), sids)));
        }
        arrays
    }

    /// Depth, number of parents, number of nodes and size of each level.
    fn levels(&self) -> impl Iterator<Item = (usize, u32, u32, u32)> + '_ {
        let parents = std::iter::once(u32::from(self.items > 0)).chain(self.prefixes.iter().copied());
        let levels = (1..).zip(parents).zip(&self.prefixes).zip(self.layout.sizes());
        levels.map(|(((depth, parents), &nodes), &size)| (depth, parents, nodes, size))
    }

    /// The number of distinct Semantic IDs, where items share some.
    fn shared(&self) -> Option<u32> {
        self.prefixes.last().copied().filter(|&sids| sids < self.items)
    }

    /// The index over arrays of the lengths that [`arrays`](Self::arrays) gives.
    fn index(&self, mut take: impl FnMut(&str) -> Words) -> SidIndex {
        let select = |take: &mut dyn FnMut(&str) -> Words, name: &str, len: u32, ones| {
            SelectBits::from_words(u64::from(len), ones, select_names(name).map(|name| take(&name)))
        };
        let levels = self.levels().map(|(depth, parents, nodes, size)| {
            let edges = if Level::is_dense(parents, size, nodes) {
                let len = u64::from(parents) * u64::from(size);
                Edges::Dense(RankBits::from_words(len, nodes, rank_names(depth).map(|name| take(&name))))
            } else {
                let codes = take(&format!("level.{depth}.codes"));
                Edges::Sparse {
                    codes: Ints::from_words(codes, width_of(size), nodes as usize),
                    first: select(&mut take, &format!("level.{depth}.first"), nodes, parents),
                }
            };
            Level { size, nodes, edges }
        });
        let levels = levels.collect();
        let shared = self.shared().map(|sids| select(&mut take, "shared", self.items, sids));
        let base = Base {
            rows: Rows::from_words(RowFormat::new(&self.layout), take("rows"), self.id_bound),
            order: Ints::from_words(take("order"), width_of(self.id_bound), self.items as usize),
            trie: Trie { levels, shared, items: self.items },
            present: (self.items < self.id_bound).then(|| take("present")),
        };
        SidIndex::of_base(self.layout.clone(), self.collision_policy, self.codebook, base)
    }

    /// The index in memory.
    pub(super) fn read(&self, payload: &Payload) -> Result<SidIndex> {
        let mut arrays = payload.read()?;
        Ok(self.index(|name| arrays.remove(name).unwrap_or_default().into()))
    }

    /// The index in the mapped file.
    pub(super) fn map(&self, payload: &Payload) -> Result<SidIndex> {
        let mut arrays = payload.map()?;
        Ok(self.index(|name| arrays.remove(name).unwrap_or_else(|| Vec::new().into())))
    }

    /// Does something with the payload that this description was written with, wherever an interrupted save may have left
    /// it.
    pub(super) fn in_payload<T>(&self, dir: &Path, then: impl Fn(Payload) -> Result<T>) -> Result<T> {
        let attempt = |path: PathBuf| Payload::open(&path, self).and_then(&then);
        either(attempt(dir.join(NEXT_PAYLOAD)), || attempt(dir.join(PAYLOAD)))
    }
}

/// Names of the arrays of a level in the dense form.
fn rank_names(depth: usize) -> [String; 2] {
    [format!("level.{depth}.bits"), format!("level.{depth}.bits.counts")]
}

/// Names of the arrays of bits that find their ones.
fn select_names(name: &str) -> [String; 3] {
    [name.to_owned(), format!("{name}.counts"), format!("{name}.samples")]
}

/// All arrays of a base, by name.
fn arrays_of(base: &Base) -> Vec<(String, &[u64])> {
    let mut arrays = vec![("rows".to_owned(), base.rows.words()), ("order".to_owned(), base.order.words())];
    if let Some(present) = &base.present {
        arrays.push(("present".to_owned(), present));
    }
    for (depth, level) in (1..).zip(&base.trie.levels) {
        match &level.edges {
            Edges::Dense(bits) => {
                arrays.extend(rank_names(depth).into_iter().zip(bits.words()));
            }
            Edges::Sparse { codes, first } => {
                arrays.push((format!("level.{depth}.codes"), codes.words()));
                arrays.extend(select_names(&format!("level.{depth}.first")).into_iter().zip(first.words()));
            }
        }
    }
    if let Some(shared) = &base.trie.shared {
        arrays.extend(select_names("shared").into_iter().zip(shared.words()));
    }
    arrays
}

impl SidIndex {
    /// Checks that the base is one that a builder makes of its own rows and order, bit for bit.
    pub(super) fn verify_structure(&self, path: &Path) -> Result<()> {
        let wrong = |what| IndexError::Contradiction { path: path.to_owned(), what };
        let base = &self.base;
        let mut builder = crate::base::BaseBuilder::new(&self.layout, self.policy, base.len(), base.id_bound());
        let mut last: Option<(crate::SemanticId, crate::ItemId)> = None;
        for rank in 0..base.len() {
            let item = base.item(rank);
            if item.0 >= base.id_bound() {
                return Err(wrong("its order names an item that it has no number for"));
            }
            let sid = base.rows.sid(item.0);
            crate::index::check_codes(&self.layout, item.0, std::iter::once(sid.iter().copied()))?;
            let next = Some((sid, item));
            if last == next {
                return Err(wrong("its order names an item twice"));
            }
            if last > next {
                return Err(wrong("its items are not in the order of their Semantic IDs"));
            }
            if let Some((sid, _)) = &next {
                builder.push(item, sid)?;
            }
            last = next;
        }
        let rebuilt = builder.finish();
        let nodes = |base: &Base| base.trie.levels.iter().map(|level| level.nodes).collect::<Vec<_>>();
        if nodes(&rebuilt) != nodes(base) {
            return Err(wrong("it counts other prefixes than its Semantic IDs have"));
        }
        // Of equal counts, and so of the same arrays.
        match arrays_of(base).into_iter().zip(arrays_of(&rebuilt)).find(|(found, expected)| found != expected) {
            Some(((name, _), _)) => Err(IndexError::Array { path: path.to_owned(), name }),
            None => Ok(()),
        }
    }
}

pub(super) fn description_error(path: &Path) -> impl Fn(serde_json::Error) -> IndexError + '_ {
    |source| IndexError::Description { path: path.to_owned(), source }
}
