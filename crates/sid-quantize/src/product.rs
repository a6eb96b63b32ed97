//! Product quantisation: one k-means for each part of the features, and the rotation that makes them fit to be cut.

mod config;
mod part;
mod rotation;

pub use config::ProductKMeansConfig;
pub use rotation::RotationConfig;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use candle_core::{Device, Result as TensorResult, Tensor};
use genrec_kernels::CounterRng;
use part::Part;
use rotation::Rotation;

use crate::coder::Coder;
use crate::input::to_tensor;
use crate::kmeans::{Iteration, Lloyd, gather, sample_rows};
use crate::preprocess::{Preprocess, Projection};
use crate::saved::{Saved, check_rows, count_elements};
use crate::{EpochReport, Fit, FitControl, Quantizer, RankCodes, Reconstruct, Result, RowSource};

/// Product quantisation by k-means: the features are cut into as many contiguous parts as there are levels, the first ones a
/// column wider where they cannot be shared evenly, and a row takes the nearest centroid of each part:
///
/// $$ c_d(x) = \arg\min_k \lVert u_d(x) - e_{d,k} \rVert^2 $$
///
/// with `u_d(x)` the columns of part `d` (Jegou et al., *Product Quantization for Nearest Neighbor Search*, TPAMI 2011,
/// equation 8). No level is coarser than another, so a prefix of codes is no cluster of similar items; VQ-Rec represents items
/// so (Hou et al. 2023, arXiv 2210.12316).
///
/// With [`ProductKMeansConfig::rotation`] a rotation of the features is learned before they are cut (Ge et al., *Optimized
/// Product Quantization for Approximate Nearest Neighbor Search*, CVPR 2013, the non-parametric solution). The codes then
/// stand for parts of the rotated features:
///
/// $$ \min_{R, C} \sum_i \lVert x_i R - y_i \rVert^2, \quad R^\top R = I $$
///
/// with `y_i` the codewords of row `i` side by side. A rotation keeps distances, so that the error in the features is the same.
#[derive(Clone, Debug)]
pub struct ProductKMeans {
    config: ProductKMeansConfig,
    coder: Coder,
}

impl ProductKMeans {
    /// The configuration it was fitted with.
    pub fn config(&self) -> &ProductKMeansConfig {
        &self.config
    }

    /// The centroids of each part, in the space of the (possibly standardised, whitened and rotated) features.
    ///
    /// # Shapes
    /// - each: `(codes, columns of the part)`, f32
    pub fn codebooks(&self) -> &[Tensor] {
        self.coder.codebooks()
    }
}

impl Saved for ProductKMeans {
    type Config = ProductKMeansConfig;

    fn elements(config: &ProductKMeansConfig, dim: usize) -> Option<usize> {
        count_elements(&config.shapes(dim))
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(self.coder.tensors())
    }

    fn from_tensors(
        config: ProductKMeansConfig,
        dim: usize,
        tensors: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        config.check_columns(dim)?;
        let levels = config.codebook_sizes.len();
        let coder = Coder::load(dim, tensors, &config.shapes(dim), levels, config.coding(), device)?;
        Ok(Self { config, coder })
    }
}

impl Quantizer for ProductKMeans {
    fn dim(&self) -> usize {
        self.coder.dim()
    }

    fn codebook_sizes(&self) -> &[u32] {
        &self.config.codebook_sizes
    }

    fn device(&self) -> &Device {
        self.coder.device()
    }

    fn encode(&self, xs: &Tensor) -> TensorResult<Tensor> {
        self.coder.encode(xs)
    }

    fn encode_slice(&self, xs: &[f32], codes: &mut [u32]) -> TensorResult<bool> {
        self.coder.encode_slice(xs, codes)
    }
}

impl Reconstruct for ProductKMeans {
    fn reconstruct(&self, codes: &Tensor) -> TensorResult<Tensor> {
        self.coder.reconstruct(codes)
    }
}

impl RankCodes for ProductKMeans {
    fn code_costs(&self, xs: &Tensor, prefix: &[u32]) -> TensorResult<Tensor> {
        self.coder.code_costs(xs, prefix)
    }
}

impl Fit for ProductKMeansConfig {
    type Model = ProductKMeans;

    fn fit_on(&self, xs: &mut dyn RowSource, device: &Device, ctl: &mut dyn FitControl) -> Result<ProductKMeans> {
        self.validate()?;
        let dim = xs.dim();
        check_rows(xs, &self.codebook_sizes)?;
        self.check_columns(dim)?;
        // Rows are checked here once; the passes below would only repeat it.
        let mut preprocess = Preprocess::fit(self.steps(), xs, device)?;
        let rng = CounterRng::new(self.seed).named("product k-means");
        let parts = self.parts(dim);
        let lloyds: Vec<Lloyd> = (0..parts.len()).map(|level| self.lloyd(level, rng)).collect();
        let mut progress = Progress { ctl, done: 0, epochs: self.epochs(), stopped: false };

        let mut first = Vec::new();
        if let Some(rotation) = &self.rotation {
            let picked = sample_rows(rng.named("rotation"), xs.len(), rotation.rows)?;
            let sample = gather(&mut preprocess.rows(xs), &picked)?;
            let learned = Rotation::learn(sample, rotation.iterations, &lloyds, &parts, device, &mut |steps| {
                progress.report(None, steps)
            })?;
            preprocess = preprocess.then(Projection::rotation(learned.matrix.as_ref(), device)?)?;
            first = learned.codebooks;
        }
        let mut first = first.into_iter();
        let mut codebooks = Vec::with_capacity(parts.len());
        for (level, (mut lloyd, columns)) in lloyds.into_iter().zip(parts).enumerate() {
            if progress.stopped {
                // A fit that was ended keeps valid codebooks for the parts left: their first centroids, moved once.
                lloyd.iterations = 1;
            }
            let (steps, columns) = preprocess.columns(columns)?;
            let mut rows = Part { source: &mut steps.rows(xs), columns };
            let mut watch = |step| progress.report(Some(level), &[step]);
            let clusters = match first.next() {
                Some(centroids) => lloyd.run_from(centroids, &mut rows, device, &mut watch)?,
                None => lloyd.run(&mut rows, device, &mut watch)?,
            };
            tracing::debug!(level, codes = lloyd.codes, "fitted a part by k-means");
            codebooks.push(to_tensor(clusters.centroids.view(), device)?);
        }
        let coder = Coder::new(dim, preprocess, codebooks, self.coding(), device);
        Ok(ProductKMeans { config: self.clone(), coder })
    }
}

/// What the watcher of a fit has been told.
struct Progress<'a> {
    ctl: &'a mut dyn FitControl,
    done: usize,
    epochs: usize,
    stopped: bool,
}

impl Progress<'_> {
    /// Reports an iteration of one part, or of all; breaks once the watcher did, who is then asked no more.
    fn report(&mut self, level: Option<usize>, steps: &[Iteration]) -> ControlFlow<()> {
        if self.stopped {
            return ControlFlow::Break(());
        }
        self.done += 1;
        // The parts have no column in common: their squared distances add up.
        let error = steps.iter().map(|step| step.inertia).sum();
        let flow = self.ctl.on_epoch(&EpochReport {
            epoch: self.done,
            epochs: self.epochs,
            level,
            loss: error,
            reconstruction: error,
            used: steps.iter().map(|step| step.used).collect(),
            restarted: steps.iter().map(|step| step.reseeded).sum(),
            collision_rate: None,
        });
        self.stopped = flow.is_break();
        flow
    }
}

#[cfg(test)]
mod tests;
