//! Sampling.

use genrec_kernels::CounterRng;
use genrec_model::{RaggedBatch, Seq2Seq};
use serde::{Deserialize, Serialize};

use crate::{
    constraint::Constraint,
    decoder::{Decoder, Hypothesis},
    error::{DecodeError, Result},
    search::{self, Beam, Choice, Policy, Step, key_of, mixed},
    shape::Shape,
};

/// Every draw with replacement is returned, whatever there is to draw from.
const MOST_DRAWS: usize = 1 << 20;

/// Draws sequences from the model's distribution over what the constraint allows, [shaped](Shape) as wanted.
///
/// Without replacement, the default, no sequence comes twice, and the first `n` of a list are a sample of `n`: the order is
/// that of drawing one after the other, each in proportion to its probability among those left (stochastic beam
/// search: Kool et al., *Stochastic Beams and Where to Find Them*, ICML 2019, arXiv 1903.06059, algorithm 1). It
/// takes as many rows of the model as a beam search. With replacement, every draw is independent of the others.
///
/// What is drawn depends on the seed and on the user's source tokens alone: neither on the other users of a batch nor on how
/// it is cut. The [`log_prob`](Hypothesis::log_prob) of a sequence is the model's own, before shaping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Sampling {
    /// Sequences drawn for every user. Default: 20, as many as [`BeamSearch`](crate::BeamSearch) keeps.
    pub samples: usize,
    /// Whether a sequence may be drawn again, of up to 1,048,576 in all. Default: no; a list of recommendations has no use for
    /// repetitions.
    pub replacement: bool,
    /// Temperature and cuts.
    #[serde(flatten)]
    pub shape: Shape,
    /// Where the random numbers begin.
    pub seed: u64,
    /// Steps after which a search that has not ended is an error. Default: 256, the longest Semantic ID.
    pub max_tokens: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            samples: 20,
            replacement: false,
            shape: Shape::default(),
            seed: 0,
            max_tokens: sid_index::SidLayout::MAX_POSITIONS,
        }
    }
}

impl Sampling {
    /// Draws so many sequences for each user.
    pub fn new(samples: usize, seed: u64) -> Self {
        Self { samples, seed, ..Self::default() }
    }

    /// Sets temperature and cuts.
    #[must_use]
    pub fn with_shape(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// Lets sequences be drawn again.
    #[must_use]
    pub fn with_replacement(mut self) -> Self {
        self.replacement = true;
        self
    }

    /// Checks all settings.
    ///
    /// # Errors
    /// [`DecodeError::NoBeams`] without a sample, [`DecodeError::Shape`] for a setting outside its bounds.
    pub fn validate(&self) -> Result<()> {
        if self.samples == 0 {
            return Err(DecodeError::NoBeams);
        }
        if self.replacement && self.samples > MOST_DRAWS {
            let (field, value) = ("samples", self.samples.to_string());
            return Err(DecodeError::Shape { field, value, bound: "at most 1048576 with replacement" });
        }
        self.shape.validate()
    }

    /// What may follow a prefix.
    fn options<C: Constraint, K>(&self, step: &Step<'_, C>, place: usize, beam: &Beam<C::State, K>) -> Result<Options> {
        let mut options = Vec::new();
        step.for_each_token(place as u32, beam, |token, value| options.push((token, value)))?;
        let shaped = self.shape.apply(step.step, &options);
        options.sort_unstable_by_key(|&(token, _)| token);
        Ok(Options { shaped, own: options })
    }
}

/// What may follow a prefix.
struct Options {
    /// Tokens and shaped log-probabilities, the most probable first.
    shaped: Vec<(u32, f64)>,
    /// Tokens and the model's log-probabilities, by token.
    own: Vec<(u32, f32)>,
}

impl Options {
    /// The model's log-probability of a token that is among them.
    fn log_prob(&self, token: u32) -> f32 {
        let place = self.own.binary_search_by_key(&token, |option| option.0).ok();
        place.and_then(|place| self.own.get(place)).map_or(0.0, |option| option.1)
    }
}

impl Decoder for Sampling {
    /// In the order of drawing.
    fn decode<M: Seq2Seq, C: Constraint>(
        &self,
        model: &M,
        batch: &RaggedBatch,
        constraints: &[C],
    ) -> Result<Vec<Vec<Hypothesis>>> {
        self.validate()?;
        match self.replacement {
            true => search::decode(&Independent(self), self.max_tokens, model, batch, constraints),
            false => search::decode(&Stochastic(self), self.max_tokens, model, batch, constraints),
        }
    }
}

/// Independent draws; those that share a prefix share its row of the model.
struct Independent<'a>(&'a Sampling);

impl Policy for Independent<'_> {
    /// The draws that have the prefix.
    type Mark = Vec<u32>;

    fn start(&self) -> Vec<Vec<u32>> {
        vec![(0..u32::try_from(self.0.samples).unwrap_or(u32::MAX)).collect()]
    }

    fn choose<C: Constraint>(
        &self,
        step: &Step<'_, C>,
        beams: &[Beam<C::State, Vec<u32>>],
    ) -> Result<Vec<Choice<Vec<u32>>>> {
        let rng = CounterRng::new(self.0.seed).stream(mixed(step.key ^ step.step as u64));
        let mut chosen = Vec::new();
        for (parent, beam) in beams.iter().enumerate() {
            if beam.complete {
                chosen.push(Choice { parent, token: None, log_prob: beam.log_prob, mark: beam.mark.clone() });
                continue;
            }
            let options = self.0.options(step, parent, beam)?;
            let mut draws: Vec<(usize, u32)> = beam
                .mark
                .iter()
                .filter_map(|&draw| Some((pick(&options.shaped, rng.f64_at(u64::from(draw)))?, draw)))
                .collect();
            draws.sort_unstable();
            for group in draws.chunk_by(|a, b| a.0 == b.0) {
                let Some(&(token, _)) = group.first().and_then(|&(place, _)| options.shaped.get(place)) else {
                    continue;
                };
                chosen.push(Choice {
                    parent,
                    token: Some(token),
                    log_prob: beam.log_prob + options.log_prob(token),
                    mark: group.iter().map(|&(_, draw)| draw).collect(),
                });
            }
        }
        Ok(chosen)
    }

    fn finish(&self, found: Vec<(Hypothesis, Vec<u32>)>) -> Vec<Hypothesis> {
        let mut draws: Vec<(u32, &Hypothesis)> =
            found.iter().flat_map(|(hypothesis, draws)| draws.iter().map(move |&draw| (draw, hypothesis))).collect();
        draws.sort_unstable_by_key(|&(draw, _)| draw);
        draws.into_iter().map(|(_, hypothesis)| hypothesis.clone()).collect()
    }
}

/// The option in whose share of the unit interval a number lies.
fn pick(shaped: &[(u32, f64)], at: f64) -> Option<usize> {
    let mut sum = 0.0;
    for (place, (_, log_prob)) in shaped.iter().enumerate() {
        sum += log_prob.exp();
        if at < sum {
            return Some(place);
        }
    }
    // Rounding may leave the sum a little below one.
    shaped.len().checked_sub(1)
}

/// Draws without replacement: the largest of all sequences' log-probabilities, each with Gumbel noise.
struct Stochastic<'a>(&'a Sampling);

/// Of a prefix: its shaped log-probability, and the largest perturbed log-probability of all sequences that begin with it.
#[derive(Debug, Clone, Copy)]
struct Perturbed {
    log_prob: f64,
    largest: f64,
}

impl Policy for Stochastic<'_> {
    type Mark = Perturbed;

    fn start(&self) -> Vec<Perturbed> {
        // What the largest of all is changes nothing but a shift.
        vec![Perturbed { log_prob: 0.0, largest: 0.0 }]
    }

    fn choose<C: Constraint>(
        &self,
        step: &Step<'_, C>,
        beams: &[Beam<C::State, Perturbed>],
    ) -> Result<Vec<Choice<Perturbed>>> {
        let rng = CounterRng::new(self.0.seed).stream(step.key);
        let mut all = Vec::new();
        for (parent, beam) in beams.iter().enumerate() {
            if beam.complete {
                all.push(Choice { parent, token: None, log_prob: beam.log_prob, mark: beam.mark });
                continue;
            }
            let options = self.0.options(step, parent, beam)?;
            let prefix = key_of(&beam.tokens);
            let noisy = |&(token, log_prob): &(u32, f64)| {
                let log_prob = beam.mark.log_prob + log_prob;
                let uniform = rng.f64_at(mixed(prefix ^ u64::from(token)));
                // Half a step away from zero, whose logarithm is none.
                let gumbel = -(-(uniform + 1.0 / (1_u64 << 54) as f64).ln()).ln();
                (token, log_prob, log_prob + gumbel)
            };
            let noisy: Vec<(u32, f64, f64)> = options.shaped.iter().map(noisy).collect();
            let largest = noisy.iter().map(|option| option.2).fold(f64::NEG_INFINITY, f64::max);
            for (token, log_prob, perturbed) in noisy {
                let mark = Perturbed { log_prob, largest: conditioned(perturbed, largest, beam.mark.largest) };
                let own = beam.log_prob + options.log_prob(token);
                all.push(Choice { parent, token: Some(token), log_prob: own, mark });
            }
        }
        all.sort_by(|a, b| {
            b.mark.largest.total_cmp(&a.mark.largest).then(a.parent.cmp(&b.parent)).then(a.token.cmp(&b.token))
        });
        all.truncate(self.0.samples);
        Ok(all)
    }
}

/// A perturbed value given that the largest of its siblings is not `largest` but `wanted` (Kool et al., appendix B.3).
fn conditioned(perturbed: f64, largest: f64, wanted: f64) -> f64 {
    if perturbed >= largest {
        return wanted;
    }
    let v = wanted - perturbed + (-(perturbed - largest).exp()).ln_1p();
    wanted - v.max(0.0) - (-v.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests;
