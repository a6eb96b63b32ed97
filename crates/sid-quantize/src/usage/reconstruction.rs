//! How far embeddings are from what their codes stand for.

use serde::{Deserialize, Serialize};

use super::scan;
use crate::input::to_tensor;
use crate::{Reconstruct, Result, RowSource};

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
        let tensor = to_tensor(block.view(), quantizer.device())?;
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
