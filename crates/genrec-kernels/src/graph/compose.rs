//! The operations as compositions of candle's own: any device, any float dtype, gradients by candle's autograd.
//!
//! They are what the graph runs on every device but the CPU, and what the fused forms are tested against. Nothing here waits for the device. Of
//! half-precision arguments, sums over an axis and what follows from them (norms, softmax, cross-entropy) are computed in
//! `f32` and rounded at the end, as automatic mixed precision does.

use candle_core::{D, DType, Device, Result, Tensor};

use super::lookup;
use crate::dropout::DropoutMask;
use crate::rng::CounterRng;

/// The values in `f32` where they are of half precision.
fn widened(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.to_dtype(DType::F32),
        _ => Ok(x.clone()),
    }
}

/// See [`super::softmax`].
///
/// # Errors
/// When a tensor operation fails.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let wide = widened(x)?;
    let exp = wide.broadcast_sub(&wide.max_keepdim(D::Minus1)?.detach())?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?.to_dtype(x.dtype())
}

/// See [`super::log_softmax`].
///
/// # Errors
/// When a tensor operation fails.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let wide = widened(x)?;
    let shifted = wide.broadcast_sub(&wide.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)?.to_dtype(x.dtype())
}

/// See [`super::rms_norm`].
///
/// # Errors
/// When a tensor operation fails.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = widened(x)?;
    let mean_square = wide.sqr()?.mean_keepdim(D::Minus1)?;
    wide.broadcast_div(&(mean_square + eps)?.sqrt()?)?.to_dtype(x.dtype())?.broadcast_mul(weight)
}

/// See [`super::layer_norm`].
///
/// # Errors
/// When a tensor operation fails.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = widened(x)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let hats = centred.broadcast_div(&(variance + eps)?.sqrt()?)?.to_dtype(x.dtype())?;
    hats.broadcast_mul(weight)?.broadcast_add(bias)
}

/// See [`super::dropout`]. On the CPU the mask is the same as the fused form's; elsewhere it comes from the device's own
/// generator, which [`Device::set_seed`] seeds.
///
/// # Errors
/// When `p` is outside `[0, 1)` or a tensor operation fails.
pub fn dropout(x: &Tensor, p: f64, rng: &CounterRng) -> Result<Tensor> {
    match DropoutMask::new(p, rng)? {
        None => Ok(x.clone()),
        Some(mask) => {
            let wide = widened(x)?;
            let factors = match x.device() {
                Device::Cpu => mask.tensor(x.dims())?,
                device => {
                    let kept = Tensor::rand(0f32, 1f32, x.dims(), device)?.gt(mask.probability())?;
                    (kept.to_dtype(DType::F32)? * f64::from(mask.scale()))?
                }
            };
            // In `f32`: a scale of 10 / 9 rounded to bf16 would shift every mean.
            (&wide * factors.to_dtype(wide.dtype())?)?.to_dtype(x.dtype())
        }
    }
}

/// See [`super::relu_dropout`].
///
/// # Errors
/// When `p` is outside `[0, 1)` or a tensor operation fails.
pub fn relu_dropout(x: &Tensor, p: f64, rng: &CounterRng) -> Result<Tensor> {
    dropout(&x.relu()?, p, rng)
}

/// See [`super::gelu_new`].
///
/// # Errors
/// When a tensor operation fails.
pub fn gelu_new(x: &Tensor) -> Result<Tensor> {
    let inner = ((x + (x.powf(3.0)? * 0.044_715)?)? * (2.0 / std::f64::consts::PI).sqrt())?;
    (x * 0.5)? * (inner.tanh()? + 1.0)?
}

/// See [`super::cross_entropy`].
///
/// # Errors
/// When a tensor operation fails.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    log_softmax(&widened(logits)?)?.gather(&labels.unsqueeze(1)?, 1)?.mean_all()?.neg()
}

/// See [`super::linear`].
///
/// # Errors
/// When a tensor operation fails.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (out, width) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    let y = x.reshape(((), width))?.matmul(&weight.t()?)?;
    if let Some(last) = dims.last_mut() {
        *last = out;
    }
    y.reshape(dims)
}

/// See [`super::embedding`].
///
/// # Errors
/// When a tensor operation fails.
pub fn embedding(weight: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let mut dims = ids.dims().to_vec();
    dims.push(weight.dim(1)?);
    let ids = ids.flatten_all()?;
    let rows = match weight.device() {
        Device::Cpu => weight.index_select(&ids, 0)?,
        _ => weight.apply_op2(&ids, lookup::Embedding)?,
    };
    rows.reshape(dims)
}

/// See [`super::bias_softmax`].
///
/// # Errors
/// When a tensor operation fails.
pub fn bias_softmax(
    scores: &Tensor,
    bias: Option<&Tensor>,
    key_lengths: Option<&[u32]>,
    causal: bool,
) -> Result<Tensor> {
    let wide = widened(scores)?;
    let wide = match bias {
        Some(bias) => wide.broadcast_add(&widened(bias)?)?,
        None => wide,
    };
    let Some(Open { keys, all_see }) = open_keys(&wide, key_lengths, causal)? else {
        return softmax(&wide)?.to_dtype(scores.dtype());
    };
    const LOWEST: f64 = 1e9;
    let probs = softmax(&wide.broadcast_add(&keys.affine(LOWEST, -LOWEST)?)?)?;
    // A query that sees no key has probability zero everywhere; the sum above left it the same for all keys.
    let probs = if all_see { probs } else { probs.broadcast_mul(&keys)? };
    probs.to_dtype(scores.dtype())
}

/// Which keys are seen.
struct Open {
    /// One where the query sees the key and zero elsewhere, `(B or 1, 1, Q or 1, K)`.
    keys: Tensor,
    /// Whether every query sees a key.
    all_see: bool,
}

/// `None` where every query sees every key. The comparison is made on the device: only the limits are sent there.
fn open_keys(scores: &Tensor, key_lengths: Option<&[u32]>, causal: bool) -> Result<Option<Open>> {
    let (batch, _, queries, keys) = scores.dims4()?;
    if key_lengths.is_none() && !causal {
        return Ok(None);
    }
    let rows = if key_lengths.is_some() { batch } else { 1 };
    let columns = if causal { queries } else { 1 };
    let mut limits = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        let length = key_lengths.and_then(|lengths| lengths.get(row)).map_or(keys, |&length| length as usize);
        limits.extend((0..columns).map(|query| super::visible(length, keys, queries, query, causal) as u32));
    }
    let all_see = !limits.contains(&0);
    let device = scores.device();
    let limits = Tensor::from_vec(limits, (rows, 1, columns, 1), device)?;
    let positions = Tensor::arange(0, keys as u32, device)?.reshape((1, 1, 1, keys))?;
    let keys = positions.broadcast_lt(&limits)?.to_dtype(scores.dtype())?;
    Ok(Some(Open { keys, all_see }))
}
