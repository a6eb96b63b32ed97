//! Any of the built-in searches.

use genrec_model::{RaggedBatch, Seq2Seq};
use serde::{Deserialize, Serialize};

use crate::{
    beam::BeamSearch,
    constraint::Constraint,
    decoder::{Decoder, Hypothesis},
    diverse::DiverseBeamSearch,
    error::Result,
    exact::ExactSearch,
    sample::Sampling,
};

/// A built-in search, chosen by a file or a command line: tagged by `"type"` in its JSON form.
///
/// ```
/// use genrec_decode::AnySearch;
///
/// let search: AnySearch = serde_json::from_str(r#"{"type": "sampling", "samples": 50, "temperature": [1.5, 0.5]}"#)?;
/// assert!(matches!(search, AnySearch::Sampling(sampling) if sampling.samples == 50));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum AnySearch {
    /// See [`BeamSearch`].
    Beam(BeamSearch),
    /// See [`Sampling`].
    Sampling(Sampling),
    /// See [`DiverseBeamSearch`].
    Diverse(DiverseBeamSearch),
    /// See [`ExactSearch`].
    Exact(ExactSearch),
}

impl Default for AnySearch {
    fn default() -> Self {
        Self::Beam(BeamSearch::default())
    }
}

impl AnySearch {
    /// How many sequences it returns for a user, unless there are not so many.
    pub fn width(&self) -> usize {
        match self {
            Self::Beam(search) => search.beams,
            Self::Sampling(search) => search.samples,
            Self::Diverse(search) => search.beams,
            Self::Exact(search) => search.k,
        }
    }

    /// The same search for so many sequences.
    #[must_use]
    pub fn with_width(mut self, width: usize) -> Self {
        match &mut self {
            Self::Beam(search) => search.beams = width,
            Self::Sampling(search) => search.samples = width,
            Self::Diverse(search) => search.beams = width,
            Self::Exact(search) => search.k = width,
        }
        self
    }

    /// Checks all settings.
    ///
    /// # Errors
    /// As those of the search.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Beam(search) => search.validate(),
            Self::Sampling(search) => search.validate(),
            Self::Diverse(search) => search.validate(),
            Self::Exact(search) => search.validate(),
        }
    }
}

impl Decoder for AnySearch {
    fn decode<M: Seq2Seq, C: Constraint>(
        &self,
        model: &M,
        batch: &RaggedBatch,
        constraints: &[C],
    ) -> Result<Vec<Vec<Hypothesis>>> {
        match self {
            Self::Beam(search) => search.decode(model, batch, constraints),
            Self::Sampling(search) => search.decode(model, batch, constraints),
            Self::Diverse(search) => search.decode(model, batch, constraints),
            Self::Exact(search) => search.decode(model, batch, constraints),
        }
    }
}

#[cfg(test)]
mod tests;
