//! The fields of [`RqVaeConfig`], one by one.

use genrec_kernels::optim::{OptimizerConfig, Schedule};

use super::{Alignment, CodebookLearning, Diversity, Estimator, RqVaeConfig, Sinkhorn};
use crate::autoencoder::Monitor;
use crate::coding::{Composition, Distance};
use crate::kmeans::KMeansInit;

impl RqVaeConfig {
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

    /// Sets the principal components that are kept and brought to variance 1, or leaves the features as they are.
    #[must_use]
    pub fn with_whiten(mut self, components: Option<usize>) -> Self {
        self.whiten = components;
        self
    }

    /// Sets how the codebooks make up the latent vector.
    #[must_use]
    pub fn with_composition(mut self, composition: Composition) -> Self {
        self.composition = composition;
        self
    }

    /// Sets what makes a codeword near.
    #[must_use]
    pub fn with_distance(mut self, distance: Distance) -> Self {
        self.distance = distance;
        self
    }

    /// Sets how the codewords are learned.
    #[must_use]
    pub fn with_codebook(mut self, codebook: CodebookLearning) -> Self {
        self.codebook = codebook;
        self
    }

    /// Sets whether all levels have one codebook.
    #[must_use]
    pub fn with_shared_codebook(mut self, shared: bool) -> Self {
        self.shared_codebook = shared;
        self
    }

    /// Sets where the first codewords come from, before any k-means.
    #[must_use]
    pub fn with_init_points(mut self, init: KMeansInit) -> Self {
        self.init = init;
        self
    }

    /// Sets the uniform assignment of a batch, or none.
    #[must_use]
    pub fn with_sinkhorn(mut self, sinkhorn: Option<Sinkhorn>) -> Self {
        self.sinkhorn = sinkhorn;
        self
    }

    /// Sets the alignment with behaviour, or none.
    #[must_use]
    pub fn with_alignment(mut self, alignment: Option<Alignment>) -> Self {
        self.alignment = alignment;
        self
    }

    /// Sets the diversity of the codewords, or none.
    #[must_use]
    pub fn with_diversity(mut self, diversity: Option<Diversity>) -> Self {
        self.diversity = diversity;
        self
    }

    /// Sets what patience looks at.
    #[must_use]
    pub fn with_monitor(mut self, monitor: Monitor) -> Self {
        self.monitor = monitor;
        self
    }
}
