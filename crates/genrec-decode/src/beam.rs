//! Beam search.

use genrec_model::{RaggedBatch, Seq2Seq};
use serde::{Deserialize, Serialize};

use crate::{
    constraint::Constraint,
    decoder::{Decoder, Hypothesis},
    error::{DecodeError, Result},
    search::{self, Alone, Beam, Choice, Policy, Step},
    top::{Best, Candidate},
};

/// Keeps the `beams` most probable prefixes at every step.
///
/// With `c` the tokens of a hypothesis and `x` the source, its score is `sum_t log p(c_t | c_<t, x)`, in nats. No length
/// penalty, no early stop, no randomness: on sequences of one length the result equals that of Hugging Face's
/// `generate(num_beams=beams, length_penalty=0, do_sample=False)` with the same tokens allowed. Equal scores are ordered
/// by their tokens, ascending, both in the result and when a step decides what to keep.
///
/// The users of a run advance together, one call of the model a step; a model may prefer several smaller runs. Constraints are
/// asked on the host, users in parallel. Beams that cannot be filled are not carried along: a user has as many rows as live
/// hypotheses, one at the first step. A token of probability zero is never taken. A hypothesis that its constraint calls
/// complete keeps its place at its score and is not continued.
///
/// With one beam the search is greedy; with as many beams as there are prefixes of any length it is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BeamSearch {
    /// Prefixes kept, and hypotheses returned, for every user. Default: 20, twice the longest list that the paper
    /// reports on, so that some may turn out to be no item.
    pub beams: usize,
    /// Steps after which a search that has not ended is an error. Default: 256, the longest Semantic ID.
    pub max_tokens: usize,
}

impl Default for BeamSearch {
    fn default() -> Self {
        Self { beams: 20, max_tokens: sid_index::SidLayout::MAX_POSITIONS }
    }
}

impl BeamSearch {
    /// A search with that many beams.
    pub fn new(beams: usize) -> Self {
        Self { beams, ..Self::default() }
    }

    /// Takes the most probable token at every step.
    pub fn greedy() -> Self {
        Self::new(1)
    }

    /// Sets the number of steps after which a search that has not ended is an error.
    #[must_use]
    pub fn with_max_tokens(mut self, max_tokens: usize) -> Self {
        self.max_tokens = max_tokens;
        self
    }

    /// Checks that there is a beam.
    ///
    /// # Errors
    /// [`DecodeError::NoBeams`].
    pub fn validate(&self) -> Result<()> {
        if self.beams == 0 { Err(DecodeError::NoBeams) } else { Ok(()) }
    }
}

impl Decoder for BeamSearch {
    fn decode<M: Seq2Seq, C: Constraint>(
        &self,
        model: &M,
        batch: &RaggedBatch,
        constraints: &[C],
    ) -> Result<Vec<Vec<Hypothesis>>> {
        self.validate()?;
        search::decode(self, self.max_tokens, model, batch, constraints)
    }
}

impl Policy for BeamSearch {
    type Mark = ();

    fn start(&self) -> Vec<()> {
        vec![()]
    }

    /// Continues every live beam by every allowed token and keeps the best.
    fn choose<C: Constraint>(&self, step: &Step<'_, C>, beams: &[Beam<C::State, ()>]) -> Result<Vec<Choice<()>>> {
        best_of(step, beams, self.beams, |_, score| score)
    }
}

/// A value up to which a sum with `log_prob` is surely below the threshold, whatever is rounded.
fn below(threshold: f32, log_prob: f32) -> f32 {
    threshold - log_prob - (threshold.abs() + log_prob.abs()) * 1e-6 - 1e-6
}

/// The `limit` best continuations of all prefixes by the score that `rate` gives a token with the sum so far, which is no
/// better than the sum.
pub(crate) fn best_of<C: Constraint, K: Clone>(
    step: &Step<'_, C>,
    beams: &[Beam<C::State, K>],
    limit: usize,
    rate: impl Fn(u32, f32) -> f32,
) -> Result<Vec<Choice<K>>> {
    let (mut best, mut alone) = (Best::new(limit), Alone::default());
    let push = |best: &mut Best, place: u32, beam: &Beam<C::State, K>, token: u32, value: f32| {
        let log_prob = beam.log_prob + value;
        let score = rate(token, log_prob);
        if score > f32::NEG_INFINITY && score >= best.threshold() {
            best.push(Candidate::new(score, log_prob, (place, beam.order), Some(token)));
        }
    };
    for (place, beam) in (0u32..).zip(beams) {
        if beam.complete {
            best.push(Candidate::new(beam.log_prob, beam.log_prob, (place, beam.order), None));
            continue;
        }
        let floor = below(best.threshold(), beam.log_prob);
        step.for_each_token_above(place, beam, floor, &mut alone, |token, value| {
            push(&mut best, place, beam, token, value);
            below(best.threshold(), beam.log_prob)
        })?;
        if alone.is_full() {
            step.for_each_alone(beams, &mut alone, |place, beam, token, value| {
                push(&mut best, place, beam, token, value);
            })?;
        }
    }
    step.for_each_alone(beams, &mut alone, |place, beam, token, value| push(&mut best, place, beam, token, value))?;
    let choice = |candidate: Candidate| {
        let parent = candidate.parent as usize;
        let mark = beams.get(parent)?.mark.clone();
        Some(Choice { parent, token: candidate.token(), log_prob: candidate.log_prob, mark })
    };
    Ok(best.into_sorted().into_iter().filter_map(choice).collect())
}

#[cfg(test)]
mod tests;
