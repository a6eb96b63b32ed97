//! Sequences of a batch, checked and cut to what the model sees, and the negatives of their positions.

use genrec_kernels::CounterRng;

use super::config::{SasRecConfig, SasRecLoss};
use crate::{baseline::check_items, batch::RaggedBatch, error::InputError};

/// Stands for a negative that there is none of.
const NONE: u32 = u32::MAX;

/// One sequence to be trained on: each label is the item that follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Example<'a> {
    /// Its row of the batch.
    pub(super) row: usize,
    /// Every item of the row, those included that the model does not see.
    pub(super) sequence: &'a [u32],
    pub(super) inputs: &'a [u32],
    pub(super) labels: &'a [u32],
}

/// The sequences of a batch in which something is to be predicted; what lies before the last `max_len + 1` items is not
/// seen.
pub(super) fn examples<'a>(batch: &'a RaggedBatch, config: &SasRecConfig) -> Result<Vec<Example<'a>>, InputError> {
    check_items(batch, config.items)?;
    if !batch.labels().is_empty() {
        return Err(InputError::Labels { labels: batch.labels().len() });
    }
    let examples: Vec<Example<'a>> = batch
        .sequences()
        .enumerate()
        .filter(|(_, sequence)| sequence.len() > 1)
        .map(|(row, sequence)| {
            let seen = &sequence[sequence.len().saturating_sub(config.max_len + 1)..];
            Example { row, sequence, inputs: &seen[..seen.len() - 1], labels: &seen[1..] }
        })
        .collect();
    if examples.is_empty() { Err(InputError::NothingToPredict) } else { Ok(examples) }
}

/// Positions of all examples.
pub(super) fn positions(examples: &[Example<'_>]) -> usize {
    examples.iter().map(|example| example.labels.len()).sum()
}

/// The last items of each history that the model sees, by row.
pub(super) fn histories<'a>(batch: &'a RaggedBatch, config: &SasRecConfig) -> Result<Vec<&'a [u32]>, InputError> {
    check_items(batch, config.items)?;
    Ok(batch.sequences().map(|history| &history[history.len().saturating_sub(config.max_len)..]).collect())
}

/// Draws the negatives of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Negatives {
    items: usize,
    count: usize,
    rng: CounterRng,
}

impl Negatives {
    /// The negatives of that seed; `None` where the loss has none.
    pub(super) fn new(config: &SasRecConfig, seed: u64) -> Option<Self> {
        match config.loss {
            SasRecLoss::Bce { negatives } => {
                let rng = CounterRng::new(seed).named("negatives");
                Some(Self { items: config.items, count: negatives, rng })
            }
            SasRecLoss::FullCrossEntropy { .. } => None,
        }
    }

    /// Candidates of each position: the next item, then negatives.
    pub(super) fn per_position(&self) -> usize {
        1 + self.count
    }

    /// Appends the candidates of every position of an example. What is drawn depends on the seed, the example's row and its
    /// items alone.
    pub(super) fn append(&self, example: &Example<'_>, out: &mut Vec<u32>) {
        let mut held = example.sequence.to_vec();
        held.sort_unstable();
        held.dedup();
        // The number of items that are not held below each that is.
        for (below, item) in (0..).zip(&mut held) {
            *item -= below;
        }
        let free = (self.items - held.len()) as u64;
        let rng = self.rng.stream(example.row as u64);
        let mut counter = 0;
        for label in example.labels {
            out.push(*label);
            for _ in 0..self.count {
                let drawn = rng.below(counter, free) as u32;
                counter += 1;
                let skipped = held.partition_point(|below| *below <= drawn) as u32;
                out.push(if free == 0 { NONE } else { drawn + skipped });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(items: usize, sequence: &[u32], negatives: usize, seed: u64) -> Vec<u32> {
        let config = SasRecConfig::new(items).with_loss(SasRecLoss::bce(negatives));
        let mut batch = RaggedBatch::new();
        batch.push(sequence, &[]).unwrap();
        let mut out = Vec::new();
        Negatives::new(&config, seed).unwrap().append(&examples(&batch, &config).unwrap()[0], &mut out);
        out
    }

    #[test]
    fn negatives_are_uniform_over_what_the_sequence_does_not_hold() {
        let mut counts = [0u32; 9];
        for seed in 0..400 {
            let drawn = candidates(9, &[0, 4, 3, 4, 8], 5, seed);
            assert_eq!(drawn.len(), 4 * 6);
            assert_eq!(drawn.iter().step_by(6).copied().collect::<Vec<_>>(), [4, 3, 4, 8]);
            drawn.chunks(6).flat_map(|drawn| &drawn[1..]).for_each(|item| counts[*item as usize] += 1);
        }
        for (item, count) in counts.into_iter().enumerate() {
            let expected = if [0, 3, 4, 8].contains(&item) { 0..1 } else { 1450..1750 };
            assert!(expected.contains(&count), "{item}: {count}");
        }
    }

    #[test]
    fn a_sequence_of_every_item_has_none() {
        assert_eq!(candidates(3, &[2, 0, 1], 2, 0), [0, NONE, NONE, 1, NONE, NONE]);
    }

    #[test]
    fn sequences_are_cut_to_the_last_positions() {
        let config = SasRecConfig::new(9).with_max_len(2);
        let batch = RaggedBatch::from_parts(vec![1, 2, 3, 4, 5, 6, 7], vec![0, 0, 1, 5, 7], vec![]).unwrap();
        let found = examples(&batch, &config).unwrap();
        let parts: Vec<_> = found.iter().map(|example| (example.row, example.inputs, example.labels)).collect();
        assert_eq!(parts, [(2, &[3, 4][..], &[4, 5][..]), (3, &[6][..], &[7][..])]);
        assert_eq!((found[0].sequence, positions(&found)), (&[2, 3, 4, 5][..], 3));
        assert_eq!(histories(&batch, &config).unwrap(), [&[][..], &[1], &[4, 5], &[6, 7]]);
    }
}
