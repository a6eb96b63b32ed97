//! Rows of an array as a tensor, and the checks of a tensor that comes in.

use candle_core::{Device, Error, Result, Tensor};
use ndarray::ArrayView2;

use crate::QuantizeError;

/// A host block as a tensor on the device.
pub(crate) fn to_tensor(rows: ArrayView2<'_, f32>, device: &Device) -> Result<Tensor> {
    let flat = match rows.as_slice() {
        Some(slice) => slice.to_vec(),
        None => rows.iter().copied().collect(),
    };
    Tensor::from_vec(flat, rows.dim(), device)
}

/// Checks that a batch of embeddings has the width and type a quantiser takes.
pub(crate) fn check_input(xs: &Tensor, dim: usize) -> Result<()> {
    let (_, got) = xs.dims2()?;
    if got != dim {
        candle_core::bail!("embeddings have {got} columns, the quantiser takes {dim}");
    }
    if xs.dtype() != candle_core::DType::F32 {
        candle_core::bail!("embeddings hold {:?}, the quantiser takes f32", xs.dtype());
    }
    Ok(())
}

/// Checks that a prefix leaves a level to code and holds codes of the codebooks.
pub(crate) fn check_prefix(sizes: &[u32], prefix: &[u32]) -> Result<()> {
    if prefix.len() >= sizes.len() {
        candle_core::bail!("a prefix of {} codes leaves no level of {} to code", prefix.len(), sizes.len());
    }
    match prefix.iter().zip(sizes).find(|(code, size)| code >= size) {
        Some((code, size)) => candle_core::bail!("code {code} is not in a codebook of {size} codes"),
        None => Ok(()),
    }
}

/// Costs as they are, unless one is no number: of a row whose distances overflow no code is known to be the nearest.
///
/// # Shapes
/// - `costs`: `(n, codes)`
pub(crate) fn check_costs(costs: Tensor) -> Result<Tensor> {
    let nan = costs.ne(&costs)?;
    if nan.elem_count() == 0 || nan.flatten_all()?.max(0)?.to_scalar::<u8>()? == 0 {
        return Ok(costs);
    }
    let row = nan.to_vec2::<u8>()?.iter().position(|row| row.contains(&1)).unwrap_or(0);
    Err(Error::wrap(QuantizeError::RowTooLarge { row }))
}
