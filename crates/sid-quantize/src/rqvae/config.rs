//! Size and training of an RQ-VAE.

use genrec_kernels::optim::{AdagradConfig, AdamWConfig, OptimizerConfig, Schedule};
use serde::{Deserialize, Serialize};

use super::Estimator;
use crate::saved::check_sizes;
use crate::{Error, Result};

/// How an [`RqVae`](super::RqVae) is built and trained.
///
/// Sizes default to those of TIGER (Rajput et al. 2023, section 4). Training does not: Adagrad at 0.4 on
/// sentence embeddings of unit length tends to collapse onto few codes, so the defaults standardise the inputs, use
/// AdamW and restart codes that no row uses. [`paper`](Self::paper) is the published recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RqVaeConfig {
    /// Widths of the encoder's hidden layers; the decoder mirrors them. `[512, 256, 128]` by default (paper).
    pub hidden: Vec<usize>,
    /// Width of the latent vector and so of every codeword; 32 by default (paper).
    pub latent_dim: usize,
    /// Codes in each level's codebook; three levels of 256 by default (paper).
    pub codebook_sizes: Vec<u32>,
    /// Weight `beta` of the commitment term; 0.25 by default (paper).
    pub commitment: f64,
    /// How the gradient passes the quantiser; straight-through by default (paper).
    pub estimator: Estimator,
    /// Whether each feature is brought to mean 0 and deviation 1 first, with moments that are kept in the model; on
    /// by default.
    pub standardize: bool,
    /// Rows of one training step; 1,024 by default (paper).
    pub batch_size: usize,
    /// Passes over the rows; 150 by default.
    pub epochs: usize,
    /// Base learning rate; 0.003 by default: at 0.001 the codewords follow the growing latent vectors too slowly.
    pub learning_rate: f64,
    /// The optimiser; AdamW by default.
    pub optimizer: OptimizerConfig,
    /// Factor on the learning rate by step; constant by default.
    pub schedule: Schedule,
    /// Rows whose latent vectors the codebooks are initialised on by k-means, and never fewer than the codes of a
    /// codebook; 16,384 by default, one batch of 1,024 in the paper.
    pub init_rows: usize,
    /// Most Lloyd iterations of that initialisation; 10 by default.
    pub init_iterations: usize,
    /// Steps after which a code that no row has used is moved onto the residual of a random row of the batch; `None`
    /// never does so.
    pub restart_after: Option<usize>,
    /// Ends the training after this many epochs in which the mean loss has not fallen below its lowest by more than
    /// [`min_improvement`](Self::min_improvement); `None`, the default, runs all epochs.
    pub patience: Option<usize>,
    /// Share of the lowest mean loss an epoch must gain to count as progress; 0.001 by default.
    pub min_improvement: f64,
    /// Seed of every random choice; 0 by default.
    pub seed: u64,
}

impl Default for RqVaeConfig {
    fn default() -> Self {
        Self {
            hidden: vec![512, 256, 128],
            latent_dim: 32,
            codebook_sizes: vec![256; 3],
            commitment: 0.25,
            estimator: Estimator::StraightThrough,
            standardize: true,
            batch_size: 1024,
            epochs: 150,
            learning_rate: 3e-3,
            optimizer: OptimizerConfig::AdamW(AdamWConfig::default()),
            schedule: Schedule::Constant,
            init_rows: 16_384,
            init_iterations: 10,
            restart_after: Some(24),
            patience: None,
            min_improvement: 1e-3,
            seed: 0,
        }
    }
}

impl RqVaeConfig {
    /// The published recipe: Adagrad at 0.4 for 20,000 epochs, raw inputs, no restarts (section 4 of the paper).
    #[must_use]
    pub fn paper() -> Self {
        Self {
            standardize: false,
            epochs: 20_000,
            init_rows: 1024,
            learning_rate: 0.4,
            optimizer: OptimizerConfig::Adagrad(AdagradConfig::default()),
            restart_after: None,
            ..Self::default()
        }
    }

    /// Sets the widths of the encoder's hidden layers.
    #[must_use]
    pub fn with_hidden(mut self, hidden: impl Into<Vec<usize>>) -> Self {
        self.hidden = hidden.into();
        self
    }

    /// Sets the width of the latent vector.
    #[must_use]
    pub fn with_latent_dim(mut self, latent_dim: usize) -> Self {
        self.latent_dim = latent_dim;
        self
    }

    /// Sets the codes of each level's codebook.
    #[must_use]
    pub fn with_codebook_sizes(mut self, sizes: impl Into<Vec<u32>>) -> Self {
        self.codebook_sizes = sizes.into();
        self
    }

    /// Sets the weight of the commitment term.
    #[must_use]
    pub fn with_commitment(mut self, commitment: f64) -> Self {
        self.commitment = commitment;
        self
    }

    /// Sets how the gradient passes the quantiser.
    #[must_use]
    pub fn with_estimator(mut self, estimator: Estimator) -> Self {
        self.estimator = estimator;
        self
    }

    /// Turns standardisation of the features on or off.
    #[must_use]
    pub fn with_standardize(mut self, standardize: bool) -> Self {
        self.standardize = standardize;
        self
    }

    /// Sets the rows of one training step.
    #[must_use]
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// Sets the passes over the rows.
    #[must_use]
    pub fn with_epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }

    /// Sets the optimiser and its base learning rate.
    #[must_use]
    pub fn with_optimizer(mut self, optimizer: OptimizerConfig, learning_rate: f64) -> Self {
        self.optimizer = optimizer;
        self.learning_rate = learning_rate;
        self
    }

    /// Sets the factor on the learning rate by step.
    #[must_use]
    pub fn with_schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Sets the rows and the most iterations of the codebooks' initialisation.
    #[must_use]
    pub fn with_init(mut self, rows: usize, iterations: usize) -> Self {
        self.init_rows = rows;
        self.init_iterations = iterations;
        self
    }

    /// Sets the steps without use after which a code is restarted.
    #[must_use]
    pub fn with_restart_after(mut self, steps: Option<usize>) -> Self {
        self.restart_after = steps;
        self
    }

    /// Sets the epochs without progress after which the training ends, and what counts as progress.
    #[must_use]
    pub fn with_patience(mut self, epochs: Option<usize>, min_improvement: f64) -> Self {
        self.patience = epochs;
        self.min_improvement = min_improvement;
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
    /// [`Error::InvalidConfig`] names the first field out of its bounds; [`Error::Optimizer`] one of the optimiser's.
    pub fn validate(&self) -> Result<()> {
        const WIDEST: usize = 1 << 16;
        check_sizes(&self.codebook_sizes)?;
        if self.hidden.len() > 64 {
            return Err(Error::config("hidden", self.hidden.len(), "at most 64 layers are allowed"));
        }
        for (field, widths) in [("hidden", &self.hidden[..]), ("latent_dim", &[self.latent_dim])] {
            if let Some(width) = widths.iter().find(|&&width| width == 0 || width > WIDEST) {
                return Err(Error::config(field, width, "a layer may be 1 to 65536 wide"));
            }
        }
        let counts = [
            ("batch_size", self.batch_size),
            ("epochs", self.epochs),
            ("restart_after", self.restart_after.unwrap_or(1)),
            ("patience", self.patience.unwrap_or(1)),
        ];
        if let Some((field, _)) = counts.into_iter().find(|&(_, count)| count == 0) {
            return Err(Error::config(field, 0, "at least 1 is needed"));
        }
        let finite = |value: f64| value >= 0.0 && value.is_finite();
        if !finite(self.commitment) {
            return Err(Error::config("commitment", self.commitment, "it must be finite and not below 0"));
        }
        if !finite(self.learning_rate) || self.learning_rate == 0.0 {
            return Err(Error::config("learning_rate", self.learning_rate, "it must be finite and above 0"));
        }
        if !(0.0..1.0).contains(&self.min_improvement) {
            return Err(Error::config("min_improvement", self.min_improvement, "it must lie in 0..1"));
        }
        Ok(self.optimizer.validate()?)
    }
}
