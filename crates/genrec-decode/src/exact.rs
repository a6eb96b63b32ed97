//! The best sequences of all.

use genrec_model::{RaggedBatch, Seq2Seq};
use serde::{Deserialize, Serialize};

use crate::{
    beam::{BeamSearch, best_of},
    constraint::Constraint,
    decoder::{Decoder, Hypothesis},
    error::{DecodeError, Result},
    search::{self, Beam, Choice, Policy, Step},
};

/// The `k` most probable sequences of all that the constraint allows: what a beam search approximates.
///
/// A beam search gives `k` sequences first. No sequence can be better than its prefix, so a second walk keeps every prefix
/// that is at least as probable as the last of them and drops all others: what remains holds the true best. For a model
/// that knows what it wants that is a few hundred prefixes a user; for one that does not it is the catalogue, which
/// [`max_rows`](Self::max_rows) bounds. Meant for small catalogues and as the oracle for other searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ExactSearch {
    /// Sequences returned for every user. Default: 20.
    pub k: usize,
    /// Prefixes kept by the first search, and at least `k`: the better it is, the fewer the second keeps. Default: 50.
    pub beams: usize,
    /// The most prefixes of a user that the second may keep. Default: 65,536, some hundred megabytes of a small model.
    pub max_rows: usize,
    /// Steps after which a search that has not ended is an error. Default: 256, the longest Semantic ID.
    pub max_tokens: usize,
}

impl Default for ExactSearch {
    fn default() -> Self {
        Self { k: 20, beams: 50, max_rows: 1 << 16, max_tokens: sid_index::SidLayout::MAX_POSITIONS }
    }
}

impl ExactSearch {
    /// The `k` best.
    pub fn new(k: usize) -> Self {
        Self { k, ..Self::default() }
    }

    /// Sets the most prefixes that may be kept for a user.
    #[must_use]
    pub fn with_max_rows(mut self, max_rows: usize) -> Self {
        self.max_rows = max_rows;
        self
    }

    /// Checks that something is asked for.
    ///
    /// # Errors
    /// [`DecodeError::NoBeams`].
    pub fn validate(&self) -> Result<()> {
        if self.k == 0 { Err(DecodeError::NoBeams) } else { Ok(()) }
    }
}

impl Decoder for ExactSearch {
    /// # Errors
    /// [`DecodeError::TooWide`] when more prefixes than `max_rows` are as probable as the `k`-th sequence found first.
    fn decode<M: Seq2Seq, C: Constraint>(
        &self,
        model: &M,
        batch: &RaggedBatch,
        constraints: &[C],
    ) -> Result<Vec<Vec<Hypothesis>>> {
        self.validate()?;
        let first = BeamSearch::new(self.beams.max(self.k)).with_max_tokens(self.max_tokens);
        let found = first.decode(model, batch, constraints)?;
        let last = |user: &Vec<Hypothesis>| user.get(self.k - 1).map_or(f32::NEG_INFINITY, |last| last.log_prob);
        let above = Above { search: self, thresholds: found.iter().map(last).collect() };
        search::decode(&above, self.max_tokens, model, batch, constraints)
    }
}

/// Keeps all that is probable enough.
struct Above<'a> {
    search: &'a ExactSearch,
    /// Of every user.
    thresholds: Vec<f32>,
}

impl Policy for Above<'_> {
    type Mark = ();

    fn start(&self) -> Vec<()> {
        vec![()]
    }

    fn choose<C: Constraint>(&self, step: &Step<'_, C>, beams: &[Beam<C::State, ()>]) -> Result<Vec<Choice<()>>> {
        let threshold = self.thresholds.get(step.user).copied().unwrap_or(f32::NEG_INFINITY);
        // Rounding can make a log-probability a little larger than zero.
        let slack = 1e-5 * (1.0 + threshold.abs().min(f32::MAX / 1e6));
        let rate = |_, score| if score >= threshold - slack { score } else { f32::NEG_INFINITY };
        let kept = best_of(step, beams, self.search.max_rows.saturating_add(1), rate)?;
        if kept.len() > self.search.max_rows {
            return Err(DecodeError::TooWide { user: step.user, step: step.step, max_rows: self.search.max_rows });
        }
        Ok(kept)
    }

    fn finish(&self, found: Vec<(Hypothesis, ())>) -> Vec<Hypothesis> {
        found.into_iter().take(self.search.k).map(|(hypothesis, ())| hypothesis).collect()
    }
}

#[cfg(test)]
mod tests;
