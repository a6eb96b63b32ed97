//! The codebooks of an RQ-VAE and the ways in which they are learned.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result as TensorResult, Tensor};
use genrec_kernels::optim::{AnyOptimizer, Optimizer, OptimizerConfig};
use genrec_kernels::{CounterRng, Gradients, Parameters};
use serde::{Deserialize, Serialize};

use super::RqVaeConfig;
use super::bottleneck::Quantized;
use crate::autoencoder::parameter;
use crate::coder::codebook_name;
use crate::{QuantizeError, Result};

/// How the codewords are learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CodebookLearning {
    /// By the gradient of the codebook term `||sg[r_d] - e_{c_d}||^2`.
    #[default]
    Gradient,
    /// Each is the running mean of the residuals that chose it (van den Oord et al. 2017, appendix A.1); there is no codebook
    /// term.
    Ema(Ema),
    /// By the gradient, through one linear map a level that all its codewords share, of fixed points: every step moves every
    /// codeword, used or not (Zhu et al. 2024, *Addressing Representation Collapse in Vector Quantized Models with One Linear
    /// Layer*, arXiv 2411.02038). The map begins as the identity.
    SimVq,
}

/// A running mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Ema {
    /// Share of the old value that a step keeps; 0.95 by default: a fit of some hundred steps has no time for the 0.99 of
    /// longer ones.
    pub decay: f64,
}

impl Default for Ema {
    fn default() -> Self {
        Self { decay: 0.95 }
    }
}

impl Ema {
    /// Sets the share of the old value that a step keeps.
    #[must_use]
    pub fn with_decay(mut self, decay: f64) -> Self {
        self.decay = decay;
        self
    }

    pub(super) fn validate(self) -> Result<()> {
        if self.decay > 0.0 && self.decay < 1.0 {
            return Ok(());
        }
        Err(QuantizeError::config("decay", self.decay, "it must lie between 0 and 1"))
    }
}

/// The codewords of every level, as they are compared with.
#[derive(Clone, Debug)]
pub(crate) struct Codebooks {
    pub(crate) params: Parameters,
    books: Vec<Tensor>,
    shared: bool,
}

impl Codebooks {
    /// The shape of every codebook.
    pub(crate) fn shapes(config: &RqVaeConfig) -> BTreeMap<String, Vec<usize>> {
        let levels = config.codebook_sizes.len();
        let columns = config.composition.columns(config.latent_dim, levels);
        (0..if config.shared_codebook { 1 } else { levels })
            .map(|level| (codebook_name(level), vec![config.codebook_sizes[level] as usize, columns[level].len()]))
            .collect()
    }

    /// Codewords at 0, until they are set.
    pub(crate) fn zeros(config: &RqVaeConfig, device: &Device) -> Result<Self> {
        let zeros = Self::shapes(config)
            .into_iter()
            .map(|(name, shape)| Ok((name, Tensor::zeros(shape, DType::F32, device)?)))
            .collect::<Result<_>>()?;
        Self::new(&zeros, config, device)
    }

    /// From the values named as in [`shapes`](Self::shapes); others are not looked at.
    pub(crate) fn new(values: &BTreeMap<String, Tensor>, config: &RqVaeConfig, device: &Device) -> Result<Self> {
        let mut params = Parameters::new(device);
        for (name, value) in values.iter().filter(|(name, _)| name.starts_with("codebooks.")) {
            params.insert(name.clone(), value)?;
        }
        let shared = config.shared_codebook;
        let books = (0..config.codebook_sizes.len())
            .map(|level| parameter(&params, &codebook_name(if shared { 0 } else { level })))
            .collect::<Result<_>>()?;
        Ok(Self { params, books, shared })
    }

    /// The name of a level's codebook among the parameters.
    pub(crate) fn name(&self, level: usize) -> String {
        codebook_name(if self.shared { 0 } else { level })
    }

    /// One codebook a level, coarse to fine.
    pub(crate) fn books(&self) -> Vec<&Tensor> {
        self.books.iter().collect()
    }

    /// Codebooks that differ.
    pub(crate) fn distinct(&self) -> usize {
        if self.shared { 1 } else { self.books.len() }
    }

    /// Replaces the codewords of a level.
    pub(crate) fn set(&self, level: usize, codewords: &Tensor) -> Result<()> {
        Ok(self.params.set(&self.name(level), codewords)?)
    }
}

/// Least running count of a codeword that is moved to its mean.
const LEAST_COUNT: f64 = 1e-20;

/// What changes the codewords from step to step.
pub(super) enum Learner {
    Gradient(AnyOptimizer),
    Ema {
        decay: f64,
        /// Of each level: how often each code was chosen, `(codes, 1)`, and the sum of what chose it.
        levels: Vec<(Tensor, Tensor)>,
    },
    SimVq {
        /// Of each level `(codes, columns)`.
        points: Vec<Tensor>,
        /// Of each level `(columns, columns)`, as a linear layer has it: `e = point W^T`.
        maps: Parameters,
        optimizer: AnyOptimizer,
    },
}

impl Learner {
    /// Begins from codewords that have been set.
    pub(super) fn new(learning: CodebookLearning, optimizer: &OptimizerConfig, books: &Codebooks) -> Result<Self> {
        let level = |level: usize| books.books[level].detach();
        Ok(match learning {
            CodebookLearning::Gradient => Self::Gradient(optimizer.build(&books.params)?),
            CodebookLearning::Ema(Ema { decay }) => {
                let start = |at: usize| {
                    let book = level(at).copy()?;
                    Ok((Tensor::ones((book.dim(0)?, 1), book.dtype(), book.device())?, book))
                };
                Self::Ema { decay, levels: (0..books.distinct()).map(start).collect::<Result<_>>()? }
            }
            CodebookLearning::SimVq => {
                let points = (0..books.distinct()).map(|at| level(at).copy()).collect::<TensorResult<Vec<_>>>()?;
                let mut maps = Parameters::new(books.params.device());
                for (at, book) in points.iter().enumerate() {
                    let identity = Tensor::eye(book.dim(1)?, book.dtype(), book.device())?;
                    maps.insert(codebook_name(at), &identity)?;
                }
                Self::SimVq { optimizer: optimizer.build(&maps)?, points, maps }
            }
        })
    }

    /// Takes a step.
    pub(super) fn step(
        &mut self,
        books: &Codebooks,
        gradients: &Gradients,
        found: &Quantized,
        rate: f64,
    ) -> Result<()> {
        match self {
            Self::Gradient(optimizer) => Ok(optimizer.step(&books.params, gradients, rate)?),
            Self::Ema { decay, levels } => {
                for (at, (counts, sums)) in levels.iter_mut().enumerate() {
                    let mut count = counts.zeros_like()?;
                    let mut sum = sums.zeros_like()?;
                    // Levels that share a codebook are counted together.
                    for level in (0..found.codes.len()).filter(|&level| books.distinct() == 1 || level == at) {
                        let (codes, residual) = (&found.codes[level], &found.residuals[level]);
                        let ones = Tensor::ones((codes.dim(0)?, 1), count.dtype(), count.device())?;
                        count = count.index_add(codes, &ones, 0)?;
                        sum = sum.index_add(codes, residual, 0)?;
                    }
                    *counts = (counts.affine(*decay, 0.0)? + count.affine(1.0 - *decay, 0.0)?)?;
                    *sums = (sums.affine(*decay, 0.0)? + sum.affine(1.0 - *decay, 0.0)?)?;
                    // Both decay alike: an unused code stays where it is, also when its count is too small to divide by.
                    let means = sums.broadcast_div(&counts.maximum(LEAST_COUNT)?)?;
                    let counted = counts.ge(LEAST_COUNT)?.broadcast_as(means.shape())?;
                    books.set(at, &counted.where_cond(&means, &books.books[at].detach())?)?;
                }
                Ok(())
            }
            Self::SimVq { points, maps, optimizer } => {
                optimizer.step(maps, &of_maps(points, gradients)?, rate)?;
                for (at, points) in points.iter().enumerate() {
                    let map = parameter(maps, &codebook_name(at))?.detach();
                    books.set(at, &points.matmul(&map.t()?)?)?;
                }
                Ok(())
            }
        }
    }

    /// Forgets what it knows of codewords that have been moved by other means.
    fn forget(&mut self, at: usize, codes: &[usize], rows: &[Vec<f32>]) -> Result<()> {
        let Self::Ema { levels, .. } = self else { return Ok(()) };
        let (counts, sums) = &mut levels[at];
        let mut count = counts.flatten_all()?.to_vec1::<f32>()?;
        let mut sum = sums.to_vec2::<f32>()?;
        for (&code, row) in codes.iter().zip(rows) {
            count[code] = 1.0;
            sum[code].clone_from(row);
        }
        *counts = Tensor::from_vec(count, counts.dims(), counts.device())?;
        *sums = Tensor::new(sum, sums.device())?;
        Ok(())
    }
}

/// The gradients with respect to SimVQ's maps, given those with respect to the codewords `point W^T`.
pub(super) fn of_maps(points: &[Tensor], gradients: &Gradients) -> TensorResult<Gradients> {
    let mut through = Gradients::default();
    for (at, points) in points.iter().enumerate() {
        if let Some(grad) = gradients.get(&codebook_name(at)) {
            through.insert(codebook_name(at), grad.t()?.matmul(points)?);
        }
    }
    Ok(through)
}

/// Steps since each code was last used.
pub(super) struct IdleCodes {
    after: Option<usize>,
    steps: Vec<Vec<usize>>,
    rng: CounterRng,
}

impl IdleCodes {
    pub(super) fn new(config: &RqVaeConfig, rng: CounterRng) -> Self {
        let books = if config.shared_codebook { 1 } else { config.codebook_sizes.len() };
        let steps = config.codebook_sizes[..books].iter().map(|&size| vec![0; size as usize]).collect();
        Self { after: config.restart_after, steps, rng }
    }

    /// Moves every code that was idle for too long onto the residual of a row of this batch, no row twice a level.
    pub(super) fn restart(
        &mut self,
        books: &Codebooks,
        learner: &mut Learner,
        found: &Quantized,
        codes: &[Vec<u32>],
        step: u64,
    ) -> Result<u32> {
        let Some(after) = self.after else {
            return Ok(0);
        };
        let mut restarted = 0;
        for (at, steps) in self.steps.iter_mut().enumerate() {
            steps.iter_mut().for_each(|idle| *idle += 1);
            let levels = if books.distinct() == 1 { 0..codes.len() } else { at..at + 1 };
            for &code in codes[levels.clone()].iter().flatten() {
                steps[code as usize] = 0;
            }
            let dead: Vec<usize> = (0..steps.len()).filter(|&code| steps[code] >= after).collect();
            if dead.is_empty() {
                continue;
            }
            let rng = self.rng.stream(step).stream(at as u64);
            // Which of the levels that share the codebook the new codeword is taken from.
            let level = levels.start + rng.below(u64::MAX, levels.len() as u64) as usize;
            let residual = found.residuals[level].to_vec2::<f32>()?;
            let codebook = books.books[at].detach();
            let mut words = codebook.to_vec2::<f32>()?;
            // A batch never has more than u32::MAX rows: they come from a u32 permutation.
            let order = rng.permutation(residual.len() as u32);
            let seeds: Vec<Vec<f32>> = dead.iter().zip(order).map(|(_, row)| residual[row as usize].clone()).collect();
            for (&code, seed) in dead.iter().zip(&seeds) {
                words[code].clone_from(seed);
                steps[code] = 0;
                restarted += 1;
            }
            books.set(at, &Tensor::new(words, codebook.device())?)?;
            learner.forget(at, &dead[..seeds.len()], &seeds)?;
        }
        Ok(restarted)
    }
}
