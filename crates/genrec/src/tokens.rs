//! Histories of items as token sequences, and training windows as batches.

use genrec_data::{BatchConfig, Windows};
use genrec_model::RaggedBatch;
use genrec_train::BatchSource;
use sid_index::{ItemId, SidIndex, SidVocab};

use crate::{Error, Result};

/// What a user did, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History<'a> {
    /// The user's outside id, hashed onto a user token; `None` leaves the token out.
    pub user: Option<&'a str>,
    /// Items, oldest first; only the last ones that the model was trained on are read.
    pub items: &'a [ItemId],
}

/// Turns histories into the model's input: `user, c_{1,0} .. c_{1,m-1}, .., c_{n,0} .. c_{n,m-1}` (TIGER, section 3.2).
#[derive(Debug, Clone, Copy)]
pub struct SequenceTokenizer<'a> {
    index: &'a SidIndex,
    vocab: &'a SidVocab,
    max_history: usize,
}

impl<'a> SequenceTokenizer<'a> {
    /// Reads at most the last `max_history` items of a history.
    pub fn new(index: &'a SidIndex, vocab: &'a SidVocab, max_history: usize) -> Self {
        Self { index, vocab, max_history }
    }

    /// Appends the tokens of one history.
    ///
    /// # Errors
    /// [`Error::UnknownItem`] when an item has no Semantic ID.
    pub fn history(&self, history: &History<'_>, tokens: &mut Vec<u32>) -> Result<()> {
        tokens.extend(history.user.and_then(|user| self.vocab.user(user)));
        let start = history.items.len().saturating_sub(self.max_history);
        history.items[start..].iter().try_for_each(|&item| self.item(item, tokens))
    }

    /// Appends the tokens of one item.
    ///
    /// # Errors
    /// [`Error::UnknownItem`] when the item has no Semantic ID.
    pub fn item(&self, item: ItemId, tokens: &mut Vec<u32>) -> Result<()> {
        let sid = self
            .index
            .sid(item)
            .ok_or_else(|| Error::UnknownItem { item: item.to_string(), items: self.index.len() })?;
        self.vocab.encode_sid(&sid, tokens)?;
        Ok(())
    }

    /// Histories as one batch without targets.
    ///
    /// # Errors
    /// [`Error::UnknownItem`] when an item has no Semantic ID.
    pub fn batch(&self, histories: &[History<'_>]) -> Result<RaggedBatch> {
        let mut batch = RaggedBatch::new();
        let mut tokens = Vec::new();
        for history in histories {
            tokens.clear();
            self.history(history, &mut tokens)?;
            batch.push(&tokens, &[])?;
        }
        Ok(batch)
    }
}

/// Training windows as batches of tokens: the bridge from `genrec-data` to `genrec-train`.
#[derive(Debug)]
pub struct WindowBatches<'a> {
    windows: &'a Windows<'a>,
    users: &'a [String],
    tokenizer: SequenceTokenizer<'a>,
    config: BatchConfig,
    // The batches of one epoch; planning them means sorting, so each epoch is planned once.
    plan: std::cell::RefCell<Option<(u32, Vec<Vec<u32>>)>>,
}

impl<'a> WindowBatches<'a> {
    /// Batches of `windows`; `users[u]` is the outside id of user `u`.
    pub fn new(
        windows: &'a Windows<'a>,
        users: &'a [String],
        tokenizer: SequenceTokenizer<'a>,
        config: BatchConfig,
    ) -> Self {
        Self { windows, users, tokenizer, config, plan: std::cell::RefCell::new(None) }
    }

    fn with_plan<T>(&self, epoch: u32, read: impl FnOnce(&[Vec<u32>]) -> T) -> T {
        let mut plan = self.plan.borrow_mut();
        if plan.as_ref().is_none_or(|(planned, _)| *planned != epoch) {
            *plan = Some((epoch, self.windows.batches(self.config, epoch)));
        }
        read(plan.as_ref().map_or(&[], |(_, batches)| batches))
    }

    fn build(&self, rows: &[u32], epoch: u32) -> Result<RaggedBatch> {
        let mut batch = RaggedBatch::new();
        let (mut history, mut tokens, mut target) = (Vec::new(), Vec::new(), Vec::new());
        for &row in rows {
            let Some(window) = self.windows.thinned(row as usize, self.config.seed, epoch, &mut history) else {
                continue;
            };
            tokens.clear();
            target.clear();
            let user = self.users.get(window.user).map(String::as_str);
            self.tokenizer.history(&History { user, items: &history }, &mut tokens)?;
            self.tokenizer.item(window.target, &mut target)?;
            batch.push(&tokens, &target)?;
        }
        Ok(batch)
    }
}

impl BatchSource for WindowBatches<'_> {
    type Batch = RaggedBatch;

    fn num_batches(&self, epoch: u32) -> usize {
        self.with_plan(epoch, <[Vec<u32>]>::len)
    }

    fn batch(&self, epoch: u32, index: usize) -> std::result::Result<RaggedBatch, genrec_train::BoxError> {
        let rows = self.with_plan(epoch, |plan| plan.get(index).cloned().unwrap_or_default());
        Ok(self.build(&rows, epoch)?)
    }

    fn num_examples(&self) -> usize {
        self.windows.len()
    }
}
