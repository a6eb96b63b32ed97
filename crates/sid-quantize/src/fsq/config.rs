//! Size and training of a finite scalar quantiser.

use genrec_kernels::optim::{AdamWConfig, OptimizerConfig, Schedule};
use serde::{Deserialize, Serialize};

use crate::autoencoder::{Monitor, Plan, check_widths};
use crate::preprocess::Steps;
use crate::saved::check_sizes;
use crate::{QuantizeError, Result};

/// How an [`Fsq`](super::Fsq) is built and trained.
///
/// ```
/// use ndarray::Array2;
/// use sid_quantize::{ArrayRows, Fit, FsqConfig, Quantizer};
///
/// let embeddings = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
/// let config = FsqConfig::default().with_scalars([vec![4, 3], vec![4, 3]]).with_hidden([16]).with_epochs(5);
/// let quantizer = config.fit(&mut ArrayRows::from(embeddings.view()))?;
/// assert_eq!(quantizer.codebook_sizes(), [12, 12]);
/// # Ok::<(), sid_quantize::QuantizeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FsqConfig {
    /// Values that each latent feature of a code can take, code by code: a code of `[8, 6, 5]` is made of three features and
    /// one of 240. Three such codes by default, what the paper proposes for about 256 (its table 1).
    pub scalars: Vec<Vec<u32>>,
    /// Widths of the encoder's hidden layers; the decoder mirrors them. `[512, 256, 128]` by default, as the RQ-VAE's.
    pub hidden: Vec<usize>,
    /// Whether each feature is brought to mean 0 and deviation 1 first; on by default.
    pub standardize: bool,
    /// Principal components kept, each brought to variance 1 (after standardisation if both); none by default.
    pub whiten: Option<usize>,
    /// Rows of one training step; 1,024 by default.
    pub batch_size: usize,
    /// Passes over the rows. `None`, the default, makes 40, or as many as it takes for 480 steps.
    pub epochs: Option<usize>,
    /// Base learning rate; 0.001 by default.
    pub learning_rate: f64,
    /// The optimiser; AdamW by default.
    pub optimizer: OptimizerConfig,
    /// Factor on the learning rate by step; `None`, the default, is half a cosine down to 0 over all epochs.
    pub schedule: Option<Schedule>,
    /// Share of the epochs, at the start, in which encoder and decoder are trained without rounding; 0 by default: rounding
    /// has no codewords that would have to be started well.
    pub autoencoder_share: f64,
    /// Ends the training after this many epochs without progress; `None`, the default, runs all epochs.
    pub patience: Option<usize>,
    /// Share of the lowest value an epoch must gain to count as progress; 0.001 by default.
    pub min_improvement: f64,
    /// What patience looks at; the mean loss by default.
    pub monitor: Monitor,
    /// Seed of every random choice; 0 by default.
    pub seed: u64,
}

impl Default for FsqConfig {
    fn default() -> Self {
        Self {
            scalars: vec![vec![8, 6, 5]; 3],
            hidden: vec![512, 256, 128],
            standardize: true,
            whiten: None,
            batch_size: 1024,
            epochs: None,
            learning_rate: 1e-3,
            optimizer: OptimizerConfig::AdamW(AdamWConfig::default()),
            schedule: None,
            autoencoder_share: 0.0,
            patience: None,
            min_improvement: 1e-3,
            monitor: Monitor::Loss,
            seed: 0,
        }
    }
}

impl FsqConfig {
    /// Codes of each level: the product of its features' values.
    pub fn codebook_sizes(&self) -> Vec<u32> {
        self.scalars.iter().map(|scalars| scalars.iter().copied().fold(1, u32::saturating_mul)).collect()
    }

    /// Features of all codes together.
    pub(crate) fn latent_dim(&self) -> usize {
        self.scalars.iter().map(Vec::len).sum()
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`QuantizeError::InvalidConfig`] names the first field out of its bounds; [`QuantizeError::Optimizer`] one of the
    /// optimiser's or the schedule's.
    pub fn validate(&self) -> Result<()> {
        if self.scalars.is_empty() || self.scalars.iter().any(Vec::is_empty) {
            return Err(QuantizeError::config("scalars", "[]", "a code needs at least one feature"));
        }
        if let Some(values) = self.scalars.iter().flatten().find(|&&values| values < 2) {
            return Err(QuantizeError::config("scalars", values, "a feature needs at least 2 values"));
        }
        check_sizes(&self.codebook_sizes())?;
        check_widths(&self.hidden, self.latent_dim())?;
        self.steps().validate()?;
        self.plan().validate()
    }

    pub(crate) fn steps(&self) -> Steps {
        Steps { standardize: self.standardize, whiten: self.whiten }
    }

    pub(crate) fn plan(&self) -> Plan {
        Plan {
            batch_size: self.batch_size,
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            optimizer: self.optimizer.clone(),
            schedule: self.schedule.clone(),
            autoencoder_share: self.autoencoder_share,
            init_rows: 1,
            patience: self.patience,
            min_improvement: self.min_improvement,
            monitor: self.monitor,
        }
    }
}
