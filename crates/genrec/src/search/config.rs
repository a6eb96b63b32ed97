//! What a search is asked: how to search, and for which items.

use genrec_decode::{AnySearch, ColdStart, Resolve};
use serde::{Deserialize, Serialize};
use sid_index::ItemFilter;

use super::Rerank;
use crate::{Error, Result, artifacts};

/// How a run searches: `decode.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DecodeConfig {
    /// Version of the run directory's format.
    pub format_version: u32,
    /// Hypotheses kept a user. 20: the peers' usual width; wider ones cost time in proportion.
    pub beams: usize,
    /// Users decoded together. 64 keeps the logits of all beams within a few MiB.
    pub users_per_batch: usize,
    /// Items of a history that the model reads. 20, as in the paper (section 4).
    pub max_history: usize,
    /// Tokens that user ids are hashed onto, 0 for none. 2,000, as in the paper (section 4).
    pub user_tokens: u32,
    /// Another search than beam search; it returns as many sequences as are asked for, and at least `beams`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<AnySearch>,
    /// Decodes freely, as in the paper, and makes items of the sequences so; by default only Semantic IDs of items are
    /// generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<Resolve>,
    /// The greatest width that a search is repeated with, doubling it, for users who got too few items: without a
    /// constraint, where sequences are passed over. Default: 0, which never repeats one.
    #[serde(skip_serializing_if = "is_zero")]
    pub widen_to: usize,
    /// Makes room for items that training has not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,
    /// Leaves the items of a history out of what is found. Default: no, as the paper says nothing of it; where nobody takes an
    /// item twice, as in sets of reviews, they only take the place of others. A search on a GPU then runs on the host, since each
    /// user has a constraint of their own; a user who has taken every item is [`DecodeError::Emptied`](genrec_decode::DecodeError::Emptied).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exclude_history: bool,
    /// Ranks what is found again, together with what came near the items of the history in training. Default: no, as in the
    /// paper; preset [`best`](crate::pipeline::TigerConfig::best) does. Validation during training asks the model alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerank: Option<Rerank>,
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

impl Default for DecodeConfig {
    fn default() -> Self {
        Self {
            format_version: artifacts::FORMAT_VERSION,
            beams: 20,
            users_per_batch: 64,
            max_history: 20,
            user_tokens: 2_000,
            search: None,
            free: None,
            widen_to: 0,
            cold_start: None,
            exclude_history: false,
            rerank: None,
        }
    }
}

impl DecodeConfig {
    /// Another number of beams.
    #[must_use]
    pub fn with_beams(mut self, beams: usize) -> Self {
        self.beams = beams;
        self
    }

    /// Another number of users decoded together.
    #[must_use]
    pub fn with_users_per_batch(mut self, users: usize) -> Self {
        self.users_per_batch = users;
        self
    }

    /// Another search.
    #[must_use]
    pub fn with_search(mut self, search: AnySearch) -> Self {
        self.search = Some(search);
        self
    }

    /// Free generation.
    #[must_use]
    pub fn with_free(mut self, resolve: Resolve) -> Self {
        self.free = Some(resolve);
        self
    }

    /// The greatest width that a search is repeated with for users who got too few items.
    #[must_use]
    pub fn with_widen_to(mut self, width: usize) -> Self {
        self.widen_to = width;
        self
    }

    /// Room for unseen items.
    #[must_use]
    pub fn with_cold_start(mut self, cold_start: ColdStart) -> Self {
        self.cold_start = Some(cold_start);
        self
    }

    /// Whether the items of a history are left out of what is found.
    #[must_use]
    pub fn with_exclude_history(mut self, exclude: bool) -> Self {
        self.exclude_history = exclude;
        self
    }

    /// Another ranking of what is found, or the model's own.
    #[must_use]
    pub fn with_rerank(mut self, rerank: Option<Rerank>) -> Self {
        self.rerank = rerank;
        self
    }

    /// Another number of user tokens; only before training.
    #[must_use]
    pub fn with_user_tokens(mut self, tokens: u32) -> Self {
        self.user_tokens = tokens;
        self
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`Error::Config`] names the first setting outside its bounds.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in
            [("beams", self.beams), ("users_per_batch", self.users_per_batch), ("max_history", self.max_history)]
        {
            if value == 0 {
                return Err(Error::Config { field, value: value.to_string(), expected: "at least 1" });
            }
        }
        if let Some(search) = &self.search {
            search.validate()?;
        }
        if let Some(cold_start) = &self.cold_start {
            cold_start.validate()?;
            if matches!(self.free, Some(Resolve::LongestPrefix { .. })) {
                let (field, value) = ("free", "longest_prefix".to_owned());
                return Err(Error::Config {
                    field,
                    value,
                    expected: "exact or absent beside `cold_start`, which matches prefixes itself",
                });
            }
        }
        if let Some(rerank) = &self.rerank {
            rerank.validate()?;
            if matches!(self.search, Some(AnySearch::Sampling(_) | AnySearch::Diverse(_))) {
                let (field, value) = ("rerank", "set".to_owned());
                let expected = "absent beside sampling or diverse groups, whose order is their own";
                return Err(Error::Config { field, value, expected });
            }
            if self.cold_start.is_some() {
                let (field, value) = ("rerank", "set".to_owned());
                let expected = "absent beside `cold_start`: what training has not seen came near nothing";
                return Err(Error::Config { field, value, expected });
            }
        }
        if self.format_version != artifacts::FORMAT_VERSION {
            let (field, value) = ("decode.format_version", self.format_version.to_string());
            return Err(Error::Config { field, value, expected: "1, the version that this program writes" });
        }
        Ok(())
    }
}

/// Which items may be recommended to whom.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Wanted<'a> {
    /// Filters for all users, each with the name that an error calls it by.
    pub filters: Vec<(String, &'a ItemFilter)>,
    /// Leaves out the items of each user's history.
    pub unseen_by_user: bool,
}

impl<'a> Wanted<'a> {
    /// Every item, as in the paper's protocol.
    pub fn any() -> Self {
        Self::default()
    }

    /// One more filter.
    #[must_use]
    pub fn with_filter(mut self, name: impl Into<String>, filter: &'a ItemFilter) -> Self {
        self.filters.push((name.into(), filter));
        self
    }

    /// Leaves out the items of each user's history.
    #[must_use]
    pub fn without_history(mut self) -> Self {
        self.unseen_by_user = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use genrec_decode::{BeamSearch, Sampling};

    use super::*;

    #[test]
    fn prefixes_are_matched_once() {
        let cold = DecodeConfig::default().with_cold_start(ColdStart::default());
        assert!(cold.clone().with_free(Resolve::Exact).validate().is_ok());
        let both = cold.with_free(Resolve::LongestPrefix { at_least: 1 }).validate();
        assert!(matches!(both, Err(Error::Config { field: "free", .. })), "{both:?}");
    }

    #[test]
    fn unseen_items_are_not_reranked() {
        let both = DecodeConfig::default().with_cold_start(ColdStart::default()).with_rerank(Some(Rerank::default()));
        assert!(matches!(both.validate(), Err(Error::Config { field: "rerank", .. })));
    }

    #[test]
    fn only_searches_without_an_order_of_their_own_are_reranked() {
        let with = |search| DecodeConfig::default().with_search(search).with_rerank(Some(Rerank::default())).validate();
        assert!(with(AnySearch::Beam(BeamSearch::default())).is_ok());
        let sampled = with(AnySearch::Sampling(Sampling::new(9, 1)));
        assert!(matches!(sampled, Err(Error::Config { field: "rerank", .. })), "{sampled:?}");
    }
}
