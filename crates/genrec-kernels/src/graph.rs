//! Trainable operations on tensors: fused on the CPU, compositions of candle's elsewhere, with gradients either way.
//!
//! candle's own fused `softmax_last_dim`, `rms_norm` and `layer_norm` have no backward and cut the gradient without an
//! error. Every function here passes gradients to each of its float arguments. On the CPU and in `f32` each is one
//! pass forward and one pass backward written by hand, parallel over rows; otherwise the same-named function of
//! [`compose`] runs. The two agree to rounding.

pub mod compose;

mod elementwise;

mod linear;
mod lookup;
mod rms_norm;
mod softmax;

use candle_core::{DType, Result, Tensor, bail};

use crate::dropout::DropoutMask;
use crate::host::fused;
use crate::rng::CounterRng;

/// Softmax over the last axis.
///
/// # Shapes
/// `x`: `(.., n)`, any float. Returns the same shape.
///
/// # Errors
/// When `x` is a scalar or a tensor operation fails.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    if fused(&[x]) && x.rank() > 0 { x.contiguous()?.apply_op1(softmax::Softmax) } else { compose::softmax(x) }
}

/// Logarithm of the softmax over the last axis, in nats.
///
/// # Shapes
/// `x`: `(.., n)`, any float. Returns the same shape.
///
/// # Errors
/// When `x` is a scalar or a tensor operation fails.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    if fused(&[x]) && x.rank() > 0 { x.contiguous()?.apply_op1(softmax::LogSoftmax) } else { compose::log_softmax(x) }
}

/// Root-mean-square normalisation over the last axis, $y = w x / \sqrt{\mathrm{mean}(x^2) + \epsilon}$: no mean is
/// taken off and nothing is added (Zhang and Sennrich, *Root Mean Square Layer Normalization*, NeurIPS 2019; T5's
/// `layer_norm`).
///
/// # Shapes
/// `x`: `(.., d)`; `weight`: `(d,)`. Returns `(.., d)`.
///
/// # Errors
/// When the widths differ or a tensor operation fails.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if weight.rank() != 1 || x.dims().last() != weight.dims().last() {
        bail!("the norm's weight is {:?}, but must be as wide as the last axis of {:?}", weight.dims(), x.dims())
    }
    if fused(&[x, weight]) {
        return x.contiguous()?.apply_op2(&weight.contiguous()?, rms_norm::RmsNorm { eps });
    }
    compose::rms_norm(x, weight, eps)
}

/// Layer normalisation over the last axis, $y = w (x - \mathrm{mean}(x)) / \sqrt{\mathrm{var}(x) + \epsilon} + b$ with the
/// variance of the elements themselves, not an estimate of it (Ba, Kiros and Hinton, *Layer Normalization*, 2016).
///
/// It is the composition of [`compose`] on every device; the fused form is
/// [`fused::layer_norm`](crate::fused::layer_norm).
///
/// # Shapes
/// `x`: `(.., d)`; `weight`, `bias`: `(d,)`. Returns `(.., d)`.
///
/// # Errors
/// When the widths differ or a tensor operation fails.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if weight.rank() != 1 || x.dims().last() != weight.dims().last() || weight.dims() != bias.dims() {
        bail!(
            "the norm's weight is {:?} and its bias {:?}, but both must be as wide as the last axis of {:?}",
            weight.dims(),
            bias.dims(),
            x.dims()
        )
    }
    compose::layer_norm(x, weight, bias, eps)
}

/// Inverted dropout: each element is 0 with probability `p` and divided by `1 - p` otherwise.
///
/// Whether element `i` (counted in row-major order) stays is a hash of `rng` and `i`; the same `rng` gives the same
/// mask, so each place in a network and each step takes its own [`stream`](CounterRng::stream). The mask is computed
/// again in the backward pass and never stored. On a GPU the device's generator draws instead, whatever `rng` is; seed it by
/// `Device::set_seed`. `p = 0` returns `x` itself.
///
/// # Errors
/// When `p` is outside `[0, 1)` or a tensor operation fails.
pub fn dropout(x: &Tensor, p: f64, rng: &CounterRng) -> Result<Tensor> {
    if !fused(&[x]) {
        return compose::dropout(x, p, rng);
    }
    match DropoutMask::new(p, rng)? {
        None => Ok(x.clone()),
        Some(mask) => x.contiguous()?.apply_op1(elementwise::Dropout { mask, relu: false }),
    }
}

/// [`dropout`] of the positive part, in one pass: the inside of T5's feed-forward layer.
///
/// # Errors
/// When `p` is outside `[0, 1)` or a tensor operation fails.
pub fn relu_dropout(x: &Tensor, p: f64, rng: &CounterRng) -> Result<Tensor> {
    if !fused(&[x]) {
        return compose::relu_dropout(x, p, rng);
    }
    match DropoutMask::new(p, rng)? {
        None => relu(x),
        Some(mask) => x.contiguous()?.apply_op1(elementwise::Dropout { mask, relu: true }),
    }
}

/// The positive part of each element. On the CPU and in `f32` NaN stays NaN; candle's own gives 0 for it.
///
/// # Errors
/// When a tensor operation fails.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if fused(&[x]) { x.contiguous()?.apply_op1(elementwise::Relu) } else { x.relu() }
}

/// The Gaussian error linear unit in its tanh form,
/// $\tfrac12 x (1 + \tanh(\sqrt{2/\pi}(x + 0.044715 x^3)))$ (Hendrycks and Gimpel 2016): `gelu_new` of Hugging Face.
///
/// # Errors
/// When a tensor operation fails.
pub fn gelu_new(x: &Tensor) -> Result<Tensor> {
    if fused(&[x]) { x.contiguous()?.apply_op1(elementwise::GeluNew) } else { compose::gelu_new(x) }
}

/// Mean negative log-likelihood, in nats, of one label a row.
///
/// # Shapes
/// `logits`: `(n, V)`, any float; `labels`: `(n,)`, `u32`, each below `V`. Returns a scalar.
///
/// # Errors
/// When the shapes do not fit, there is no row, a label is not below `V` (checked on the CPU), or a tensor operation
/// fails.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let (rows, _) = logits.dims2()?;
    if labels.dims() != [rows] {
        bail!(
            "cross-entropy takes one label for each of the {rows} rows of logits, but the labels are {:?}",
            labels.dims()
        )
    }
    if rows == 0 {
        bail!("the mean of no cross-entropy is undefined; give at least one row")
    }
    if fused(&[logits]) && labels.dtype() == DType::U32 && labels.device().is_cpu() {
        return logits.contiguous()?.apply_op2(&labels.contiguous()?, lookup::CrossEntropy);
    }
    compose::cross_entropy(logits, labels)
}

/// $y = x W^\top$ over the last axis, as one matrix product whatever the leading axes.
///
/// # Shapes
/// `x`: `(.., in)`; `weight`: `(out, in)`, PyTorch's layout. Returns `(.., out)`.
///
/// # Errors
/// When the widths differ or a tensor operation fails.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (_, width) = weight.dims2()?;
    if x.dims().last() != Some(&width) {
        bail!("a weight of shape {:?} takes vectors of width {width}, but the input is {:?}", weight.dims(), x.dims())
    }
    if fused(&[x, weight]) {
        return x.contiguous()?.apply_op2(&weight.contiguous()?, linear::Linear);
    }
    compose::linear(x, weight)
}

/// Rows of `weight` chosen by `ids`.
///
/// # Shapes
/// `weight`: `(n, d)`; `ids`: `(..)`, `u32`, each below `n`. Returns `(.., d)`.
///
/// # Errors
/// When an id is not below `n` or a tensor operation fails.
pub fn embedding(weight: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let (_, width) = weight.dims2()?;
    if fused(&[weight]) && ids.dtype() == DType::U32 && ids.device().is_cpu() {
        let rows = weight.contiguous()?.apply_op2(&ids.flatten_all()?.contiguous()?, lookup::Embedding)?;
        return rows.reshape([ids.dims(), &[width]].concat());
    }
    compose::embedding(weight, ids)
}

/// Attention probabilities: softmax over the keys of `scores + bias`, with padding keys and, if `causal`, later keys
/// left out.
///
/// With fewer queries than keys the queries are the last ones: query `q` of `Q` sees the keys up to `q + K - Q`. A
/// query that sees no key gets probability 0 everywhere, not NaN.
///
/// # Shapes
/// `scores`: `(B, H, Q, K)`; `bias`: `(1, H, Q, K)`; `key_lengths`: `B` counts of keys that are not padding (all of
/// them when `None`). Returns `(B, H, Q, K)`. The gradient of `bias` is summed over `B`.
///
/// # Errors
/// When the shapes do not fit or a tensor operation fails.
pub fn bias_softmax(
    scores: &Tensor,
    bias: Option<&Tensor>,
    key_lengths: Option<&[u32]>,
    causal: bool,
) -> Result<Tensor> {
    let (batch, heads, queries, keys) = scores.dims4()?;
    if let Some(bias) = bias
        && bias.dims() != [1, heads, queries, keys]
    {
        bail!("the attention bias is {:?}, but must be {:?} for these scores", bias.dims(), [1, heads, queries, keys])
    }
    if let Some(lengths) = key_lengths
        && lengths.len() != batch
    {
        bail!("{} key lengths for a batch of {batch}; give one for each sequence", lengths.len())
    }
    if !fused(&[scores]) || !bias.is_none_or(|bias| fused(&[bias])) {
        return compose::bias_softmax(scores, bias, key_lengths, causal);
    }
    let op = softmax::BiasSoftmax { key_lengths: key_lengths.map(<[u32]>::to_vec), causal };
    match bias {
        None => scores.contiguous()?.apply_op1(op),
        Some(bias) => scores.contiguous()?.apply_op2(&bias.contiguous()?, op),
    }
}

/// Keys that query `q` sees: those before the returned position.
fn visible(length: usize, keys: usize, queries: usize, q: usize, causal: bool) -> usize {
    let length = length.min(keys);
    if causal { length.min((q + 1 + keys).saturating_sub(queries)) } else { length }
}

/// What [`attention`] adds to the plain product of queries and keys; the default is nothing, with T5's scale of 1.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AttentionOptions<'a> {
    /// Added to the scores, `(1, H, Q, K)`.
    pub bias: Option<&'a Tensor>,
    /// Keys of each sequence that are not padding.
    pub key_lengths: Option<&'a [u32]>,
    /// Whether a query sees no later key.
    pub causal: bool,
    /// Multiplies the scores before the bias; 1 in T5, $1/\sqrt{d}$ elsewhere.
    pub scale: f64,
    /// Probability and randomness of dropout on the attention probabilities.
    pub dropout: Option<(f64, CounterRng)>,
}

impl Default for AttentionOptions<'_> {
    fn default() -> Self {
        Self { bias: None, key_lengths: None, causal: false, scale: 1.0, dropout: None }
    }
}

impl<'a> AttentionOptions<'a> {
    /// Sets the bias added to the scores.
    #[must_use]
    pub fn with_bias(mut self, bias: Option<&'a Tensor>) -> Self {
        self.bias = bias;
        self
    }

    /// Sets the number of keys that are not padding, one for each sequence.
    #[must_use]
    pub fn with_key_lengths(mut self, key_lengths: Option<&'a [u32]>) -> Self {
        self.key_lengths = key_lengths;
        self
    }

    /// Sets whether a query sees no later key.
    #[must_use]
    pub fn with_causal(mut self, causal: bool) -> Self {
        self.causal = causal;
        self
    }

    /// Sets the factor on the scores.
    #[must_use]
    pub fn with_scale(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    /// Sets dropout on the attention probabilities.
    #[must_use]
    pub fn with_dropout(mut self, p: f64, rng: CounterRng) -> Self {
        self.dropout = Some((p, rng));
        self
    }
}

/// Multi-head attention, $\mathrm{softmax}(s\,Q K^\top + \text{bias}) V$ (Vaswani et al. 2017, equation 1).
///
/// # Shapes
/// `q`: `(B, H, Q, d)`; `k`: `(B, H, K, d)`; `v`: `(B, H, K, e)`. Returns `(B, H, Q, e)`.
///
/// # Errors
/// When the shapes do not fit or a tensor operation fails.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, options: &AttentionOptions<'_>) -> Result<Tensor> {
    let mut scores = q.contiguous()?.matmul(&k.transpose(2, 3)?.contiguous()?)?;
    if options.scale != 1.0 {
        scores = (scores * options.scale)?;
    }
    let mut probs = bias_softmax(&scores, options.bias, options.key_lengths, options.causal)?;
    if let Some((p, rng)) = &options.dropout {
        probs = dropout(&probs, *p, rng)?;
    }
    probs.matmul(&v.contiguous()?)
}

#[cfg(test)]
mod tests;
