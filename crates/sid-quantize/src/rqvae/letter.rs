//! LETTER's regularisers (Wang et al. 2024, *Learnable Item Tokenization for Generative Recommendation*, arXiv 2405.07314):
//! alignment with behaviour, and diversity of the codes.

use std::ops::ControlFlow;

use candle_core::{D, DType, Device, Result as TensorResult, Tensor};
use genrec_kernels::CounterRng;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::kmeans::{KMeansInit, Lloyd, Rule};
use crate::usage::scan;
use crate::{ArrayRows, QuantizeError, Result, RowSource};

/// Most codewords of a cluster in multiples of the mean: 60 of 256 codewords in ten clusters, as published.
const BALANCE: f64 = 2.34;

/// Draws what an item's codes stand for towards what its users do: adds
/// `-weight / B sum_i log( exp(z^_i . h_i) / sum_j exp(z^_i . h_j) )` over a batch of `B` items with behaviour embeddings `h`,
/// LETTER's collaborative regularisation. Its gradient reaches the encoder as that of the reconstruction does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Alignment {
    /// Weight of the term; 40 by default. Beside it the reconstruction error is a sum over the columns, not their mean: the
    /// published 0.01 to 0.1 goes with a mean and so stands for that many times the columns, 40 for 0.1 at 384 of them. More
    /// draws items that the same users take closer together, and lets more items collide.
    pub weight: f64,
}

impl Default for Alignment {
    fn default() -> Self {
        Self { weight: 40.0 }
    }
}

impl Alignment {
    /// Sets the weight of the term.
    #[must_use]
    pub fn with_weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    pub(super) fn validate(self) -> Result<()> {
        positive("alignment.weight", self.weight)
    }
}

/// Spreads the codewords of each level: adds
/// `-weight / B sum_i log( exp(e_i . e_+) / sum_{j != i} exp(e_i . e_j) )`, where `e_i` is the codeword of an item, `e_+` one
/// drawn from the same cluster of codewords, and `j` runs over all other codewords of the level: LETTER's diversity
/// regularisation. Its gradient reaches the codebooks alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Diversity {
    /// Weight of the term; 0.01 by default.
    pub weight: f64,
    /// Clusters of about equal size that the codewords of a level are parted into, anew in each epoch; 10 by default, as
    /// published, and fewer than the codewords of any level.
    pub clusters: usize,
}

impl Default for Diversity {
    fn default() -> Self {
        Self { weight: 0.01, clusters: 10 }
    }
}

impl Diversity {
    /// Sets the weight of the term.
    #[must_use]
    pub fn with_weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the clusters of codewords.
    #[must_use]
    pub fn with_clusters(mut self, clusters: usize) -> Self {
        self.clusters = clusters;
        self
    }

    /// Of codebooks of so many codewords or more.
    pub(super) fn validate(self, codewords: usize) -> Result<()> {
        if self.clusters == 0 || self.clusters >= codewords {
            let expected =
                "it must be at least 1 and below the codes of every level, or clusters hold no two codewords";
            return Err(QuantizeError::config("diversity.clusters", self.clusters, expected));
        }
        positive("diversity.weight", self.weight)
    }
}

fn positive(field: &'static str, weight: f64) -> Result<()> {
    if weight > 0.0 && weight.is_finite() {
        return Ok(());
    }
    Err(QuantizeError::config(field, weight, "it must be finite and above 0; leave the term out for none"))
}

/// A term of the objective and the gradient with respect to what it is a function of.
pub(super) struct Term {
    pub(super) loss: f64,
    pub(super) grad: Tensor,
}

/// Behaviour embeddings, one a row of the source, on the device.
#[derive(Debug)]
pub(super) struct Behaviour {
    rows: Tensor,
    /// Whether something is known of a row's behaviour.
    known: Vec<bool>,
    weight: f64,
}

impl Behaviour {
    /// Reads all rows; they are few columns wide.
    pub(super) fn read(
        source: &mut dyn RowSource,
        (rows, width): (usize, usize),
        alignment: Alignment,
        device: &Device,
    ) -> Result<Self> {
        if source.len() != rows {
            return Err(QuantizeError::BehaviourRows { rows, behaviour: source.len() });
        }
        if source.dim() != width {
            return Err(QuantizeError::BehaviourColumns { latent_dim: width, behaviour: source.dim() });
        }
        let mut all = Array2::zeros((rows, width));
        scan(width, source, |first, block| {
            all.slice_mut(ndarray::s![first..first + block.nrows(), ..]).assign(&block);
            Ok(())
        })?;
        let known = all.outer_iter().map(|row| row.iter().any(|&x| x != 0.0)).collect();
        let rows = Tensor::from_vec(all.into_raw_vec_and_offset().0, (rows, width), device)?;
        Ok(Self { rows, known, weight: alignment.weight })
    }

    /// The alignment of the rows of a batch, with respect to `z^`, `(n, latent)`. Rows whose behaviour is all 0 have no part in
    /// it.
    pub(super) fn align(&self, latent: &Tensor, batch: &[usize]) -> TensorResult<Term> {
        let places: Vec<u32> =
            batch.iter().zip(0..).filter(|(row, _)| self.known[**row]).map(|(_, place)| place).collect();
        if places.is_empty() {
            return Ok(Term { loss: 0.0, grad: latent.zeros_like()? });
        }
        let which: Vec<u32> = places.iter().map(|&place| batch[place as usize] as u32).collect();
        let count = which.len();
        let behaviour = self.rows.index_select(&Tensor::new(which, latent.device())?, 0)?.to_dtype(latent.dtype())?;
        let places = Tensor::new(places, latent.device())?;
        let own = Tensor::arange(0, count as u32, latent.device())?;
        let (loss, by_logit) =
            cross_entropy(&latent.index_select(&places, 0)?.matmul(&behaviour.t()?)?, &own, self.weight)?;
        let grad = latent.zeros_like()?.index_add(&places, &by_logit.matmul(&behaviour)?, 0)?;
        Ok(Term { loss, grad })
    }
}

/// The clusters that each level's codewords are parted into.
#[derive(Debug)]
pub(super) struct Spread {
    diversity: Diversity,
    /// Of each level, the members of the cluster of each codeword, itself left out.
    others: Vec<Vec<Vec<u32>>>,
    rng: CounterRng,
}

impl Spread {
    pub(super) fn new(diversity: Diversity, rng: CounterRng) -> Self {
        Self { diversity, others: Vec::new(), rng }
    }

    /// Parts the codewords anew.
    pub(super) fn regroup(&mut self, codebooks: &[&Tensor], epoch: u64) -> Result<()> {
        self.others.clear();
        for (level, codebook) in codebooks.iter().enumerate() {
            let (codes, dim) = codebook.dims2()?;
            let values = codebook.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            let mut words = ArrayRows::from(Array2::from_shape_vec((codes, dim), values).unwrap_or_default());
            let lloyd = Lloyd {
                codes: self.diversity.clusters.min(codes),
                iterations: 10,
                tolerance: 0.0,
                batch: None,
                rule: Rule { balance: Some(BALANCE), ..Rule::default() },
                init: KMeansInit::PlusPlus,
                init_rows: codes,
                rng: self.rng.stream(epoch).stream(level as u64),
            };
            let clusters = lloyd.run(&mut words, &Device::Cpu, &mut |_| ControlFlow::Continue(()))?;
            let clusters = clusters.limited.unwrap_or(clusters.codes);
            let others = |code: usize| {
                let members = (0..codes).filter(|&other| other != code && clusters[other] == clusters[code]);
                members.map(|other| other as u32).collect()
            };
            self.others.push((0..codes).map(others).collect());
        }
        Ok(())
    }

    /// The diversity of the codewords of a batch, with respect to the level's codebook, `(codes, columns)`. Rows whose codeword
    /// is alone in its cluster have no part in it.
    pub(super) fn term(&self, codebook: &Tensor, level: usize, codes: &Tensor, step: u64) -> TensorResult<Term> {
        let nothing = || Ok(Term { loss: 0.0, grad: codebook.zeros_like()? });
        let Some(others) = self.others.get(level) else { return nothing() };
        let rng = self.rng.named("positive").stream(step).stream(level as u64);
        let (mut own, mut positive) = (Vec::new(), Vec::new());
        for (code, row) in codes.to_vec1::<u32>()?.into_iter().zip(0..) {
            let others = &others[code as usize];
            if !others.is_empty() {
                own.push(code);
                positive.push(others[rng.below(row, others.len() as u64) as usize]);
            }
        }
        if own.is_empty() {
            return nothing();
        }
        let (size, rows) = (codebook.dim(0)?, own.len());
        let mut mask = vec![0.0f32; rows * size];
        for (row, &code) in mask.chunks_exact_mut(size).zip(&own) {
            row[code as usize] = f32::NEG_INFINITY;
        }
        let mask = Tensor::from_vec(mask, (rows, size), codebook.device())?.to_dtype(codebook.dtype())?;
        let own = Tensor::new(own, codebook.device())?;
        let words = codebook.index_select(&own, 0)?;
        let logits = (words.matmul(&codebook.t()?)? + mask)?;
        let (loss, by_logit) =
            cross_entropy(&logits, &Tensor::new(positive, codebook.device())?, self.diversity.weight)?;
        let grad = by_logit.t()?.matmul(&words)?.index_add(&own, &by_logit.matmul(codebook)?, 0)?;
        Ok(Term { loss, grad })
    }
}

/// `weight` times the mean cross-entropy of rows of logits, and its gradient with respect to them.
fn cross_entropy(logits: &Tensor, targets: &Tensor, weight: f64) -> TensorResult<(f64, Tensor)> {
    let rows = logits.dim(0)?.max(1) as f64;
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?;
    let exponentials = shifted.exp()?;
    let sums = exponentials.sum_keepdim(D::Minus1)?;
    let targets = targets.unsqueeze(1)?;
    let own = shifted.gather(&targets, 1)?;
    let loss = (sums.log()? - own)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()? * weight / rows;
    let softmax = exponentials.broadcast_div(&sums)?;
    let ones = Tensor::ones(targets.dims(), logits.dtype(), logits.device())?;
    let grad = softmax.scatter_add(&targets, &ones.neg()?, 1)?.affine(weight / rows, 0.0)?;
    Ok((loss, grad))
}
