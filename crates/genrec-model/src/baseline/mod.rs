//! Scorers without training, which every generative model has to beat.

mod co_occurrence;
mod popularity;
mod semantic_knn;
mod transitions;

pub use co_occurrence::CoOccurrence;
pub use popularity::Popularity;
pub use semantic_knn::{KnnHistory, SemanticKnn};
pub use transitions::Transitions;

use crate::{
    batch::RaggedBatch,
    error::{InputError, ModelError},
};

/// Checks that there is a history and every item is in the catalogue.
pub(crate) fn check_items(histories: &RaggedBatch, items: usize) -> Result<(), InputError> {
    if histories.is_empty() {
        return Err(InputError::EmptyBatch);
    }
    for (row, history) in histories.sequences().enumerate() {
        if let Some(item) = history.iter().find(|item| **item as usize >= items) {
            return Err(InputError::Item { row, item: *item, items });
        }
    }
    Ok(())
}

/// The error of a sequence to learn from that names such an item.
fn unknown_item(item: u32) -> ModelError {
    ModelError::Scorer {
        what: "the highest item row in the sequences",
        found: item.to_string(),
        bound: "it must be below the number of items; count every item of the catalogue",
    }
}
