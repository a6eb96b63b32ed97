//! Hierarchical k-means: a tree of clusters, each cut into clusters of its own.

mod config;
mod fit;
mod nodes;
mod search;
mod split;
mod subset;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Result as TensorResult, Tensor, bail};

pub use config::HierarchicalKMeansConfig;
use fit::{Growth, Limits};
use nodes::Nodes;
use search::TreeSearch;

use crate::coding::Coding;
use crate::encoder::{HostEncoder, LazyEncoder};
use crate::input::{check_costs, check_input};
use crate::preprocess::Preprocess;
use crate::saved::{MAX_ELEMENTS, Saved, check_rows, count_elements};
use crate::{EpochReport, Fit, FitControl, Quantizer, RankCodes, Reconstruct, Result, RowSource};

/// A tree of k-means: level 0 clusters all rows, and the rows of each cluster are clustered again, each node having children
/// of its own. The codes of a row are the numbers of the children on its way down, at each node the nearest.
///
/// Unlike residual k-means it holds centroids of rows, not of what is left of them, and the meaning of a code depends on the
/// codes before it: `[3, 7]` and `[4, 7]` have nothing in common. It is the vocabulary tree of Nister and Stewenius,
/// *Scalable Recognition with a Vocabulary Tree*, CVPR 2006, and one of the alternatives that TIGER (Rajput et al. 2023, arXiv
/// 2305.05065) was compared with.
///
/// A node has only as many children as it has distinct rows, so a row that is alone has code 0 from there on, and rows end
/// in a leaf of their own where the tree is large enough for them. Every row, known or new, has a code of every level. The
/// tree is searched on the host: rows on another device are moved there and their codes back.
#[derive(Clone, Debug)]
pub struct HierarchicalKMeans {
    config: HierarchicalKMeansConfig,
    dim: usize,
    preprocess: Preprocess,
    nodes: Arc<Nodes>,
    device: Device,
    encoder: LazyEncoder,
}

impl HierarchicalKMeans {
    fn new(
        config: HierarchicalKMeansConfig,
        dim: usize,
        preprocess: Preprocess,
        nodes: Nodes,
        device: &Device,
    ) -> Self {
        let encoder = LazyEncoder::default();
        Self { config, dim, preprocess, nodes: Arc::new(nodes), device: device.clone(), encoder }
    }

    /// The configuration it was fitted with.
    pub fn config(&self) -> &HierarchicalKMeansConfig {
        &self.config
    }

    /// The number of nodes of each level, from the root's children down; the last is the number of leaves, and so of
    /// tuples of codes that any row can have.
    pub fn node_counts(&self) -> Vec<usize> {
        self.nodes.levels().iter().map(|level| level.offsets.last().map_or(0, |&nodes| nodes as usize)).collect()
    }

    /// The centroids of the codes that may follow a prefix, in the space of the (possibly standardised and whitened)
    /// features, on the host.
    ///
    /// # Shapes
    /// - `prefix`: fewer codes than there are levels
    /// - result: `(children, features)`, f32; the row of a child is its code
    ///
    /// # Errors
    /// When the prefix is too long or no path of the tree.
    pub fn children(&self, prefix: &[u32]) -> TensorResult<Tensor> {
        self.nodes.below(prefix)
    }

    fn host_encoder(&self) -> TensorResult<&HostEncoder> {
        self.encoder.get(|| {
            let width = self.preprocess.projection().map_or(self.dim, |projection| projection.width());
            let search = TreeSearch::new(Arc::clone(&self.nodes), self.config.distance, width)?;
            HostEncoder::new(self.dim, &self.preprocess, [], search)
        })
    }
}

impl Saved for HierarchicalKMeans {
    type Config = HierarchicalKMeansConfig;

    fn elements(config: &HierarchicalKMeansConfig, dim: usize) -> Option<usize> {
        let sizes = &config.codebook_sizes;
        let count = |nodes: Vec<usize>| count_elements(&Nodes::shapes(config.steps(), dim, nodes));
        let full = sizes.iter().scan(1_usize, |nodes, &size| {
            *nodes = nodes.saturating_mul(size as usize);
            Some(*nodes)
        });
        // A tree is as large as its rows made it: at least one node a level, rarely all that there could be.
        let (least, most) = (count(vec![1; sizes.len()])?, count(full.collect()));
        Some(least.max(most.unwrap_or(MAX_ELEMENTS).min(MAX_ELEMENTS)))
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        self.preprocess.tensors(&mut tensors);
        self.nodes.tensors(&mut tensors)?;
        Ok(tensors)
    }

    fn from_tensors(
        config: HierarchicalKMeansConfig,
        dim: usize,
        tensors: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        let nodes = Nodes::load(config.steps(), dim, &config.codebook_sizes, tensors)?;
        Ok(Self::new(config, dim, Preprocess::load(tensors, device)?, nodes, device))
    }
}

impl Quantizer for HierarchicalKMeans {
    fn dim(&self) -> usize {
        self.dim
    }

    fn codebook_sizes(&self) -> &[u32] {
        &self.config.codebook_sizes
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn encode(&self, xs: &Tensor) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        self.host_encoder()?.encode_tensor(&xs.to_device(&Device::Cpu)?)?.to_device(xs.device())
    }

    fn encode_slice(&self, xs: &[f32], codes: &mut [u32]) -> TensorResult<bool> {
        self.host_encoder()?.encode(xs, codes)?;
        Ok(true)
    }
}

impl Reconstruct for HierarchicalKMeans {
    /// The centroid of the leaf. Codes that are no path of the tree are an error that names them.
    fn reconstruct(&self, codes: &Tensor) -> TensorResult<Tensor> {
        let (rows, levels) = codes.dims2()?;
        let Some(leaves) = self.nodes.levels().last().filter(|_| levels == self.nodes.levels().len()) else {
            bail!("codes have {levels} levels, the quantiser has {}", self.nodes.levels().len());
        };
        let paths = codes.to_device(&Device::Cpu)?.to_vec2::<u32>()?;
        let found = paths.iter().map(|path| Ok(self.nodes.node(path)? as u32)).collect::<TensorResult<Vec<_>>>()?;
        let found = Tensor::from_vec(found, rows, &Device::Cpu)?;
        self.preprocess.invert(&leaves.centroids.index_select(&found, 0)?.to_device(&self.device)?)
    }
}

impl RankCodes for HierarchicalKMeans {
    /// The squared distance to each child of the node at the end of the prefix, or one minus the cosine; infinite for codes
    /// that this node has no child for. A prefix that is no path of the tree is an error.
    fn code_costs(&self, xs: &Tensor, prefix: &[u32]) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        let children = self.nodes.below(prefix)?.to_device(xs.device())?;
        let coding = Coding { distance: self.config.distance, ..Coding::default() };
        let costs = check_costs(coding.distances(&self.preprocess.apply(xs)?, &children)?)?;
        let (rows, known) = costs.dims2()?;
        let size = self.config.codebook_sizes.get(prefix.len()).map_or(known, |&size| size as usize);
        if size <= known {
            return Ok(costs);
        }
        Tensor::cat(&[costs, Tensor::full(f32::INFINITY, (rows, size - known), xs.device())?], 1)
    }
}

impl Fit for HierarchicalKMeansConfig {
    type Model = HierarchicalKMeans;

    /// Reports each level when it is done. If the fit is ended, each node of the levels left has one child, itself.
    fn fit_on(&self, xs: &mut dyn RowSource, device: &Device, ctl: &mut dyn FitControl) -> Result<HierarchicalKMeans> {
        self.fit_within(Limits::default(), xs, device, ctl)
    }
}

impl HierarchicalKMeansConfig {
    fn fit_within(
        &self,
        limits: Limits,
        xs: &mut dyn RowSource,
        device: &Device,
        ctl: &mut dyn FitControl,
    ) -> Result<HierarchicalKMeans> {
        self.validate()?;
        let (dim, rows, levels) = (xs.dim(), xs.len(), self.codebook_sizes.len());
        // Only the root must fill its codebook.
        check_rows(xs, &self.codebook_sizes[..1])?;
        let preprocess = Preprocess::fit(self.steps(), xs, device)?;
        let mut prepared = preprocess.rows(xs);
        let mut growth = Growth::new(self, &mut prepared, device, limits);
        let mut stopped = false;
        for (level, &size) in self.codebook_sizes.iter().enumerate() {
            if stopped {
                growth.repeat()?;
                continue;
            }
            let summary = growth.level(size)?;
            tracing::debug!(level, size, nodes = summary.nodes, loss = summary.loss, "grew a level of a tree");
            let leaves = (level + 1 == levels).then_some(summary.nodes);
            stopped = ctl
                .on_epoch(&EpochReport {
                    epoch: level + 1,
                    epochs: levels,
                    level: Some(level),
                    loss: summary.loss,
                    reconstruction: summary.loss,
                    used: vec![summary.used],
                    restarted: summary.reseeded,
                    collision_rate: leaves.map(|leaves| 1.0 - leaves as f64 / rows as f64),
                })
                .is_break();
        }
        let nodes = growth.finish()?;
        Ok(HierarchicalKMeans::new(self.clone(), dim, preprocess, nodes, device))
    }
}

#[cfg(test)]
mod tests;
