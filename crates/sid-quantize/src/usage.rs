//! How well codes are spread: use of each codebook, collisions, reconstruction error.
//!
//! *Entropy* of a level is `H = -sum_k p_k log2 p_k` over the shares `p_k` of items with code `k`, in bits; its
//! *perplexity* is `2^H`, the number of equally used codes that would have the same entropy. The *collision rate* is
//! `1 - distinct tuples / items`, before any suffix or repair.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};

use crate::rows::{SCAN_ROWS, check_finite};
use crate::{QuantizeError, Quantizer, Reconstruct, Result, RowSource};

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
        order.sort_unstable_by(|&a, &b| codes.row(a).iter().cmp(codes.row(b).iter()));
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
                Some(before) => {
                    let before = codes.row(order[before]);
                    codes.row(item).iter().zip(before).take_while(|(a, b)| a == b).count()
                }
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
    let (mut used, mut entropy_bits) = (0, 0.0);
    for group in sorted.chunk_by(|a, b| a == b) {
        let share = group.len() as f64 / total;
        entropy_bits -= share * share.log2();
        used += 1;
    }
    // `0 - 1 * log2(1)` is -0.
    let entropy_bits = f64::max(entropy_bits, 0.0);
    LevelUsage { size, used, perplexity: if used == 0 { 0.0 } else { entropy_bits.exp2() }, entropy_bits }
}

/// How far embeddings are from the ones their codes stand for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReconstructionError {
    /// Mean over the rows of `||x - x^||^2`, in the embeddings' own units.
    pub mean_squared: f64,
    /// `mean_squared` over the rows' mean squared distance to their mean: 0 is perfect, 1 no better than the mean
    /// alone. 0 when all rows are equal and so perfectly reconstructed; infinite when they are not.
    pub relative: f64,
}

/// Encodes and reconstructs every row and measures the error.
///
/// # Shapes
/// - `xs`: `(n, dim)`
///
/// # Errors
/// When the width is wrong, the rows cannot be read or hold NaN or an infinity, or a tensor operation fails.
pub fn reconstruction_error(quantizer: &dyn Reconstruct, xs: &mut dyn RowSource) -> Result<ReconstructionError> {
    let dim = quantizer.dim();
    let (mut error, mut count) = (0.0_f64, 0_usize);
    let mut mean = vec![0.0_f64; dim];
    let mut squares = vec![0.0_f64; dim];
    scan(quantizer.dim(), xs, |first, block| {
        let flat: Vec<f32> = block.iter().copied().collect();
        let tensor = candle_core::Tensor::from_vec(flat, block.dim(), quantizer.device())?;
        let near = quantizer.reconstruct(&quantizer.encode(&tensor)?)?.to_vec2::<f32>()?;
        for (offset, (row, near)) in block.outer_iter().zip(&near).enumerate() {
            let n = (first + offset + 1) as f64;
            for (column, (&x, &near)) in row.iter().zip(near).enumerate() {
                let x = f64::from(x);
                error += (x - f64::from(near)).powi(2);
                // Welford's update: stable where the mean is large against the spread.
                let delta = x - mean[column];
                mean[column] += delta / n;
                squares[column] += delta * (x - mean[column]);
            }
        }
        count += block.nrows();
        Ok(())
    })?;
    if count == 0 {
        return Ok(ReconstructionError { mean_squared: 0.0, relative: 0.0 });
    }
    let mean_squared = error / count as f64;
    let spread = squares.iter().sum::<f64>() / count as f64;
    let relative = if mean_squared == 0.0 { 0.0 } else { mean_squared / spread };
    Ok(ReconstructionError { mean_squared, relative })
}

/// The codes of every row of a source, read and encoded `batch` rows at a time (0 counts as 1).
///
/// # Shapes
/// - result: `(xs.len(), levels)`
///
/// # Errors
/// When the width is wrong, the rows cannot be read or hold NaN or an infinity, or a tensor operation fails.
pub fn encode_rows(quantizer: &dyn Quantizer, xs: &mut dyn RowSource, batch: usize) -> Result<Array2<u32>> {
    check_dim(quantizer.dim(), xs)?;
    let mut codes = Array2::zeros((xs.len(), quantizer.codebook_sizes().len()));
    scan(quantizer.dim(), xs, |first, block| {
        let part = quantizer.encode_array(block, batch)?;
        codes.slice_mut(s![first..first + block.nrows(), ..]).assign(&part);
        Ok(())
    })?;
    Ok(codes)
}

fn check_dim(expected: usize, xs: &dyn RowSource) -> Result<()> {
    let got = xs.dim();
    if got == expected { Ok(()) } else { Err(QuantizeError::DimMismatch { expected, got }) }
}

/// Reads all rows in order, checks them, and hands them over block by block with the first row's index.
pub(crate) fn scan(
    dim: usize,
    xs: &mut dyn RowSource,
    mut visit: impl FnMut(usize, ArrayView2<'_, f32>) -> Result<()>,
) -> Result<()> {
    pass(dim, xs, |first, block| {
        check_finite(block.view(), first)?;
        visit(first, block)
    })
}

/// [`scan`] of rows that were checked before.
pub(crate) fn pass(
    dim: usize,
    xs: &mut dyn RowSource,
    mut visit: impl FnMut(usize, ArrayView2<'_, f32>) -> Result<()>,
) -> Result<()> {
    check_dim(dim, xs)?;
    let rows = xs.len();
    let mut buffer = Array2::<f32>::zeros((0, dim));
    for first in (0..rows).step_by(SCAN_ROWS) {
        let count = (rows - first).min(SCAN_ROWS);
        if let Some(view) = xs.slice(first, count).and_then(|flat| ArrayView2::from_shape((count, dim), flat).ok()) {
            visit(first, view)?;
            continue;
        }
        if buffer.is_empty() {
            buffer = Array2::zeros((rows.min(SCAN_ROWS), dim));
        }
        let (mut block, _) = buffer.view_mut().split_at(Axis(0), count);
        xs.read(first, block.view_mut())?;
        visit(first, block.view())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
