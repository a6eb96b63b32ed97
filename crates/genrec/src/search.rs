//! Histories in, ranked items out: tokenisation, beam search and resolution over any model.

use std::sync::OnceLock;

use genrec_decode::{
    BeamSearch, Catalogue as ValidSids, Constraint, Decoder, DeviceBeamSearch, DeviceCatalogue, FixedLength,
    Hypothesis, Resolve,
};
use genrec_model::{RaggedBatch, Seq2Seq};
use serde::{Deserialize, Serialize};
use sid_index::{ItemId, SidIndex, SidVocab};

use crate::{
    Error, Result, artifacts,
    tokens::{History, SequenceTokenizer},
};

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
}

impl Default for DecodeConfig {
    fn default() -> Self {
        Self {
            format_version: artifacts::FORMAT_VERSION,
            beams: 20,
            users_per_batch: 64,
            max_history: 20,
            user_tokens: 2_000,
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
        if self.format_version != artifacts::FORMAT_VERSION {
            let (field, value) = ("decode.format_version", self.format_version.to_string());
            return Err(Error::Config { field, value, expected: "1, the version that this program writes" });
        }
        Ok(())
    }
}

/// The ranked items of one user.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranked {
    /// Items and log-probabilities (nats), best first, none twice.
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
}

impl<'a> Searcher<'a> {
    /// Searches over the items of `index`, whose tokens are those of `vocab`.
    pub fn new(index: &'a SidIndex, vocab: &'a SidVocab, config: &'a DecodeConfig) -> Self {
        Self { index, vocab, config, tables: None }
    }

    /// Keeps the catalogue's tables on the model's GPU in `tables`, which must be emptied when the index changes.
    pub(crate) fn with_tables(mut self, tables: &'a OnceLock<DeviceCatalogue>) -> Self {
        self.tables = Some(tables);
        self
    }

    /// Beam search over the catalogue for each history: at least `k` beams, every hypothesis an item. `progress` is told
    /// users done and users in all. Where the model is on a GPU, so is the search, unless it has more than
    /// [`DeviceBeamSearch::max_beams`].
    ///
    /// # Errors
    /// [`Error::UnknownItem`] when a history names an item outside the catalogue, and the errors of decoding.
    pub fn rank<M: Seq2Seq>(
        &self,
        model: &M,
        histories: &[History<'_>],
        k: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Ranked>> {
        let valid = ValidSids::new(self.index, self.vocab)?;
        let beams = self.beams(k);
        if model.device().is_cpu() || beams > DeviceBeamSearch::max_beams(model.device()) {
            return self.search(histories, &self.on_host(model, k, &valid), progress);
        }
        let (search, device) = (DeviceBeamSearch::new(beams), model.device());
        let kept = self.tables.and_then(OnceLock::get).filter(|tables| tables.device().same_device(device));
        let made;
        let tables = match kept {
            Some(tables) => tables,
            None => {
                made = DeviceCatalogue::new(&valid, device)?;
                // Another thread's are as good.
                let _ = self.tables.map(|cell| cell.set(made.clone()));
                &made
            }
        };
        self.search(histories, &|batch| Ok(search.decode(model, batch, tables)?), progress)
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
        let free = FixedLength::new(self.vocab, self.vocab.layout().positions())?;
        self.search(histories, &self.on_host(model, k, &free), progress)
    }

    fn beams(&self, k: usize) -> usize {
        self.config.beams.max(k)
    }

    fn on_host<M: Seq2Seq, C: Constraint>(
        &self,
        model: &M,
        k: usize,
        constraint: &C,
    ) -> impl Fn(&RaggedBatch) -> Result<Vec<Vec<Hypothesis>>> {
        let search = BeamSearch::new(self.beams(k));
        move |batch| Ok(search.decode(model, batch, std::slice::from_ref(constraint))?)
    }

    fn search(
        &self,
        histories: &[History<'_>],
        decode: &dyn Fn(&RaggedBatch) -> Result<Vec<Vec<Hypothesis>>>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Ranked>> {
        let tokenizer = SequenceTokenizer::new(self.index, self.vocab, self.config.max_history);
        // Histories of one length share a batch, so that the model pads little.
        let mut order: Vec<usize> = (0..histories.len()).collect();
        order.sort_by_key(|&i| (histories[i].items.len().min(self.config.max_history), i));
        let mut ranked = vec![Ranked::default(); histories.len()];
        let mut done = 0;
        for users in order.chunks(self.config.users_per_batch) {
            let batch = tokenizer.batch(&users.iter().map(|&i| histories[i]).collect::<Vec<_>>())?;
            let hypotheses = decode(&batch)?;
            for (&user, hypotheses) in users.iter().zip(hypotheses) {
                ranked[user] = self.resolve(&hypotheses)?;
            }
            done += users.len();
            progress(done, histories.len());
        }
        Ok(ranked)
    }

    fn resolve(&self, hypotheses: &[Hypothesis]) -> Result<Ranked> {
        let resolved = Resolve::Exact.resolve(self.index, self.vocab, hypotheses, hypotheses.len().max(1))?;
        let item = |hypothesis: &Hypothesis| self.index.item(&self.vocab.decode_tokens(&hypothesis.tokens)?);
        Ok(Ranked {
            items: resolved.items.iter().map(|found| (found.item, found.score)).collect(),
            generated: hypotheses.iter().map(item).collect(),
        })
    }
}
