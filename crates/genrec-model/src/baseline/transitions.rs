//! Which item follows which: a first-order Markov table.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor};

use super::{check_items, unknown_item};
use crate::{ItemScorer, ModelError, RaggedBatch};

/// Scores an item by how often it followed the last item of the history, then by its popularity.
///
/// The score is `n(last, item) + popularity(item) / (1 + largest popularity)`: counts decide, popularity breaks their ties
/// and stands in where the last item was never seen or the history is empty.
///
/// ```
/// use genrec_model::{ItemScorer, RaggedBatch, baseline::Transitions};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let table = Transitions::fit([[0, 1, 2], [0, 1, 3], [3, 1, 2]], 4)?;
/// let mut histories = RaggedBatch::new();
/// histories.push(&[3, 1], &[])?; // item 1 was followed by item 2 twice, by item 3 once
/// let scores = table.scores(&histories)?.to_vec2::<f32>()?;
/// assert!(scores[0][2] > scores[0][3] && scores[0][3] > scores[0][0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Transitions {
    followers: HashMap<u32, Vec<(u32, u32)>>,
    popularity: Vec<f32>,
}

impl Transitions {
    /// Counts pairs of neighbours in sequences of item rows, oldest first, each below `items`.
    ///
    /// # Errors
    /// [`ModelError::Scorer`] when a sequence names an item outside the catalogue.
    pub fn fit<S>(sequences: impl IntoIterator<Item = S>, items: usize) -> std::result::Result<Self, ModelError>
    where
        S: IntoIterator<Item = u32>,
    {
        let mut counts: HashMap<u32, HashMap<u32, u32>> = HashMap::new();
        let mut popularity = vec![0_u64; items];
        for sequence in sequences {
            let mut last = None;
            for item in sequence {
                match popularity.get_mut(item as usize) {
                    Some(count) => *count += 1,
                    None => return Err(unknown_item(item)),
                }
                if let Some(last) = last.replace(item) {
                    *counts.entry(last).or_default().entry(item).or_default() += 1;
                }
            }
        }
        let most = popularity.iter().copied().max().unwrap_or(0) as f32;
        Ok(Self {
            followers: counts.into_iter().map(|(last, next)| (last, next.into_iter().collect())).collect(),
            popularity: popularity.into_iter().map(|count| count as f32 / (1.0 + most)).collect(),
        })
    }
}

impl ItemScorer for Transitions {
    fn scores(&self, histories: &RaggedBatch) -> Result<Tensor> {
        let items = self.popularity.len();
        check_items(histories, items).map_err(candle_core::Error::wrap)?;
        let mut scores = Vec::with_capacity(histories.len() * items);
        for history in histories.sequences() {
            let start = scores.len();
            scores.extend_from_slice(&self.popularity);
            let Some(last) = history.last() else { continue };
            for &(item, count) in self.followers.get(last).into_iter().flatten() {
                scores[start + item as usize] += count as f32;
            }
        }
        Tensor::from_vec(scores, (histories.len(), items), &Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unseen_last_item_falls_back_to_popularity() {
        let table = Transitions::fit([vec![0, 1], vec![2, 1]], 4).unwrap();
        let mut histories = RaggedBatch::new();
        histories.push(&[3], &[]).unwrap();
        histories.push(&[], &[]).unwrap();
        for row in table.scores(&histories).unwrap().to_vec2::<f32>().unwrap() {
            assert!(row[1] > row[0] && row[0] == row[2] && row[2] > row[3]);
        }
    }

    #[test]
    fn items_outside_the_catalogue_are_refused() {
        assert!(matches!(Transitions::fit([vec![0, 4]], 4), Err(ModelError::Scorer { found, .. }) if found == "4"));
        let table = Transitions::fit([vec![0, 1]], 4).unwrap();
        let mut histories = RaggedBatch::new();
        histories.push(&[4], &[]).unwrap();
        assert!(table.scores(&histories).is_err());
    }
}
