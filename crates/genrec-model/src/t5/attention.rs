//! Multi-head attention without score scaling, whole sequences and one position at a time.

use candle_core::{Result, Tensor};
use genrec_kernels::graph::{self, AttentionOptions};

use super::network::Source;
use crate::dropout::Dropout;

/// What a query may attend to, and the bias of its scores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask<'a> {
    /// `(1, heads, queries, keys)`, added to the scores.
    pub(crate) bias: Option<&'a Tensor>,
    /// Number of real keys of each row; the rest is padding.
    pub(crate) key_lengths: Option<&'a [u32]>,
    /// Whether query `i` sees only the keys up to `i`.
    pub(crate) causal: bool,
}

/// Keys and values of a sequence, split into heads.
///
/// # Shapes
/// `key`: `(rows, heads, positions, d_kv)`; `value`: the same.
#[derive(Debug, Clone)]
pub(crate) struct KeyValue {
    pub(crate) key: Tensor,
    pub(crate) value: Tensor,
}

impl KeyValue {
    /// Keeps the given rows.
    pub(crate) fn select(&self, rows: &Tensor) -> Result<Self> {
        Ok(Self { key: self.key.index_select(rows, 0)?, value: self.value.index_select(rows, 0)? })
    }

    /// Appends the positions of `next`.
    pub(crate) fn append(&self, next: &Self) -> Result<Self> {
        Ok(Self { key: Tensor::cat(&[&self.key, &next.key], 2)?, value: Tensor::cat(&[&self.value, &next.value], 2)? })
    }
}

/// The four projections of an attention layer.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    heads: usize,
    d_kv: usize,
}

impl Attention {
    pub(crate) fn new(heads: usize, d_kv: usize, source: &Source<'_>, prefix: &str) -> Result<Self> {
        let get = |name: &str| source.get(&format!("{prefix}.{name}.weight"));
        Ok(Self { q: get("q")?, k: get("k")?, v: get("v")?, o: get("o")?, heads, d_kv })
    }

    /// `(rows, positions, heads * d_kv)` to `(rows, heads, positions, d_kv)`, contiguous.
    fn split(&self, xs: &Tensor) -> Result<Tensor> {
        let (rows, positions, _) = xs.dims3()?;
        if positions == 1 {
            return xs.reshape((rows, self.heads, 1, self.d_kv));
        }
        xs.reshape((rows, positions, self.heads, self.d_kv))?.transpose(1, 2)?.contiguous()
    }

    /// Keys and values of `(rows, positions, d_model)`.
    pub(crate) fn key_value(&self, xs: &Tensor) -> Result<KeyValue> {
        Ok(KeyValue {
            key: self.split(&graph::linear(xs, &self.k)?)?,
            value: self.split(&graph::linear(xs, &self.v)?)?,
        })
    }

    /// Attends from every position of `xs` to the keys.
    ///
    /// # Shapes
    /// `xs`: `(rows, queries, d_model)`; the same comes back.
    pub(crate) fn attend(&self, xs: &Tensor, keys: &KeyValue, mask: Mask<'_>, dropout: &Dropout) -> Result<Tensor> {
        let (rows, queries, _) = xs.dims3()?;
        let q = self.split(&graph::linear(xs, &self.q)?)?;
        let mut options = AttentionOptions::default()
            .with_bias(mask.bias)
            .with_key_lengths(mask.key_lengths)
            .with_causal(mask.causal);
        if let Some((rate, rng)) = dropout.next_site() {
            options = options.with_dropout(rate, rng);
        }
        let context = graph::attention(&q, &keys.key, &keys.value, &options)?;
        let context = match queries {
            1 => context.reshape((rows, 1, self.heads * self.d_kv))?,
            _ => context.transpose(1, 2)?.reshape((rows, queries, self.heads * self.d_kv))?,
        };
        graph::linear(&context, &self.o)
    }
}
