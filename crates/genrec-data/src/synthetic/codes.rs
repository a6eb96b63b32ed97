//! Codes of a catalogue of any size, without the items.

use crate::{DataError, Result, rng::Rng};

/// Distinct code tuples of so many items, in random order, for measuring what holds a catalogue.
///
/// With an `exponent` of zero all tuples are as likely. Above it the codes of every level follow Zipf's law, and which code
/// is the frequent one depends on the codes before: some prefixes have many items, most have few, as in real catalogues.
///
/// ```
/// let codes = genrec_data::distinct_codes(1000, &[256, 256, 256, 256], 0.8, 7)?;
/// assert_eq!(codes.len(), 1000 * 4);
/// # Ok::<(), genrec_data::DataError>(())
/// ```
///
/// # Shapes
/// The result is `(items, levels)`, row-major.
///
/// # Errors
/// [`DataError::Config`] when a level has no code, the levels have more than 2^64 tuples or fewer than twice the items, or
/// the exponent is negative, not finite, or so large that the tuples cannot be found.
pub fn distinct_codes(items: usize, sizes: &[u32], exponent: f64, seed: u64) -> Result<Vec<u32>> {
    let wrong = |field, value: f64, bound| Err(DataError::config(field, value, bound));
    let tuples = sizes.iter().try_fold(1_u64, |tuples, &size| tuples.checked_mul(u64::from(size)));
    let Some(tuples) = tuples.filter(|&tuples| tuples / 2 >= items as u64) else {
        return wrong(
            "distinct_codes: items",
            items as f64,
            "at most half of the tuples, of which there may be 2^64; add a level",
        );
    };
    if !(0.0..=16.0).contains(&exponent) {
        return wrong("distinct_codes: exponent", exponent, "0, for all tuples alike, to 16");
    }
    let law: Vec<Vec<f64>> = sizes.iter().map(|&size| cumulative(size, exponent)).collect();
    let mut rng = Rng::new(seed, STREAM);
    let mut drawn: Vec<u64> = Vec::with_capacity(items + items / 4);
    while drawn.len() < items {
        let before = drawn.len();
        for _ in 0..(items - before) + (items - before) / 8 + 1024 {
            let tuple = if exponent == 0.0 { rng.below(tuples as usize) as u64 } else { draw(&law, &mut rng) };
            drawn.push(tuple);
        }
        drawn.sort_unstable();
        drawn.dedup();
        if drawn.len() - before < ((items - before) / 256).max(1) {
            return wrong("distinct_codes: exponent", exponent, "smaller, as the tuples repeat too often; lower it");
        }
    }
    rng.shuffle(&mut drawn);
    let mut codes = vec![0; items * sizes.len()];
    for (row, mut tuple) in codes.chunks_exact_mut(sizes.len().max(1)).zip(drawn) {
        for (code, &size) in row.iter_mut().zip(sizes).rev() {
            *code = (tuple % u64::from(size)) as u32;
            tuple /= u64::from(size);
        }
    }
    Ok(codes)
}

const STREAM: u64 = 3;

/// Shares of the codes up to each, the most frequent first.
fn cumulative(size: u32, exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut shares: Vec<f64> = (1..=size)
        .map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        })
        .collect();
    shares.iter_mut().for_each(|share| *share /= sum);
    shares
}

/// One tuple as a number; ranks become codes by a shift that depends on the prefix.
fn draw(law: &[Vec<f64>], rng: &mut Rng) -> u64 {
    law.iter().fold(0, |prefix, shares| {
        let (size, at) = (shares.len() as u64, rng.unit());
        let rank = shares.partition_point(|&share| share <= at).min(shares.len() - 1) as u64;
        let shift = prefix.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        prefix * size + (rank + shift) % size
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tuples_are_distinct_in_range_and_as_skewed_as_asked() {
        let mut widest = Vec::new();
        for exponent in [0.0, 1.0] {
            let codes = distinct_codes(3000, &[32, 5, 64], exponent, 3).unwrap();
            let set: BTreeSet<Vec<u32>> = codes.chunks(3).map(<[u32]>::to_vec).collect();
            assert_eq!(set.len(), 3000);
            assert!(set.iter().all(|row| row[0] < 32 && row[1] < 5 && row[2] < 64));
            let below = |code| set.iter().filter(|row| row[0] == code).count();
            widest.push((0..32).map(below).max().unwrap());
            assert_eq!(codes, distinct_codes(3000, &[32, 5, 64], exponent, 3).unwrap());
            assert_ne!(codes, distinct_codes(3000, &[32, 5, 64], exponent, 4).unwrap());
        }
        assert!(widest[1] > 2 * widest[0], "{widest:?}");
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        for (items, sizes, exponent) in [
            (9, &[4, 4][..], 0.0),
            (1, &[0], 0.0),
            (1, &[u32::MAX; 3], 0.0),
            (1, &[8], -1.0),
            (1, &[8], f64::NAN),
            (100, &[256, 256], 16.0),
        ] {
            assert!(matches!(distinct_codes(items, sizes, exponent, 1), Err(DataError::Config { .. })), "{sizes:?}");
        }
        assert!(distinct_codes(0, &[], 0.0, 1).unwrap().is_empty());
    }
}
