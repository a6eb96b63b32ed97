//! Every user gets the most popular items.

use candle_core::{Device, Result, Tensor};

use super::check_items;
use crate::{batch::RaggedBatch, error::ModelError, seq2seq::ItemScorer};

/// Scores items by how often they occur in training, whatever the history. Items of the history stay in the ranking.
///
/// ```
/// use genrec_model::{ItemScorer, RaggedBatch, baseline::Popularity};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let scorer = Popularity::fit([3, 0, 8])?;
/// let mut histories = RaggedBatch::new();
/// histories.push(&[2], &[])?;
/// assert_eq!(scorer.scores(&histories)?.to_vec2::<f32>()?, [[3.0, 0.0, 8.0]]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Popularity {
    scores: Vec<f32>,
}

impl Popularity {
    /// Takes the number of training interactions of each item, in the order of the catalogue's rows. Counts above 2²⁴
    /// are rounded to `f32`.
    ///
    /// # Errors
    /// [`ModelError::Scorer`] when there is no item.
    pub fn fit(counts: impl IntoIterator<Item = u64>) -> std::result::Result<Self, ModelError> {
        let scores: Vec<f32> = counts.into_iter().map(|count| count as f32).collect();
        if scores.is_empty() {
            return Err(ModelError::Scorer {
                what: "number of items",
                found: "0".to_owned(),
                bound: "a scorer needs at least one; give one count an item of the catalogue",
            });
        }
        Ok(Self { scores })
    }

    /// Number of items.
    pub fn items(&self) -> usize {
        self.scores.len()
    }
}

impl ItemScorer for Popularity {
    fn scores(&self, histories: &RaggedBatch) -> Result<Tensor> {
        check_items(histories, self.items())?;
        Tensor::new(self.scores.as_slice(), &Device::Cpu)?.repeat((histories.len(), 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_history_gets_the_counts() {
        let scorer = Popularity::fit([5, 1, 0]).unwrap();
        let histories = RaggedBatch::from_parts(vec![0, 2], vec![0, 2, 2], vec![]).unwrap();
        assert_eq!(scorer.scores(&histories).unwrap().to_vec2::<f32>().unwrap(), [[5.0, 1.0, 0.0]; 2]);
    }

    #[test]
    fn errors() {
        assert!(matches!(Popularity::fit([]), Err(ModelError::Scorer { what: "number of items", .. })));
        let scorer = Popularity::fit([5, 1]).unwrap();
        let past = RaggedBatch::from_parts(vec![0, 2], vec![0, 2], vec![]).unwrap();
        assert!(scorer.scores(&past).unwrap_err().to_string().contains("names item 2, but the catalogue has 2 items"));
        assert!(scorer.scores(&RaggedBatch::new()).unwrap_err().to_string().contains("holds no sequence"));
    }
}
