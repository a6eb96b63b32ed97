//! Sequences to a sparse symmetric matrix of associations.

use std::collections::HashMap;

use super::{Association, BehaviourConfig};
use crate::error::{EmbedError, Result};

/// The associations of each item with others, columns ascending.
pub(super) fn rows<S>(sequences: S, items: usize, config: &BehaviourConfig) -> Result<Vec<Vec<(u32, f32)>>>
where
    S: IntoIterator,
    S::Item: IntoIterator<Item = u32>,
{
    let mut pairs: Vec<HashMap<u32, f64>> = vec![HashMap::new(); items];
    let mut occurrences = vec![0.0_f64; items];
    let mut sequence = Vec::new();
    for items_of in sequences {
        sequence.clear();
        sequence.extend(items_of);
        if let Some(&item) = sequence.iter().find(|&&item| item as usize >= items) {
            return Err(EmbedError::UnknownItem { item, items });
        }
        for (at, &a) in sequence.iter().enumerate() {
            occurrences[a as usize] += 1.0;
            for (step, &b) in (1_u32..).zip(&sequence[at + 1..]).take(config.window) {
                if a != b {
                    let weight = if config.decay { 1.0 / f64::from(step) } else { 1.0 };
                    *pairs[a as usize].entry(b).or_default() += weight;
                    *pairs[b as usize].entry(a).or_default() += weight;
                }
            }
        }
    }
    let mut rows: Vec<Vec<(u32, f64)>> = pairs.into_iter().map(|row| row.into_iter().collect()).collect();
    rows.iter_mut().for_each(|row| row.sort_unstable_by_key(|(column, _)| *column));
    Ok(weigh(&rows, &occurrences, config.association))
}

fn weigh(rows: &[Vec<(u32, f64)>], occurrences: &[f64], association: Association) -> Vec<Vec<(u32, f32)>> {
    let sums: Vec<f64> = rows.iter().map(|row| row.iter().map(|(_, count)| count).sum()).collect();
    let total: f64 = sums.iter().sum();
    let value = |i: usize, j: usize, count: f64| match association {
        Association::MutualInformation { shift } => (count * total / (sums[i] * sums[j] * shift)).ln().max(0.0),
        Association::Cosine => count / ((1.0 + occurrences[i]) * (1.0 + occurrences[j])).sqrt(),
    };
    #[allow(clippy::cast_possible_truncation, reason = "small numbers, whose rounding no factorisation sees")]
    let weighed = |(i, row): (usize, &Vec<(u32, f64)>)| {
        row.iter()
            .map(|&(j, count)| (j, value(i, j as usize, count) as f32))
            .filter(|(_, value)| *value > 0.0)
            .collect()
    };
    rows.iter().enumerate().map(weighed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(window: usize, config: BehaviourConfig) -> Vec<Vec<(u32, f32)>> {
        rows([[0, 1, 2]], 4, &config.with_window(window)).unwrap()
    }

    #[test]
    fn mutual_information_is_that_of_the_counts() {
        // ln(1 * 4 / (1 * 2)) for each of the four entries.
        let value = 2.0_f32.ln();
        let rows = near(1, BehaviourConfig::mutual_information());
        assert_eq!(rows, [vec![(1, value)], vec![(0, value), (2, value)], vec![(1, value)], vec![]]);
        let association = Association::MutualInformation { shift: 2.0 };
        let none = near(1, BehaviourConfig::mutual_information().with_association(association));
        assert!(none.iter().all(Vec::is_empty), "a shift by two leaves nothing");
    }

    #[test]
    fn the_cosine_is_that_of_the_counts() {
        // Every item occurs once: counts over two, and half of it two steps apart.
        let rows = near(2, BehaviourConfig::default());
        assert_eq!(rows, [vec![(1, 0.5), (2, 0.25)], vec![(0, 0.5), (2, 0.5)], vec![(0, 0.25), (1, 0.5)], vec![]]);
        let flat = near(2, BehaviourConfig::default().with_decay(false));
        assert_eq!(flat[0], [(1, 0.5), (2, 0.5)]);
    }

    #[test]
    fn an_item_is_not_together_with_itself() {
        let rows = rows([[3, 3, 1]], 4, &BehaviourConfig::default().with_decay(false)).unwrap();
        assert_eq!(rows[3].len(), 1);
        assert!((rows[3][0].1 - 2.0 / 6.0_f32.sqrt()).abs() < 1e-6);
    }
}
