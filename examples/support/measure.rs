//! Every diagnostic of a quantiser, in one place: what is added here is in every report and table.

use genrec::quantize::{
    AnyQuantizer, Quantizer, RowSource,
    usage::{self, CodeReport, NeighbourConfig, NeighbourReport, PurityReport},
};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use crate::{BoxError, categories::Categories, fit::Counted};

/// Nearest items are not sought among more rows than these: each of a thousand is compared with all of them.
pub const NEIGHBOUR_ROWS: usize = 1_000_000;

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
    /// Share of the users whose last item has the first code, first two codes, .. of the one before it: whether codes know what
    /// users do; empty without sequences. No fit sees that item's user take it.
    pub next_item: Vec<f64>,
    /// Whether codes keep what the embeddings say about nearness; `None` where it was not measured.
    pub neighbours: Option<Neighbours>,
}

/// How near items with a common prefix of codes are, and how often near items have one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Neighbours {
    /// Share of an item's ten nearest that have its first code, first two codes, ..
    pub share: Vec<Option<f64>>,
    /// The same share among all pairs of items.
    pub by_chance: Vec<Option<f64>>,
    /// Mean cosine of pairs with exactly no code in common, the first, the first two, ..; `None` where there is no pair.
    pub cosine: Vec<Option<f64>>,
}

impl From<NeighbourReport> for Neighbours {
    fn from(report: NeighbourReport) -> Self {
        Self {
            share: report.nearest.iter().map(|prefix| prefix.share).collect(),
            by_chance: report.nearest.iter().map(|prefix| prefix.by_chance).collect(),
            cosine: report.pairs.iter().map(|pairs| pairs.mean_cosine).collect(),
        }
    }
}

/// What is known of items beside their embeddings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// What kind of thing each is.
    pub categories: Option<&'a Categories>,
    /// Pairs of items that a user took one after the other; none is a user whose behaviour is unknown.
    pub steps: &'a [[usize; 2]],
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
    known: Known<'_>,
) -> Result<Measures, BoxError> {
    let sizes = quantizer.codebook_sizes();
    let rows = &mut Counted::new(rows, "measure");
    let report = CodeReport::of(codes, sizes)?;
    let error = quantizer.as_reconstruct().map(|quantizer| usage::reconstruction_error(quantizer, rows)).transpose()?;
    let purity = known.categories.map(|categories| PurityReport::of(codes, &categories.labels())).transpose()?;
    let neighbours = match rows.len() <= NEIGHBOUR_ROWS {
        true => Some(NeighbourReport::of(rows, codes, &NeighbourConfig::default())?.into()),
        false => None,
    };
    Ok(Measures {
        codebook_sizes: sizes.to_vec(),
        collision_rate: report.collision_rate,
        largest_group: report.largest_group,
        codes_used: report.levels.iter().map(|level| level.used).collect(),
        perplexity: report.levels.iter().map(|level| level.perplexity).collect(),
        entropy_bits: report.levels.iter().map(|level| level.entropy_bits).collect(),
        reconstruction: error.map(|error| error.relative),
        purity: purity.iter().flat_map(|report| &report.prefixes).map(|prefix| prefix.purity).collect(),
        next_item: same_prefix(codes, known.steps),
        neighbours,
    })
}

/// Share of the pairs whose first code, first two codes, .. are the same; empty without pairs.
fn same_prefix(codes: ArrayView2<'_, u32>, pairs: &[[usize; 2]]) -> Vec<f64> {
    let mut same = vec![0_usize; if pairs.is_empty() { 0 } else { codes.ncols() }];
    for &[a, b] in pairs {
        let common = codes.row(a).iter().zip(codes.row(b)).take_while(|(a, b)| a == b).count();
        same[..common].iter_mut().for_each(|count| *count += 1);
    }
    same.iter().map(|&count| count as f64 / pairs.len() as f64).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use genrec::quantize::{ArrayRows, Fit, ResidualKMeansConfig};
    use ndarray::Array2;

    use super::*;

    #[test]
    fn measures_are_those_of_the_codes() {
        let embeddings = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
        let mut rows = ArrayRows::from(embeddings.view());
        let quantizer: AnyQuantizer =
            ResidualKMeansConfig::default().with_codebook_sizes([8, 4]).fit(&mut rows).unwrap().into();
        let codes = quantizer.encode_array(embeddings.view(), 64).unwrap();
        let measures = measure(&quantizer, &mut rows, codes.view(), Known::default()).unwrap();
        assert!(measures.purity.is_empty() && measures.next_item.is_empty());
        let kinds = Categories::from_names((0..64).map(|item| if item % 11 < 5 { "a" } else { "b" }));
        // Rows 0 and 11 are equal; rows 0 and 1 are as far apart as any.
        let known = Known { categories: Some(&kinds), steps: &[[0, 11], [0, 1]] };
        let measures = measure(&quantizer, &mut rows, codes.view(), known).unwrap();
        assert_eq!(measures.next_item, [0.5, 0.5]);
        assert!(measures.purity.len() == 2 && measures.purity.iter().all(|&purity| (0.5..=1.0).contains(&purity)));
        // Eleven different rows: most items share their codes with others.
        assert_eq!(measures.codebook_sizes, [8, 4]);
        assert!(measures.collision_rate >= 1.0 - 11.0 / 64.0);
        assert!(measures.reconstruction.unwrap() < 0.1);
        let near = measures.neighbours.unwrap();
        assert!(near.share.len() == 2 && near.cosine.len() == 3);
        assert!(near.share[0] > near.by_chance[0], "{near:?}");
    }
}
