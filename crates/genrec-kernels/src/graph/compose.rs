//! The operations as compositions of candle's own: any device, any float dtype, gradients by candle's autograd.
//!
//! They are what runs on a GPU, and what the fused forms are tested against.

use candle_core::{D, DType, Result, Tensor};

use crate::dropout::DropoutMask;
use crate::rng::CounterRng;

/// See [`super::softmax`].
///
/// # Errors
/// When a tensor operation fails.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    let exp = shifted.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// See [`super::log_softmax`].
///
/// # Errors
/// When a tensor operation fails.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

/// See [`super::rms_norm`].
///
/// # Errors
/// When a tensor operation fails.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean_square + eps)?.sqrt()?)?.broadcast_mul(weight)
}

/// See [`super::dropout`]; the mask is the same as the fused form's.
///
/// # Errors
/// When `p` is outside `[0, 1)` or a tensor operation fails.
pub fn dropout(x: &Tensor, p: f64, rng: &CounterRng) -> Result<Tensor> {
    match DropoutMask::new(p, rng)? {
        None => Ok(x.clone()),
        Some(mask) => x.mul(&mask.tensor(x.dims(), x.device())?.to_dtype(x.dtype())?),
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
    log_softmax(logits)?.gather(&labels.unsqueeze(1)?, 1)?.mean_all()?.neg()
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
    weight.index_select(&ids.flatten_all()?, 0)?.reshape(dims)
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
    let (batch, _, queries, keys) = scores.dims4()?;
    let scores = match bias {
        Some(bias) => scores.broadcast_add(bias)?,
        None => scores.clone(),
    };
    if key_lengths.is_none() && !causal {
        return softmax(&scores);
    }
    let mut open = Vec::with_capacity(batch * queries * keys);
    for b in 0..batch {
        let length = key_lengths.and_then(|lengths| lengths.get(b)).map_or(keys, |&n| n as usize);
        for q in 0..queries {
            let limit = super::visible(length, keys, queries, q, causal);
            open.extend((0..keys).map(|k| f32::from(u8::from(k < limit))));
        }
    }
    let open = Tensor::from_vec(open, (batch, 1, queries, keys), scores.device())?.to_dtype(scores.dtype())?;
    let lowest = if scores.dtype() == DType::F16 { 3e4 } else { 1e9 };
    let masked = scores.broadcast_add(&open.affine(lowest, -lowest)?)?;
    softmax(&masked)?.broadcast_mul(&open)
}
