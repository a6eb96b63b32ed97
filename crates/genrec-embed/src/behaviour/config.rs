//! How behaviour is counted and factorised.

use serde::{Deserialize, Serialize};

use crate::error::{EmbedError, Result};

/// What a pair of items that stand together is worth, before the factorisation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Association {
    /// Shifted positive pointwise mutual information, `max(0, ln(#(i,j) #D / (#(i) #(j))) - ln k)` (Levy and Goldberg 2014).
    MutualInformation {
        /// Negative samples `k` of the shift: pairs less than `k` times as frequent as by chance count as never together. 1
        /// is plain positive mutual information.
        shift: f64,
    },
    /// `#(i,j) / sqrt((1 + n_i)(1 + n_j))` with the occurrences `n_i` of an item: the cosine of item-based filtering, with a
    /// one that keeps rare items from being certain.
    Cosine,
}

/// How [`embed`](super::embed) counts and factorises.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BehaviourConfig {
    /// Columns of an embedding, at least 1 and fewer than items. 128: a third of a sentence encoder's usual width, made in seconds
    /// for ten thousand items; more columns hold more of rare pairs.
    pub dims: usize,
    /// Steps between two items of a sequence that count as together, at least 1. 10.
    pub window: usize,
    /// Whether a pair that is `d` steps apart counts `1 / d` instead of 1. Yes.
    pub decay: bool,
    /// What a pair is worth. The cosine.
    pub association: Association,
    /// Columns drawn beyond `dims`, for accuracy, at most 1,024. 16.
    pub oversample: usize,
    /// Power iterations, at most 32. 1: the spectrum of such associations is flat, so that the exact leading vectors know the
    /// large groups alone, and what one iteration leaves of the others tells rare items apart. On Amazon Beauty the twenty nearest of
    /// an item are then taken with it more often (60 % against 51 % at 4), and Semantic IDs made of them are better
    /// (validation NDCG@10 .0450 against .0419).
    pub power_iterations: usize,
    /// Seed of the random projection that starts the decomposition. 0.
    pub seed: u64,
}

impl Default for BehaviourConfig {
    fn default() -> Self {
        Self {
            dims: 128,
            window: 10,
            decay: true,
            association: Association::Cosine,
            oversample: 16,
            power_iterations: 1,
            seed: 0,
        }
    }
}

impl BehaviourConfig {
    /// What LETTER's alignment is given here: 32 columns of positive mutual information within 5 steps, each pair worth the same.
    pub fn mutual_information() -> Self {
        Self {
            dims: 32,
            window: 5,
            decay: false,
            association: Association::MutualInformation { shift: 1.0 },
            power_iterations: 8,
            ..Self::default()
        }
    }

    /// Sets [`dims`](Self::dims).
    #[must_use]
    pub fn with_dims(mut self, dims: usize) -> Self {
        self.dims = dims;
        self
    }

    /// Sets [`window`](Self::window).
    #[must_use]
    pub fn with_window(mut self, steps: usize) -> Self {
        self.window = steps;
        self
    }

    /// Sets [`decay`](Self::decay).
    #[must_use]
    pub fn with_decay(mut self, decay: bool) -> Self {
        self.decay = decay;
        self
    }

    /// Sets [`association`](Self::association).
    #[must_use]
    pub fn with_association(mut self, association: Association) -> Self {
        self.association = association;
        self
    }

    /// Sets [`seed`](Self::seed).
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Checks every bound but that of the items' number.
    ///
    /// # Errors
    /// [`EmbedError::Config`] names the first setting outside its bounds.
    pub fn validate(&self) -> Result<()> {
        let check = |field, value: &dyn ToString, ok: bool, bound| match ok {
            true => Ok(()),
            false => Err(EmbedError::Config { field, value: value.to_string(), bound }),
        };
        check("BehaviourConfig::dims", &self.dims, self.dims >= 1, "at least 1")?;
        check("BehaviourConfig::window", &self.window, self.window >= 1, "at least 1")?;
        check("BehaviourConfig::oversample", &self.oversample, self.oversample <= 1_024, "at most 1,024")?;
        check("BehaviourConfig::power_iterations", &self.power_iterations, self.power_iterations <= 32, "at most 32")?;
        if let Association::MutualInformation { shift } = self.association {
            let field = "Association::MutualInformation::shift";
            check(field, &shift, shift.is_finite() && shift > 0.0, "finite and above 0")?;
        }
        Ok(())
    }
}
