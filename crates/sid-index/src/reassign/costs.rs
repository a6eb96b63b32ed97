//! What codes cost, as whoever made them says.

use ndarray::Array2;

use crate::{error::IndexError, id::ItemId};

/// What it costs an item to take each code that may follow a prefix: for codebooks, the squared distance of the item's
/// residual to each codeword.
///
/// Any closure `FnMut(&[u32], &[u32]) -> Result<Array2<f32>, E>` is one.
///
/// ```
/// use std::convert::Infallible;
///
/// use ndarray::Array2;
/// use sid_index::CodeCosts;
///
/// /// One level, items and codewords on a line.
/// struct Line {
///     items: Vec<f32>,
///     codewords: Vec<f32>,
/// }
///
/// impl CodeCosts for Line {
///     type Error = Infallible;
///
///     fn costs(&mut self, _prefix: &[u32], rows: &[u32]) -> Result<Array2<f32>, Infallible> {
///         Ok(Array2::from_shape_fn((rows.len(), self.codewords.len()), |(i, code)| {
///             (self.items[rows[i] as usize] - self.codewords[code]).powi(2)
///         }))
///     }
/// }
///
/// let mut line = Line { items: vec![0.0, 3.0], codewords: vec![1.0, 2.0] };
/// assert_eq!(line.costs(&[], &[1])?, ndarray::array![[4.0, 1.0]]);
/// # Ok::<(), Infallible>(())
/// ```
pub trait CodeCosts {
    /// Why costs could not be computed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The cost of every code of level `prefix.len()` for each of the items, lower being better; positive infinity
    /// where an item may not take a code.
    ///
    /// An item may always keep the code that it has, whatever that costs.
    ///
    /// Costs of one call are compared with one another, never with those of another call. Rows come in ascending order,
    /// each once.
    ///
    /// # Shapes
    /// - `prefix`: the codes of the levels before, fewer than there are levels
    /// - `rows`: `(items,)`, rows of the codes that are being repaired
    /// - result: `(items, codes of the level)`
    ///
    /// # Errors
    /// Whatever keeps the costs from being computed; the repair ends with it as the source of
    /// [`IndexError::Costs`](crate::IndexError::Costs).
    fn costs(&mut self, prefix: &[u32], rows: &[u32]) -> Result<Array2<f32>, Self::Error>;
}

impl<F, E> CodeCosts for F
where
    F: FnMut(&[u32], &[u32]) -> Result<Array2<f32>, E>,
    E: std::error::Error + Send + Sync + 'static,
{
    type Error = E;

    fn costs(&mut self, prefix: &[u32], rows: &[u32]) -> Result<Array2<f32>, E> {
        self(prefix, rows)
    }
}

/// Asks for costs and refuses what cannot be compared. `first` is the item of row 0.
pub(super) fn ask<C: CodeCosts>(
    costs: &mut C,
    prefix: &[u32],
    rows: &[u32],
    codes: u32,
    first: u32,
) -> crate::Result<Array2<f32>> {
    let matrix = costs.costs(prefix, rows).map_err(|source| IndexError::Costs {
        prefix: prefix.to_vec(),
        items: rows.len(),
        source: Box::new(source),
    })?;
    let expected = (rows.len(), codes as usize);
    if matrix.dim() != expected {
        return Err(IndexError::CostShape { prefix: prefix.to_vec(), expected, got: matrix.dim() });
    }
    for (costs, &row) in matrix.rows().into_iter().zip(rows) {
        let bad = (0..).zip(costs).find(|(_, cost)| cost.is_nan() || **cost == f32::NEG_INFINITY);
        if let Some((code, &cost)) = bad {
            let item = ItemId(first.saturating_add(row));
            return Err(IndexError::Cost { item, prefix: prefix.to_vec(), code, cost });
        }
    }
    Ok(matrix)
}
