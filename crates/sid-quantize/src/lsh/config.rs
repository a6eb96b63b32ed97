//! How [`SimHashLsh`](super::SimHashLsh) is fitted.

use serde::{Deserialize, Serialize};

use crate::preprocess::Steps;
use crate::saved::MAX_LEVELS;
use crate::{QuantizeError, Result};

/// Most bits of a code: 2^20 codes, as many as any codebook may have.
const MAX_BITS: u32 = 20;

/// How [`SimHashLsh`](super::SimHashLsh) is fitted.
///
/// ```
/// use ndarray::Array2;
/// use sid_quantize::{ArrayRows, Fit, Quantizer, SimHashLshConfig};
///
/// let embeddings = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
/// let config = SimHashLshConfig::default().with_bits(4).with_levels(2);
/// let quantizer = config.fit(&mut ArrayRows::from(embeddings.view()))?;
/// assert_eq!(quantizer.codebook_sizes(), [16, 16]);
/// assert_eq!(quantizer.encode_array(embeddings.view(), 32)?.dim(), (64, 2));
/// # Ok::<(), sid_quantize::QuantizeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SimHashLshConfig {
    /// Hyperplanes, and so bits, of a code: each level has `2^bits` codes. 8 by default, which gives TIGER's codebooks of
    /// 256; 1 to 20.
    pub bits: u32,
    /// Codes of a row; 3 by default, as TIGER has; 1 to 64.
    pub levels: usize,
    /// Whether each feature is brought to mean 0 and deviation 1 first; on by default. The hyperplanes go through the
    /// origin, and embeddings of texts lie to one side of it: uncentred, most rows would fall on the same side of most
    /// hyperplanes. TIGER mentions no centring; off is what it describes.
    pub standardize: bool,
    /// Principal components kept, each brought to variance 1 (after standardisation if both); none by default. It centres the
    /// rows too, and makes directions equally likely in which the rows differ more or less.
    pub whiten: Option<usize>,
    /// Seed of the hyperplanes; 0 by default.
    pub seed: u64,
}

impl Default for SimHashLshConfig {
    fn default() -> Self {
        Self { bits: 8, levels: 3, standardize: true, whiten: None, seed: 0 }
    }
}

impl SimHashLshConfig {
    /// Sets the bits of a code.
    #[must_use]
    pub fn with_bits(mut self, bits: u32) -> Self {
        self.bits = bits;
        self
    }

    /// Sets the codes of a row.
    #[must_use]
    pub fn with_levels(mut self, levels: usize) -> Self {
        self.levels = levels;
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

    /// Sets the seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Codes in each level's codebook: `2^bits`, `levels` times. Bounds are kept where the fields do not.
    pub fn codebook_sizes(&self) -> Vec<u32> {
        vec![1 << self.bits.min(MAX_BITS); self.levels.min(MAX_LEVELS)]
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`QuantizeError::InvalidConfig`] names the first field out of its bounds.
    pub fn validate(&self) -> Result<()> {
        if !(1..=MAX_BITS).contains(&self.bits) {
            return Err(QuantizeError::config("bits", self.bits, "a code may have 1 to 20 bits"));
        }
        if !(1..=MAX_LEVELS).contains(&self.levels) {
            return Err(QuantizeError::config("levels", self.levels, "1 to 64 levels are allowed"));
        }
        self.steps().validate()
    }

    pub(super) fn steps(&self) -> Steps {
        Steps { standardize: self.standardize, whiten: self.whiten }
    }
}
