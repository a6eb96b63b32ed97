//! Residual k-means: one k-means a level, each on what the levels before it leave.

mod config;
mod rows;

pub use config::ResidualKMeansConfig;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use candle_core::{Device, Result as TensorResult, Tensor};
use genrec_kernels::CounterRng;

use crate::coder::Coder;
use crate::input::to_tensor;
use crate::kmeans::{KMeansInit, Lloyd};
use crate::preprocess::Preprocess;
use crate::saved::{Saved, check_rows, count_elements};
use crate::{EpochReport, Fit, FitControl, Quantizer, RankCodes, Reconstruct, Result, RowSource};
use rows::Residuals;

/// Residual quantisation by k-means, with no encoder: level `d` holds the centroids of the residuals `r_d`,
/// `r_0 = x`, `r_{d+1} = r_d - e_{d,c_d}`, and a row takes the nearest centroid at every level.
///
/// It needs no training beyond Lloyd's iterations and, on sentence embeddings, is a strong rival of the RQ-VAE; OneRec
/// builds its Semantic IDs so (Deng et al. 2025, arXiv 2502.18965).
#[derive(Clone, Debug)]
pub struct ResidualKMeans {
    config: ResidualKMeansConfig,
    coder: Coder,
}

impl ResidualKMeans {
    /// The configuration it was fitted with.
    pub fn config(&self) -> &ResidualKMeansConfig {
        &self.config
    }

    /// The centroids of each level, coarse to fine, in the space of the (possibly standardised and whitened) features.
    ///
    /// # Shapes
    /// - each: `(codes, features)`, f32
    pub fn codebooks(&self) -> &[Tensor] {
        self.coder.codebooks()
    }
}

impl Saved for ResidualKMeans {
    type Config = ResidualKMeansConfig;

    fn elements(config: &ResidualKMeansConfig, dim: usize) -> Option<usize> {
        count_elements(&Coder::shapes(config.steps(), dim, &config.codebook_sizes, config.coding()))
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(self.coder.tensors())
    }

    fn from_tensors(
        config: ResidualKMeansConfig,
        dim: usize,
        tensors: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        let shapes = Coder::shapes(config.steps(), dim, &config.codebook_sizes, config.coding());
        let coder = Coder::load(dim, tensors, &shapes, config.codebook_sizes.len(), config.coding(), device)?;
        Ok(Self { config, coder })
    }
}

impl Quantizer for ResidualKMeans {
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

impl Reconstruct for ResidualKMeans {
    fn reconstruct(&self, codes: &Tensor) -> TensorResult<Tensor> {
        self.coder.reconstruct(codes)
    }
}

impl RankCodes for ResidualKMeans {
    fn code_costs(&self, xs: &Tensor, prefix: &[u32]) -> TensorResult<Tensor> {
        self.coder.code_costs(xs, prefix)
    }
}

impl Fit for ResidualKMeansConfig {
    type Model = ResidualKMeans;

    fn fit_on(&self, xs: &mut dyn RowSource, device: &Device, ctl: &mut dyn FitControl) -> Result<ResidualKMeans> {
        self.validate()?;
        let dim = xs.dim();
        check_rows(xs, &self.codebook_sizes)?;
        // Rows are checked here once; the passes below would only repeat it on residuals.
        let preprocess = Preprocess::fit(self.steps(), xs, device)?;
        let mut prepared = preprocess.rows(xs);
        let rng = CounterRng::new(self.seed).named("residual k-means");
        let mut residuals = Residuals { source: &mut prepared, levels: Vec::new() };
        let mut done = 0;
        let mut stopped = false;
        for (level, &size) in self.codebook_sizes.iter().enumerate() {
            let lloyd = Lloyd {
                codes: size as usize,
                // A fit that was ended keeps valid codebooks for the levels left: rows, moved once.
                iterations: if stopped { 1 } else { self.iterations },
                tolerance: self.tolerance,
                batch: self.batch_rows,
                rule: self.rule(),
                init: if stopped { KMeansInit::Points } else { self.init },
                init_rows: self.init_rows,
                rng: rng.stream(level as u64),
            };
            let clusters = lloyd.run(&mut residuals, device, &mut |step| {
                done += 1;
                if stopped {
                    return ControlFlow::Break(());
                }
                let report = EpochReport {
                    epoch: done,
                    epochs: self.epochs(),
                    level: Some(level),
                    loss: step.inertia,
                    reconstruction: step.inertia,
                    used: vec![step.used],
                    restarted: step.reseeded,
                    collision_rate: None,
                };
                let flow = ctl.on_epoch(&report);
                stopped = flow.is_break();
                flow
            })?;
            tracing::debug!(level, size, "fitted a level by k-means");
            residuals.levels.push((clusters.centroids, clusters.codes));
        }
        let codebooks = residuals
            .levels
            .iter()
            .map(|(centroids, _)| to_tensor(centroids.view(), device))
            .collect::<TensorResult<_>>()?;
        let coder = Coder::new(dim, preprocess, codebooks, self.coding(), device);
        Ok(ResidualKMeans { config: self.clone(), coder })
    }
}

#[cfg(test)]
mod tests;
