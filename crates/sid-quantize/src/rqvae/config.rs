//! Size and training of an RQ-VAE.

use genrec_kernels::optim::{AdagradConfig, AdamWConfig, OptimizerConfig, Schedule};
use serde::{Deserialize, Serialize};

use super::Estimator;
use crate::coding::Coding;
use crate::preprocess::Steps;
use crate::saved::check_sizes;
use crate::{QuantizeError, Result};

/// Passes over the rows, and steps they should make at least, where the configuration names none.
const EPOCHS: usize = 40;
const MIN_STEPS: usize = 480;

/// How an [`RqVae`](super::RqVae) is built and trained.
///
/// # What is the paper's and what is not
/// Sizes, objective, straight-through estimator and batch are those of TIGER (Rajput et al. 2023, section 4), and
/// [`paper`](Self::paper) is its whole recipe: Adagrad at 0.4 for 20,000 epochs. On sentence embeddings of unit length
/// that recipe tends to collapse onto few codes, so the training of the default differs in five ways:
///
/// - inputs are [standardised](Self::standardize), and AdamW at 0.001 takes Adagrad's place;
/// - encoder and decoder are [trained alone](Self::autoencoder_share) for the first fifth of the epochs, then the
///   codebooks are initialised by k-means on all latent vectors rather than on one batch of an untrained encoder's;
/// - the learning rate [falls to 0](Self::schedule), so that the codes settle;
/// - codes that no row uses are [restarted](Self::restart_after);
/// - it ends after [40 epochs](Self::epochs).
///
/// On the 12,101 items of Amazon Beauty, embedded by all-MiniLM-L6-v2, every level then uses all of its 256 codes at a
/// perplexity of 228 or more, and 3.6 to 3.8 % of the items share all three codes with an earlier one
/// (seeds 0, 1 and 42). Without the epochs of the autoencoder alone it is 9.1 %, at perplexities of 165 to 174; with a
/// constant learning rate 4.8 %. More epochs lower the reconstruction error at the price of a few more collisions.
///
/// # Small sets
/// A codebook should not have more codes than the rows can tell apart. For a thousand items three levels of 64 codes,
/// hidden layers of 256 and 128, a batch of 256 and a rate of 0.003 do well, in seconds.
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
    /// Passes over the rows. `None`, the default, makes 40, or as many as it takes for 480 steps where 40 passes are
    /// fewer: a small set needs the steps of a large one, not its epochs.
    pub epochs: Option<usize>,
    /// Base learning rate; 0.001 by default.
    pub learning_rate: f64,
    /// The optimiser; AdamW by default.
    pub optimizer: OptimizerConfig,
    /// Factor on the learning rate by step; `None`, the default, is half a cosine from the base rate down to 0 over all
    /// epochs, so that the codes settle.
    pub schedule: Option<Schedule>,
    /// Share of the epochs, at the start, in which encoder and decoder are trained alone, without a quantiser between
    /// them; 0.2 by default, 0 in the paper.
    ///
    /// The codebooks are initialised after these epochs. The latent vectors of an untrained encoder say little about
    /// those of a trained one: codebooks initialised on them spend the fit in pursuit.
    pub autoencoder_share: f64,
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
            epochs: None,
            learning_rate: 1e-3,
            optimizer: OptimizerConfig::AdamW(AdamWConfig::default()),
            schedule: None,
            autoencoder_share: 0.2,
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
            epochs: Some(20_000),
            init_rows: 1024,
            learning_rate: 0.4,
            optimizer: OptimizerConfig::Adagrad(AdagradConfig::default()),
            schedule: Some(Schedule::Constant),
            autoencoder_share: 0.0,
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

    /// Sets the passes over the rows; `None` derives them from the number of rows.
    #[must_use]
    pub fn with_epochs(mut self, epochs: impl Into<Option<usize>>) -> Self {
        self.epochs = epochs.into();
        self
    }

    /// Sets the optimiser and its base learning rate.
    #[must_use]
    pub fn with_optimizer(mut self, optimizer: OptimizerConfig, learning_rate: f64) -> Self {
        self.optimizer = optimizer;
        self.learning_rate = learning_rate;
        self
    }

    /// Sets the factor on the learning rate by step; `None` is a cosine over all epochs.
    #[must_use]
    pub fn with_schedule(mut self, schedule: impl Into<Option<Schedule>>) -> Self {
        self.schedule = schedule.into();
        self
    }

    /// Sets the share of the epochs in which encoder and decoder are trained alone.
    #[must_use]
    pub fn with_autoencoder_share(mut self, share: f64) -> Self {
        self.autoencoder_share = share;
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
    /// [`QuantizeError::InvalidConfig`] names the first field out of its bounds; [`QuantizeError::Optimizer`] one of the
    /// optimiser's or the schedule's.
    pub fn validate(&self) -> Result<()> {
        const WIDEST: usize = 1 << 16;
        check_sizes(&self.codebook_sizes)?;
        if self.hidden.len() > 64 {
            return Err(QuantizeError::config("hidden", self.hidden.len(), "at most 64 layers are allowed"));
        }
        for (field, widths) in [("hidden", &self.hidden[..]), ("latent_dim", &[self.latent_dim])] {
            if let Some(width) = widths.iter().find(|&&width| width == 0 || width > WIDEST) {
                return Err(QuantizeError::config(field, width, "a layer may be 1 to 65536 wide"));
            }
        }
        let counts = [
            ("batch_size", self.batch_size),
            ("epochs", self.epochs.unwrap_or(1)),
            ("restart_after", self.restart_after.unwrap_or(1)),
            ("patience", self.patience.unwrap_or(1)),
        ];
        if let Some((field, _)) = counts.into_iter().find(|&(_, count)| count == 0) {
            return Err(QuantizeError::config(field, 0, "at least 1 is needed"));
        }
        let finite = |value: f64| value >= 0.0 && value.is_finite();
        if !finite(self.commitment) {
            return Err(QuantizeError::config("commitment", self.commitment, "it must be finite and not below 0"));
        }
        if !finite(self.learning_rate) || self.learning_rate == 0.0 {
            return Err(QuantizeError::config("learning_rate", self.learning_rate, "it must be finite and above 0"));
        }
        if !(0.0..1.0).contains(&self.min_improvement) {
            return Err(QuantizeError::config("min_improvement", self.min_improvement, "it must lie in 0..1"));
        }
        if !(0.0..1.0).contains(&self.autoencoder_share) {
            return Err(QuantizeError::config("autoencoder_share", self.autoencoder_share, "it must lie in 0..1"));
        }
        self.schedule.as_ref().map_or(Ok(()), Schedule::validate)?;
        Ok(self.optimizer.validate()?)
    }

    pub(crate) fn steps(&self) -> Steps {
        Steps { standardize: self.standardize, whiten: None }
    }

    pub(crate) fn coding(&self) -> Coding {
        Coding::default()
    }

    /// Steps of one epoch over that many rows.
    pub(crate) fn epoch_steps(&self, rows: usize) -> usize {
        rows.div_ceil(self.batch_size).max(1)
    }

    /// Passes over that many rows.
    pub(crate) fn epochs_for(&self, rows: usize) -> usize {
        self.epochs.unwrap_or_else(|| EPOCHS.max(MIN_STEPS.div_ceil(self.epoch_steps(rows))))
    }

    /// Of so many epochs, those in which encoder and decoder are trained alone: always fewer than all.
    pub(crate) fn autoencoder_epochs(&self, epochs: usize) -> usize {
        let alone = (epochs as f64 * self.autoencoder_share).round() as usize;
        alone.min(epochs.saturating_sub(1))
    }
}
