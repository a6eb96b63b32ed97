//! Histories in, ranked items out: tokenisation, beam search and resolution over any model.

mod config;
mod rerank;
mod unseen;

use std::sync::OnceLock;

use genrec_decode::{
    AnySearch, BeamSearch, Catalogue as ValidSids, Decoder, DeviceBeamSearch, DeviceCatalogue, FixedLength, Hypothesis,
    Resolve,
};
use genrec_model::{RaggedBatch, Seq2Seq, baseline::CoOccurrence};
use sid_index::{ItemId, SidIndex, SidVocab};

pub use config::{DecodeConfig, Wanted};
pub use rerank::Rerank;
pub(crate) use unseen::UnseenScorer;

use crate::{
    Error, Result,
    tokens::{History, SequenceTokenizer},
};

/// Sequences for a batch of users, so many for each.
type Decode<'f> = dyn Fn(&RaggedBatch, &[History<'_>], usize) -> Result<Vec<Vec<Hypothesis>>> + 'f;

/// The ranked items of one user.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranked {
    /// Items, best first, none twice, each with the log-probability (nats) of the sequence that it was found by: of its own
    /// Semantic ID but where a prefix was enough; of a [`Rerank`] with what that adds.
    pub items: Vec<(ItemId, f32)>,
    /// For each generated sequence, best first, the item whose Semantic ID it is, or `None` for an invalid one.
    pub generated: Vec<Option<ItemId>>,
}

/// Searches any model over one index; borrows all it needs, so that training can validate a model that is not yet part of
/// a [`Recommender`](crate::Recommender).
#[derive(Debug, Clone, Copy)]
pub struct Searcher<'a> {
    index: &'a SidIndex,
    vocab: &'a SidVocab,
    config: &'a DecodeConfig,
    /// Where the catalogue's tables on a device are kept from one call to the next.
    tables: Option<&'a OnceLock<DeviceCatalogue>>,
    /// Whether training has seen each item.
    seen: &'a [bool],
    unseen_scorer: Option<&'a UnseenScorer>,
    near: Option<&'a CoOccurrence>,
}

impl<'a> Searcher<'a> {
    /// Searches over the items of `index`, whose tokens are those of `vocab`.
    pub fn new(index: &'a SidIndex, vocab: &'a SidVocab, config: &'a DecodeConfig) -> Self {
        Self { index, vocab, config, tables: None, seen: &[], unseen_scorer: None, near: None }
    }

    /// The same run with other settings, for one call: a service answers requests that ask for different searches from one
    /// [`Recommender`](crate::Recommender).
    ///
    /// # Errors
    /// [`Error::Config`] for a setting outside its bounds; other `user_tokens` than the model was trained with are
    /// [`Error::Mismatch`].
    pub fn with_config(mut self, config: &'a DecodeConfig) -> Result<Self> {
        config.validate()?;
        let (left_value, right_value) = (config.user_tokens as usize, self.config.user_tokens as usize);
        if left_value != right_value {
            let (what, left, right) = ("user tokens", "the setting", "the run");
            return Err(Error::Mismatch { what, left, left_value, right, right_value });
        }
        self.config = config;
        Ok(self)
    }

    /// Keeps the catalogue's tables on the model's GPU in `tables`, which must be emptied when the index changes.
    pub(crate) fn with_tables(mut self, tables: &'a OnceLock<DeviceCatalogue>) -> Self {
        self.tables = Some(tables);
        self
    }

    /// Tells which items training has seen, by row; [`DecodeConfig::cold_start`] asks. Items past the end count as seen.
    #[must_use]
    pub fn with_seen(mut self, seen: &'a [bool]) -> Self {
        self.seen = seen;
        self
    }

    /// Chooses unseen items by another model's scores.
    pub(crate) fn with_unseen_scorer(mut self, scorer: Option<&'a UnseenScorer>) -> Self {
        self.unseen_scorer = scorer;
        self
    }

    /// Tells what came near what, by row; [`DecodeConfig::rerank`] asks.
    #[must_use]
    pub fn with_co_occurrence(mut self, near: Option<&'a CoOccurrence>) -> Self {
        self.near = near;
        self
    }

    /// The ranked items of each history: at least `k`, and as many as the search has room for. `progress` is told users
    /// done and users in all. Where the model is on a GPU, so is a beam search over the catalogue, unless it has more than
    /// [`DeviceBeamSearch::max_beams`] or leaves the items of each history out.
    ///
    /// # Errors
    /// [`Error::UnknownItem`] when a history names an item outside the catalogue, [`Error::Config`] where items are to be ranked
    /// again and nobody has told what [came near](Self::with_co_occurrence) what, and the errors of decoding.
    pub fn rank<M: Seq2Seq>(
        &self,
        model: &M,
        histories: &[History<'_>],
        k: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Ranked>> {
        self.rank_wanted(model, histories, k, &Wanted::any(), progress)
    }

    /// As [`rank`](Self::rank), of the items that are wanted alone.
    ///
    /// # Errors
    /// As [`rank`](Self::rank), and [`DecodeError::Emptied`](genrec_decode::DecodeError::Emptied) names the filter that leaves
    /// a user no item.
    pub fn rank_wanted<M: Seq2Seq>(
        &self,
        model: &M,
        histories: &[History<'_>],
        k: usize,
        wanted: &Wanted<'_>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Ranked>> {
        if self.config.rerank.is_some() && self.near.is_none() {
            let (field, value) = ("rerank", "set, without a record of co-occurrences".to_owned());
            let expected = "absent, or a run that was trained with it, or `Recommender::with_co_occurrence`";
            return Err(Error::Config { field, value, expected });
        }
        let mut common = ValidSids::new(self.index, self.vocab)?;
        for (name, filter) in &wanted.filters {
            common = common.filtered(name, filter)?;
        }
        let by_user = wanted.unseen_by_user || self.config.exclude_history;
        let for_user = |history: &History<'_>| -> Result<ValidSids<'a>> {
            match by_user {
                true => {
                    // Of an old history some items may be gone.
                    let items = history.items.iter().copied().filter(|&item| self.index.contains(item));
                    Ok(common.clone().excluding(items)?)
                }
                false => Ok(common.clone()),
            }
        };
        if let Some(resolve) = self.config.free {
            let free = FixedLength::new(self.vocab, self.vocab.layout().positions())?;
            let decode = |batch: &RaggedBatch, _: &[History<'_>], width| {
                Ok(self.search_of(width).decode(model, batch, std::slice::from_ref(&free))?)
            };
            return self.search(histories, k, &decode, &for_user, resolve, progress);
        }
        let beams = self.width(k);
        if model.device().is_cpu()
            || self.config.search.is_some()
            || by_user
            || !wanted.filters.is_empty()
            || beams > DeviceBeamSearch::max_beams(model.device())
        {
            let decode = |batch: &RaggedBatch, users: &[History<'_>], width| {
                let search = self.search_of(width);
                if !by_user {
                    return Ok(search.decode(model, batch, std::slice::from_ref(&common))?);
                }
                let each = users.iter().map(for_user).collect::<Result<Vec<_>>>()?;
                Ok(search.decode(model, batch, &each)?)
            };
            return self.search(histories, k, &decode, &for_user, Resolve::Exact, progress);
        }
        let device = model.device();
        let kept = self.tables.and_then(OnceLock::get).filter(|tables| tables.device().same_device(device));
        let made;
        let tables = match kept {
            Some(tables) => tables,
            None => {
                made = DeviceCatalogue::new(&common, device)?;
                if let Some(cell) = self.tables {
                    // Another thread's are as good.
                    let _ = cell.set(made.clone());
                }
                &made
            }
        };
        let decode = |batch: &RaggedBatch, _: &[History<'_>], width| {
            Ok(DeviceBeamSearch::new(width).decode(model, batch, tables)?)
        };
        self.search(histories, k, &decode, &for_user, Resolve::Exact, progress)
    }

    /// Beam search without the catalogue, as the paper decodes: hypotheses that are no item are counted in
    /// [`Ranked::generated`] and left out of [`Ranked::items`].
    ///
    /// # Errors
    /// As [`rank`](Self::rank).
    pub fn rank_unconstrained<M: Seq2Seq>(
        &self,
        model: &M,
        histories: &[History<'_>],
        k: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Ranked>> {
        let config = DecodeConfig { search: None, cold_start: None, rerank: None, widen_to: 0, ..self.config.clone() };
        let config = config.with_free(Resolve::Exact);
        Searcher { config: &config, ..*self }.rank(model, histories, k, progress)
    }

    /// How many sequences a user gets at first.
    fn width(&self, k: usize) -> usize {
        let asked = self.config.beams.max(k).max(self.config.search.as_ref().map_or(0, AnySearch::width));
        asked.max(self.config.rerank.map_or(0, |rerank| rerank.candidates))
    }

    fn search_of(&self, width: usize) -> AnySearch {
        self.config.search.clone().unwrap_or(AnySearch::Beam(BeamSearch::default())).with_width(width)
    }

    fn search(
        &self,
        histories: &[History<'_>],
        k: usize,
        decode: &Decode<'_>,
        catalogue: &dyn Fn(&History<'_>) -> Result<ValidSids<'a>>,
        resolve: Resolve,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Ranked>> {
        let tokenizer = SequenceTokenizer::new(self.index, self.vocab, self.config.max_history);
        // Histories of one length share a batch, so that the model pads little.
        let mut order: Vec<usize> = (0..histories.len()).collect();
        order.sort_by_key(|&i| (histories[i].items.len().min(self.config.max_history), i));
        let mut ranked = vec![Ranked::default(); histories.len()];
        let mut done = 0;
        for users in order.chunks(self.config.users_per_batch) {
            let (mut left, mut width) = (users.to_vec(), self.width(k));
            loop {
                let of_users: Vec<History<'_>> = left.iter().map(|&i| histories[i]).collect();
                let hypotheses = decode(&tokenizer.batch(&of_users)?, &of_users, width)?;
                let mut short = Vec::new();
                for (&user, hypotheses) in left.iter().zip(&hypotheses) {
                    ranked[user] = self.resolve(&histories[user], hypotheses, k, resolve, catalogue)?;
                    // Who got fewer sequences than asked for has all that there are.
                    if ranked[user].items.len() < k && hypotheses.len() >= width {
                        short.push(user);
                    }
                }
                if short.is_empty() || width * 2 > self.config.widen_to {
                    break;
                }
                (left, width) = (short, width * 2);
            }
            done += users.len();
            progress(done, histories.len());
        }
        Ok(ranked)
    }

    fn resolve(
        &self,
        history: &History<'_>,
        hypotheses: &[Hypothesis],
        k: usize,
        resolve: Resolve,
        catalogue: &dyn Fn(&History<'_>) -> Result<ValidSids<'a>>,
    ) -> Result<Ranked> {
        let catalogue = catalogue(history)?;
        let item = |hypothesis: &Hypothesis| self.index.item(&self.vocab.decode_tokens(&hypothesis.tokens)?);
        let generated = hypotheses.iter().map(item).collect();
        let allowed = |item| catalogue.allows(item);
        let found = match &self.config.cold_start {
            Some(cold) => {
                let unseen = |item: ItemId| self.seen.get(item.index()).is_some_and(|seen| !seen);
                let scorer = self.unseen_scorer.filter(|_| cold.quota(k) > 0);
                let scores = scorer.map(|scorer| scorer.scores(history)).transpose()?;
                let score = scores.as_ref().map(|scores| |item| scores.of(item));
                let score = score.as_ref().map(|score| score as &dyn Fn(ItemId) -> f32);
                cold.resolve((self.index, self.vocab), hypotheses, k, unseen, allowed, score)?
            }
            None => {
                let all = hypotheses.len().max(k).max(1);
                resolve.resolve_where(self.index, self.vocab, hypotheses, all, allowed)?.items
            }
        };
        let items: Vec<(ItemId, f32)> = found.iter().map(|found| (found.item, found.score)).collect();
        let items = match (&self.config.rerank, self.near) {
            (Some(rerank), Some(near)) => {
                let allowed = |item| self.index.contains(item) && catalogue.allows(item);
                rerank.apply(near, history, &items, allowed)
            }
            _ => items,
        };
        Ok(Ranked { items, generated })
    }
}
