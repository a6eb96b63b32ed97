//! Beam search in groups that keep apart.

use std::collections::{HashMap, HashSet};

use genrec_model::{RaggedBatch, Seq2Seq};
use serde::{Deserialize, Serialize};

use crate::{
    beam::best_of,
    constraint::Constraint,
    decoder::{Decoder, Hypothesis},
    error::{DecodeError, Result},
    search::{self, Beam, Choice, Policy, Step},
};

/// Each group is a row of the model from the first step on.
const MOST_GROUPS: usize = 1 << 16;

/// Beam search in groups, each of which is told to take other tokens than those before it (Vijayakumar et al., *Diverse Beam
/// Search*, AAAI 2018, arXiv 1610.02424, with Hamming diversity).
///
/// A step chooses for one group after the other. A token costs `strength` nats for every prefix of an earlier group that
/// it was chosen for at the same step; no sequence is returned by two groups, so that groups that have gone the same way may
/// return fewer together than their beams. With one group it is [`BeamSearch`](crate::BeamSearch). The scores returned
/// are the model's, without the cost, and the list is sorted by them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DiverseBeamSearch {
    /// Sequences returned for every user, shared out among the groups. Default: 20.
    pub beams: usize,
    /// Number of groups, at most the beams. Default: 5.
    pub groups: usize,
    /// Nats. Default: 0.5, in the range 0.2 to 0.8 that the authors found good for most tasks.
    pub strength: f32,
    /// Steps after which a search that has not ended is an error. Default: 256, the longest Semantic ID.
    pub max_tokens: usize,
}

impl Default for DiverseBeamSearch {
    fn default() -> Self {
        Self { beams: 20, groups: 5, strength: 0.5, max_tokens: sid_index::SidLayout::MAX_POSITIONS }
    }
}

impl DiverseBeamSearch {
    /// So many beams in so many groups.
    pub fn new(beams: usize, groups: usize) -> Self {
        Self { beams, groups, ..Self::default() }
    }

    /// Sets what a token costs that an earlier group has chosen, in nats.
    #[must_use]
    pub fn with_strength(mut self, strength: f32) -> Self {
        self.strength = strength;
        self
    }

    /// Checks all settings.
    ///
    /// # Errors
    /// [`DecodeError::NoBeams`], [`DecodeError::Groups`] unless there are 1 to `beams` groups and the strength is
    /// finite and not negative, and [`DecodeError::Shape`] for more than 65,536 groups.
    pub fn validate(&self) -> Result<()> {
        let Self { beams, groups, strength, .. } = *self;
        if beams == 0 {
            return Err(DecodeError::NoBeams);
        }
        if groups == 0 || groups > beams || !strength.is_finite() || strength < 0.0 {
            return Err(DecodeError::Groups { groups, beams, strength });
        }
        if groups > MOST_GROUPS {
            let (field, value) = ("groups", groups.to_string());
            return Err(DecodeError::Shape { field, value, bound: "at most 65536" });
        }
        Ok(())
    }

    /// Beams of the groups before one, at most all.
    fn beams_before(&self, group: usize) -> usize {
        (group as u128 * self.beams as u128 / self.groups as u128) as usize
    }
}

impl Decoder for DiverseBeamSearch {
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

impl Policy for DiverseBeamSearch {
    /// The group.
    type Mark = usize;

    fn start(&self) -> Vec<usize> {
        (0..self.groups).collect()
    }

    fn choose<C: Constraint>(&self, step: &Step<'_, C>, beams: &[Beam<C::State, usize>]) -> Result<Vec<Choice<usize>>> {
        let (mut chosen, mut whole) = (Vec::new(), HashSet::new());
        let mut taken: HashMap<u32, f32> = HashMap::new();
        for group in 0..self.groups {
            let places: Vec<usize> = (0..beams.len()).filter(|&place| beams[place].mark == group).collect();
            let own: Vec<Beam<C::State, usize>> = places.iter().map(|&place| beams[place].clone()).collect();
            let limit = self.beams_before(group + 1) - self.beams_before(group);
            let rate = |token, score| score - self.strength * taken.get(&token).copied().unwrap_or(0.0);
            let mut left = limit;
            // As many more as other groups may have taken whole.
            for choice in best_of(step, &own, limit.saturating_add(whole.len()), rate)? {
                if left == 0 {
                    break;
                }
                let Some(parent) = own.get(choice.parent) else { continue };
                let mut tokens = parent.tokens.clone();
                tokens.extend(choice.token);
                let state =
                    choice.token.map_or(Some(parent.state.clone()), |t| step.constraint.accept(&parent.state, t));
                if state.is_some_and(|state| step.constraint.is_complete(&state)) && !whole.insert(tokens) {
                    continue;
                }
                left -= 1;
                chosen.push(Choice { parent: places[choice.parent], ..choice });
            }
            for token in chosen.iter().filter(|choice| choice.mark == group).filter_map(|choice| choice.token) {
                *taken.entry(token).or_insert(0.0) += 1.0;
            }
        }
        Ok(chosen)
    }

    fn finish(&self, found: Vec<(Hypothesis, usize)>) -> Vec<Hypothesis> {
        let mut found: Vec<Hypothesis> = found.into_iter().map(|(hypothesis, _)| hypothesis).collect();
        found.sort_by(|a, b| b.log_prob.total_cmp(&a.log_prob).then_with(|| a.tokens.cmp(&b.tokens)));
        found
    }
}

#[cfg(test)]
mod tests;
