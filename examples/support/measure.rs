//! Every diagnostic of a quantiser, in one place: what is added here is in every report and table.

use std::collections::BTreeMap;

use genrec::quantize::{AnyQuantizer, Quantizer, RowSource, usage};
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::{BoxError, categories::Categories};

/// Diagnostics that need all rows in memory are left out beyond so many.
pub const ROWS_IN_MEMORY: usize = 100_000;

/// How good codes are, before any suffix.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measures {
    /// Codes in each level's codebook.
    pub codebook_sizes: Vec<u32>,
    /// One minus distinct code tuples over items.
    pub collision_rate: f64,
    /// Items in the largest group with the same codes.
    pub largest_group: usize,
    /// Codes in use, by level.
    pub codes_used: Vec<u32>,
    /// Perplexity of the codes, by level.
    pub perplexity: Vec<f64>,
    /// Entropy of the codes in bits, by level.
    pub entropy_bits: Vec<f64>,
    /// Mean squared error of the reconstruction over the variance; `None` where codes cannot be mapped back.
    pub reconstruction: Option<f64>,
    /// Share of the items that are of the category that most items with the same first code, first two codes, .. are of;
    /// empty without categories.
    pub purity: Vec<f64>,
    /// How well items that share codes are neighbours, by name; empty where it was not measured.
    pub neighbours: BTreeMap<String, f64>,
}

/// Measures codes and the quantiser that made them of `rows`.
///
/// # Shapes
/// - `rows`: `(items, dim)`, read in blocks
/// - `codes`: `(items, levels)`
///
/// # Errors
/// When the rows cannot be read or the codes are not the quantiser's.
pub fn measure(
    quantizer: &AnyQuantizer,
    rows: &mut dyn RowSource,
    codes: ArrayView2<'_, u32>,
    categories: Option<&Categories>,
) -> Result<Measures, BoxError> {
    let sizes = quantizer.codebook_sizes();
    let report = usage::CodeReport::of(codes, sizes)?;
    let error = quantizer.as_reconstruct().map(|quantizer| usage::reconstruction_error(quantizer, rows)).transpose()?;
    // Purity and neighbour fidelity: from `sid_quantize::usage`, with `categories` and `in_memory`.
    let _ = categories;
    Ok(Measures {
        codebook_sizes: sizes.to_vec(),
        collision_rate: report.collision_rate,
        largest_group: report.largest_group,
        codes_used: report.levels.iter().map(|level| level.used).collect(),
        perplexity: report.levels.iter().map(|level| level.perplexity).collect(),
        entropy_bits: report.levels.iter().map(|level| level.entropy_bits).collect(),
        reconstruction: error.map(|error| error.relative),
        purity: Vec::new(),
        neighbours: BTreeMap::new(),
    })
}

/// All rows, where there are no more than [`ROWS_IN_MEMORY`].
///
/// # Errors
/// When the rows cannot be read.
pub fn in_memory(rows: &mut dyn RowSource) -> Result<Option<Array2<f32>>, BoxError> {
    if rows.len() > ROWS_IN_MEMORY {
        return Ok(None);
    }
    let mut all = Array2::zeros((rows.len(), rows.dim()));
    rows.read(0, all.view_mut())?;
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use genrec::quantize::{ArrayRows, Fit, ResidualKMeansConfig};

    use super::*;

    #[test]
    fn measures_are_those_of_the_codes() {
        let embeddings = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
        let mut rows = ArrayRows::from(embeddings.view());
        let quantizer: AnyQuantizer =
            ResidualKMeansConfig::default().with_codebook_sizes([8, 4]).fit(&mut rows).unwrap().into();
        let codes = quantizer.encode_array(embeddings.view(), 64).unwrap();
        let measures = measure(&quantizer, &mut rows, codes.view(), None).unwrap();
        // Eleven different rows: most items share their codes with others.
        assert_eq!(measures.codebook_sizes, [8, 4]);
        assert!(measures.collision_rate >= 1.0 - 11.0 / 64.0);
        assert!(measures.reconstruction.unwrap() < 0.1);
        assert_eq!(in_memory(&mut rows).unwrap().unwrap(), embeddings);
    }
}
