//! Nearest neighbours of the history by content.

use candle_core::{Device, Result, Tensor};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use super::check_items;
use crate::{batch::RaggedBatch, error::ModelError, seq2seq::ItemScorer};

/// What of the history is compared with the items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KnnHistory {
    /// The embedding of the last item: what TIGER compares itself with.
    #[default]
    LastItem,
    /// The mean of all items' embeddings, each scaled to length 1 first so that every item counts the same.
    Mean,
}

/// Semantic-KNN of TIGER ([section 4.3](https://arxiv.org/abs/2305.05065)): scores items by the cosine of their content
/// embedding with the history's. Items of the history stay in the ranking.
///
/// An embedding of zeros has cosine 0 with everything, and so has an empty history.
///
/// ```
/// use genrec_model::{ItemScorer, RaggedBatch, baseline::{KnnHistory, SemanticKnn}};
/// use ndarray::array;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let embeddings = array![[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]];
/// let scorer = SemanticKnn::new(embeddings.view(), KnnHistory::LastItem)?;
/// let mut histories = RaggedBatch::new();
/// histories.push(&[1, 0], &[])?;
/// assert_eq!(scorer.scores(&histories)?.to_vec2::<f32>()?, [[1.0, 0.0, 0.6]]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SemanticKnn {
    /// `(items, features)`, rows of length 1 or 0.
    unit: Tensor,
    history: KnnHistory,
}

impl SemanticKnn {
    /// Takes the content embeddings of all items.
    ///
    /// # Shapes
    /// `embeddings`: `(items, features)`, in the order of the catalogue's rows.
    ///
    /// # Errors
    /// [`ModelError::Scorer`] when there is no item or a value is not finite.
    #[allow(clippy::needless_pass_by_value, reason = "an array view is a reference already")]
    pub fn new(embeddings: ArrayView2<'_, f32>, history: KnnHistory) -> std::result::Result<Self, ModelError> {
        let (items, features) = embeddings.dim();
        if items == 0 || features == 0 {
            return Err(ModelError::Scorer {
                what: "shape of the embeddings",
                found: format!("({items}, {features})"),
                bound: "a scorer needs at least one item and one feature",
            });
        }
        if let Some(row) = embeddings.rows().into_iter().position(|row| row.iter().any(|x| !x.is_finite())) {
            return Err(ModelError::Scorer {
                what: "embedding with NaN or an infinity",
                found: format!("item {row}"),
                bound: "cosines need finite numbers; embed the item anew",
            });
        }
        let mut unit = Vec::with_capacity(items * features);
        for row in embeddings.rows() {
            let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let scale = if norm > 0.0 { norm.recip() } else { 0.0 };
            unit.extend(row.iter().map(|x| (f64::from(*x) * scale) as f32));
        }
        Ok(Self { unit: Tensor::from_vec(unit, (items, features), &Device::Cpu)?, history })
    }

    /// Number of items.
    pub fn items(&self) -> usize {
        self.unit.dims().first().copied().unwrap_or(0)
    }

    /// The unit embedding of each history, one a row.
    fn queries(&self, histories: &RaggedBatch) -> Result<Tensor> {
        let rows = histories
            .sequences()
            .map(|history| {
                let from = match self.history {
                    KnnHistory::LastItem => history.len().saturating_sub(1),
                    KnnHistory::Mean => 0,
                };
                let items = &history[from..];
                if items.is_empty() {
                    return self.unit.get(0)?.zeros_like();
                }
                self.unit.index_select(&Tensor::new(items, &Device::Cpu)?, 0)?.sum(0)
            })
            .collect::<Result<Vec<_>>>()?;
        let sums = Tensor::stack(&rows, 0)?;
        // Opposite vectors may cancel out: the smallest normal number keeps 0 / 0 at 0.
        let norms = sums.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(f64::from(f32::MIN_POSITIVE))?;
        sums.broadcast_div(&norms)
    }
}

impl ItemScorer for SemanticKnn {
    fn scores(&self, histories: &RaggedBatch) -> Result<Tensor> {
        check_items(histories, self.items())?;
        self.queries(histories)?.matmul(&self.unit.t()?)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    use super::*;

    fn cosine(a: &[f64], b: &[f64]) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let norms = (dot(a, a) * dot(b, b)).sqrt();
        if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn scores_are_cosines(
            values in proptest::collection::vec(-5.0f32..5.0, 7 * 3),
            history in proptest::collection::vec(0u32..7, 0..5),
            mean in any::<bool>(),
        ) {
            let embeddings = Array2::from_shape_vec((7, 3), values).unwrap();
            let kind = if mean { KnnHistory::Mean } else { KnnHistory::LastItem };
            let scorer = SemanticKnn::new(embeddings.view(), kind).unwrap();
            let mut batch = RaggedBatch::new();
            batch.push(&history, &[]).unwrap();
            let scores = scorer.scores(&batch).unwrap().to_vec2::<f32>().unwrap();

            let rows: Vec<Vec<f64>> =
                embeddings.rows().into_iter().map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
            let kept = if mean { &history[..] } else { &history[history.len().saturating_sub(1)..] };
            let mut query = vec![0.0; 3];
            for item in kept {
                let row = &rows[*item as usize];
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                for (q, x) in query.iter_mut().zip(row) {
                    *q += x / norm;
                }
            }
            // A mean of nearly opposite vectors has no direction to compare.
            prop_assume!(kept.is_empty() || query.iter().map(|x| x * x).sum::<f64>() > 1e-6);
            for (item, row) in rows.iter().enumerate() {
                prop_assert!((f64::from(scores[0][item]) - cosine(&query, row)).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn nothing_to_compare_scores_zero() {
        let scorer = SemanticKnn::new(array![[0.0, 0.0], [1.0, 0.0], [-2.0, 0.0]].view(), KnnHistory::Mean).unwrap();
        let batch = RaggedBatch::from_parts(vec![0, 1, 2], vec![0, 0, 1, 3], vec![]).unwrap();
        assert_eq!(scorer.scores(&batch).unwrap().to_vec2::<f32>().unwrap(), [[0.0; 3]; 3]);
    }

    #[test]
    fn errors() {
        let empty = Array2::<f32>::zeros((0, 3));
        let found = SemanticKnn::new(empty.view(), KnnHistory::Mean);
        assert!(matches!(found, Err(ModelError::Scorer { what: "shape of the embeddings", .. })));
        let nan = array![[0.0, 1.0], [f32::NAN, 0.0]];
        let text = SemanticKnn::new(nan.view(), KnnHistory::Mean).unwrap_err().to_string();
        assert!(text.contains("item 1"), "{text}");
        let scorer = SemanticKnn::new(array![[1.0f32]].view(), KnnHistory::LastItem).unwrap();
        let past = RaggedBatch::from_parts(vec![1], vec![0, 1], vec![]).unwrap();
        assert!(scorer.scores(&past).unwrap_err().to_string().contains("names item 1"));
    }
}
