//! What unseen items are chosen by.

use std::{fmt, sync::Arc};

use genrec_model::{ItemScorer, RaggedBatch};
use sid_index::ItemId;

use crate::{Result, tokens::History};

/// A scorer of the first `items` rows of a catalogue.
#[derive(Clone)]
pub(crate) struct UnseenScorer {
    scorer: Arc<dyn ItemScorer + Send + Sync>,
    items: usize,
}

impl fmt::Debug for UnseenScorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnseenScorer").field("items", &self.items).finish_non_exhaustive()
    }
}

impl UnseenScorer {
    pub(crate) fn new(scorer: Arc<dyn ItemScorer + Send + Sync>, items: usize) -> Self {
        Self { scorer, items }
    }

    /// The score of every item that is known, for what is known of a history.
    pub(super) fn scores(&self, history: &History<'_>) -> Result<Scores> {
        let known = history.items.iter().filter(|item| item.index() < self.items);
        let rows: Vec<u32> = known.map(|item| item.0).collect();
        let mut batch = RaggedBatch::new();
        batch.push(&rows, &[])?;
        Ok(Scores(self.scorer.scores(&batch)?.flatten_all()?.to_vec1()?))
    }
}

/// Scores by row.
pub(super) struct Scores(Vec<f32>);

impl Scores {
    /// That of an item; of one that is not known, the lowest.
    pub(super) fn of(&self, item: ItemId) -> f32 {
        self.0.get(item.index()).copied().unwrap_or(f32::NEG_INFINITY)
    }
}
