//! The nodes of a fitted tree.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{Device, Result as TensorResult, Tensor, bail};
use genrec_kernels::ParamError;

use crate::preprocess::{Preprocess, Steps};
use crate::saved::{expect_shapes, matrix, offsets};
use crate::{QuantizeError, Result};

fn centroids_name(level: usize) -> String {
    format!("nodes.{level}")
}

fn offsets_name(level: usize) -> String {
    format!("children.{level}")
}

/// The nodes of one level: the children of the first node above, those of the second, and so on.
#[derive(Debug)]
pub(super) struct Level {
    /// `(nodes, width)`, f32, on the host.
    pub(super) centroids: Tensor,
    /// Where the children of each node above begin, and at last the number of nodes: `(parents + 1,)`. The one parent of
    /// level 0 is the root.
    pub(super) offsets: Vec<u32>,
}

impl Level {
    /// Checks that the parents share out all nodes in order, each of them 1 to `most`.
    fn check(self, level: usize, most: u32) -> Result<Self> {
        let nodes = self.centroids.dim(0)?;
        let parents = self.offsets.len().saturating_sub(1);
        for (parent, pair) in self.offsets.windows(2).enumerate() {
            let (start, end) = (pair[0], pair[1]);
            let begins = parent > 0 || start == 0;
            let ends = parent + 1 < parents || end as usize == nodes;
            if !begins || !ends || end <= start || end - start > most {
                return Err(QuantizeError::TreeChildren { level, parent, start, end, nodes, most });
            }
        }
        Ok(self)
    }
}

/// All levels of a tree, from the root's children on.
#[derive(Debug)]
pub(super) struct Nodes {
    levels: Vec<Level>,
}

impl Nodes {
    pub(super) fn new(levels: Vec<Level>) -> Self {
        Self { levels }
    }

    pub(super) fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The children, at `level`, of a node of the level above.
    pub(super) fn children(&self, level: usize, parent: usize) -> Option<Range<usize>> {
        let offsets = &self.levels.get(level)?.offsets;
        Some(*offsets.get(parent)? as usize..*offsets.get(parent.checked_add(1)?)? as usize)
    }

    /// The node at the end of a path among those of its level; 0, the root, for no codes.
    pub(super) fn node(&self, codes: &[u32]) -> TensorResult<usize> {
        let mut node = 0;
        for (level, &code) in codes.iter().enumerate() {
            let Some(children) = self.children(level, node) else {
                bail!("{codes:?} has more codes than the {} levels of the tree", self.levels.len());
            };
            if code as usize >= children.len() {
                bail!("{codes:?} is no path of the tree: at level {level} it has only {} children", children.len());
            }
            node = children.start + code as usize;
        }
        Ok(node)
    }

    /// The children of the node at the end of a path, `(children, width)`.
    pub(super) fn below(&self, prefix: &[u32]) -> TensorResult<Tensor> {
        let parent = self.node(prefix)?;
        match (self.levels.get(prefix.len()), self.children(prefix.len(), parent)) {
            (Some(level), Some(children)) => level.centroids.narrow(0, children.start, children.len()),
            _ => bail!("a prefix of {} codes leaves no level of {} to code", prefix.len(), self.levels.len()),
        }
    }

    pub(super) fn tensors(&self, into: &mut BTreeMap<String, Tensor>) -> TensorResult<()> {
        for (number, level) in self.levels.iter().enumerate() {
            into.insert(centroids_name(number), level.centroids.clone());
            if number > 0 {
                let offsets = Tensor::from_slice(&level.offsets, level.offsets.len(), &Device::Cpu)?;
                into.insert(offsets_name(number), offsets);
            }
        }
        Ok(())
    }

    /// The shapes of a tree with so many nodes a level, those of the steps before it among them.
    pub(super) fn shapes(
        steps: Steps,
        dim: usize,
        nodes: impl IntoIterator<Item = usize>,
    ) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = BTreeMap::new();
        let mut parents = 1_usize;
        for (level, nodes) in nodes.into_iter().enumerate() {
            shapes.insert(centroids_name(level), vec![nodes, steps.width(dim)]);
            if level > 0 {
                shapes.insert(offsets_name(level), vec![parents.saturating_add(1)]);
            }
            parents = nodes;
        }
        Preprocess::shapes(steps, dim, &mut shapes);
        shapes
    }

    /// From what [`tensors`](Self::tensors) and the steps gave; everything is checked.
    pub(super) fn load(steps: Steps, dim: usize, sizes: &[u32], tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        // How many nodes there are only the file knows.
        let count = |level| {
            let name = centroids_name(level);
            let tensor = tensors.get(&name).ok_or(ParamError::Missing { name })?;
            Ok(tensor.dims().first().copied().unwrap_or(0))
        };
        let counts = (0..sizes.len()).map(count).collect::<Result<Vec<usize>, ParamError>>()?;
        expect_shapes(tensors, &Self::shapes(steps, dim, counts.iter().copied()))?;
        let load = |(level, &most): (usize, &u32)| {
            let centroids = matrix(tensors, &centroids_name(level), &Device::Cpu)?;
            let offsets = match level {
                0 => vec![0, u32::try_from(counts[0]).unwrap_or(u32::MAX)],
                _ => offsets(tensors, &offsets_name(level))?,
            };
            Level { centroids, offsets }.check(level, most)
        };
        Ok(Self::new(sizes.iter().enumerate().map(load).collect::<Result<_>>()?))
    }
}
