//! The layers of the model over packed weights.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, bail};
use genrec_kernels::{Parameters, host};
use rayon::prelude::*;

use super::{attention::AttentionLayer, feed_forward::FeedForward};
use crate::engine::layers::{Linear, Norm};
use crate::t5::{
    config::{FeedForwardKind, T5Config},
    position::Buckets,
};

/// One block of a stack.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) attention: AttentionLayer,
    pub(super) cross: Option<AttentionLayer>,
    pub(super) feed_forward: FeedForward,
}

/// The encoder or the decoder.
#[derive(Debug)]
pub(super) struct Stack {
    pub(super) blocks: Vec<Block>,
    pub(super) final_norm: Norm,
    /// `(buckets, heads)`.
    pub(super) bias: Vec<f32>,
    pub(super) bias_id: usize,
    pub(super) buckets: Buckets,
    /// The dropout site of the embeddings; that of the output is the last of the stack's.
    pub(super) first_site: u64,
    pub(super) last_site: u64,
}

/// The whole model.
#[derive(Debug)]
pub(super) struct Network {
    /// `(vocabulary, d_model)`.
    pub(super) shared: Vec<f32>,
    pub(super) shared_id: usize,
    pub(super) encoder: Stack,
    pub(super) decoder: Stack,
    pub(super) head: Linear,
    /// Factor on the output layer's input.
    pub(super) scale: f32,
    pub(super) causal_encoder: bool,
    pub(super) d_model: usize,
    pub(super) heads: usize,
}

/// Looks parameters up by their names.
struct Names<'a> {
    ids: BTreeMap<&'a str, (usize, &'a [usize])>,
    config: &'a T5Config,
}

impl Names<'_> {
    fn find(&self, name: &str) -> Result<(usize, &[usize])> {
        match self.ids.get(name) {
            Some(found) => Ok(*found),
            None => bail!("the model has no weight `{name}`"),
        }
    }

    fn linear(&self, name: &str) -> Result<Linear> {
        let (id, dims) = self.find(&format!("{name}.weight"))?;
        Ok(Linear::new(id, dims))
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        let (id, dims) = self.find(&format!("{name}.weight"))?;
        let epsilon = self.config.layer_norm_epsilon as f32;
        Ok(Norm { id, weight: vec![0.0; dims.iter().product()], epsilon })
    }

    fn attention(&self, layer: &str, name: &str, site: u64) -> Result<AttentionLayer> {
        Ok(AttentionLayer {
            norm: self.norm(&format!("{layer}.layer_norm"))?,
            q: self.linear(&format!("{layer}.{name}.q"))?,
            k: self.linear(&format!("{layer}.{name}.k"))?,
            v: self.linear(&format!("{layer}.{name}.v"))?,
            o: self.linear(&format!("{layer}.{name}.o"))?,
            heads: self.config.num_heads,
            d_kv: self.config.d_kv,
            k_rows: Vec::new(),
            site,
        })
    }

    fn feed_forward(&self, layer: &str, site: u64) -> Result<FeedForward> {
        let (input, gate) = match self.config.feed_forward_proj {
            FeedForwardKind::Relu => ("wi", None),
            FeedForwardKind::GatedGelu => ("wi_1", Some("wi_0")),
        };
        let linear = |name: &str| self.linear(&format!("{layer}.DenseReluDense.{name}"));
        Ok(FeedForward {
            norm: self.norm(&format!("{layer}.layer_norm"))?,
            input: linear(input)?,
            gate: gate.map(linear).transpose()?,
            output: linear("wo")?,
            site,
        })
    }

    fn stack(&self, name: &str, first_site: u64) -> Result<Stack> {
        let decoder = name == "decoder";
        let layers = if decoder { self.config.num_decoder_layers } else { self.config.num_layers };
        let mut site = first_site + 1;
        let mut next = || {
            site += 2;
            site - 2
        };
        let mut blocks = Vec::with_capacity(layers);
        for block in 0..layers {
            let layer = |index: usize| format!("{name}.block.{block}.layer.{index}");
            let attention = self.attention(&layer(0), "SelfAttention", next())?;
            let cross = match decoder {
                true => {
                    let mut cross = self.attention(&layer(1), "EncDecAttention", next())?;
                    cross.k_rows = vec![0.0; cross.k.outputs * cross.k.inputs];
                    Some(cross)
                }
                false => None,
            };
            let feed_forward = self.feed_forward(&layer(if decoder { 2 } else { 1 }), next())?;
            blocks.push(Block { attention, cross, feed_forward });
        }
        let (bias_id, dims) =
            self.find(&format!("{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"))?;
        Ok(Stack {
            blocks,
            final_norm: self.norm(&format!("{name}.final_layer_norm"))?,
            bias: vec![0.0; dims.iter().product()],
            bias_id,
            buckets: Buckets {
                count: self.config.relative_attention_num_buckets,
                max_distance: self.config.relative_attention_max_distance,
                bidirectional: !decoder && !self.config.causal_encoder,
            },
            first_site,
            last_site: site,
        })
    }
}

impl Network {
    /// The layers of a configuration, their weights to be read by [`load`](Self::load).
    pub(super) fn new(config: &T5Config, params: &Parameters) -> Result<Self> {
        let ids = params.iter().enumerate().map(|(id, (name, var))| (name, (id, var.dims()))).collect();
        let names = Names { ids, config };
        let (shared_id, dims) = names.find("shared.weight")?;
        let head = if config.tie_word_embeddings { "shared" } else { "lm_head" };
        let encoder = names.stack("encoder", 0)?;
        let decoder = names.stack("decoder", encoder.last_site + 1)?;
        Ok(Self {
            shared: vec![0.0; dims.iter().product()],
            shared_id,
            encoder,
            decoder,
            head: names.linear(head)?,
            scale: if config.scale_decoder_outputs { (config.d_model as f64).sqrt().recip() as f32 } else { 1.0 },
            causal_encoder: config.causal_encoder,
            d_model: config.d_model,
            heads: config.num_heads,
        })
    }

    /// Reads every weight, in parallel, and packs the matrices; for both directions when `training`.
    pub(super) fn load(&mut self, params: &Parameters, training: bool) -> Result<()> {
        let values: Vec<&Tensor> = params.iter().map(|(_, weight)| weight).collect();
        let mut small: Vec<(usize, &mut Vec<f32>)> = vec![(self.shared_id, &mut self.shared)];
        let mut large: Vec<&mut Linear> = vec![&mut self.head];
        for stack in [&mut self.encoder, &mut self.decoder] {
            small.push((stack.bias_id, &mut stack.bias));
            small.push((stack.final_norm.id, &mut stack.final_norm.weight));
            for block in &mut stack.blocks {
                for attention in std::iter::once(&mut block.attention).chain(&mut block.cross) {
                    small.push((attention.norm.id, &mut attention.norm.weight));
                    if !attention.k_rows.is_empty() {
                        small.push((attention.k.id, &mut attention.k_rows));
                    }
                    large.extend([&mut attention.q, &mut attention.k, &mut attention.v, &mut attention.o]);
                }
                let network = &mut block.feed_forward;
                small.push((network.norm.id, &mut network.norm.weight));
                large.extend([&mut network.input, &mut network.output]);
                large.extend(&mut network.gate);
            }
        }
        for (id, weight) in small {
            host::read(values[id], |values| {
                weight.copy_from_slice(values);
                Ok(())
            })?;
        }
        large.into_par_iter().try_for_each(|linear| {
            host::read(values[linear.id], |values| linear.pack(values, training).map_err(candle_core::Error::wrap))
        })
    }

    /// Parameters whose gradients are always added to: not those of one product alone.
    pub(super) fn added(&self) -> Vec<usize> {
        let mut added = Vec::new();
        for stack in [&self.encoder, &self.decoder] {
            added.extend([stack.bias_id, stack.final_norm.id]);
            for block in &stack.blocks {
                added.extend(std::iter::once(&block.attention).chain(&block.cross).map(|layer| layer.norm.id));
                added.push(block.feed_forward.norm.id);
            }
        }
        if self.head.id != self.shared_id {
            added.push(self.shared_id);
        }
        added
    }
}

impl Stack {
    /// The biases of all distances up to `positions`, `(heads, 2 * positions - 1)`.
    pub(super) fn spread_bias(&self, heads: usize, positions: usize) -> Vec<f32> {
        let span = 2 * positions - 1;
        let mut values = vec![0.0; heads * span];
        for at in 0..span {
            let bucket = self.bucket(positions, at);
            for head in 0..heads {
                values[head * span + at] = self.bias[bucket * heads + head];
            }
        }
        values
    }

    /// Adds the gradient of [`spread_bias`](Self::spread_bias)'s result to that of the table.
    pub(super) fn gather_bias(&self, heads: usize, positions: usize, spread: &[f32], table: &mut [f32]) {
        let span = 2 * positions - 1;
        for at in 0..span {
            let bucket = self.bucket(positions, at);
            for head in 0..heads {
                table[bucket * heads + head] += spread[head * span + at];
            }
        }
    }

    fn bucket(&self, positions: usize, at: usize) -> usize {
        let centre = positions - 1;
        self.buckets.bucket(centre.saturating_sub(at), at.saturating_sub(centre))
    }
}
