//! Whether codes keep what embeddings say about nearness.

mod directions;
mod nearest;
mod pairs;

use genrec_kernels::CounterRng;
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use super::shared_prefix;
use crate::{QuantizeError, Result, RowSource};
use directions::Directions;
use pairs::Pairs;

/// How much is measured for a [`NeighbourReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NeighbourConfig {
    /// Most items whose nearest items are sought; 1000 by default. Each is compared with every other item.
    pub queries: usize,
    /// Nearest items of each; 10 by default.
    pub neighbours: usize,
    /// Most pairs of items that are compared for each length of the shared prefix; 100,000 by default. All are taken where
    /// there are no more.
    pub pairs: usize,
    /// Seed of both samples; 0 by default.
    pub seed: u64,
}

impl Default for NeighbourConfig {
    fn default() -> Self {
        Self { queries: 1000, neighbours: 10, pairs: 100_000, seed: 0 }
    }
}

impl NeighbourConfig {
    /// Sets the most items whose nearest items are sought.
    #[must_use]
    pub fn with_queries(mut self, queries: usize) -> Self {
        self.queries = queries;
        self
    }

    /// Sets the nearest items of each.
    #[must_use]
    pub fn with_neighbours(mut self, neighbours: usize) -> Self {
        self.neighbours = neighbours;
        self
    }

    /// Sets the most pairs of items for each length of the shared prefix.
    #[must_use]
    pub fn with_pairs(mut self, pairs: usize) -> Self {
        self.pairs = pairs;
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`QuantizeError::InvalidConfig`] names the first field that is 0.
    pub fn validate(&self) -> Result<()> {
        let fields = [("queries", self.queries), ("neighbours", self.neighbours), ("pairs", self.pairs)];
        match fields.into_iter().find(|(_, value)| *value == 0) {
            Some((field, value)) => Err(QuantizeError::config(field, value, "at least 1 is needed")),
            None => Ok(()),
        }
    }
}

/// Whether items that share a prefix of codes are near each other, and whether items near each other share one; nearness is
/// the cosine of two embeddings.
///
/// The first question is that of Singh et al. (*Better Generalization with Semantic IDs*, arXiv 2306.08121), whose items
/// are the more alike the longer the prefix they share. The second bounds what a model over codes can know of content: near
/// items without a common code look as different to it as any.
///
/// ```
/// use ndarray::array;
/// use sid_quantize::ArrayRows;
/// use sid_quantize::usage::{NeighbourConfig, NeighbourReport};
///
/// let embeddings = array![[1.0_f32, 0.0], [2.0, 0.0], [0.0, 1.0], [0.1, 1.0]];
/// let codes = array![[0_u32], [0], [1], [1]];
/// let config = NeighbourConfig::default().with_neighbours(1);
/// let report = NeighbourReport::of(&mut ArrayRows::from(embeddings), codes.view(), &config)?;
/// assert_eq!(report.in_order, Some(true));
/// assert_eq!(report.nearest[0].share, Some(1.0));
/// # Ok::<(), sid_quantize::QuantizeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NeighbourReport {
    /// Items whose embedding has a direction; the others are left out of every number but the next.
    pub items: usize,
    /// Items whose embedding is zero.
    pub zeros: usize,
    /// Pairs of items that share no code of the prefix, one, and so on up to all.
    pub pairs: Vec<PrefixPairs>,
    /// Whether the mean cosine rises strictly with the length of the shared prefix, over the lengths that a pair shares; `None`
    /// where there are fewer than two.
    pub in_order: Option<bool>,
    /// Items whose nearest items were sought.
    pub queries: usize,
    /// Nearest items of each: as many as were asked for, or all others.
    pub neighbours: usize,
    /// How many of the nearest items share at least the first code, the first two, and so on.
    pub nearest: Vec<PrefixNeighbours>,
}

/// Pairs of items whose codes agree up to one level and not at the next.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PrefixPairs {
    /// Codes that are shared, exactly.
    pub length: usize,
    /// Pairs there are.
    pub count: u64,
    /// Pairs compared: all, or as many as the configuration allows, drawn with replacement.
    pub sampled: usize,
    /// Mean cosine of the embeddings of the pairs compared, in `-1..=1`; `None` where there is no pair.
    pub mean_cosine: Option<f64>,
}

/// Nearest items with the same prefix of one length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PrefixNeighbours {
    /// Codes that are shared, at least.
    pub length: usize,
    /// Share of the nearest items with this prefix in common, in `0..=1`; `None` with fewer than two items.
    pub share: Option<f64>,
    /// The same share among all pairs of items: what neighbours chosen by chance would have.
    pub by_chance: Option<f64>,
}

impl NeighbourReport {
    /// Measures the codes of a catalogue against its embeddings, by two passes over them and reads of the items drawn.
    ///
    /// The nearest items are found by comparing with all, exactly but for the rounding of `f32`; of items equally near the
    /// first come first.
    ///
    /// # Shapes
    /// - `xs`: `(items, dim)`
    /// - `codes`: `(items, levels)`
    ///
    /// # Errors
    /// When the configuration is invalid, the items are not as many, the rows have no columns, cannot be read or hold NaN or
    /// an infinity, or there are more of them than 32-bit indices.
    pub fn of(xs: &mut dyn RowSource, codes: ArrayView2<'_, u32>, config: &NeighbourConfig) -> Result<Self> {
        config.validate()?;
        let (rows, levels) = codes.dim();
        if xs.len() != rows {
            return Err(QuantizeError::ItemMismatch { what: "embeddings", expected: rows, got: xs.len() });
        }
        let directions = Directions::of(xs)?;
        let rng = CounterRng::new(config.seed);
        let among = Pairs::new(codes, directions.items());
        let pairs: Vec<PrefixPairs> = (0..=levels)
            .map(|length| {
                let drawn = among.sharing(length, config.pairs, &rng.named("pairs").stream(length as u64));
                let mean_cosine = directions.mean_cosine(xs, &drawn.pairs)?;
                Ok(PrefixPairs { length, count: drawn.count, sampled: drawn.pairs.len(), mean_cosine })
            })
            .collect::<Result<_>>()?;

        let items = directions.items().len();
        let mut queries: Vec<usize> = match items <= config.queries {
            true => directions.items().to_vec(),
            false => {
                let order = rng.named("queries").permutation(items as u32);
                order[..config.queries].iter().map(|&at| directions.items()[at as usize]).collect()
            }
        };
        queries.sort_unstable();
        let neighbours = config.neighbours.min(items.saturating_sub(1));
        let found = nearest::of(&directions, xs, &queries, neighbours)?;
        let mut shared = vec![0_u64; levels + 1];
        for (&query, nearest) in queries.iter().zip(&found) {
            nearest.iter().for_each(|&item| shared[shared_prefix(codes, query, item)] += 1);
        }
        let at_least = |counts: &[u64], length: usize| match counts.iter().sum::<u64>() {
            0 => None,
            all => Some(counts[length..].iter().sum::<u64>() as f64 / all as f64),
        };
        let counts: Vec<u64> = pairs.iter().map(|pairs| pairs.count).collect();
        let nearest = (1..=levels)
            .map(|length| {
                let (share, by_chance) = (at_least(&shared, length), at_least(&counts, length));
                PrefixNeighbours { length, share, by_chance }
            })
            .collect();
        let cosines: Vec<f64> = pairs.iter().filter_map(|pairs| pairs.mean_cosine).collect();
        let in_order = (cosines.len() > 1).then(|| cosines.is_sorted_by(|a, b| a < b));
        Ok(Self { items, zeros: rows - items, pairs, in_order, queries: queries.len(), neighbours, nearest })
    }
}

#[cfg(test)]
mod tests;
