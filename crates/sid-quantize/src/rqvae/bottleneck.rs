//! The quantiser between encoder and decoder, and the gradients that pass it.

use std::ops::Range;

use candle_core::{DType, Result as TensorResult, Tensor};
use genrec_kernels::{CounterRng, Gradients};
use ndarray::Array2;

use super::codebooks::{Codebooks, IdleCodes, Learner};
use super::estimator::{Estimator, Mixture};
use super::init::init_codebooks;
use super::letter::{Behaviour, Spread};
use super::{CodebookLearning, RqVaeConfig};
use crate::Result;
use crate::autoencoder::{Bottleneck, Found, Learn, Pull, Step};
use crate::coding::{Coding, Composition};

/// What quantisation of a batch of latent vectors found.
#[derive(Clone, Debug)]
pub(crate) struct Quantized {
    /// `c_d`, `(n,)` u32 a level.
    pub(super) codes: Vec<Tensor>,
    /// What each level was to code, `(n, columns)`: `r_d`, with `r_0 = z`, or its part of `z`.
    pub(super) residuals: Vec<Tensor>,
    /// What each level leaves, negated: `e_{d,c_d} - r_d`, or the mixture less `r_d`.
    pub(super) errors: Vec<Tensor>,
    /// The mixture of each level, where codewords are mixed.
    mixtures: Vec<Mixture>,
    /// `z^`, `(n, latent)`.
    pub(super) latent: Tensor,
}

impl Found for Quantized {
    fn latent(&self) -> &Tensor {
        &self.latent
    }

    fn codes(&self) -> &[Tensor] {
        &self.codes
    }
}

/// The codebooks in training.
pub(super) struct RqBottleneck {
    config: RqVaeConfig,
    coding: Coding,
    columns: Vec<Range<usize>>,
    pub(super) books: Codebooks,
    learner: Option<Learner>,
    idle: IdleCodes,
    behaviour: Option<Behaviour>,
    spread: Option<Spread>,
    rng: CounterRng,
}

impl RqBottleneck {
    pub(super) fn new(config: &RqVaeConfig, books: Codebooks, rng: CounterRng) -> Self {
        let coding = config.coding();
        let columns = coding.composition.columns(config.latent_dim, config.codebook_sizes.len());
        let idle = IdleCodes::new(config, rng.named("restart"));
        let spread = config.diversity.map(|diversity| Spread::new(diversity, rng.named("diversity")));
        let (learner, behaviour) = (None, None);
        Self { config: config.clone(), coding, columns, books, learner, idle, behaviour, spread, rng }
    }

    /// Aligns with the behaviour of each row.
    pub(super) fn aligned(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = Some(behaviour);
        self
    }

    /// Whether the levels code what those before them leave.
    fn is_residual(&self) -> bool {
        self.coding.composition == Composition::Residual
    }

    /// The code of each row of one level.
    fn assign(&self, level: usize, residual: &Tensor, book: &Tensor) -> TensorResult<Tensor> {
        match self.config.sinkhorn {
            Some(sinkhorn) if !sinkhorn.last_level_only || level + 1 == self.columns.len() => {
                sinkhorn.assign(&self.coding.distances(residual, book)?)
            }
            _ => self.coding.nearest(residual, book),
        }
    }

    /// The parts that are quantised by themselves.
    fn parts(&self) -> &[Range<usize>] {
        if self.is_residual() { &self.columns[..1] } else { &self.columns }
    }
}

impl Bottleneck for RqBottleneck {
    type Found = Quantized;

    fn quantize(&self, z: &Tensor, step: Step<'_>) -> TensorResult<Quantized> {
        let (mut codes, mut residuals, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        let mut mixtures = Vec::new();
        let mut left = z.clone();
        let books = self.books.books();
        for (level, (book, columns)) in books.into_iter().zip(&self.columns).enumerate() {
            let book = &book.detach();
            let residual = match self.is_residual() {
                true => left.clone(),
                false => left.narrow(1, columns.start, columns.len())?.contiguous()?,
            };
            let found = self.assign(level, &residual, book)?;
            let error = match self.config.estimator {
                Estimator::GumbelSoftmax(gumbel) => {
                    let rng = self.rng.named("gumbel").stream(step.number).stream(level as u64);
                    let distances = self.coding.distances(&residual, book)?;
                    let mixture = Mixture::new(&distances, book, gumbel.at(step.progress), &rng)?;
                    let error = (&mixture.word - &residual)?;
                    mixtures.push(mixture);
                    error
                }
                _ => (book.index_select(&found, 0)? - &residual)?,
            };
            if self.is_residual() {
                // r_{d+1} = r_d - e = -error.
                left = error.neg()?;
            }
            codes.push(found);
            residuals.push(residual);
            errors.push(error);
        }
        // The codewords are what is not left over.
        let latent = match self.is_residual() {
            true => (z - &left)?,
            false => (z + Tensor::cat(&errors, 1)?)?,
        };
        Ok(Quantized { codes, residuals, errors, mixtures, latent })
    }

    /// Adds `sum_d ( ||sg[r_d] - e_{c_d}||^2 + beta ||r_d - sg[e_{c_d}]||^2 )`, the mean over the batch (the TIGER paper,
    /// section 3.1), squared norms summed over their axis, without the first term where codewords are running means.
    ///
    /// A residual counts as a function of `z` alone: the codewords subtracted before it are held constant, so that each
    /// codebook is moved by its own level only.
    fn backward(
        &self,
        z: &Tensor,
        found: &Quantized,
        grad: &Tensor,
        step: Step<'_>,
        gradients: &mut Gradients,
    ) -> TensorResult<Pull> {
        let rows = z.dim(0)?.max(1) as f64;
        let mut regularization = 0.0;
        let mut grad = grad.clone();
        if let Some(behaviour) = &self.behaviour {
            let term = behaviour.align(&found.latent, step.rows)?;
            regularization += term.loss;
            grad = (grad + term.grad)?;
        }
        let grad = &grad;
        let commitment = self.config.commitment;
        let by_gradient = !matches!(self.config.codebook, CodebookLearning::Ema(_));
        let soft = !found.mixtures.is_empty();
        let mut grad_z = match soft {
            true => z.zeros_like()?,
            false => self.config.estimator.backward(z, &found.latent, grad, self.parts())?,
        };
        let mut of_parts = Vec::new();
        let mut sums = Vec::with_capacity(found.errors.len());
        let mut of_books: Vec<Option<Tensor>> = vec![None; self.books.distinct()];
        let books = self.books.books();
        for (level, (error, codes)) in found.errors.iter().zip(&found.codes).enumerate() {
            sums.push(error.sqr()?.sum_all()?);
            let book = &books[level].detach();
            let columns = &self.columns[level];
            // d/dr of beta ||r - e||^2 is -2 beta (e - r).
            let mut grad_r = error.affine(-2.0 * commitment / rows, 0.0)?;
            let pull = error.affine(2.0 / rows, 0.0)?;
            let grad_book = match found.mixtures.get(level) {
                Some(mixture) => {
                    let grad_word = (grad.narrow(1, columns.start, columns.len())? + pull)?;
                    let (through, grad_book) = mixture.backward(&found.residuals[level], book, &grad_word)?;
                    grad_r = (grad_r + through)?;
                    Some(grad_book)
                }
                None if by_gradient => Some(book.zeros_like()?.index_add(codes, &pull, 0)?),
                None => None,
            };
            let grad_book = match &self.spread {
                Some(spread) => {
                    let term = spread.term(book, level, codes, step.number)?;
                    regularization += term.loss;
                    Some(grad_book.map_or(Ok(term.grad.clone()), |grad| grad + term.grad)?)
                }
                None => grad_book,
            };
            match self.is_residual() {
                true => grad_z = (grad_z + grad_r)?,
                false => of_parts.push(grad_r),
            }
            let slot = &mut of_books[if self.books.distinct() == 1 { 0 } else { level }];
            *slot = match (slot.take(), grad_book) {
                (Some(sum), Some(grad)) => Some((sum + grad)?),
                (sum, grad) => sum.or(grad),
            };
        }
        if !of_parts.is_empty() {
            grad_z = (grad_z + Tensor::cat(&of_parts, 1)?)?;
        }
        for (at, grad) in of_books.into_iter().enumerate() {
            if let Some(grad) = grad {
                gradients.insert(self.books.name(at), grad);
            }
        }
        let sums = Tensor::stack(&sums, 0)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let quantization = sums.iter().sum::<f64>() / rows;
        let loss = (f64::from(u8::from(by_gradient)) + commitment) * quantization + regularization;
        Ok(Pull { grad_z, loss })
    }
}

impl Learn for RqBottleneck {
    fn codebook_sizes(&self) -> &[u32] {
        &self.config.codebook_sizes
    }

    fn start(&mut self, latent: Array2<f32>) -> Result<()> {
        init_codebooks(&self.config, &self.books, latent, &self.rng.named("k-means"))?;
        self.learner = Some(Learner::new(self.config.codebook, &self.config.optimizer, &self.books)?);
        Ok(())
    }

    fn begin_epoch(&mut self, epoch: usize) -> Result<()> {
        match &mut self.spread {
            Some(spread) => spread.regroup(&self.books.books(), epoch as u64),
            None => Ok(()),
        }
    }

    fn learn(
        &mut self,
        gradients: &Gradients,
        found: &Quantized,
        codes: &[Vec<u32>],
        rate: f64,
        step: Step<'_>,
    ) -> Result<u32> {
        let Some(learner) = &mut self.learner else { return Ok(0) };
        learner.step(&self.books, gradients, found, rate)?;
        self.idle.restart(&self.books, learner, found, codes, step.number)
    }
}
