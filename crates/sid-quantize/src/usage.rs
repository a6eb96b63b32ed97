//! How well codes are spread, and what they say about the items that have them.
//!
//! [`CodeReport`] needs the codes alone: use of each codebook, collisions. [`reconstruction_error`] compares embeddings with
//! what their codes stand for, [`NeighbourReport`] asks whether items with a common prefix are near each other and whether
//! near items have one, and [`PurityReport`] whether they belong to one category.
//!
//! *Entropy* of a level is `H = -sum_k p_k log2 p_k` over the shares `p_k` of items with code `k`, in bits; its
//! *perplexity* is `2^H`, the number of equally used codes that would have the same entropy. The *collision rate* is
//! `1 - distinct tuples / items`, before any suffix or repair.

mod neighbours;
mod purity;
mod reconstruction;
mod scan;

use ndarray::{ArrayView1, ArrayView2};
use serde::{Deserialize, Serialize};

pub use neighbours::{NeighbourConfig, NeighbourReport, PrefixNeighbours, PrefixPairs};
pub use purity::{PrefixPurity, PurityReport};
pub use reconstruction::{ReconstructionError, reconstruction_error};
pub use scan::encode_rows;
pub(crate) use scan::{pass, scan};

use crate::{QuantizeError, Result};

/// Use of one level's codebook.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LevelUsage {
    /// Codes in the codebook.
    pub size: u32,
    /// Codes that at least one item has.
    pub used: u32,
    /// `2^entropy_bits`, from 1 (all items share one code) to `size` (all codes equally used); 0 without items.
    pub perplexity: f64,
    /// Entropy of the codes' shares, in bits.
    pub entropy_bits: f64,
    /// Gini coefficient of the items a code, over all codes of the codebook: 0 where all are equally used, `1 - 1 / size`
    /// where all items share one code; 0 without items, and in reports of versions that did not measure it.
    #[serde(default)]
    pub gini: f64,
}

impl LevelUsage {
    /// Share of the codebook that is used, in `0..=1`.
    pub fn share(&self) -> f64 {
        if self.size == 0 { 0.0 } else { f64::from(self.used) / f64::from(self.size) }
    }
}

/// Use of every codebook, and how many items share their codes with another.
///
/// ```
/// use ndarray::array;
/// use sid_quantize::usage::CodeReport;
///
/// let codes = array![[0_u32, 1], [0, 1], [1, 0], [1, 1]];
/// let report = CodeReport::of(codes.view(), &[2, 2])?;
/// assert_eq!(report.distinct_sids, 3);
/// assert_eq!(report.collision_rate, 0.25);
/// assert_eq!(report.levels[0].perplexity, 2.0);
/// # Ok::<(), sid_quantize::QuantizeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CodeReport {
    /// Use of each level's codebook, coarse to fine.
    pub levels: Vec<LevelUsage>,
    /// Number of items.
    pub items: usize,
    /// Distinct code tuples.
    pub distinct_sids: usize,
    /// `1 - distinct_sids / items`; 0 without items.
    pub collision_rate: f64,
    /// Items that share their codes with at least one other item.
    pub colliding_items: usize,
    /// Items in the largest group with the same codes; the suffix needs at least so many values.
    pub largest_group: usize,
    /// Distinct prefixes of one code, two codes, and so on; the last equals `distinct_sids`.
    pub distinct_prefixes: Vec<usize>,
}

impl CodeReport {
    /// Measures the codes of a catalogue.
    ///
    /// # Shapes
    /// - `codes`: `(items, levels)`
    /// - `sizes`: `(levels,)`, codes in each codebook
    ///
    /// # Errors
    /// [`QuantizeError::LevelMismatch`] and [`QuantizeError::CodeOutOfRange`].
    pub fn of(codes: ArrayView2<'_, u32>, sizes: &[u32]) -> Result<Self> {
        let (items, depth) = codes.dim();
        if depth != sizes.len() {
            return Err(QuantizeError::LevelMismatch { expected: sizes.len(), got: depth });
        }
        let mut levels = Vec::with_capacity(depth);
        for (level, (&size, column)) in sizes.iter().zip(codes.columns()).enumerate() {
            if let Some(item) = column.iter().position(|&code| code >= size) {
                return Err(QuantizeError::CodeOutOfRange { item, level, code: column[item], size });
            }
            levels.push(level_usage(column, size));
        }

        let mut order: Vec<usize> = (0..items).collect();
        sort_by_codes(codes, &mut order);
        let mut distinct_prefixes = vec![usize::from(items > 0); depth];
        let (mut colliding_items, mut largest_group, mut group) = (0, 0, 0_usize);
        let mut close = |group: usize| {
            largest_group = largest_group.max(group);
            if group > 1 {
                colliding_items += group;
            }
        };
        for (place, &item) in order.iter().enumerate() {
            let shared = match place.checked_sub(1) {
                Some(before) => shared_prefix(codes, item, order[before]),
                None => depth,
            };
            for count in &mut distinct_prefixes[shared..] {
                *count += 1;
            }
            if shared < depth {
                close(group);
                group = 0;
            }
            group += 1;
        }
        close(group);
        let distinct_sids = distinct_prefixes.last().copied().unwrap_or(usize::from(items > 0));
        let collision_rate = if items == 0 { 0.0 } else { 1.0 - distinct_sids as f64 / items as f64 };
        Ok(Self { levels, items, distinct_sids, collision_rate, colliding_items, largest_group, distinct_prefixes })
    }
}

fn level_usage(column: ArrayView1<'_, u32>, size: u32) -> LevelUsage {
    // Sorting needs memory for the items alone, however large the codebook claims to be.
    let mut sorted: Vec<u32> = column.to_vec();
    sorted.sort_unstable();
    let total = sorted.len() as f64;
    let mut counts: Vec<usize> = sorted.chunk_by(|a, b| a == b).map(<[u32]>::len).collect();
    counts.sort_unstable();
    let used = counts.len() as u32;
    let (mut entropy_bits, mut gini) = (0.0, 0.0);
    for (place, &count) in counts.iter().enumerate() {
        let share = count as f64 / total;
        entropy_bits -= share * share.log2();
        // Codes that are not used come first in the order of use and add nothing to the sum.
        let rank = f64::from(size - used) + place as f64 + 1.0;
        gini += share * (2.0 * rank - f64::from(size) - 1.0) / f64::from(size);
    }
    // `0 - 1 * log2(1)` is -0, and equal shares may leave a rounding error.
    let (entropy_bits, gini) = (f64::max(entropy_bits, 0.0), f64::max(gini, 0.0));
    LevelUsage { size, used, perplexity: if used == 0 { 0.0 } else { entropy_bits.exp2() }, entropy_bits, gini }
}

/// Brings items into the order of their codes, in which those with a common prefix lie together.
fn sort_by_codes(codes: ArrayView2<'_, u32>, items: &mut [usize]) {
    items.sort_unstable_by(|&a, &b| codes.row(a).iter().cmp(codes.row(b).iter()));
}

/// Codes that two items have in common from the first on.
fn shared_prefix(codes: ArrayView2<'_, u32>, a: usize, b: usize) -> usize {
    codes.row(a).iter().zip(codes.row(b)).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
