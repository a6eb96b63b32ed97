//! How long and how fast an autoencoder is trained.

use genrec_kernels::optim::{OptimizerConfig, Schedule};
use serde::{Deserialize, Serialize};

use crate::{QuantizeError, Result};

/// Passes over the rows, and steps they should make at least, where the configuration names none.
const EPOCHS: usize = 40;
const MIN_STEPS: usize = 480;

/// What has to improve for a training with patience to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Monitor {
    /// The whole objective.
    #[default]
    Loss,
    /// The mean squared reconstruction error.
    Reconstruction,
    /// The share of rows that repeat the codes of another.
    CollisionRate,
}

/// The part of a configuration that the training loop reads.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) batch_size: usize,
    pub(crate) epochs: Option<usize>,
    pub(crate) learning_rate: f64,
    pub(crate) optimizer: OptimizerConfig,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) autoencoder_share: f64,
    /// Rows whose latent vectors the bottleneck starts from.
    pub(crate) init_rows: usize,
    pub(crate) patience: Option<usize>,
    pub(crate) min_improvement: f64,
    pub(crate) monitor: Monitor,
}

impl Plan {
    pub(crate) fn validate(&self) -> Result<()> {
        let counts = [
            ("batch_size", self.batch_size),
            ("epochs", self.epochs.unwrap_or(1)),
            ("patience", self.patience.unwrap_or(1)),
        ];
        if let Some((field, _)) = counts.into_iter().find(|&(_, count)| count == 0) {
            return Err(QuantizeError::config(field, 0, "at least 1 is needed"));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return Err(QuantizeError::config("learning_rate", self.learning_rate, "it must be finite and above 0"));
        }
        for (field, share) in [("min_improvement", self.min_improvement), ("autoencoder_share", self.autoencoder_share)]
        {
            if !(0.0..1.0).contains(&share) {
                return Err(QuantizeError::config(field, share, "it must lie in 0..1"));
            }
        }
        self.schedule.as_ref().map_or(Ok(()), Schedule::validate)?;
        Ok(self.optimizer.validate()?)
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
