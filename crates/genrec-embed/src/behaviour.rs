//! Items by who took them together: behaviour as embeddings, alone or blended with content.

mod association;
mod blend;
mod config;

use ndarray::Array2;

pub use self::{
    blend::{Blend, BlendConfig},
    config::{Association, BehaviourConfig},
};
use crate::{
    error::{EmbedError, Result},
    sparse::Csr,
    svd::{self, Subspace},
};

/// Rows shorter than this share of the longest are rounding: the kept dimensions say nothing of such an item.
const NEGLIGIBLE: f64 = 1e-6;

/// Embeds items by co-occurrence within sequences, which must be those of training alone: what is to be predicted must not be
/// among them.
///
/// The association of the pairs within a window is factorised as `U S V^T` by randomised subspace iteration (Halko et al.
/// 2011); rows are those of `V sqrt(S)`, brought to length 1. An item that stands in no pair, and one of whose associations the
/// kept dimensions hold nothing, has a row of zeros. The same sequences and settings give the same bytes at any number of
/// threads.
///
/// # Shapes
/// - `sequences`: rows of items, oldest first, each below `items`
/// - result: `(items, dims)`; where the association has a lower rank, the columns beyond are zeros
///
/// # Errors
/// [`EmbedError::Config`] when a setting is out of bounds, [`EmbedError::UnknownItem`] when a sequence has an item that is not
/// below `items`.
///
/// ```
/// use genrec_embed::behaviour::{BehaviourConfig, embed};
///
/// // Two groups of users who have no item in common.
/// let sequences = [[0, 1, 2], [2, 0, 1], [3, 4, 5], [5, 3, 4]];
/// let rows = embed(sequences, 6, &BehaviourConfig::default().with_dims(2))?;
/// assert!(rows.row(0).dot(&rows.row(1)) > 0.9);
/// assert!(rows.row(0).dot(&rows.row(4)).abs() < 0.1);
/// # Ok::<(), genrec_embed::EmbedError>(())
/// ```
pub fn embed<S>(sequences: S, items: usize, config: &BehaviourConfig) -> Result<Array2<f32>>
where
    S: IntoIterator,
    S::Item: IntoIterator<Item = u32>,
{
    config.validate()?;
    let dims = config.dims;
    if dims >= items {
        let bound = "below the number of items";
        return Err(EmbedError::Config { field: "BehaviourConfig::dims", value: dims.to_string(), bound });
    }
    let matrix = Csr::from_rows(&association::rows(sequences, items, config)?, items);
    let subspace = Subspace {
        dim: dims,
        oversample: config.oversample,
        power_iterations: config.power_iterations,
        seed: config.seed,
    };
    let found = svd::right_singular(&matrix, subspace);
    let mut rows = Array2::<f64>::zeros((items, dims));
    for ((mut column, vector), value) in rows.columns_mut().into_iter().zip(found.vectors.columns()).zip(&found.values)
    {
        column.assign(&vector.mapv(|part| f64::from(part) * value.sqrt()));
    }
    let lengths: Vec<f64> = rows.outer_iter().map(|row| row.dot(&row).sqrt()).collect();
    let least = NEGLIGIBLE * lengths.iter().copied().fold(0.0, f64::max);
    for (mut row, &length) in rows.outer_iter_mut().zip(&lengths) {
        let factor = if length > least { 1.0 / length } else { 0.0 };
        row.mapv_inplace(|value| value * factor);
    }
    #[allow(clippy::cast_possible_truncation, reason = "components of unit vectors")]
    let rows = rows.mapv(|value| value as f32);
    Ok(rows)
}

#[cfg(test)]
mod tests;
