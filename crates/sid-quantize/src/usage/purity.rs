//! What prefixes of codes say about categories.

use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use crate::{QuantizeError, Result};

/// How much the first codes of an item tell about its category: TIGER's observation that they form a hierarchy of
/// categories (arXiv 2305.05065), in numbers.
///
/// Purity never falls as prefixes get longer: where each item has a prefix of its own it is 1, whatever the codes. Compare it
/// at similar numbers of prefixes, for example with that of [`RandomIds`](crate::RandomIds).
///
/// ```
/// use ndarray::array;
/// use sid_quantize::usage::PurityReport;
///
/// let codes = array![[0_u32, 0], [0, 1], [1, 0], [1, 0]];
/// let report = PurityReport::of(codes.view(), &[Some(7), Some(7), Some(7), Some(9)])?;
/// assert_eq!((report.majority, report.prefixes[0].purity), (0.75, 0.75));
/// assert_eq!(report.prefixes[0].entropy_bits, 0.5);
/// # Ok::<(), sid_quantize::QuantizeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PurityReport {
    /// Items with a category; the others are left out of every number but the next.
    pub items: usize,
    /// Items without one.
    pub unlabelled: usize,
    /// Distinct categories.
    pub categories: usize,
    /// Share of items in the largest category: the purity of no prefix at all; 0 without items.
    pub majority: f64,
    /// Entropy of the categories' shares, in bits: what is to be known; 0 without items.
    pub entropy_bits: f64,
    /// Prefixes of one code, two codes, and so on.
    pub prefixes: Vec<PrefixPurity>,
}

/// What the prefixes of one length say about categories.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PrefixPurity {
    /// Codes of a prefix.
    pub length: usize,
    /// Distinct prefixes of the items with a category.
    pub distinct: usize,
    /// Share of items whose category is the most frequent one of their prefix, in `0..=1`; 0 without items.
    pub purity: f64,
    /// Entropy of the categories given the prefix, in bits: what of [`PurityReport::entropy_bits`] the prefix leaves open.
    pub entropy_bits: f64,
    /// Mutual information of category and prefix over the mean of their entropies: 0 where they are independent, 1 where
    /// each tells the other; 0 where both have one value only. Unlike purity it falls where prefixes are split for nothing.
    pub normalized_mutual_information: f64,
}

impl PurityReport {
    /// Measures the codes of a catalogue against the categories of its items.
    ///
    /// # Shapes
    /// - `codes`: `(items, levels)`
    /// - `categories`: `(items,)`, any numbers; `None` for an item without one
    ///
    /// # Errors
    /// [`QuantizeError::ItemMismatch`].
    pub fn of(codes: ArrayView2<'_, u32>, categories: &[Option<u32>]) -> Result<Self> {
        let (items, levels) = codes.dim();
        if categories.len() != items {
            return Err(QuantizeError::ItemMismatch { what: "categories", expected: items, got: categories.len() });
        }
        let mut labelled: Vec<(usize, u32)> =
            categories.iter().enumerate().filter_map(|(item, category)| Some((item, (*category)?))).collect();
        let whole = measure(codes, &mut labelled, 0);
        let categories = labelled.chunk_by(|a, b| a.1 == b.1).count();
        let prefixes = (1..=levels)
            .map(|length| {
                let part = measure(codes, &mut labelled, length);
                let information = f64::max(whole.entropy_bits - part.entropy_bits, 0.0);
                let mean = (whole.entropy_bits + part.prefix_entropy_bits) / 2.0;
                PrefixPurity {
                    length,
                    distinct: part.distinct,
                    purity: part.purity,
                    entropy_bits: part.entropy_bits,
                    normalized_mutual_information: if mean > 0.0 { f64::min(information / mean, 1.0) } else { 0.0 },
                }
            })
            .collect();
        Ok(Self {
            items: labelled.len(),
            unlabelled: items - labelled.len(),
            categories,
            majority: whole.purity,
            entropy_bits: whole.entropy_bits,
            prefixes,
        })
    }
}

/// What is counted of the prefixes of one length.
struct Measured {
    distinct: usize,
    purity: f64,
    entropy_bits: f64,
    prefix_entropy_bits: f64,
}

/// Sorts items by prefix and category and counts them.
fn measure(codes: ArrayView2<'_, u32>, labelled: &mut [(usize, u32)], length: usize) -> Measured {
    let prefix = |item: usize| codes.row(item).into_iter().take(length);
    labelled.sort_unstable_by(|a, b| prefix(a.0).cmp(prefix(b.0)).then(a.1.cmp(&b.1)));
    let (mut distinct, mut majorities, mut bits, mut prefix_bits) = (0, 0, 0.0, 0.0);
    let items = labelled.len() as f64;
    for group in labelled.chunk_by(|a, b| prefix(a.0).eq(prefix(b.0))) {
        let size = group.len() as f64;
        let mut largest = 0;
        for category in group.chunk_by(|a, b| a.1 == b.1) {
            largest = largest.max(category.len());
            bits += category.len() as f64 * (size / category.len() as f64).log2();
        }
        majorities += largest;
        prefix_bits += size * (items / size).log2();
        distinct += 1;
    }
    let items = items.max(1.0);
    Measured {
        distinct,
        purity: majorities as f64 / items,
        entropy_bits: bits / items,
        prefix_entropy_bits: prefix_bits / items,
    }
}

#[cfg(test)]
mod tests;
