//! Semantic IDs by the signs of random projections.

mod config;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Error, Result as TensorResult, Tensor};
use genrec_kernels::CounterRng;
use genrec_kernels::host;
use genrec_kernels::simhash::{SimHash, WORD};

pub use config::SimHashLshConfig;

use crate::encoder::{Codes, HostEncoder, LazyEncoder, on_host};
use crate::input::{check_input, check_prefix};
use crate::preprocess::Preprocess;
use crate::saved::{Saved, check_rows, count_elements, expect_shapes, matrix};
use crate::{Fit, FitControl, Quantizer, RankCodes, Result, RowSource};

/// Name of the hyperplanes in a file.
const NORMALS: &str = "normals";

/// Locality-sensitive hashing by random hyperplanes, SimHash (Charikar, *Similarity Estimation Techniques from Rounding
/// Algorithms*, STOC 2002), which TIGER compares the RQ-VAE with (arXiv 2305.05065): `h` hyperplanes through the
/// origin make a codeword, and each of the `m` codewords has its own.
///
/// Bit `i` of code `d`, the least significant first, is 1 where the row lies on the positive side of hyperplane `d h + i`:
///
/// $$ c_d = \sum_{i=0}^{h-1} 2^i \, \bigl[ x \cdot n_{dh + i} > 0 \bigr] $$
///
/// A row that lies exactly on a hyperplane, and so the row of zeros on all of them, has 0 there. Two rows at angle
/// $\theta$ differ in each bit with probability $\theta / \pi$. The levels are independent of one another: none is coarser
/// than another, and a shared prefix tells no more than as many shared codes elsewhere. Nothing but the preprocessing is
/// learned, so the codebooks are used as unevenly as the rows lie.
///
/// It cannot reconstruct: signs do not determine a point. Its [`code_costs`](RankCodes::code_costs) are those of
/// multi-probe LSH (Lv et al., *Multi-Probe LSH*, VLDB 2007): the sum of $|x \cdot n|$ over the bits in which a code
/// differs from the row's own, which so costs 0.
#[derive(Clone, Debug)]
pub struct SimHashLsh {
    config: SimHashLshConfig,
    dim: usize,
    sizes: Vec<u32>,
    preprocess: Preprocess,
    normals: Tensor,
    device: Device,
    encoder: LazyEncoder,
}

/// Hyperplanes on the host, and how their bits make up codes.
#[derive(Debug)]
struct Hyperplanes {
    hash: SimHash,
    bits: usize,
    levels: usize,
}

impl Codes for Hyperplanes {
    fn levels(&self) -> usize {
        self.levels
    }

    fn codes(&self, xs: &[f32], codes: &mut [u32]) -> TensorResult<()> {
        let words = self.hash.words();
        let mut hashes = vec![0; codes.len() / self.levels * words];
        self.hash.hash(xs, &mut hashes).map_err(Error::wrap)?;
        for (codes, hash) in codes.chunks_exact_mut(self.levels).zip(hashes.chunks_exact(words)) {
            for (level, code) in codes.iter_mut().enumerate() {
                *code = bits_of(hash, level * self.bits, self.bits);
            }
        }
        Ok(())
    }
}

/// `count` bits, 32 at most, from bit `first` on.
fn bits_of(hash: &[u64], first: usize, count: usize) -> u32 {
    let (word, shift) = (first / WORD, first % WORD);
    let low = hash[word] >> shift;
    let high = match hash.get(word + 1) {
        Some(next) if shift > 0 => next << (WORD - shift),
        _ => 0,
    };
    ((low | high) & ((1 << count) - 1)) as u32
}

impl SimHashLsh {
    fn new(config: SimHashLshConfig, dim: usize, preprocess: Preprocess, normals: Tensor, device: &Device) -> Self {
        let sizes = config.codebook_sizes();
        Self { config, dim, sizes, preprocess, normals, device: device.clone(), encoder: LazyEncoder::default() }
    }

    /// The configuration it was fitted with.
    pub fn config(&self) -> &SimHashLshConfig {
        &self.config
    }

    /// The normals of the hyperplanes, in the space of the (possibly standardised and whitened) features.
    ///
    /// # Shapes
    /// - `(levels * bits, features)`, f32: row `d * bits + i` decides bit `i` of code `d`
    pub fn normals(&self) -> &Tensor {
        &self.normals
    }

    fn bits(&self) -> usize {
        self.config.bits as usize
    }

    fn host_encoder(&self) -> TensorResult<&HostEncoder> {
        self.encoder.get(|| {
            let (_, width) = self.normals.dims2()?;
            let hash = host::read(&self.normals, |normals| SimHash::new(normals, width).map_err(Error::wrap))?;
            let planes = Hyperplanes { hash, bits: self.bits(), levels: self.config.levels };
            HostEncoder::new(self.dim, &self.preprocess, [], planes)
        })
    }

    /// The codes by tensors, on any device.
    pub(crate) fn encode_tensors(&self, xs: &Tensor) -> TensorResult<Tensor> {
        let (n, _) = xs.dims2()?;
        let products = self.preprocess.apply(xs)?.matmul(&self.normals.t()?)?;
        let bits = products.gt(0.0)?.to_dtype(DType::F32)?.reshape((n, self.config.levels, self.bits()))?;
        // A code has 20 bits at most, so that `f32` holds it exactly.
        let values: Vec<f32> = (0..self.config.bits).map(|bit| (1_u32 << bit) as f32).collect();
        let values = Tensor::from_vec(values, (1, 1, self.bits()), xs.device())?;
        bits.broadcast_mul(&values)?.sum(2)?.to_dtype(DType::U32)
    }

    fn shapes(config: &SimHashLshConfig, dim: usize) -> BTreeMap<String, Vec<usize>> {
        let steps = config.steps();
        let mut shapes = BTreeMap::from([(NORMALS.to_owned(), vec![planes(config), steps.width(dim)])]);
        Preprocess::shapes(steps, dim, &mut shapes);
        shapes
    }
}

/// Hyperplanes of all levels; the configuration is valid.
fn planes(config: &SimHashLshConfig) -> usize {
    config.levels * config.bits as usize
}

impl Saved for SimHashLsh {
    type Config = SimHashLshConfig;

    fn elements(config: &SimHashLshConfig, dim: usize) -> Option<usize> {
        count_elements(&Self::shapes(config, dim))
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::from([(NORMALS.to_owned(), self.normals.clone())]);
        self.preprocess.tensors(&mut tensors);
        Ok(tensors)
    }

    fn from_tensors(
        config: SimHashLshConfig,
        dim: usize,
        tensors: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        expect_shapes(tensors, &Self::shapes(&config, dim))?;
        let normals = matrix(tensors, NORMALS, device)?;
        Ok(Self::new(config, dim, Preprocess::load(tensors, device)?, normals, device))
    }
}

impl Quantizer for SimHashLsh {
    fn dim(&self) -> usize {
        self.dim
    }

    fn codebook_sizes(&self) -> &[u32] {
        &self.sizes
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn encode(&self, xs: &Tensor) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        if on_host(&self.device, xs) {
            return self.host_encoder()?.encode_tensor(xs);
        }
        self.encode_tensors(xs)
    }

    fn encode_slice(&self, xs: &[f32], codes: &mut [u32]) -> TensorResult<bool> {
        if !self.device.is_cpu() {
            return Ok(false);
        }
        self.host_encoder()?.encode(xs, codes)?;
        Ok(true)
    }
}

impl RankCodes for SimHashLsh {
    fn code_costs(&self, xs: &Tensor, prefix: &[u32]) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        check_prefix(&self.sizes, prefix)?;
        let (level, bits) = (prefix.len(), self.bits());
        let normals = self.normals.narrow(0, level * bits, bits)?;
        let distances = self.preprocess.apply(xs)?.matmul(&normals.t()?)?.abs()?;
        // Of a row so large that its product overflows: the farther, the surer is its own bit.
        let endless = Tensor::full(f32::INFINITY, distances.shape(), distances.device())?;
        let distances = distances.eq(&distances)?.where_cond(&distances, &endless)?;
        // The row's own bits are those of `encode`: a product so near to 0 that two kernels give it two signs must not make
        // another code the cheapest.
        let mut rest = self.encode(xs)?.narrow(1, level, 1)?.to_dtype(DType::F32)?;
        let mut costs = Tensor::zeros((xs.dim(0)?, 1), DType::F32, xs.device())?;
        let nothing = costs.clone();
        for bit in 0..bits {
            let half = rest.affine(0.5, 0.0)?.floor()?;
            let set = (rest - half.affine(2.0, 0.0)?)?.gt(0.5)?;
            let distance = distances.narrow(1, bit, 1)?.contiguous()?;
            let if_zero = set.where_cond(&distance, &nothing)?;
            let if_one = set.where_cond(&nothing, &distance)?;
            // The codes with this bit come after those without it.
            costs = Tensor::cat(&[costs.broadcast_add(&if_zero)?, costs.broadcast_add(&if_one)?], 1)?;
            rest = half;
        }
        Ok(costs)
    }
}

impl Fit for SimHashLshConfig {
    type Model = SimHashLsh;

    /// Draws the hyperplanes and learns the preprocessing. There is no epoch to report, and one row is enough; the more there
    /// are, the better the features are known.
    fn fit_on(&self, xs: &mut dyn RowSource, device: &Device, _ctl: &mut dyn FitControl) -> Result<SimHashLsh> {
        self.validate()?;
        check_rows(xs, &[1])?;
        let dim = xs.dim();
        let preprocess = Preprocess::fit(self.steps(), xs, device)?;
        let shape = (planes(self), self.steps().width(dim));
        let mut normals = vec![0.0; shape.0 * shape.1];
        CounterRng::new(self.seed).named("simhash").fill_normal(&mut normals);
        let normals = Tensor::from_vec(normals, shape, device)?;
        Ok(SimHashLsh::new(self.clone(), dim, preprocess, normals, device))
    }
}

#[cfg(test)]
mod tests;
