//! Scorers without training, which every generative model has to beat.

mod popularity;
mod semantic_knn;
mod transitions;

pub use popularity::Popularity;
pub use semantic_knn::{KnnHistory, SemanticKnn};
pub use transitions::Transitions;

use crate::{batch::RaggedBatch, error::InputError};

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
