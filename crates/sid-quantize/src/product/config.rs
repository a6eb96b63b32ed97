//! The configuration of product quantisation.

use std::collections::BTreeMap;
use std::ops::Range;

use genrec_kernels::CounterRng;
use serde::{Deserialize, Serialize};

use super::RotationConfig;
use crate::coder::Coder;
use crate::coding::{Coding, Composition, Distance};
use crate::kmeans::{KMeansInit, Lloyd, Rule};
use crate::preprocess::{Projection, Steps};
use crate::saved::check_sizes;
use crate::{QuantizeError, Result};

/// How [`ProductKMeans`](crate::ProductKMeans) is fitted.
///
/// ```
/// use ndarray::Array2;
/// use sid_quantize::{ArrayRows, Fit, ProductKMeansConfig, Quantizer, RotationConfig};
///
/// let embeddings = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
/// let config = ProductKMeansConfig::default().with_codebook_sizes([8, 8]).with_rotation(Some(RotationConfig::default()));
/// let quantizer = config.fit(&mut ArrayRows::from(embeddings.view()))?;
/// let codes = quantizer.encode_array(embeddings.view(), 32)?;
/// assert_eq!(codes.dim(), (64, 2));
/// # Ok::<(), sid_quantize::QuantizeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ProductKMeansConfig {
    /// Codes in each part's codebook; three parts of 256 by default, TIGER's size. A part needs a column at least.
    pub codebook_sizes: Vec<u32>,
    /// Most Lloyd iterations a part; 100 by default.
    pub iterations: usize,
    /// A part ends when an iteration lowers its mean squared distance by no more than this share of it; 1e-5 by default,
    /// 0 to go on until no row changes its cluster.
    pub tolerance: f64,
    /// Rows drawn anew for each iteration (mini-batch k-means, Sculley 2010), for so many rows that a pass over all of them is
    /// dear. All rows by default.
    pub batch_rows: Option<usize>,
    /// How the first centroids of a part are chosen, and with a rotation those of its first iteration; k-means++ by default.
    pub init: KMeansInit,
    /// Rows drawn to choose the first centroids from; 65,536 by default, and never fewer than the codes.
    pub init_rows: usize,
    /// Whether each feature is brought to mean 0 and deviation 1 first; off by default: sentence embeddings have one
    /// scale already, and equal weight for weak features only adds noise to the distances.
    pub standardize: bool,
    /// Principal components kept, each brought to variance 1 (after standardisation if both); none by default, which leaves
    /// all features as they are. They come in descending order of what their variance was, and so the first part has the
    /// strongest.
    pub whiten: Option<usize>,
    /// The rotation of the (standardised, whitened) features that is learned before they are cut into parts: optimised
    /// product quantisation. None by default, which is product quantisation as it was first published; a rotation lowers
    /// the error wherever features of different parts are correlated.
    pub rotation: Option<RotationConfig>,
    /// What makes a codeword near, in the fit and after it; the squared Euclidean distance by default.
    pub distance: Distance,
    /// Most rows of a cluster while it is fitted, in multiples of the mean: 1 makes all clusters of a part equally large. It
    /// shapes the centroids alone: a fitted quantiser gives every row its nearest. No limit by default.
    pub balance: Option<f64>,
    /// Seed of every random choice; 0 by default.
    pub seed: u64,
}

impl Default for ProductKMeansConfig {
    fn default() -> Self {
        Self {
            codebook_sizes: vec![256; 3],
            iterations: 100,
            tolerance: 1e-5,
            batch_rows: None,
            init: KMeansInit::PlusPlus,
            init_rows: 65_536,
            standardize: false,
            whiten: None,
            rotation: None,
            distance: Distance::Euclidean,
            balance: None,
            seed: 0,
        }
    }
}

impl ProductKMeansConfig {
    /// Sets the codes of each part's codebook.
    #[must_use]
    pub fn with_codebook_sizes(mut self, sizes: impl Into<Vec<u32>>) -> Self {
        self.codebook_sizes = sizes.into();
        self
    }

    /// Sets the most Lloyd iterations a part.
    #[must_use]
    pub fn with_iterations(mut self, iterations: usize) -> Self {
        self.iterations = iterations;
        self
    }

    /// Sets the share of improvement at which a part ends.
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

    /// Sets the rotation that is learned, or learns none.
    #[must_use]
    pub fn with_rotation(mut self, rotation: Option<RotationConfig>) -> Self {
        self.rotation = rotation;
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

    /// Sets the seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`QuantizeError::InvalidConfig`] names the first field out of its bounds; [`QuantizeError::TooFewColumns`] where
    /// whitening keeps fewer components than there are parts.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&self.codebook_sizes)?;
        if self.iterations == 0 {
            return Err(QuantizeError::config("iterations", 0, "at least 1 is needed"));
        }
        let largest = self.codebook_sizes.iter().copied().max().unwrap_or(0) as usize;
        if let Some(rows) = self.batch_rows.filter(|rows| *rows < largest) {
            return Err(QuantizeError::config("batch_rows", rows, "a batch needs a row for each code of a part"));
        }
        if !(self.tolerance >= 0.0 && self.tolerance < 1.0) {
            return Err(QuantizeError::config("tolerance", self.tolerance, "it must lie in 0..1"));
        }
        if self.rotation.is_some() && self.distance == Distance::Cosine {
            let expected = "a rotation is learned for Euclidean distances; leave one of the two out";
            return Err(QuantizeError::config("rotation", "set with cosine distance", expected));
        }
        if let Some(rotation) = &self.rotation {
            rotation.validate(largest)?;
        }
        self.rule().validate()?;
        self.steps().validate()?;
        self.whiten.map_or(Ok(()), |components| self.check_columns(components))
    }

    /// Checks that each part of rows of this width has a column.
    pub(super) fn check_columns(&self, dim: usize) -> Result<()> {
        let (columns, levels) = (self.steps().width(dim), self.codebook_sizes.len());
        if columns < levels { Err(QuantizeError::TooFewColumns { columns, levels }) } else { Ok(()) }
    }

    /// The columns of each part.
    pub(super) fn parts(&self, dim: usize) -> Vec<Range<usize>> {
        self.coding().composition.columns(self.steps().width(dim), self.codebook_sizes.len())
    }

    pub(super) fn steps(&self) -> Steps {
        Steps { standardize: self.standardize, whiten: self.whiten }
    }

    pub(super) fn coding(&self) -> Coding {
        Coding { composition: Composition::Partitioned, distance: self.distance, beam: 1 }
    }

    fn rule(&self) -> Rule {
        Rule { distance: self.distance, balance: self.balance }
    }

    /// The k-means of one part.
    pub(super) fn lloyd(&self, level: usize, rng: CounterRng) -> Lloyd {
        Lloyd {
            codes: self.codebook_sizes[level] as usize,
            iterations: self.iterations,
            tolerance: self.tolerance,
            batch: self.batch_rows,
            rule: self.rule(),
            init: self.init,
            init_rows: self.init_rows,
            rng: rng.stream(level as u64),
        }
    }

    /// The most passes of a fit.
    pub(super) fn epochs(&self) -> usize {
        let rotation = self.rotation.as_ref().map_or(0, |rotation| rotation.iterations);
        self.iterations.saturating_mul(self.codebook_sizes.len()).saturating_add(rotation)
    }

    /// Names and shapes of a model's tensors.
    pub(super) fn shapes(&self, dim: usize) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = Coder::shapes(self.steps(), dim, &self.codebook_sizes, self.coding());
        if self.rotation.is_some() {
            Projection::shapes(dim, self.steps().width(dim), &mut shapes);
        }
        shapes
    }
}
