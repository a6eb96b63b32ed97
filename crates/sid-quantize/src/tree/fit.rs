//! Growing a tree level by level.

use candle_core::{Device, Tensor};
use genrec_kernels::CounterRng;
use ndarray::{Array2, s};
use rayon::prelude::*;

use super::config::HierarchicalKMeansConfig;
use super::nodes::{Level, Nodes};
use super::split::{Split, split};
use super::subset::Subset;
use crate::kmeans::gather;
use crate::saved::MAX_ELEMENTS;
use crate::{ArrayRows, QuantizeError, Result, RowSource};

/// Numbers of values by which it is decided how the rows of a node are read. No bit of a tree fitted on the host depends on
/// them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Rows of several nodes are read together, and the nodes fitted in parallel, up to so many values.
    pub(super) together: usize,
    /// A node of more values is fitted by itself, on the device.
    pub(super) alone: usize,
    /// The rows of a node are copied up to so many values, and read anew in each pass beyond.
    pub(super) copied: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { together: 1 << 24, alone: 1 << 20, copied: 1 << 26 }
    }
}

/// A node of the deepest level so far.
struct Node {
    /// Where its rows end in the order, and those of the next node begin.
    end: usize,
    rng: CounterRng,
}

/// A level whose parents are being fitted one after another.
struct Grown {
    centroids: Vec<f32>,
    offsets: Vec<u32>,
}

/// What is to be told of a level.
pub(super) struct Summary {
    /// Mean squared distance of a row to its node.
    pub(super) loss: f64,
    /// Most children of one parent.
    pub(super) used: u32,
    pub(super) reseeded: u32,
    /// Nodes of the level.
    pub(super) nodes: usize,
}

/// A tree that grows.
pub(super) struct Growth<'a> {
    config: &'a HierarchicalKMeansConfig,
    rows: &'a mut dyn RowSource,
    device: &'a Device,
    limits: Limits,
    /// All rows, node after node, ascending in each.
    order: Vec<u32>,
    nodes: Vec<Node>,
    levels: Vec<Grown>,
}

impl<'a> Growth<'a> {
    /// A root that has all rows, of which there are no more than `u32` counts.
    pub(super) fn new(
        config: &'a HierarchicalKMeansConfig,
        rows: &'a mut dyn RowSource,
        device: &'a Device,
        limits: Limits,
    ) -> Self {
        let root = Node { end: rows.len(), rng: CounterRng::new(config.seed).named("hierarchical k-means") };
        let order = (0..rows.len() as u32).collect();
        Self { config, rows, device, limits, order, nodes: vec![root], levels: Vec::new() }
    }

    /// Gives each node its children, at most `size`.
    pub(super) fn level(&mut self, size: u32) -> Result<Summary> {
        let parents = std::mem::take(&mut self.nodes);
        let mut grown = Grown { centroids: Vec::new(), offsets: vec![0] };
        let (mut error, mut used, mut reseeded) = (0.0, 0, 0);
        let (mut rest, mut start) = (parents.as_slice(), 0);
        while !rest.is_empty() {
            let (some, others) = rest.split_at(self.together(rest, start));
            for (parent, split) in some.iter().zip(self.split(some, start, size)?) {
                error += split.error;
                reseeded += split.reseeded;
                let before = self.nodes.len();
                self.adopt(parent, start, split, &mut grown)?;
                used = used.max((self.nodes.len() - before) as u32);
                start = parent.end;
            }
            rest = others;
        }
        if grown.centroids.iter().any(|x| !x.is_finite()) {
            return Err(QuantizeError::WeightNotFinite { name: format!("nodes.{}", self.levels.len()) });
        }
        self.levels.push(grown);
        let loss = error / self.order.len().max(1) as f64;
        Ok(Summary { loss, used, reseeded, nodes: self.nodes.len() })
    }

    /// How many of these nodes, of which the first has its rows from `start` on, are fitted together.
    fn together(&self, parents: &[Node], start: usize) -> usize {
        let (mut before, mut total) = (start, 0_usize);
        let fits = |parent: &&Node| {
            let values = (parent.end - before) * self.rows.dim();
            (before, total) = (parent.end, total + values);
            total <= self.limits.together && values <= self.limits.alone
        };
        parents.iter().take_while(fits).count().max(1)
    }

    /// Fits nodes whose rows lie one after another, from `start` on.
    fn split(&mut self, parents: &[Node], start: usize, size: u32) -> Result<Vec<Split>> {
        let end = parents.last().map_or(start, |last| last.end);
        let which: Vec<usize> = self.order[start..end].iter().map(|&row| row as usize).collect();
        let values = which.len() * self.rows.dim();
        if let [parent] = parents
            && values > self.limits.alone
        {
            let lloyd = self.config.lloyd(size, parent.rng);
            let mut rows = Subset::new(self.rows, &which);
            let in_memory = rows.slice(0, which.len()).is_some();
            return Ok(vec![match in_memory || values > self.limits.copied {
                true => split(&mut rows, &lloyd, self.device)?,
                false => split(&mut ArrayRows::from(gather(self.rows, &which)?), &lloyd, self.device)?,
            }]);
        }
        let rows: Array2<f32> = gather(self.rows, &which)?;
        let begins = std::iter::once(start).chain(parents.iter().map(|parent| parent.end));
        let tasks: Vec<_> = begins.zip(parents).collect();
        tasks
            .into_par_iter()
            .map(|(begin, parent)| {
                let rows = rows.slice(s![begin - start..parent.end - start, ..]);
                split(&mut ArrayRows::from(rows), &self.config.lloyd(size, parent.rng), &Device::Cpu)
            })
            .collect()
    }

    /// Makes children nodes and sorts the rows of their parent by them.
    fn adopt(&mut self, parent: &Node, start: usize, split: Split, grown: &mut Grown) -> Result<()> {
        self.check(grown.centroids.len() + split.centroids.len())?;
        let children = split.centroids.len() / self.rows.dim().max(1);
        let rows = &mut self.order[start..parent.end];
        let mut places = vec![0; children];
        split.codes.iter().for_each(|&code| places[code as usize] += 1);
        let mut begin = 0;
        for place in &mut places {
            begin += std::mem::replace(place, begin);
        }
        let before = rows.to_vec();
        for (&row, &code) in before.iter().zip(&split.codes) {
            rows[places[code as usize]] = row;
            places[code as usize] += 1;
        }
        let ends = places.iter().zip(0..);
        self.nodes.extend(ends.map(|(&end, code)| Node { end: start + end, rng: parent.rng.stream(code) }));
        grown.centroids.extend(split.centroids);
        grown.offsets.push(self.nodes.len() as u32);
        Ok(())
    }

    /// Checks that there is room for more values.
    fn check(&self, more: usize) -> Result<()> {
        let values = more + self.levels.iter().map(|level| level.centroids.len()).sum::<usize>();
        if values > MAX_ELEMENTS {
            return Err(QuantizeError::config("codebook_sizes", values, "all centroids may have 2^32 values at most"));
        }
        Ok(())
    }

    /// Gives each node one child, itself.
    pub(super) fn repeat(&mut self) -> Result<()> {
        let centroids = self.levels.last().map(|level| level.centroids.as_slice()).unwrap_or_default();
        self.check(centroids.len())?;
        let centroids = centroids.to_vec();
        self.levels.push(Grown { centroids, offsets: (0..=self.nodes.len() as u32).collect() });
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Nodes> {
        let width = self.rows.dim();
        let level = |Grown { centroids, offsets }| {
            let shape = (offsets.last().map_or(0, |&nodes| nodes as usize), width);
            Ok(Level { centroids: Tensor::from_vec(centroids, shape, &Device::Cpu)?, offsets })
        };
        Ok(Nodes::new(self.levels.into_iter().map(level).collect::<Result<_>>()?))
    }
}
