//! The fitted RQ-VAE: an encoder, a codebook a level, and a decoder.

use std::collections::BTreeMap;

use candle_core::{Device, Result as TensorResult, Tensor};

use super::RqVaeConfig;
use super::codebooks::Codebooks;
use crate::autoencoder::{Network, widths};
use crate::coding::{Coding, Search, decode};
use crate::encoder::{HostEncoder, LazyEncoder, on_host};
use crate::input::{check_costs, check_input};
use crate::preprocess::Preprocess;
use crate::saved::{Saved, count_elements, matrices};
use crate::{Quantizer, RankCodes, Reconstruct, Result};

/// Residual-quantised variational autoencoder (Zeghidour et al. 2021, arXiv 2107.03312; for Semantic IDs Rajput et al.
/// 2023, arXiv 2305.05065, section 3.1).
///
/// `z = E(x)`; at level `d` the code is `c_d = argmin_k ||r_d - e_{d,k}||` with `r_0 = z` and
/// `r_{d+1} = r_d - e_{d,c_d}`; the reconstruction is `D(sum_d e_{d,c_d})`. Cloning shares the weights.
#[derive(Clone, Debug)]
pub struct RqVae {
    pub(super) config: RqVaeConfig,
    pub(super) dim: usize,
    pub(super) network: Network,
    pub(super) books: Codebooks,
    pub(super) preprocess: Preprocess,
    encoder: LazyEncoder,
}

impl RqVae {
    /// A fitted network, whose weights no longer change.
    pub(super) fn new(
        config: RqVaeConfig,
        dim: usize,
        network: Network,
        books: Codebooks,
        preprocess: Preprocess,
    ) -> Self {
        Self { config, dim, network, books, preprocess, encoder: LazyEncoder::default() }
    }

    fn host_encoder(&self) -> TensorResult<&HostEncoder> {
        let layers = self.network.encoder.layers.iter().map(|(weight, bias)| (weight, bias));
        self.encoder.get(|| {
            let search = Search::new(self.coding(), self.config.latent_dim, self.books.books())?;
            HostEncoder::new(self.dim, &self.preprocess, layers, search)
        })
    }

    fn coding(&self) -> Coding {
        self.config.coding()
    }

    /// The configuration it was fitted with.
    pub fn config(&self) -> &RqVaeConfig {
        &self.config
    }

    /// The latent vector `E(x)` of each row, before quantisation.
    ///
    /// # Shapes
    /// - `xs`: `(n, dim)`, f32
    /// - result: `(n, latent_dim)`, f32
    ///
    /// # Errors
    /// When the shape, type or device of `xs` is wrong or a tensor operation fails.
    pub fn latent(&self, xs: &Tensor) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        self.network.encoder.forward(&self.preprocess.apply(xs)?)
    }

    /// The codewords of a level, `(codes, latent_dim)`, or as wide as its part of a partitioned latent vector; `None` where there is no such level.
    pub fn codebook(&self, level: usize) -> Option<&Tensor> {
        self.books.books().get(level).copied()
    }

    fn shapes(config: &RqVaeConfig, dim: usize) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = Network::shapes(&widths(config.steps().width(dim), &config.hidden, config.latent_dim));
        shapes.extend(Codebooks::shapes(config));
        Preprocess::shapes(config.steps(), dim, &mut shapes);
        shapes
    }
}

impl Saved for RqVae {
    type Config = RqVaeConfig;

    fn elements(config: &RqVaeConfig, dim: usize) -> Option<usize> {
        count_elements(&Self::shapes(config, dim))
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = self.network.params.snapshot()?;
        tensors.extend(self.books.params.snapshot()?);
        self.preprocess.tensors(&mut tensors);
        Ok(tensors)
    }

    fn from_tensors(
        config: RqVaeConfig,
        dim: usize,
        tensors: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        let values = matrices(tensors, &Self::shapes(&config, dim), device)?;
        let network = Network::new(&values, config.hidden.len() + 1, device)?;
        let books = Codebooks::new(&values, &config, device)?;
        Ok(Self::new(config, dim, network, books, Preprocess::load(tensors, device)?))
    }
}

impl Quantizer for RqVae {
    fn dim(&self) -> usize {
        self.dim
    }

    fn codebook_sizes(&self) -> &[u32] {
        &self.config.codebook_sizes
    }

    fn device(&self) -> &Device {
        self.network.params.device()
    }

    fn encode(&self, xs: &Tensor) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        if on_host(self.device(), xs) {
            return self.host_encoder()?.encode_tensor(xs);
        }
        self.coding().encode(&self.latent(xs)?, &self.books.books())
    }

    fn encode_slice(&self, xs: &[f32], codes: &mut [u32]) -> TensorResult<bool> {
        if !self.device().is_cpu() {
            return Ok(false);
        }
        self.host_encoder()?.encode(xs, codes)?;
        Ok(true)
    }
}

impl Reconstruct for RqVae {
    fn reconstruct(&self, codes: &Tensor) -> TensorResult<Tensor> {
        let latent = decode(self.coding().composition, codes, &self.books.books())?;
        self.preprocess.invert(&self.network.decoder.forward(&latent)?)
    }
}

impl RankCodes for RqVae {
    fn code_costs(&self, xs: &Tensor, prefix: &[u32]) -> TensorResult<Tensor> {
        check_costs(self.coding().costs(&self.latent(xs)?, &self.books.books(), prefix)?)
    }
}
