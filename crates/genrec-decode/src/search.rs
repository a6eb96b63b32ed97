//! What all searches on the host have in common: prefixes of all users advance together, one call of the model a step.

use candle_core::{DType, Storage, Tensor};
use genrec_model::{DecodeState, RaggedBatch, Seq2Seq};
use rayon::prelude::*;

use crate::{
    constraint::Constraint,
    decoder::Hypothesis,
    error::{DecodeError, Result},
};

/// How prefixes are chosen.
pub(crate) trait Policy: Sync {
    /// What is remembered of a prefix beside its tokens and probability.
    type Mark: Clone + Send + Sync;

    /// The empty prefixes that a user begins with.
    fn start(&self) -> Vec<Self::Mark>;

    /// The prefixes of the next step, best first.
    fn choose<C: Constraint>(
        &self,
        step: &Step<'_, C>,
        beams: &[Beam<C::State, Self::Mark>],
    ) -> Result<Vec<Choice<Self::Mark>>>;

    /// The sequences in the order in which they are returned.
    fn finish(&self, found: Vec<(Hypothesis, Self::Mark)>) -> Vec<Hypothesis> {
        found.into_iter().map(|(hypothesis, _)| hypothesis).collect()
    }
}

/// A prefix that may still grow, or a complete sequence.
#[derive(Debug, Clone)]
pub(crate) struct Beam<S, K> {
    pub(crate) tokens: Vec<u32>,
    pub(crate) log_prob: f32,
    pub(crate) state: S,
    pub(crate) complete: bool,
    pub(crate) mark: K,
    /// The model's row, of a prefix that is not complete.
    pub(crate) row: usize,
}

/// A prefix of the next step.
#[derive(Debug, Clone)]
pub(crate) struct Choice<K> {
    /// Index among the prefixes of this step.
    pub(crate) parent: usize,
    /// What follows it; `None` for a complete sequence that stays.
    pub(crate) token: Option<u32>,
    pub(crate) log_prob: f32,
    pub(crate) mark: K,
}

/// One user's share of a step.
pub(crate) struct Step<'a, C> {
    /// Row of the whole batch.
    pub(crate) user: usize,
    /// A number that depends on the user's source alone, so that how a batch is cut changes no random choice.
    pub(crate) key: u64,
    pub(crate) step: usize,
    pub(crate) constraint: &'a C,
    pub(crate) vocab_size: usize,
    /// Row-major `(rows, vocabulary)` of all users.
    pub(crate) log_probs: &'a [f32],
}

impl<C: Constraint> Step<'_, C> {
    /// Calls `f` with every allowed token of a prefix and its log-probability, which is finite.
    pub(crate) fn for_each_token<K>(
        &self,
        place: usize,
        beam: &Beam<C::State, K>,
        mut f: impl FnMut(u32, f32),
    ) -> Result<()> {
        self.for_each_token_above(place, beam, |token, value| {
            f(token, value);
            f32::NEG_INFINITY
        })
    }

    /// The same, but `f` returns the log-probability up to which it wants to hear of no further token: most are turned away
    /// in groups.
    #[inline]
    pub(crate) fn for_each_token_above<K>(
        &self,
        place: usize,
        beam: &Beam<C::State, K>,
        mut f: impl FnMut(u32, f32) -> f32,
    ) -> Result<()> {
        let log_probs = self.log_probs.get(beam.row * self.vocab_size..).unwrap_or_default();
        let log_probs = log_probs.get(..self.vocab_size).unwrap_or_default();
        let (mut failure, mut floor) = (None, f32::NEG_INFINITY);
        self.constraint.for_each_group(&beam.state, &mut |first, group| {
            let rest = log_probs.get(first as usize..).unwrap_or_default();
            // What is not a number is above everything, to be found out below.
            let mut left = match rest.first_chunk::<64>() {
                Some(values) if group.count_ones() > 4 => group & not_up_to(values, floor),
                _ => group,
            };
            while left != 0 {
                let offset = left.trailing_zeros();
                left &= left - 1;
                let token = first + offset;
                match rest.get(offset as usize) {
                    Some(&value) if value.is_nan() || value == f32::INFINITY => {
                        let (user, step) = (self.user, self.step);
                        failure = Some(DecodeError::NotALogProb { user, beam: place, step, token, value });
                    }
                    Some(&value) if value > floor => floor = f(token, value),
                    Some(_) => {}
                    None => failure = Some(DecodeError::UnknownToken { token, vocab_size: self.vocab_size }),
                }
            }
        });
        failure.map_or(Ok(()), Err)
    }

    /// The chosen prefixes with their states.
    pub(crate) fn grow<K>(
        &self,
        beams: &[Beam<C::State, K>],
        choices: Vec<Choice<K>>,
    ) -> Result<Vec<Beam<C::State, K>>> {
        let mut grown = Vec::with_capacity(choices.len());
        for Choice { parent, token, log_prob, mark } in choices {
            let Some(Beam { tokens, state, row, .. }) = beams.get(parent) else { continue };
            let (mut tokens, mut state) = (tokens.clone(), state.clone());
            if let Some(token) = token {
                state = self.constraint.accept(&state, token).ok_or(DecodeError::Inconsistent { token })?;
                tokens.push(token);
            }
            let complete = self.constraint.is_complete(&state);
            grown.push(Beam { tokens, log_prob, state, complete, mark, row: *row });
        }
        Ok(grown)
    }
}

/// A bit for each value that is not up to the floor.
#[inline]
fn not_up_to(values: &[f32; 64], floor: f32) -> u64 {
    let mut bits = 0;
    for (byte, values) in values.as_chunks::<8>().0.iter().enumerate() {
        let mut eight = 0_u8;
        for (bit, &value) in values.iter().enumerate() {
            eight |= u8::from(value > floor || value.is_nan()) << bit;
        }
        bits |= u64::from(eight) << (8 * byte);
    }
    bits
}

/// A number for a sequence of tokens: the same on every machine.
pub(crate) fn key_of(tokens: &[u32]) -> u64 {
    tokens.iter().fold(0x243F_6A88_85A3_08D3, |key, &token| mixed(key ^ u64::from(token)))
}

/// A bijection that spreads (SplitMix64; Steele et al., OOPSLA 2014).
pub(crate) fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Searches for all users of a batch, in runs of a size that suits the model.
pub(crate) fn decode<M: Seq2Seq, C: Constraint, P: Policy>(
    policy: &P,
    max_tokens: usize,
    model: &M,
    batch: &RaggedBatch,
    constraints: &[C],
) -> Result<Vec<Vec<Hypothesis>>> {
    let users = batch.len();
    if users == 0 {
        return Err(DecodeError::EmptyBatch);
    }
    if constraints.len() != 1 && constraints.len() != users {
        return Err(DecodeError::Constraints { users, constraints: constraints.len() });
    }
    let run = |first: usize, batch: &RaggedBatch| {
        let constraint = |user: usize| constraints.get(user).unwrap_or(&constraints[0]);
        Run { policy, max_tokens, model, first, constraint: &constraint }.decode(batch)
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

/// A search for some users together.
struct Run<'a, M, P, F> {
    policy: &'a P,
    max_tokens: usize,
    model: &'a M,
    /// Row of the whole batch that the first user is.
    first: usize,
    constraint: &'a F,
}

impl<'c, M: Seq2Seq, C: Constraint + 'c, P: Policy, F: Fn(usize) -> &'c C + Sync> Run<'_, M, P, F> {
    fn decode(&self, batch: &RaggedBatch) -> Result<Vec<Vec<Hypothesis>>> {
        let (model, users) = (self.model, batch.len());
        let mut state = model.start(batch)?;
        if state.rows() != users {
            return Err(DecodeError::StateRows { expected: users, got: state.rows() });
        }
        let keys: Vec<u64> = batch.sequences().map(key_of).collect();
        let mut beams: Vec<Vec<Beam<C::State, P::Mark>>> = (0..users)
            .map(|user| {
                let constraint = (self.constraint)(self.first + user);
                let state = constraint.start();
                let complete = constraint.is_complete(&state);
                let beam =
                    |mark| Beam { tokens: Vec::new(), log_prob: 0.0, state: state.clone(), complete, mark, row: user };
                self.policy.start().into_iter().map(beam).collect()
            })
            .collect();
        for step in 0.. {
            // A user whose empty sequence is complete already takes part in no step.
            let mut rows: Vec<u32> = Vec::new();
            for beam in beams.iter_mut().flatten().filter(|beam| !beam.complete) {
                // At most the model's rows, which fitted in a tensor of u32.
                rows.push(beam.row as u32);
                beam.row = rows.len() - 1;
            }
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
            beams = with_host_rows(&output, [rows.len(), model.vocab_size()], |log_probs| {
                let grown: Vec<Result<_>> = beams
                    .par_iter()
                    .enumerate()
                    .map(|(user, beams)| {
                        let step = Step {
                            user: self.first + user,
                            key: keys.get(user).copied().unwrap_or_default(),
                            step,
                            constraint: (self.constraint)(self.first + user),
                            vocab_size: model.vocab_size(),
                            log_probs,
                        };
                        beams
                            .iter()
                            .filter(|beam| !beam.complete)
                            .for_each(|beam| step.constraint.prepare(&beam.state));
                        step.grow(beams, self.policy.choose(&step, beams)?)
                    })
                    .collect();
                // One after the other, so that of several failures the first user's is returned.
                grown.into_iter().collect::<Result<Vec<_>>>()
            })?;
        }
        tracing::trace!(users, "search done");
        let finish = |user: Vec<Beam<C::State, P::Mark>>| {
            let found =
                user.into_iter().map(|Beam { tokens, log_prob, mark, .. }| (Hypothesis { tokens, log_prob }, mark));
            self.policy.finish(found.collect())
        };
        Ok(beams.into_iter().map(finish).collect())
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
