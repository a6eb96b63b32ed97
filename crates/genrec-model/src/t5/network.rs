//! The layers of a T5, over weights that are tracked by autograd or detached from it.

use candle_core::{DType, Result, Tensor};
use genrec_kernels::Parameters;
use genrec_kernels::graph;

use super::{
    attention::{Attention, KeyValue, Mask},
    config::T5Config,
    feed_forward::FeedForward,
    position::Buckets,
};
use crate::dropout::Dropout;

/// Where layers take their weights from.
pub(crate) struct Source<'a> {
    pub(crate) params: &'a Parameters,
    /// Whether operations on the weights are recorded for a backward pass.
    pub(crate) tracked: bool,
    /// What the layers compute in.
    pub(crate) dtype: DType,
}

impl Source<'_> {
    /// The weight of that name, sharing the parameter's storage where it has the layers' type already.
    pub(crate) fn get(&self, name: &str) -> Result<Tensor> {
        match self.params.get(name) {
            Some(weight) if self.tracked => weight.to_dtype(self.dtype),
            Some(weight) => weight.detach().to_dtype(self.dtype),
            None => candle_core::bail!("the model has no weight `{name}`"),
        }
    }
}

/// A weight of RMSNorm and its epsilon.
#[derive(Debug, Clone)]
struct Norm {
    weight: Tensor,
    epsilon: f64,
}

impl Norm {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        graph::rms_norm(xs, &self.weight, self.epsilon)
    }
}

/// A cross-attention layer and the norm before it.
#[derive(Debug, Clone)]
struct Cross {
    attention: Attention,
    norm: Norm,
}

#[derive(Debug, Clone)]
struct Block {
    attention: Attention,
    attention_norm: Norm,
    cross: Option<Cross>,
    feed_forward: FeedForward,
    feed_forward_norm: Norm,
}

/// The encoder or the decoder.
#[derive(Debug, Clone)]
struct Stack {
    blocks: Vec<Block>,
    final_norm: Norm,
    /// `(buckets, heads)`: the one bias that all blocks share.
    bias: Tensor,
    buckets: Buckets,
}

impl Stack {
    fn new(config: &T5Config, source: &Source<'_>, decoder: bool) -> Result<Self> {
        let (name, layers) =
            if decoder { ("decoder", config.num_decoder_layers) } else { ("encoder", config.num_layers) };
        let norm = |prefix: String| -> Result<Norm> {
            Ok(Norm { weight: source.get(&format!("{prefix}.weight"))?, epsilon: config.layer_norm_epsilon })
        };
        let attention = |prefix: String| Attention::new(config.num_heads, config.d_kv, source, &prefix);
        let mut blocks = Vec::with_capacity(layers);
        for block in 0..layers {
            let prefix = format!("{name}.block.{block}.layer");
            let cross = match decoder {
                false => None,
                true => Some(Cross {
                    attention: attention(format!("{prefix}.1.EncDecAttention"))?,
                    norm: norm(format!("{prefix}.1.layer_norm"))?,
                }),
            };
            let last = if decoder { 2 } else { 1 };
            blocks.push(Block {
                attention: attention(format!("{prefix}.0.SelfAttention"))?,
                attention_norm: norm(format!("{prefix}.0.layer_norm"))?,
                cross,
                feed_forward: FeedForward::new(
                    config.feed_forward_proj,
                    source,
                    &format!("{prefix}.{last}.DenseReluDense"),
                )?,
                feed_forward_norm: norm(format!("{prefix}.{last}.layer_norm"))?,
            });
        }
        Ok(Self {
            blocks,
            final_norm: norm(format!("{name}.final_layer_norm"))?,
            bias: source.get(&format!("{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"))?,
            buckets: Buckets {
                count: config.relative_attention_num_buckets,
                max_distance: config.relative_attention_max_distance,
                bidirectional: !decoder && !config.causal_encoder,
            },
        })
    }
}

/// How the rows of a decoding step share the encoded users.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sharing<'a> {
    /// Consecutive rows that belong to one user.
    pub(crate) beams: usize,
    /// The user of each group of rows; `None` when group `i` is user `i`.
    pub(crate) users: Option<&'a Tensor>,
    /// Source length of each group.
    pub(crate) lengths: &'a [u32],
}

/// The whole model.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    shared: Tensor,
    encoder: Stack,
    decoder: Stack,
    head: Option<Tensor>,
    scale_outputs: bool,
    causal_encoder: bool,
    d_model: usize,
}

impl Network {
    pub(crate) fn new(config: &T5Config, source: &Source<'_>) -> Result<Self> {
        let head = if config.tie_word_embeddings { None } else { Some(source.get("lm_head.weight")?) };
        Ok(Self {
            shared: source.get("shared.weight")?,
            encoder: Stack::new(config, source, false)?,
            decoder: Stack::new(config, source, true)?,
            head,
            scale_outputs: config.scale_decoder_outputs,
            causal_encoder: config.causal_encoder,
            d_model: config.d_model,
        })
    }

    /// Reads the source sequences.
    ///
    /// # Shapes
    /// `ids`: `(rows, positions)`, `u32`; `lengths`: the real positions of each row. Returns
    /// `(rows, positions, d_model)`, whose rows past their lengths mean nothing.
    pub(crate) fn encode(&self, ids: &Tensor, lengths: &[u32], dropout: &Dropout) -> Result<Tensor> {
        let stack = &self.encoder;
        let positions = ids.dim(1)?;
        let bias = stack.buckets.bias(&stack.bias, 0, positions, positions)?;
        let mask = Mask { bias: Some(&bias), key_lengths: Some(lengths), causal: self.causal_encoder };
        let mut xs = dropout.apply(graph::embedding(&self.shared, ids)?)?;
        for block in &stack.blocks {
            let normed = block.attention_norm.forward(&xs)?;
            let keys = block.attention.key_value(&normed)?;
            xs = residual(xs, block.attention.attend(&normed, &keys, mask, dropout)?, dropout)?;
            xs = block.feed_forward(xs, dropout)?;
        }
        dropout.apply(stack.final_norm.forward(&xs)?)
    }

    /// Keys and values of the encoded sequences for the cross-attention of every decoder block.
    pub(crate) fn cross_keys(&self, encoded: &Tensor) -> Result<Vec<KeyValue>> {
        self.decoder
            .blocks
            .iter()
            .filter_map(|block| block.cross.as_ref())
            .map(|cross| cross.attention.key_value(encoded))
            .collect()
    }

    /// Logits of every target position given those before it (teacher forcing).
    ///
    /// # Shapes
    /// `inputs`: `(rows, targets)`, `u32`, the targets shifted right; `encoded`: `(rows, positions, d_model)`. Returns
    /// `(rows, targets, vocabulary)`.
    pub(crate) fn decode(
        &self,
        inputs: &Tensor,
        encoded: &Tensor,
        lengths: &[u32],
        dropout: &Dropout,
    ) -> Result<Tensor> {
        let stack = &self.decoder;
        let targets = inputs.dim(1)?;
        let bias = stack.buckets.bias(&stack.bias, 0, targets, targets)?;
        let own = Mask { bias: Some(&bias), key_lengths: None, causal: true };
        let source = Mask { bias: None, key_lengths: Some(lengths), causal: false };
        let mut xs = dropout.apply(graph::embedding(&self.shared, inputs)?)?;
        for block in &stack.blocks {
            let normed = block.attention_norm.forward(&xs)?;
            let keys = block.attention.key_value(&normed)?;
            xs = residual(xs, block.attention.attend(&normed, &keys, own, dropout)?, dropout)?;
            if let Some(cross) = &block.cross {
                let normed = cross.norm.forward(&xs)?;
                let keys = cross.attention.key_value(encoded)?;
                xs = residual(xs, cross.attention.attend(&normed, &keys, source, dropout)?, dropout)?;
            }
            xs = block.feed_forward(xs, dropout)?;
        }
        self.logits(&dropout.apply(stack.final_norm.forward(&xs)?)?)
    }

    /// Logits of the next token of every row, extending `own` by this position.
    ///
    /// # Shapes
    /// `tokens`: `(rows,)`, `u32`; `own`: keys and values of the positions so far, one a block, empty at first;
    /// `cross`: keys and values of the users, one a block. Returns `(rows, vocabulary)`.
    pub(crate) fn step(
        &self,
        tokens: &Tensor,
        own: &mut Vec<KeyValue>,
        cross: &[KeyValue],
        sharing: Sharing<'_>,
    ) -> Result<Tensor> {
        let stack = &self.decoder;
        let off = Dropout::off();
        let rows = tokens.dim(0)?;
        let (groups, beams) = (sharing.lengths.len(), sharing.beams);
        let position = own.first().map_or(Ok(0), |keys| keys.key.dim(2))?;
        let bias = stack.buckets.bias(&stack.bias, position, 1, position + 1)?;
        let self_mask = Mask { bias: Some(&bias), key_lengths: None, causal: false };
        let cross_mask = Mask { bias: None, key_lengths: Some(sharing.lengths), causal: false };

        let mut extended = Vec::with_capacity(stack.blocks.len());
        let mut xs = graph::embedding(&self.shared, tokens)?.unsqueeze(1)?;
        for (index, block) in stack.blocks.iter().enumerate() {
            let normed = block.attention_norm.forward(&xs)?;
            let next = block.attention.key_value(&normed)?;
            let keys = match own.get(index) {
                Some(past) => past.append(&next)?,
                None => next,
            };
            xs = (xs + block.attention.attend(&normed, &keys, self_mask, &off)?)?;
            extended.push(keys);
            if let (Some(layer), Some(keys)) = (&block.cross, cross.get(index)) {
                let gathered = sharing.users.map(|users| keys.select(users)).transpose()?;
                let keys = gathered.as_ref().unwrap_or(keys);
                // The beams of a user are its queries, so that its keys are read once for all of them.
                let normed = layer.norm.forward(&xs)?.reshape((groups, beams, self.d_model))?;
                let out = layer.attention.attend(&normed, keys, cross_mask, &off)?;
                xs = (xs + out.reshape((rows, 1, self.d_model))?)?;
            }
            xs = block.feed_forward(xs, &off)?;
        }
        let logits = self.logits(&stack.final_norm.forward(&xs)?)?;
        *own = extended;
        logits.squeeze(1)
    }

    fn logits(&self, xs: &Tensor) -> Result<Tensor> {
        let head = self.head.as_ref().unwrap_or(&self.shared);
        // A tied table has unit variance, which the scale takes back (Mesh TensorFlow's T5).
        let scaled = match self.scale_outputs {
            true => Some((xs * (self.d_model as f64).sqrt().recip())?),
            false => None,
        };
        graph::linear(scaled.as_ref().unwrap_or(xs), head)
    }
}

impl Block {
    fn feed_forward(&self, xs: Tensor, dropout: &Dropout) -> Result<Tensor> {
        let out = self.feed_forward.forward(&self.feed_forward_norm.forward(&xs)?, dropout)?;
        residual(xs, out, dropout)
    }
}

fn residual(xs: Tensor, branch: Tensor, dropout: &Dropout) -> Result<Tensor> {
    xs + dropout.apply(branch)?
}
