//! The fields of [`FsqConfig`], one by one.

use genrec_kernels::optim::{OptimizerConfig, Schedule};

use super::FsqConfig;
use crate::autoencoder::Monitor;

impl FsqConfig {
    /// Sets the values that each feature of each code can take.
    #[must_use]
    pub fn with_scalars(mut self, scalars: impl Into<Vec<Vec<u32>>>) -> Self {
        self.scalars = scalars.into();
        self
    }

    /// Sets the widths of the encoder's hidden layers.
    #[must_use]
    pub fn with_hidden(mut self, hidden: impl Into<Vec<usize>>) -> Self {
        self.hidden = hidden.into();
        self
    }

    /// Turns standardisation of the features on or off.
    #[must_use]
    pub fn with_standardize(mut self, standardize: bool) -> Self {
        self.standardize = standardize;
        self
    }

    /// Sets the principal components that are kept and brought to variance 1, or leaves the features as they are.
    #[must_use]
    pub fn with_whiten(mut self, components: Option<usize>) -> Self {
        self.whiten = components;
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

    /// Sets the share of the epochs that are trained without rounding.
    #[must_use]
    pub fn with_autoencoder_share(mut self, share: f64) -> Self {
        self.autoencoder_share = share;
        self
    }

    /// Sets the epochs without progress after which the training ends, and what counts as progress.
    #[must_use]
    pub fn with_patience(mut self, epochs: Option<usize>, min_improvement: f64) -> Self {
        self.patience = epochs;
        self.min_improvement = min_improvement;
        self
    }

    /// Sets what patience looks at.
    #[must_use]
    pub fn with_monitor(mut self, monitor: Monitor) -> Self {
        self.monitor = monitor;
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}
