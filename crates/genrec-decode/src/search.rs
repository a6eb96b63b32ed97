//! What all searches on the host have in common: prefixes of all users advance together, one call of the model a step.

use candle_core::{DType, Storage, Tensor};
use genrec_kernels::in_pool;
use genrec_model::{DecodeState, RaggedBatch, Seq2Seq};
use rayon::prelude::*;
use smallvec::SmallVec;

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
    pub(crate) tokens: SmallVec<[u32; 8]>,
    /// The place of the prefix when all that compete with it are sorted by their tokens.
    pub(crate) order: u32,
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

/// Tokens that follow a prefix alone, which are many lines of memory apart: they are looked at after all others, so that
/// fetching one does not wait for another.
#[derive(Debug, Default)]
pub(crate) struct Alone(Vec<(u32, u32)>);

impl Alone {
    /// Whether there are enough for their fetching to overlap; more would take memory for nothing.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= 1 << 12
    }
}

impl<C: Constraint> Step<'_, C> {
    /// Calls `f` with every allowed token of a prefix and its log-probability, which is finite.
    pub(crate) fn for_each_token<K>(
        &self,
        place: u32,
        beam: &Beam<C::State, K>,
        mut f: impl FnMut(u32, f32),
    ) -> Result<()> {
        let (row, mut failure) = (self.row(beam), None);
        self.constraint.for_each_allowed(&beam.state, &mut |token| match self.value(row, token) {
            Some(f32::NEG_INFINITY) => {}
            Some(value) => f(token, value),
            None => failure = Some(self.failure(place, row, token)),
        });
        failure.map_or(Ok(()), Err)
    }

    /// The same for tokens above `floor`, of which most others are turned away in groups; `f` returns the floor from then on.
    /// Tokens that are [`Alone`] are kept for [`for_each_alone`](Self::for_each_alone).
    #[inline]
    pub(crate) fn for_each_token_above<K>(
        &self,
        place: u32,
        beam: &Beam<C::State, K>,
        mut floor: f32,
        alone: &mut Alone,
        mut f: impl FnMut(u32, f32) -> f32,
    ) -> Result<()> {
        let (row, mut failure) = (self.row(beam), None);
        self.constraint.for_each_group(&beam.state, &mut |first, group| {
            if group.is_power_of_two() {
                alone.0.push((place, first + group.trailing_zeros()));
                return;
            }
            // What is not a number is above everything, to be found out below.
            let mut left = match row.get(first as usize..).and_then(<[f32]>::first_chunk) {
                Some(values) => group & not_up_to(values, floor),
                None => group,
            };
            while left != 0 {
                let token = first + left.trailing_zeros();
                left &= left - 1;
                match self.value(row, token) {
                    Some(value) if value > floor => floor = f(token, value),
                    Some(_) => {}
                    None => failure = Some(self.failure(place, row, token)),
                }
            }
        });
        failure.map_or(Ok(()), Err)
    }

    /// Calls `f` with each of the prefixes and tokens that were kept, and its log-probability, which is finite; keeps them no
    /// longer.
    #[inline]
    pub(crate) fn for_each_alone<K>(
        &self,
        beams: &[Beam<C::State, K>],
        Alone(alone): &mut Alone,
        mut f: impl FnMut(u32, &Beam<C::State, K>, u32, f32),
    ) -> Result<()> {
        for (place, token) in alone.drain(..) {
            let Some(beam) = beams.get(place as usize) else { continue };
            let row = self.row(beam);
            match self.value(row, token) {
                Some(f32::NEG_INFINITY) => {}
                Some(value) => f(place, beam, token, value),
                None => return Err(self.failure(place, row, token)),
            }
        }
        Ok(())
    }

    #[inline]
    fn row<K>(&self, beam: &Beam<C::State, K>) -> &[f32] {
        let rest = self.log_probs.get(beam.row * self.vocab_size..).unwrap_or_default();
        rest.get(..self.vocab_size).unwrap_or_default()
    }

    /// A log-probability; `None` for a value that is none.
    #[inline]
    fn value(&self, row: &[f32], token: u32) -> Option<f32> {
        row.get(token as usize).copied().filter(|&value| value < f32::INFINITY)
    }

    #[cold]
    fn failure(&self, place: u32, row: &[f32], token: u32) -> DecodeError {
        match row.get(token as usize) {
            Some(&value) => {
                DecodeError::NotALogProb { user: self.user, beam: place as usize, step: self.step, token, value }
            }
            None => DecodeError::UnknownToken { token, vocab_size: self.vocab_size },
        }
    }

    /// The chosen prefixes with their states.
    pub(crate) fn grow<K>(
        &self,
        beams: &[Beam<C::State, K>],
        choices: Vec<Choice<K>>,
    ) -> Result<Vec<Beam<C::State, K>>> {
        let mut grown = Vec::with_capacity(choices.len());
        let mut places: Vec<(u64, u32)> = Vec::with_capacity(choices.len());
        for Choice { parent, token, log_prob, mark } in choices {
            let Some(Beam { tokens, order, state, row, .. }) = beams.get(parent) else { continue };
            let (mut tokens, mut state) = (tokens.clone(), state.clone());
            // Prefixes of different parents are in the order of these; a user has less than 2^31 of them.
            let place = (u64::from(*order) << 33) | token.map_or(0, |token| u64::from(token) + 1);
            places.push((place, grown.len() as u32));
            if let Some(token) = token {
                state = self.constraint.accept(&state, token).ok_or(DecodeError::Inconsistent { token })?;
                tokens.push(token);
            }
            let complete = self.constraint.is_complete(&state);
            grown.push(Beam { tokens, order: 0, log_prob, state, complete, mark, row: *row });
        }
        places.sort_unstable();
        for (order, (_, grown_at)) in (0..).zip(places) {
            grown[grown_at as usize].order = order;
        }
        Ok(grown)
    }
}

/// A bit for each value that is not up to the floor.
#[inline]
fn not_up_to(values: &[f32; 64], floor: f32) -> u64 {
    // A byte each, which compilers make of many values at once; then the lowest bits of eight bytes are moved together.
    let mut flags = [0_u8; 64];
    for (flag, &value) in flags.iter_mut().zip(values) {
        *flag = u8::from(value > floor) | u8::from(value.is_nan());
    }
    let together = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    flags.as_chunks::<8>().0.iter().zip((0..64).step_by(8)).fold(0, |bits, (eight, at)| bits | (together(eight) << at))
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
    if model.run_size().is_none() {
        return run(0, batch);
    }
    if size == users {
        return in_pool(|| run(0, batch));
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
                let beam = |(order, mark)| {
                    let (tokens, state) = (SmallVec::new(), state.clone());
                    Beam { tokens, order, log_prob: 0.0, state, complete, mark, row: user }
                };
                (0..).zip(self.policy.start()).map(beam).collect()
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
            let found = user
                .into_iter()
                .map(|Beam { tokens, log_prob, mark, .. }| (Hypothesis { tokens: tokens.into_vec(), log_prob }, mark));
            self.policy.finish(found.collect())
        };
        Ok(beams.into_par_iter().map(finish).collect())
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
