//! How a residual k-means is fitted.

use serde::{Deserialize, Serialize};

use crate::coding::{Coding, Composition, Distance};
use crate::kmeans::{KMeansInit, Rule};
use crate::preprocess::Steps;
use crate::saved::check_sizes;
use crate::{QuantizeError, Result};

/// Widest beam.
const MAX_BEAM: usize = 1024;

/// Most continuations of the prefixes of a row, which are held at once.
const MAX_STEPS: usize = 1 << 20;

/// How [`ResidualKMeans`](super::ResidualKMeans) is fitted.
///
/// ```
/// use ndarray::Array2;
/// use sid_quantize::{ArrayRows, Fit, Quantizer, ResidualKMeansConfig};
///
/// let embeddings = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
/// let config = ResidualKMeansConfig::default().with_codebook_sizes([8, 8]);
/// let quantizer = config.fit(&mut ArrayRows::from(embeddings.view()))?;
/// let codes = quantizer.encode_array(embeddings.view(), 32)?;
/// assert_eq!(codes.dim(), (64, 2));
/// # Ok::<(), sid_quantize::QuantizeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ResidualKMeansConfig {
    /// Codes in each level's codebook; three levels of 256, TIGER's size, by default.
    pub codebook_sizes: Vec<u32>,
    /// Most Lloyd iterations a level; 100 by default. Those that choose the first centroids do not count.
    pub iterations: usize,
    /// A level ends when an iteration lowers the mean squared distance by no more than this share of it; 1e-5 by
    /// default, 0 to go on until no row changes its cluster.
    pub tolerance: f64,
    /// Rows drawn anew for each iteration (mini-batch k-means, Sculley 2010), for so many rows that a pass over all of them is
    /// dear; an iteration is then far cheaper and the centroids a little worse. All rows by default.
    pub batch_rows: Option<usize>,
    /// How the first centroids are chosen; on ever more principal axes by default, as faiss does: clusters are evener and fewer
    /// items collide than from k-means++.
    pub init: KMeansInit,
    /// Rows drawn to choose the first centroids from; 65,536 by default, and never fewer than the codes.
    pub init_rows: usize,
    /// Whether each feature is brought to mean 0 and deviation 1 first; off by default: sentence embeddings have one
    /// scale already, and equal weight for weak features only adds noise to the distances.
    pub standardize: bool,
    /// Principal components kept, each brought to variance 1 (after standardisation if both); none by default, which leaves
    /// all features as they are.
    pub whiten: Option<usize>,
    /// What makes a codeword near, in the fit and after it; the squared Euclidean distance by default.
    pub distance: Distance,
    /// Most rows of a cluster while it is fitted, in multiples of the mean: 1 makes all clusters equally large (the
    /// balanced k-means of OneRec, arXiv 2502.18965). It shapes the centroids alone: a fitted quantiser gives every row its
    /// nearest. No limit by default.
    pub balance: Option<f64>,
    /// Prefixes of codes that are followed at once when a row is encoded, as additive quantisers do; 1, the default, is
    /// greedy. Wider beams lower the reconstruction error and take about so many times as long. Goes with the Euclidean
    /// distance.
    pub beam: usize,
    /// Seed of every random choice; 0 by default.
    pub seed: u64,
}

impl Default for ResidualKMeansConfig {
    fn default() -> Self {
        Self {
            codebook_sizes: vec![256; 3],
            iterations: 100,
            tolerance: 1e-5,
            batch_rows: None,
            init: KMeansInit::Progressive,
            init_rows: 65_536,
            standardize: false,
            whiten: None,
            distance: Distance::Euclidean,
            balance: None,
            beam: 1,
            seed: 0,
        }
    }
}

impl ResidualKMeansConfig {
    /// Sets the codes of each level's codebook.
    #[must_use]
    pub fn with_codebook_sizes(mut self, sizes: impl Into<Vec<u32>>) -> Self {
        self.codebook_sizes = sizes.into();
        self
    }

    /// Sets the most Lloyd iterations a level.
    #[must_use]
    pub fn with_iterations(mut self, iterations: usize) -> Self {
        self.iterations = iterations;
        self
    }

    /// Sets the share of improvement at which a level ends.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Sets the rows drawn for each iteration, or takes all of them.
    #[must_use]
    pub fn with_batch_rows(mut self, batch_rows: Option<usize>) -> Self {
        self.batch_rows = batch_rows;
        self
    }

    /// Sets how the first centroids are chosen.
    #[must_use]
    pub fn with_init(mut self, init: KMeansInit) -> Self {
        self.init = init;
        self
    }

    /// Sets the number of rows the first centroids are chosen from.
    #[must_use]
    pub fn with_init_rows(mut self, init_rows: usize) -> Self {
        self.init_rows = init_rows;
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

    /// Sets what makes a codeword near.
    #[must_use]
    pub fn with_distance(mut self, distance: Distance) -> Self {
        self.distance = distance;
        self
    }

    /// Sets the most rows of a cluster in the fit, in multiples of the mean.
    #[must_use]
    pub fn with_balance(mut self, balance: Option<f64>) -> Self {
        self.balance = balance;
        self
    }

    /// Sets the prefixes that are followed at once when a row is encoded.
    #[must_use]
    pub fn with_beam(mut self, beam: usize) -> Self {
        self.beam = beam;
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
    /// [`QuantizeError::InvalidConfig`] names the first field out of its bounds.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&self.codebook_sizes)?;
        if self.iterations == 0 {
            return Err(QuantizeError::config("iterations", 0, "at least 1 is needed"));
        }
        let largest = self.codebook_sizes.iter().copied().max().unwrap_or(0) as usize;
        if let Some(rows) = self.batch_rows.filter(|rows| *rows < largest) {
            return Err(QuantizeError::config("batch_rows", rows, "a batch needs a row for each code of a level"));
        }
        if !(self.tolerance >= 0.0 && self.tolerance < 1.0) {
            return Err(QuantizeError::config("tolerance", self.tolerance, "it must lie in 0..1"));
        }
        if self.beam == 0 || self.beam > MAX_BEAM {
            return Err(QuantizeError::config("beam", self.beam, "1 to 1024 prefixes are allowed"));
        }
        let largest = self.codebook_sizes.iter().copied().max().unwrap_or(0) as usize;
        if self.beam.saturating_mul(largest) > MAX_STEPS && self.beam > 1 {
            return Err(QuantizeError::config(
                "beam",
                self.beam,
                "prefixes times codes of a level may be 2^20 at most",
            ));
        }
        if self.beam > 1 && self.distance == Distance::Cosine {
            return Err(QuantizeError::config("beam", self.beam, "it must be 1 where `distance` is cosine"));
        }
        self.rule().validate()?;
        self.steps().validate()
    }

    pub(super) fn rule(&self) -> Rule {
        Rule { distance: self.distance, balance: self.balance }
    }

    pub(super) fn steps(&self) -> Steps {
        Steps { standardize: self.standardize, whiten: self.whiten }
    }

    pub(super) fn coding(&self) -> Coding {
        Coding { composition: Composition::Residual, distance: self.distance, beam: self.beam }
    }

    pub(super) fn epochs(&self) -> usize {
        self.iterations.saturating_mul(self.codebook_sizes.len())
    }
}
