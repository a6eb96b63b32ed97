//! The fitted finite scalar quantiser.

use std::collections::BTreeMap;

use candle_core::{Device, Result as TensorResult, Tensor};
use genrec_kernels::CounterRng;

use super::FsqConfig;
use super::bottleneck::Rounding;
use super::grid::Grid;
use crate::autoencoder::{Network, Training, check_weights, widths};
use crate::encoder::{HostEncoder, LazyEncoder, on_host};
use crate::input::{check_costs, check_input, check_prefix};
use crate::preprocess::Preprocess;
use crate::saved::{Saved, check_rows, count_elements, matrices};
use crate::{Fit, FitControl, Quantizer, RankCodes, Reconstruct, Result, RowSource};

/// Finite scalar quantisation (Mentzer et al. 2023, arXiv 2309.15505): an autoencoder each of whose few latent features is
/// squashed and rounded to one of a few values. There is no codebook to collapse and no term but the reconstruction; a code is
/// the combination of its features' values, and no code is coarser than another.
///
/// Cloning shares the weights.
#[derive(Clone, Debug)]
pub struct Fsq {
    config: FsqConfig,
    dim: usize,
    sizes: Vec<u32>,
    pub(super) grid: Grid,
    network: Network,
    preprocess: Preprocess,
    encoder: LazyEncoder,
}

impl Fsq {
    fn new(config: FsqConfig, dim: usize, network: Network, preprocess: Preprocess) -> Self {
        let (sizes, grid) = (config.codebook_sizes(), Grid::new(&config.scalars));
        Self { config, dim, sizes, grid, network, preprocess, encoder: LazyEncoder::default() }
    }

    /// The configuration it was fitted with.
    pub fn config(&self) -> &FsqConfig {
        &self.config
    }

    pub(super) fn latent(&self, xs: &Tensor) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        self.network.encoder.forward(&self.preprocess.apply(xs)?)
    }

    fn host_encoder(&self) -> TensorResult<&HostEncoder> {
        let layers = self.network.encoder.layers.iter().map(|(weight, bias)| (weight, bias));
        self.encoder.get(|| HostEncoder::new(self.dim, &self.preprocess, layers, self.grid.clone()))
    }

    fn shapes(config: &FsqConfig, dim: usize) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = Network::shapes(&widths(config.steps().width(dim), &config.hidden, config.latent_dim()));
        Preprocess::shapes(config.steps(), dim, &mut shapes);
        shapes
    }
}

impl Saved for Fsq {
    type Config = FsqConfig;

    fn elements(config: &FsqConfig, dim: usize) -> Option<usize> {
        count_elements(&Self::shapes(config, dim))
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = self.network.params.snapshot()?;
        self.preprocess.tensors(&mut tensors);
        Ok(tensors)
    }

    fn from_tensors(
        config: FsqConfig,
        dim: usize,
        tensors: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        let values = matrices(tensors, &Self::shapes(&config, dim), device)?;
        let network = Network::new(&values, config.hidden.len() + 1, device)?;
        Ok(Self::new(config, dim, network, Preprocess::load(tensors, device)?))
    }
}

impl Quantizer for Fsq {
    fn dim(&self) -> usize {
        self.dim
    }

    fn codebook_sizes(&self) -> &[u32] {
        &self.sizes
    }

    fn device(&self) -> &Device {
        self.network.params.device()
    }

    fn encode(&self, xs: &Tensor) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        if on_host(self.device(), xs) {
            return self.host_encoder()?.encode_tensor(xs);
        }
        Tensor::stack(&self.grid.codes_of(&self.grid.bound(&self.latent(xs)?)?.0.round()?)?, 1)
    }

    fn encode_slice(&self, xs: &[f32], codes: &mut [u32]) -> TensorResult<bool> {
        if !self.device().is_cpu() {
            return Ok(false);
        }
        self.host_encoder()?.encode(xs, codes)?;
        Ok(true)
    }
}

impl Reconstruct for Fsq {
    fn reconstruct(&self, codes: &Tensor) -> TensorResult<Tensor> {
        self.preprocess.invert(&self.network.decoder.forward(&self.grid.decode(codes)?)?)
    }
}

impl RankCodes for Fsq {
    fn code_costs(&self, xs: &Tensor, prefix: &[u32]) -> TensorResult<Tensor> {
        check_prefix(&self.sizes, prefix)?;
        check_costs(self.grid.costs(&self.latent(xs)?, prefix.len())?)
    }
}

impl Fit for FsqConfig {
    type Model = Fsq;

    fn fit_on(&self, xs: &mut dyn RowSource, device: &Device, ctl: &mut dyn FitControl) -> Result<Fsq> {
        self.validate()?;
        // There is no codebook to fill: one row is enough.
        check_rows(xs, &[1])?;
        let dim = xs.dim();
        let preprocess = Preprocess::fit(self.steps(), xs, device)?;
        let rows = preprocess.rows(xs);
        let rng = CounterRng::new(self.seed).named("fsq");
        let widths = widths(rows.dim(), &self.hidden, self.latent_dim());
        let network = Network::random(&widths, rng.named("weights"), device)?;
        let rounding = Rounding { grid: Grid::new(&self.scalars), sizes: self.codebook_sizes() };
        let mut training = Training::new(self.plan(), rows, network, rounding, rng, device)?;
        training.run(ctl)?;
        let network = training.network;
        check_weights(&network.params)?;
        Ok(Fsq::new(self.clone(), dim, network, preprocess))
    }
}
