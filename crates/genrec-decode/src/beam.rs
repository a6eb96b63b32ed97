//! Beam search.

use candle_core::{DType, Storage, Tensor};
use genrec_model::{DecodeState, RaggedBatch, Seq2Seq};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    constraint::Constraint,
    decoder::{Decoder, Hypothesis},
    error::{DecodeError, Result},
    top::{Best, Candidate},
};

/// Keeps the `beams` most probable prefixes at every step.
///
/// With `c` the tokens of a hypothesis and `x` the source, its score is `sum_t log p(c_t | c_<t, x)`, in nats. No length
/// penalty, no early stop, no randomness: on sequences of one length the result equals that of Hugging Face's
/// `generate(num_beams=beams, length_penalty=0, do_sample=False)` with the same tokens allowed. Equal scores are ordered
/// by their tokens, ascending, both in the result and when a step decides what to keep.
///
/// The users of a run advance together, one call of the model a step; a model may prefer several smaller runs. Constraints are asked on the host, users in parallel. Beams
/// that cannot be filled are not carried along: a user has as many rows as live hypotheses, one at the first step. A
/// token of probability zero is never taken. A hypothesis that its constraint calls complete keeps its place at its
/// score and is not continued.
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

/// A prefix that may still grow, or a complete sequence.
struct Beam<S> {
    tokens: Vec<u32>,
    log_prob: f32,
    state: S,
    complete: bool,
}

/// What one step made of a user's beams.
struct Expanded<S> {
    beams: Vec<Beam<S>>,
    /// The model's row from which each live beam continues.
    rows: Vec<u32>,
}

/// One user's share of a step.
struct Step<'a> {
    user: usize,
    step: usize,
    vocab_size: usize,
    /// The model's row of the user's first live beam.
    first_row: usize,
    /// Row-major `(rows, vocabulary)` of all users.
    log_probs: &'a [f32],
}

impl Decoder for BeamSearch {
    fn decode<M: Seq2Seq, C: Constraint>(
        &self,
        model: &M,
        batch: &RaggedBatch,
        constraints: &[C],
    ) -> Result<Vec<Vec<Hypothesis>>> {
        self.validate()?;
        let users = batch.len();
        if users == 0 {
            return Err(DecodeError::EmptyBatch);
        }
        if constraints.len() != 1 && constraints.len() != users {
            return Err(DecodeError::Constraints { users, constraints: constraints.len() });
        }
        let run = |first: usize, batch: &RaggedBatch| {
            self.run(model, batch, first, &|user| constraints.get(user).unwrap_or(&constraints[0]))
        };
        let size = model.run_size().unwrap_or(users).min(users.div_ceil(rayon::current_num_threads())).max(1);
        if model.run_size().is_none() || size == users {
            return run(0, batch);
        }
        let firsts: Vec<usize> = (0..users).step_by(size).collect();
        let parts: Vec<_> = firsts.par_iter().map(|&first| run(first, &batch.slice(first..first + size))).collect();
        let mut all = Vec::with_capacity(users);
        // In order, so that of several failures the first user's is returned.
        for part in parts {
            match part {
                Ok(found) => all.extend(found),
                Err(error) => {
                    // What is wrong with a sequence is said with its row in the whole batch.
                    model.start(batch)?;
                    return Err(error);
                }
            }
        }
        Ok(all)
    }
}

impl BeamSearch {
    /// Searches for all users of a batch together; the first of them is user `first` of the whole.
    fn run<'c, M: Seq2Seq, C: Constraint + 'c>(
        &self,
        model: &M,
        batch: &RaggedBatch,
        first: usize,
        constraint: &(impl Fn(usize) -> &'c C + Sync),
    ) -> Result<Vec<Vec<Hypothesis>>> {
        let users = batch.len();
        let constraint = |user: usize| constraint(first + user);
        let mut state = model.start(batch)?;
        if state.rows() != users {
            return Err(DecodeError::StateRows { expected: users, got: state.rows() });
        }
        let mut beams: Vec<Vec<Beam<C::State>>> = (0..users).map(|user| vec![Beam::start(constraint(user))]).collect();
        // A user whose empty sequence is complete already takes part in no step.
        let mut rows: Vec<u32> =
            (0u32..).zip(&beams).filter(|(_, beams)| beams.iter().any(|b| !b.complete)).map(|(row, _)| row).collect();

        for step in 0.. {
            if rows.is_empty() {
                break;
            }
            if step == self.max_tokens {
                return Err(DecodeError::TooLong { max_tokens: self.max_tokens });
            }
            let unchanged = rows.len() == state.rows() && rows.iter().copied().eq(0..);
            if !unchanged {
                state.select_rows(&Tensor::from_slice(&rows, rows.len(), model.device())?)?;
            }
            let last: Vec<u32> = beams
                .iter()
                .flatten()
                .filter(|beam| !beam.complete)
                .map(|beam| beam.tokens.last().copied().unwrap_or(model.decoder_start_token()))
                .collect();
            let output = model.step(&Tensor::from_vec(last, rows.len(), model.device())?, &mut state)?;
            let expanded = with_host_rows(&output, [rows.len(), model.vocab_size()], |log_probs| {
                let mut first_row = 0;
                let work: Vec<(Step<'_>, Vec<Beam<C::State>>)> = std::mem::take(&mut beams)
                    .into_iter()
                    .enumerate()
                    .map(|(user, beams)| {
                        let live = beams.iter().filter(|beam| !beam.complete).count();
                        let work =
                            Step { user: first + user, step, vocab_size: model.vocab_size(), first_row, log_probs };
                        first_row += live;
                        (work, beams)
                    })
                    .collect();
                let expanded: Vec<Result<_>> = work
                    .into_par_iter()
                    .map(|(work, beams)| work.expand(self.beams, constraint(work.user - first), &beams))
                    .collect();
                // One after the other, so that of several failures the first user's is returned.
                expanded.into_iter().collect::<Result<Vec<_>>>()
            })?;
            rows.clear();
            for user in expanded {
                rows.extend(user.rows);
                beams.push(user.beams);
            }
        }
        tracing::trace!(users, beams = self.beams, "beam search done");
        Ok(beams.into_iter().map(|user| user.into_iter().map(Beam::finish).collect()).collect())
    }
}

impl<S: Clone> Beam<S> {
    fn start<C: Constraint<State = S>>(constraint: &C) -> Self {
        let state = constraint.start();
        Self { tokens: Vec::new(), log_prob: 0.0, complete: constraint.is_complete(&state), state }
    }

    fn finish(self) -> Hypothesis {
        Hypothesis { tokens: self.tokens, log_prob: self.log_prob }
    }
}

impl Step<'_> {
    /// Continues every live beam by every allowed token and keeps the best.
    fn expand<C: Constraint>(
        &self,
        limit: usize,
        constraint: &C,
        beams: &[Beam<C::State>],
    ) -> Result<Expanded<C::State>> {
        let mut by_tokens: Vec<usize> = (0..beams.len()).collect();
        by_tokens.sort_unstable_by(|&a, &b| beams[a].tokens.cmp(&beams[b].tokens));
        let mut order = vec![0u32; beams.len()];
        for (place, beam) in (0u32..).zip(by_tokens) {
            order[beam] = place;
        }

        let mut best = Best::new(limit);
        let mut failure = None;
        let mut row = self.first_row;
        let mut rows = Vec::with_capacity(beams.len());
        for ((parent, beam), &parent_order) in (0u32..).zip(beams).zip(&order) {
            // At most `rows`, which fitted in a tensor of u32.
            rows.push(row as u32);
            if beam.complete {
                best.push(Candidate { score: beam.log_prob, parent_order, parent, token: None });
                continue;
            }
            let log_probs = &self.log_probs[row * self.vocab_size..][..self.vocab_size];
            constraint.for_each_allowed(&beam.state, &mut |token| match log_probs.get(token as usize) {
                Some(&value) if value.is_nan() || value == f32::INFINITY => {
                    let (user, step) = (self.user, self.step);
                    failure = Some(DecodeError::NotALogProb { user, beam: parent as usize, step, token, value });
                }
                Some(&value) if value > f32::NEG_INFINITY => {
                    let score = beam.log_prob + value;
                    if score > f32::NEG_INFINITY {
                        best.push(Candidate { score, parent_order, parent, token: Some(token) });
                    }
                }
                Some(_) => {}
                None => failure = Some(DecodeError::UnknownToken { token, vocab_size: self.vocab_size }),
            });
            if let Some(error) = failure {
                return Err(error);
            }
            row += 1;
        }

        let mut expanded = Expanded { beams: Vec::new(), rows: Vec::new() };
        for candidate in best.into_sorted() {
            let parent = candidate.parent as usize;
            let Beam { tokens, state, .. } = &beams[parent];
            let mut tokens = tokens.clone();
            let mut state = state.clone();
            if let Some(token) = candidate.token {
                state = constraint.accept(&state, token).ok_or(DecodeError::Inconsistent { token })?;
                tokens.push(token);
            }
            let complete = constraint.is_complete(&state);
            if !complete {
                expanded.rows.push(rows[parent]);
            }
            expanded.beams.push(Beam { tokens, log_prob: candidate.score, state, complete });
        }
        Ok(expanded)
    }
}

/// Calls `f` with the values of a `(rows, vocabulary)` tensor on the host; on the CPU they are not copied.
fn with_host_rows<T>(tensor: &Tensor, expected: [usize; 2], f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    if tensor.dims() != expected {
        return Err(DecodeError::OutputShape { expected, got: tensor.dims().to_vec() });
    }
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    if let Storage::Cpu(values) = &*storage
        && let Some((start, end)) = layout.contiguous_offsets()
        && let Some(values) = values.as_slice::<f32>()?.get(start..end)
    {
        return f(values);
    }
    drop(storage);
    f(&tensor.flatten_all()?.to_vec1::<f32>()?)
}

#[cfg(test)]
mod tests;
