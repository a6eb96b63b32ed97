//! Which items come soon after which: an item filter.

mod files;

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};

use super::{check_items, unknown_item};
use crate::{ItemScorer, ModelError, RaggedBatch};

/// What popularity adds to the score of the most popular item: less than any pair, so that it breaks ties alone.
const TIE: f32 = 1e-7;

/// Scores an item by how often it came soon after those of the history, or soon before: an item-to-item filter.
///
/// A pair of items that stand `d` places apart, [`REACH`](Self::REACH) at most, counts `1 / d` from the earlier to the later, and
/// a share [`BACKWARD`](Self::BACKWARD) of that the other way:
///
/// $$ w(i, j) = \frac{1}{\sqrt{(n_i + 1)(n_j + 1)}} \Big( \sum_{i \text{ before } j} \frac{1}{d} + b \sum_{j \text{ before } i} \frac{1}{d} \Big) $$
///
/// where $b$ is that share and $n$ how often an item occurs, so that what is everywhere is near to nothing. The score of $j$ is the sum of
/// $w(i, j)$ over the last items of the history, each with [`FADE`](Self::FADE) of the weight of the one after it. Popularity
/// breaks ties, and stands in where the history's items were never near another.
///
/// One pass over the sequences, no training: it knows transitions as [`Transitions`](super::Transitions) does, and those
/// around them.
///
/// ```
/// use genrec_model::{ItemScorer, RaggedBatch, baseline::CoOccurrence};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let filter = CoOccurrence::fit([vec![0, 1, 2], vec![0, 1, 3], vec![1, 2]], 4)?;
/// let mut histories = RaggedBatch::new();
/// histories.push(&[0, 1], &[])?; // item 2 follows twice, item 3 once, and what is rarer counts for more
/// let scores = filter.scores(&histories)?.to_vec2::<f32>()?;
/// assert!(scores[0][2] > scores[0][3] && scores[0][3] > scores[0][0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct CoOccurrence {
    /// By item: what came near it, ascending, with its weight.
    neighbours: Vec<Vec<(u32, f32)>>,
    popularity: Vec<f32>,
}

impl CoOccurrence {
    /// Pairs further apart, and items of a history further back, count for nothing. Chosen with the two below on the validation
    /// items of Amazon Beauty, own items left out: NDCG@10 .0607 without the pairs the other way; .0596 at 5, .0611 at 20.
    pub const REACH: usize = 10;
    /// Weight of an item of the history against the one after it. On the same items .0601 at 0.5, .0578 at 0.85.
    pub const FADE: f32 = 0.7;
    /// What a pair counts the other way round: the order of what is taken within a day is often not known. On the same items .0619
    /// against .0607 at 0 and .0568 at 1.
    pub const BACKWARD: f64 = 0.5;

    /// Counts pairs in sequences of item rows, oldest first, each below `items`.
    ///
    /// # Errors
    /// [`ModelError::Scorer`] when a sequence names an item outside the catalogue.
    pub fn fit<S>(sequences: impl IntoIterator<Item = S>, items: usize) -> std::result::Result<Self, ModelError>
    where
        S: IntoIterator<Item = u32>,
    {
        let mut pairs: Vec<BTreeMap<u32, f64>> = vec![BTreeMap::new(); items];
        let mut counts = vec![1.0_f64; items];
        for sequence in sequences {
            let mut recent: Vec<u32> = Vec::new();
            for item in sequence {
                let Some(count) = counts.get_mut(item as usize) else {
                    return Err(unknown_item(item));
                };
                *count += 1.0;
                for (distance, &before) in (1_u32..).zip(recent.iter().rev().take(Self::REACH)) {
                    let weight = 1.0 / f64::from(distance);
                    *pairs[before as usize].entry(item).or_default() += weight;
                    *pairs[item as usize].entry(before).or_default() += Self::BACKWARD * weight;
                }
                recent.push(item);
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "a weight")]
        let weighed = |(before, after): (usize, BTreeMap<u32, f64>)| {
            let norm = |item: u32| (counts[before] * counts[item as usize]).sqrt();
            after.into_iter().map(|(item, sum)| (item, (sum / norm(item)) as f32)).collect()
        };
        let neighbours = pairs.into_iter().enumerate().map(weighed).collect();
        let most = counts.iter().copied().fold(1.0, f64::max);
        #[allow(clippy::cast_possible_truncation, reason = "a share")]
        let popularity = counts.iter().map(|count| TIE * (count / most) as f32).collect();
        Ok(Self { neighbours, popularity })
    }

    /// Number of items that it was fitted over.
    pub fn items(&self) -> usize {
        self.neighbours.len()
    }

    /// The items that came near those of a history, ascending, with their scores but for the ties. Items that it was not fitted
    /// over have none near them.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let filter = genrec_model::baseline::CoOccurrence::fit([vec![0, 1, 2]], 4)?;
    /// assert_eq!(filter.near([1, 9]).iter().map(|(item, _)| *item).collect::<Vec<_>>(), [0, 2]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn near(&self, history: impl IntoIterator<Item = u32, IntoIter: DoubleEndedIterator>) -> Vec<(u32, f32)> {
        let (mut pairs, mut weight) = (Vec::new(), 1.0);
        for item in history.into_iter().rev().take(Self::REACH) {
            let neighbours = self.neighbours.get(item as usize).map_or(&[][..], Vec::as_slice);
            pairs.extend(neighbours.iter().map(|&(after, value)| (after, weight * value)));
            weight *= Self::FADE;
        }
        // Stable, so that sums run from the last item of the history to the first.
        pairs.sort_by_key(|&(item, _)| item);
        pairs.dedup_by(|next, sum| {
            let same = next.0 == sum.0;
            if same {
                sum.1 += next.1;
            }
            same
        });
        pairs
    }
}

impl ItemScorer for CoOccurrence {
    fn scores(&self, histories: &RaggedBatch) -> Result<Tensor> {
        let items = self.neighbours.len();
        check_items(histories, items).map_err(candle_core::Error::wrap)?;
        let mut scores = self.popularity.repeat(histories.len());
        for (history, row) in histories.sequences().zip(scores.chunks_mut(items.max(1))) {
            for (item, score) in self.near(history.iter().copied()) {
                row[item as usize] += score;
            }
        }
        Tensor::from_vec(scores, (histories.len(), items), &Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_the_sums_of_weighed_pairs() {
        // 0 before 1 twice at distance 1, 0 before 2 once at 2 and once at 1, 1 before 2 once at 1. The other way half as much.
        let filter = CoOccurrence::fit([vec![0, 1, 2], vec![0, 2], vec![0, 1]], 4).unwrap();
        let mut histories = RaggedBatch::new();
        histories.push(&[0, 1], &[]).unwrap();
        histories.push(&[3], &[]).unwrap();
        histories.push(&[], &[]).unwrap();
        let scores = filter.scores(&histories).unwrap().to_vec2::<f32>().unwrap();
        let (zero, one, two) = (4.0_f32, 3.0_f32, 3.0_f32);
        let expected = 1.0 / (one * two).sqrt() + 0.7 * 1.5 / (zero * two).sqrt();
        assert!((scores[0][2] - expected).abs() < 1e-6, "{scores:?}");
        assert!((scores[0][1] - 0.7 * 2.0 / (zero * one).sqrt()).abs() < 1e-6, "{scores:?}");
        assert!((scores[0][0] - 0.5 * 2.0 / (zero * one).sqrt()).abs() < 1e-6, "{scores:?}");
        assert!(scores[0][3] < 1e-6);
        assert!(scores[1..].iter().all(|row| row[0] > row[1] && row[1] > row[3] && row[0] < 1e-6));
    }

    #[test]
    fn what_is_further_back_than_the_reach_counts_for_nothing() {
        let sequence: Vec<u32> = (0..12).collect();
        let filter = CoOccurrence::fit([sequence.clone()], 12).unwrap();
        assert_eq!(filter.neighbours[0].last().map(|&(item, _)| item), Some(10));
        let mut histories = RaggedBatch::new();
        histories.push(&sequence, &[]).unwrap();
        histories.push(&sequence[2..], &[]).unwrap();
        let scores = filter.scores(&histories).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(scores[0], scores[1]);
    }

    #[test]
    fn what_is_near_is_what_is_scored() {
        let filter = CoOccurrence::fit([vec![0, 1, 2, 3, 1], vec![4, 2, 0], vec![3, 4]], 6).unwrap();
        let history = [0_u32, 2, 4, 2];
        let mut histories = RaggedBatch::new();
        histories.push(&history, &[]).unwrap();
        let scores = filter.scores(&histories).unwrap().to_vec2::<f32>().unwrap();
        let near = filter.near(history);
        assert!(near.is_sorted_by(|a, b| a.0 < b.0));
        for (item, score) in scores[0].iter().enumerate() {
            let found = near.iter().find(|(other, _)| *other as usize == item).map_or(0.0, |(_, value)| *value);
            assert!((score - found).abs() < 1e-6, "{item}: {score} {found}");
        }
        assert!(filter.near([]).is_empty() && filter.near([6, u32::MAX]).is_empty());
    }

    #[test]
    fn items_outside_the_catalogue_are_refused() {
        assert!(matches!(CoOccurrence::fit([vec![0, 4]], 4), Err(ModelError::Scorer { found, .. }) if found == "4"));
        let filter = CoOccurrence::fit([vec![0, 1]], 4).unwrap();
        let mut histories = RaggedBatch::new();
        histories.push(&[4], &[]).unwrap();
        assert!(filter.scores(&histories).is_err());
    }
}
