//! The control: codes that say nothing about content.

use std::collections::BTreeMap;

use candle_core::{Device, Error, Result as TensorResult, Tensor};
use genrec_kernels::{CounterRng, host};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::input::{check_input, check_prefix};
use crate::saved::{Saved, check_rows, check_sizes, expect_shapes};
use crate::usage::scan;
use crate::{Fit, FitControl, Quantizer, RankCodes, Result, RowSource};

/// How [`RandomIds`] are made.
///
/// ```
/// use ndarray::Array2;
/// use sid_quantize::{ArrayRows, Fit, Quantizer, RandomIdsConfig};
///
/// let embeddings = Array2::from_shape_fn((64, 4), |(i, j)| (i * 4 + j) as f32);
/// let quantizer = RandomIdsConfig::default().fit(&mut ArrayRows::from(embeddings.view()))?;
/// assert_eq!(quantizer.encode_array(embeddings.view(), 32)?.dim(), (64, 3));
/// # Ok::<(), sid_quantize::QuantizeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RandomIdsConfig {
    /// Codes in each level's codebook; three levels of 256, TIGER's size, by default.
    pub codebook_sizes: Vec<u32>,
    /// Key of the hash that a row's codes are; 0 by default.
    pub seed: u64,
}

impl Default for RandomIdsConfig {
    fn default() -> Self {
        Self { codebook_sizes: vec![256; 3], seed: 0 }
    }
}

impl RandomIdsConfig {
    /// Sets the codes of each level's codebook.
    #[must_use]
    pub fn with_codebook_sizes(mut self, sizes: impl Into<Vec<u32>>) -> Self {
        self.codebook_sizes = sizes.into();
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`QuantizeError::InvalidConfig`](crate::QuantizeError::InvalidConfig) names the first field out of its bounds.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&self.codebook_sizes)
    }
}

/// Random IDs, the control that TIGER compares Semantic IDs with (arXiv 2305.05065): what a recommender gains
/// over them, it gains from the content that its codes carry.
///
/// A row's codes are a keyed hash of its values, so that a quantiser that has never seen an item can code it, and codes
/// it alike each time: equal rows get equal codes (0 and -0 are equal), and rows that differ in any bit get codes that are
/// independent and uniform in each level. An embedder that rounds differently therefore gives other codes. It knows
/// nothing of the rows it was fitted on but their width, and holds no weights.
///
/// It cannot reconstruct. The [`code_costs`](RankCodes::code_costs) of a row are 0 for its own code and otherwise a further
/// hash, in `(0, 1]`: an order of the codes that is random, and the same each time.
#[derive(Clone, Debug)]
pub struct RandomIds {
    config: RandomIdsConfig,
    dim: usize,
    device: Device,
    rng: CounterRng,
}

impl RandomIds {
    fn new(config: RandomIdsConfig, dim: usize, device: &Device) -> Self {
        let rng = CounterRng::new(config.seed).named("random ids");
        Self { config, dim, device: device.clone(), rng }
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &RandomIdsConfig {
        &self.config
    }

    /// 64 bits that stand for a row: the values are chained, each step a bijection of the generator.
    fn hash(&self, row: &[f32]) -> u64 {
        // Adding 0 turns -0 into 0 and changes nothing else.
        let bits = |x: f32| u64::from((x + 0.0).to_bits());
        row.chunks(2).fold(0, |hash, pair| {
            let word = pair.iter().fold(0, |word, &x| word << 32 | bits(x));
            self.rng.u64_at(hash ^ word)
        })
    }

    fn code(&self, hash: u64, level: usize, size: u32) -> u32 {
        // Below a size of 32 bits.
        self.rng.named("codes").stream(level as u64).below(hash, u64::from(size)) as u32
    }

    /// Writes the codes of each row.
    fn codes(&self, xs: &[f32], codes: &mut [u32]) -> TensorResult<()> {
        let (dim, levels) = (self.dim, self.config.codebook_sizes.len());
        if !xs.len().is_multiple_of(dim) || codes.len() != xs.len() / dim * levels {
            let (values, places) = (xs.len(), codes.len());
            candle_core::bail!(
                "{values} values are no rows of {dim} columns with {places} places for their {levels} codes each"
            )
        }
        xs.par_chunks(dim).zip(codes.par_chunks_mut(levels)).with_min_len(64).for_each(|(row, codes)| {
            let hash = self.hash(row);
            for ((level, &size), code) in self.config.codebook_sizes.iter().enumerate().zip(codes) {
                *code = self.code(hash, level, size);
            }
        });
        Ok(())
    }
}

impl Saved for RandomIds {
    type Config = RandomIdsConfig;

    fn elements(_config: &RandomIdsConfig, _dim: usize) -> Option<usize> {
        Some(0)
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(BTreeMap::new())
    }

    fn from_tensors(
        config: RandomIdsConfig,
        dim: usize,
        tensors: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        expect_shapes(tensors, &BTreeMap::new())?;
        Ok(Self::new(config, dim, device))
    }
}

impl Quantizer for RandomIds {
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
        let shape = (xs.dim(0)?, self.config.codebook_sizes.len());
        let mut codes = vec![0; shape.0 * shape.1];
        host::read(&xs.to_device(&Device::Cpu)?, |xs| self.codes(xs, &mut codes))?;
        Tensor::from_vec(codes, shape, xs.device())
    }

    fn encode_slice(&self, xs: &[f32], codes: &mut [u32]) -> TensorResult<bool> {
        self.codes(xs, codes)?;
        Ok(true)
    }
}

impl RankCodes for RandomIds {
    fn code_costs(&self, xs: &Tensor, prefix: &[u32]) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        check_prefix(&self.config.codebook_sizes, prefix)?;
        let (rows, level) = (xs.dim(0)?, prefix.len());
        let size = self.config.codebook_sizes[level];
        let places = rows
            .checked_mul(size as usize)
            .ok_or_else(|| Error::msg(format!("{rows} rows have no place for the costs of {size} codes each")))?;
        let mut costs = vec![0.0; places];
        host::read(&xs.to_device(&Device::Cpu)?, |xs| {
            xs.par_chunks(self.dim).zip(costs.par_chunks_mut(size as usize)).for_each(|(row, costs)| {
                let hash = self.hash(row);
                let (own, rng) = (self.code(hash, level, size), self.rng.named("costs").stream(level as u64));
                let rng = rng.stream(hash);
                for (code, cost) in (0..size).zip(costs) {
                    *cost = if code == own { 0.0 } else { 1.0 - rng.f32_at(u64::from(code)) };
                }
            });
            Ok(())
        })?;
        Tensor::from_vec(costs, (rows, size as usize), xs.device())
    }
}

impl Fit for RandomIdsConfig {
    type Model = RandomIds;

    /// Reads and checks the rows and learns nothing from them but their width. There is no epoch to report, and one row is
    /// enough.
    fn fit_on(&self, xs: &mut dyn RowSource, device: &Device, _ctl: &mut dyn FitControl) -> Result<RandomIds> {
        self.validate()?;
        check_rows(xs, &[1])?;
        let dim = xs.dim();
        scan(dim, xs, |_, _| Ok(()))?;
        Ok(RandomIds::new(self.clone(), dim, device))
    }
}

#[cfg(test)]
mod tests;
