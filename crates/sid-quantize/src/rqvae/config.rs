//! Size and training of an RQ-VAE.

use std::ops::Range;

use genrec_kernels::optim::{AdagradConfig, AdamWConfig, OptimizerConfig, Schedule};
use serde::{Deserialize, Serialize};

use super::{Alignment, CodebookLearning, Diversity, Estimator, Sinkhorn};
use crate::autoencoder::{Monitor, Plan, check_widths};
use crate::coding::{Coding, Composition, Distance};
use crate::kmeans::KMeansInit;
use crate::preprocess::Steps;
use crate::saved::check_sizes;
use crate::{QuantizeError, Result};

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
    /// Width of the latent vector and so, unless it is partitioned, of every codeword; 32 by default (paper).
    pub latent_dim: usize,
    /// Codes in each level's codebook; three levels of 256 by default (paper).
    pub codebook_sizes: Vec<u32>,
    /// Weight `beta` of the commitment term; 0.25 by default (paper).
    pub commitment: f64,
    /// How the gradient passes the quantiser; straight-through by default (paper).
    pub estimator: Estimator,
    /// How the codebooks make up the latent vector; residual by default. Partitioned, it is the VQ-VAE with a divided latent
    /// vector of the paper's ablation.
    pub composition: Composition,
    /// What makes a codeword near; the squared Euclidean distance by default (paper).
    pub distance: Distance,
    /// How the codewords are learned; by gradient by default (paper).
    pub codebook: CodebookLearning,
    /// Whether all levels have one codebook; off by default (paper): residuals shrink from level to level.
    pub shared_codebook: bool,
    /// Uniform assignment of the rows of a batch while training; none by default (paper).
    pub sinkhorn: Option<Sinkhorn>,
    /// Alignment with behaviour, which goes with [`fit_aligned`](Self::fit_aligned); none by default (paper).
    pub alignment: Option<Alignment>,
    /// Diversity of the codewords, which goes with codewords learned by gradient; none by default (paper).
    pub diversity: Option<Diversity>,
    /// Whether each feature is brought to mean 0 and deviation 1 first, with moments that are kept in the model; on
    /// by default.
    pub standardize: bool,
    /// Principal components kept, each brought to variance 1 (after standardisation if both); none by default, which leaves
    /// all features as they are.
    pub whiten: Option<usize>,
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
    /// Where k-means starts from; k-means++ by default.
    pub init: KMeansInit,
    /// Most Lloyd iterations of that initialisation; 10 by default, 0 to keep the points that k-means would start from.
    pub init_iterations: usize,
    /// Steps after which a code that no row has used is moved onto the residual of a random row of the batch; `None`
    /// never does so.
    pub restart_after: Option<usize>,
    /// Ends the training after this many epochs in which what is [monitored](Self::monitor) has not fallen below its lowest
    /// by more than [`min_improvement`](Self::min_improvement); `None`, the default, runs all epochs.
    pub patience: Option<usize>,
    /// Share of the lowest value an epoch must gain to count as progress; 0.001 by default.
    pub min_improvement: f64,
    /// What patience looks at; the mean loss by default.
    pub monitor: Monitor,
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
            composition: Composition::Residual,
            distance: Distance::Euclidean,
            codebook: CodebookLearning::Gradient,
            shared_codebook: false,
            sinkhorn: None,
            alignment: None,
            diversity: None,
            standardize: true,
            whiten: None,
            batch_size: 1024,
            epochs: None,
            learning_rate: 1e-3,
            optimizer: OptimizerConfig::AdamW(AdamWConfig::default()),
            schedule: None,
            autoencoder_share: 0.2,
            init_rows: 16_384,
            init: KMeansInit::PlusPlus,
            init_iterations: 10,
            restart_after: Some(24),
            patience: None,
            min_improvement: 1e-3,
            monitor: Monitor::Loss,
            seed: 0,
        }
    }
}

impl RqVaeConfig {
    /// The default with a latent vector of 16 features instead of 32: three levels then tell more items apart, at a slightly
    /// larger reconstruction error.
    ///
    /// On Amazon Beauty as above 2.9 to 3.0 % of the items share all three codes with an earlier one, and the relative
    /// reconstruction error is 0.54 instead of 0.53.
    #[must_use]
    pub fn separating() -> Self {
        Self { latent_dim: 16, ..Self::default() }
    }

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

    /// Checks every field.
    ///
    /// # Errors
    /// [`QuantizeError::InvalidConfig`] names the first field out of its bounds, or one that another rules out;
    /// [`QuantizeError::Optimizer`] one of the optimiser's or the schedule's.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&self.codebook_sizes)?;
        check_widths(&self.hidden, self.latent_dim)?;
        self.steps().validate()?;
        if self.restart_after == Some(0) {
            return Err(QuantizeError::config("restart_after", 0, "at least 1 is needed"));
        }
        if !(self.commitment >= 0.0 && self.commitment.is_finite()) {
            return Err(QuantizeError::config("commitment", self.commitment, "it must be finite and not below 0"));
        }
        let columns = self.composition.columns(self.latent_dim, self.codebook_sizes.len());
        if columns.iter().any(Range::is_empty) {
            let expected = "a partitioned latent vector needs a column for each level";
            return Err(QuantizeError::config("latent_dim", self.latent_dim, expected));
        }
        if self.shared_codebook {
            let alike = |pair: &[u32]| pair[0] == pair[1];
            if !self.codebook_sizes.windows(2).all(alike)
                || columns.windows(2).any(|pair| pair[0].len() != pair[1].len())
            {
                let expected = "levels of one size and one width are needed to share a codebook";
                return Err(QuantizeError::config("shared_codebook", true, expected));
            }
            if (self.codebook_sizes[0] as usize) < self.codebook_sizes.len() {
                let expected = "a code for each level is needed to share a codebook";
                return Err(QuantizeError::config("shared_codebook", true, expected));
            }
        }
        match self.codebook {
            CodebookLearning::Ema(ema) => ema.validate()?,
            CodebookLearning::SimVq if self.restart_after.is_some() => {
                let expected = "it must be none with `sim_vq`, whose codewords do not move one by one";
                return Err(QuantizeError::config("restart_after", self.restart_after.unwrap_or(0), expected));
            }
            _ => {}
        }
        if let Estimator::GumbelSoftmax(gumbel) = self.estimator {
            gumbel.validate()?;
            let reason = "the Gumbel-softmax needs Euclidean distances, codewords learned by gradient and no sinkhorn";
            if self.distance != Distance::Euclidean || self.sinkhorn.is_some() {
                return Err(QuantizeError::config("estimator", "gumbel_softmax", reason));
            }
            if matches!(self.codebook, CodebookLearning::Ema(_)) {
                return Err(QuantizeError::config("estimator", "gumbel_softmax", reason));
            }
        }
        self.sinkhorn.map_or(Ok(()), Sinkhorn::validate)?;
        self.alignment.map_or(Ok(()), Alignment::validate)?;
        if self.diversity.is_some() && matches!(self.codebook, CodebookLearning::Ema(_)) {
            let expected = "it moves codewords by gradient, which running means do not follow";
            return Err(QuantizeError::config("diversity", "set", expected));
        }
        let fewest = self.codebook_sizes.iter().copied().min().unwrap_or(0) as usize;
        self.diversity.map_or(Ok(()), |diversity| diversity.validate(fewest))?;
        self.plan().validate()
    }

    pub(crate) fn steps(&self) -> Steps {
        Steps { standardize: self.standardize, whiten: self.whiten }
    }

    pub(crate) fn coding(&self) -> Coding {
        Coding { composition: self.composition, distance: self.distance, beam: 1 }
    }

    pub(crate) fn plan(&self) -> Plan {
        let largest = self.codebook_sizes.iter().copied().max().unwrap_or(0) as usize;
        Plan {
            batch_size: self.batch_size,
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            optimizer: self.optimizer.clone(),
            schedule: self.schedule.clone(),
            autoencoder_share: self.autoencoder_share,
            init_rows: self.init_rows.max(largest),
            patience: self.patience,
            min_improvement: self.min_improvement,
            monitor: self.monitor,
        }
    }
}
