//! How a tree is fitted.

use genrec_kernels::CounterRng;
use serde::{Deserialize, Serialize};

use crate::coding::Distance;
use crate::kmeans::{KMeansInit, Lloyd, Rule};
use crate::preprocess::Steps;
use crate::saved::check_sizes;
use crate::{QuantizeError, Result};

/// How [`HierarchicalKMeans`](crate::HierarchicalKMeans) is fitted.
///
/// ```
/// use ndarray::Array2;
/// use sid_quantize::{ArrayRows, Fit, HierarchicalKMeansConfig, Quantizer};
///
/// let embeddings = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
/// let config = HierarchicalKMeansConfig::default().with_codebook_sizes([4, 4]);
/// let quantizer = config.fit(&mut ArrayRows::from(embeddings.view()))?;
/// let codes = quantizer.encode_array(embeddings.view(), 32)?;
/// assert_eq!(codes.dim(), (64, 2));
/// # Ok::<(), sid_quantize::QuantizeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HierarchicalKMeansConfig {
    /// The most children of a node, by the level of the children; three levels of 256, TIGER's size, by default. A node
    /// that has fewer distinct rows has only so many children.
    pub codebook_sizes: Vec<u32>,
    /// Most Lloyd iterations a node; 100 by default.
    pub iterations: usize,
    /// A node is done when an iteration lowers the mean squared distance of its rows by no more than this share of it;
    /// 1e-5 by default, 0 to go on until no row changes its cluster.
    pub tolerance: f64,
    /// How the first centroids of a node's children are chosen; k-means++ by default.
    pub init: KMeansInit,
    /// Rows of a node drawn to choose the first centroids from; 65,536 by default, and never fewer than the children.
    pub init_rows: usize,
    /// Whether each feature is brought to mean 0 and deviation 1 first; off by default: sentence embeddings have one
    /// scale already, and equal weight for weak features only adds noise to the distances.
    pub standardize: bool,
    /// Principal components kept, each brought to variance 1 (after standardisation if both); none by default, which leaves
    /// all features as they are.
    pub whiten: Option<usize>,
    /// What makes a centroid near, in the fit and after it; the squared Euclidean distance by default.
    pub distance: Distance,
    /// Most rows of a child while its node is fitted, in multiples of the mean of all children of the node: 1 makes them
    /// equally large. It shapes the centroids alone: each row then goes to the nearest, in the fit as after it. No limit
    /// by default.
    pub balance: Option<f64>,
    /// Seed of every random choice; 0 by default.
    pub seed: u64,
}

impl Default for HierarchicalKMeansConfig {
    fn default() -> Self {
        Self {
            codebook_sizes: vec![256; 3],
            iterations: 100,
            tolerance: 1e-5,
            init: KMeansInit::PlusPlus,
            init_rows: 65_536,
            standardize: false,
            whiten: None,
            distance: Distance::Euclidean,
            balance: None,
            seed: 0,
        }
    }
}

impl HierarchicalKMeansConfig {
    /// Sets the most children of a node, by level.
    #[must_use]
    pub fn with_codebook_sizes(mut self, sizes: impl Into<Vec<u32>>) -> Self {
        self.codebook_sizes = sizes.into();
        self
    }

    /// Sets the most Lloyd iterations a node.
    #[must_use]
    pub fn with_iterations(mut self, iterations: usize) -> Self {
        self.iterations = iterations;
        self
    }

    /// Sets the share of improvement at which a node is done.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
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

    /// Sets what makes a centroid near.
    #[must_use]
    pub fn with_distance(mut self, distance: Distance) -> Self {
        self.distance = distance;
        self
    }

    /// Sets the most rows of a child in the fit, in multiples of the mean.
    #[must_use]
    pub fn with_balance(mut self, balance: Option<f64>) -> Self {
        self.balance = balance;
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
        if !(self.tolerance >= 0.0 && self.tolerance < 1.0) {
            return Err(QuantizeError::config("tolerance", self.tolerance, "it must lie in 0..1"));
        }
        self.rule().validate()?;
        self.steps().validate()
    }

    fn rule(&self) -> Rule {
        Rule { distance: self.distance, balance: self.balance }
    }

    pub(super) fn steps(&self) -> Steps {
        Steps { standardize: self.standardize, whiten: self.whiten }
    }

    /// The k-means of a node.
    pub(super) fn lloyd(&self, children: u32, rng: CounterRng) -> Lloyd {
        Lloyd {
            codes: children as usize,
            iterations: self.iterations,
            tolerance: self.tolerance,
            batch: None,
            rule: self.rule(),
            init: self.init,
            init_rows: self.init_rows,
            rng,
        }
    }
}
