//! The operations as compositions of candle's own, on any device: their meaning, and what the kernels are tested against.

use candle_core::{DType, Result, Tensor, Var};

use super::{Columns, Norm, Sight};
use crate::dropout::DropoutMask;
use crate::graph::compose;

/// The factors of a mask, or `None` where nothing is dropped.
fn factors(mask: Option<&DropoutMask>, x: &Tensor) -> Result<Option<Tensor>> {
    mask.map(|mask| mask.tensor(x.dims())?.to_device(x.device())?.to_dtype(x.dtype())).transpose()
}

fn drop(x: &Tensor, mask: Option<&DropoutMask>) -> Result<Tensor> {
    match factors(mask, x)? {
        Some(factors) => x * factors,
        None => Ok(x.clone()),
    }
}

pub(super) fn embed(table: &Tensor, tokens: &Tensor, mask: Option<&DropoutMask>) -> Result<Tensor> {
    drop(&compose::embedding(table, tokens)?, mask)
}

pub(super) fn add_norm(
    x: &Tensor,
    branch: Option<(&Tensor, Option<&DropoutMask>)>,
    weight: &Tensor,
    norm: &Norm<'_>,
) -> Result<(Tensor, Tensor)> {
    let sum = match branch {
        Some((branch, mask)) => (x + drop(&branch.to_dtype(DType::F32)?, mask)?)?,
        None => x.clone(),
    };
    let y = (drop(&compose::rms_norm(&sum, weight, norm.eps)?, norm.mask)? * norm.scale)?;
    Ok((sum, y.to_dtype(norm.dtype)?))
}

pub(super) fn relu_dropout(x: &Tensor, mask: Option<&DropoutMask>) -> Result<Tensor> {
    drop(&x.relu()?, mask)
}

/// Queries, keys and values `(rows, heads * width)` of one kind each.
pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: Option<&Tensor>,
    sight: &Sight<'_>,
) -> Result<Tensor> {
    let (heads, width) = (sight.heads, q.dim(1)? / sight.heads);
    let rows = q.dim(0)?;
    let factors = match sight.mask {
        None => None,
        Some(mask) => Some(mask.tensor(&[rows, heads, sight.mask_width()])?.to_device(q.device())?),
    };
    let mut out = Vec::new();
    for (queries, keys) in sight.queries.ranges().zip(sight.keys.ranges()) {
        let split = |x: &Tensor, (start, len): (usize, usize)| {
            x.narrow(0, start, len)?.reshape((len, heads, width))?.transpose(0, 1)?.contiguous()?.unsqueeze(0)
        };
        let (q, k, v) = (split(q, queries)?, split(k, keys)?, split(v, keys)?);
        let bias = match bias {
            None => None,
            Some(bias) => {
                let reach = (bias.dim(0)? / 2) as i64;
                let at: Vec<u32> = (0..queries.1 as i64)
                    .flat_map(|i| (0..keys.1 as i64).map(move |j| (reach + (j - i).clamp(-reach, reach)) as u32))
                    .collect();
                let rows = compose::embedding(bias, &Tensor::from_vec(at, (queries.1, keys.1), bias.device())?)?;
                Some(rows.permute((2, 0, 1))?.contiguous()?.unsqueeze(0)?)
            }
        };
        let scores = q.matmul(&k.t()?.contiguous()?)?;
        let mut probs = compose::bias_softmax(&scores, bias.as_ref(), None, sight.causal)?;
        if let Some(factors) = &factors {
            let part = factors.narrow(0, queries.0, queries.1)?.narrow(2, 0, keys.1)?.transpose(0, 1)?.contiguous()?;
            probs = (probs * part.unsqueeze(0)?)?;
        }
        let mixed = probs.matmul(&v)?.squeeze(0)?.transpose(0, 1)?.contiguous()?;
        out.push(mixed.reshape((queries.1, heads * width))?);
    }
    Tensor::cat(&out, 0)
}

/// The columns as a tensor of their own.
pub(super) fn columns(from: Columns<'_>, width: usize) -> Result<Tensor> {
    from.tensor.narrow(1, from.first, width)?.contiguous()
}

/// Gradients of `sum(outputs * cotangents)` by the arguments; zeros where an argument has no part in it.
pub(super) fn pullback(
    args: &[&Tensor],
    forward: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    cotangents: &[Option<&Tensor>],
) -> Result<Vec<Tensor>> {
    let vars: Vec<Var> = args.iter().map(|arg| Var::from_tensor(&arg.contiguous()?)).collect::<Result<_>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let mut total: Option<Tensor> = None;
    for (output, cotangent) in forward(&tensors)?.iter().zip(cotangents) {
        let Some(cotangent) = cotangent else { continue };
        let part = (output * *cotangent)?.sum_all()?;
        total = Some(match total {
            None => part,
            Some(total) => (total + part)?,
        });
    }
    let Some(total) = total else { return tensors.iter().map(Tensor::zeros_like).collect() };
    let grads = total.backward()?;
    tensors
        .iter()
        .map(|tensor| grads.get(tensor).map_or_else(|| tensor.zeros_like(), |grad| Ok(grad.clone())))
        .collect()
}
