//! Embeddings of items by who bought them together, for quantisers that are aligned with behaviour as LETTER's is.

mod svd;

use std::path::Path;

use genrec::{
    data::{Catalogue, LeaveOneOut, ReadOptions, Sequences, readers::neutral},
    quantize::QuantizerConfig,
};
use ndarray::Array2;

use crate::BoxError;

/// Rows shorter than this share of the longest are rounding: the kept dimensions say nothing of such an item.
const NEGLIGIBLE: f64 = 1e-6;

/// How [`embed`] counts and factorises.
#[derive(Debug, Clone, PartialEq)]
pub struct BehaviourConfig {
    /// Columns of an embedding, LETTER's 32 by default; fewer than items.
    pub dims: usize,
    /// Steps between two items of a sequence that count as together; 5 by default.
    pub window: usize,
    /// Negative samples `k` of the shift `log k`: pairs less than `k` times as frequent as by chance count as never together.
    /// 1 by default, which is plain positive mutual information.
    pub shift: f64,
    /// Seed of the random subspace.
    pub seed: u64,
}

impl Default for BehaviourConfig {
    fn default() -> Self {
        Self { dims: 32, window: 5, shift: 1.0, seed: 0 }
    }
}

/// Embeds items by co-occurrence within users' training sequences: what leave-one-out holds out for validation and test is
/// never counted.
///
/// Shifted positive pointwise mutual information, `max(0, log(#(i,j) #D / (#(i) #(j))) - log k)` over the pairs within a
/// window (Levy and Goldberg 2014), factorised as `U S V^T` by randomised subspace iteration (Halko et al. 2011); rows are
/// those of `U sqrt(S)`, brought to length 1. An item without training interactions, and one of whose mutual information
/// the kept dimensions hold nothing, has a row of zeros. The same seed gives the same bytes.
///
/// # Shapes
/// - result: `(items, dims)`
///
/// # Errors
/// When a setting is out of bounds, a sequence has an item that is not below `items`, or the factorisation fails.
pub fn embed(sequences: &Sequences, items: usize, config: &BehaviourConfig) -> Result<Array2<f32>, BoxError> {
    let &BehaviourConfig { dims, window, shift, seed } = config;
    if dims == 0 || dims >= items {
        return Err(
            format!("{dims} dimensions of behaviour for {items} items: give at least 1 and fewer than items").into()
        );
    }
    if window == 0 || !(shift.is_finite() && shift > 0.0) {
        return Err(format!("window {window}, shift {shift}: both must be above 0").into());
    }
    let matrix = mutual_information(&pairs(sequences, items, window)?, items, shift);
    let rows = svd::left_scaled(&matrix, items, dims, seed)?;
    let lengths: Vec<f64> = rows.row_iter().map(|row| row.norm_l2()).collect();
    let longest = lengths.iter().copied().fold(0.0, f64::max);
    let mut embeddings = Array2::zeros((items, dims));
    for (i, mut row) in embeddings.outer_iter_mut().enumerate() {
        if lengths[i] > NEGLIGIBLE * longest {
            for (j, value) in row.iter_mut().enumerate() {
                *value = (rows[(i, j)] / lengths[i]) as f32;
            }
        }
    }
    Ok(embeddings)
}

/// The behaviour of a directory's users in the form that a quantiser's settings ask for; `None` where they ask for none.
///
/// # Errors
/// As [`embed`], and when the sequences cannot be read.
pub fn for_quantizer(
    config: &QuantizerConfig,
    dir: &Path,
    catalogue: &Catalogue,
) -> Result<Option<Array2<f32>>, BoxError> {
    let QuantizerConfig::RqVae(config) = config else { return Ok(None) };
    if config.alignment.is_none() {
        return Ok(None);
    }
    let (sequences, _) = neutral::read_sequences(&dir.join(neutral::SEQUENCES), catalogue, &ReadOptions::default())?;
    let wanted = BehaviourConfig { dims: config.latent_dim, seed: config.seed, ..BehaviourConfig::default() };
    embed(&sequences, catalogue.len(), &wanted).map(Some)
}

/// The last item of each user with the one before it: what leave-one-out tests, and no behaviour embedding has seen.
pub fn last_steps(sequences: &Sequences) -> Vec<[usize; 2]> {
    let split = LeaveOneOut::new(sequences);
    let step = |user| {
        let target = split.test(user)?;
        target.history.last().map(|last| [last.index(), target.item.index()])
    };
    (0..split.len()).filter_map(step).collect()
}

/// [`last_steps`] of a directory; none where it has no sequences.
///
/// # Errors
/// When the sequences cannot be read.
pub fn read_last_steps(dir: &Path, catalogue: &Catalogue) -> Result<Vec<[usize; 2]>, BoxError> {
    let path = dir.join(neutral::SEQUENCES);
    if !path.exists() {
        return Ok(Vec::new());
    }
    Ok(last_steps(&neutral::read_sequences(&path, catalogue, &ReadOptions::default())?.0))
}

/// One value of a sparse matrix: row, column, value.
type Entry = (usize, usize, f64);

/// How often two items stand within the window, by pair, both ways round; sorted.
fn pairs(sequences: &Sequences, items: usize, window: usize) -> Result<Vec<Entry>, BoxError> {
    let split = LeaveOneOut::new(sequences);
    let mut seen = Vec::new();
    for user in 0..split.len() {
        let training = split.train(user);
        if let Some(item) = training.iter().find(|item| item.index() >= items) {
            return Err(
                format!("user {user} has item {} of {items}: sequences and catalogue differ", item.index()).into()
            );
        }
        for (at, a) in training.iter().enumerate() {
            for b in training[at + 1..].iter().take(window).filter(|&b| b != a) {
                seen.push((a.index(), b.index()));
                seen.push((b.index(), a.index()));
            }
        }
    }
    seen.sort_unstable();
    Ok(seen.chunk_by(|a, b| a == b).map(|group| (group[0].0, group[0].1, group.len() as f64)).collect())
}

fn mutual_information(pairs: &[Entry], items: usize, shift: f64) -> Vec<Entry> {
    let mut of_item = vec![0.0; items];
    for &(i, _, count) in pairs {
        of_item[i] += count;
    }
    let total: f64 = of_item.iter().sum();
    let value = |&(i, j, count): &Entry| {
        let value = (count * total / (of_item[i] * of_item[j] * shift)).ln();
        (value > 0.0).then_some((i, j, value))
    };
    pairs.iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests;
