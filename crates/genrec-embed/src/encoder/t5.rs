//! The T5 encoder, with a padding mask.
#![allow(clippy::needless_pass_by_value, reason = "a VarBuilder is a handle, passed by value as everywhere in candle")]

use std::path::Path;

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;
use serde::Deserialize;

use super::{
    Backbone, Batch,
    nn::{Linear, RmsNorm, attention, gelu, split_heads},
};
use crate::error::EmbedError;

/// Hugging Face's `config.json`, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_heads: usize,
    relative_attention_num_buckets: usize,
    #[serde(default = "max_distance")]
    relative_attention_max_distance: usize,
    layer_norm_epsilon: f64,
    #[serde(default = "relu")]
    feed_forward_proj: String,
}

fn max_distance() -> usize {
    128
}

fn relu() -> String {
    "relu".to_owned()
}

#[derive(Debug, Clone, Copy)]
enum Activation {
    Relu,
    Gelu,
    /// The approximation by tanh.
    GeluNew,
    Silu,
}

impl Config {
    /// Checks ranges that the forward pass relies on.
    pub(crate) fn check(&self, dir: &Path) -> crate::Result<()> {
        let error = |property, value: String, supported| EmbedError::Unsupported {
            path: dir.join("config.json"),
            property,
            value,
            supported,
        };
        if self.feed_forward().is_none() {
            let supported = "relu, gelu, gelu_new, silu, each also with gated- in front";
            return Err(error("feed_forward_proj", self.feed_forward_proj.clone(), supported));
        }
        let buckets = self.relative_attention_num_buckets;
        if buckets < 4 || self.relative_attention_max_distance <= buckets / 4 {
            let supported = "at least 4, and fewer than 4 times relative_attention_max_distance";
            return Err(error("relative_attention_num_buckets", buckets.to_string(), supported));
        }
        if self.num_heads == 0 || self.d_kv == 0 {
            return Err(error("num_heads", self.num_heads.to_string(), "at least 1, with d_kv at least 1"));
        }
        Ok(())
    }

    fn feed_forward(&self) -> Option<(bool, Activation)> {
        let (gated, name) = match self.feed_forward_proj.strip_prefix("gated-") {
            Some(name) => (true, name),
            None => (false, self.feed_forward_proj.as_str()),
        };
        let activation = match name {
            "relu" => Activation::Relu,
            // transformers reads `gated-gelu` as the approximation, as the published checkpoints need.
            "gelu" if gated => Activation::GeluNew,
            "gelu" => Activation::Gelu,
            "gelu_new" => Activation::GeluNew,
            "silu" => Activation::Silu,
            _ => return None,
        };
        Some((gated, activation))
    }
}

struct Layer {
    attention_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    norm: RmsNorm,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
}

/// The encoder of T5 (Raffel et al., 2020): pre-norm, RMS normalisation, unscaled attention with one
/// relative position bias for all layers.
pub(crate) struct T5Encoder {
    words: Tensor,
    /// `(buckets, heads)`.
    position_bias: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    activation: Activation,
    config: Config,
}

impl T5Encoder {
    pub(crate) fn load(config: Config, vb: VarBuilder<'_>) -> Result<Self> {
        let (width, inner, eps) = (config.d_model, config.num_heads * config.d_kv, config.layer_norm_epsilon);
        let (gated, activation) = config.feed_forward().unwrap_or((false, Activation::Relu));
        let encoder = vb.pp("encoder");
        let words = if vb.contains_tensor("shared.weight") { vb.pp("shared") } else { encoder.pp("embed_tokens") };
        let layer = |vb: VarBuilder<'_>| {
            let (own, ff) = (vb.pp("layer.0.SelfAttention"), vb.pp("layer.1.DenseReluDense"));
            let up = if gated { "wi_1" } else { "wi" };
            Ok(Layer {
                attention_norm: RmsNorm::load(width, eps, vb.pp("layer.0.layer_norm"))?,
                q: Linear::load(width, inner, own.pp("q"))?,
                k: Linear::load(width, inner, own.pp("k"))?,
                v: Linear::load(width, inner, own.pp("v"))?,
                o: Linear::load(inner, width, own.pp("o"))?,
                norm: RmsNorm::load(width, eps, vb.pp("layer.1.layer_norm"))?,
                gate: if gated { Some(Linear::load(width, config.d_ff, ff.pp("wi_0"))?) } else { None },
                up: Linear::load(width, config.d_ff, ff.pp(up))?,
                down: Linear::load(config.d_ff, width, ff.pp("wo"))?,
            })
        };
        let bias = encoder.pp("block.0.layer.0.SelfAttention.relative_attention_bias");
        Ok(Self {
            words: words.get((config.vocab_size, width), "weight")?,
            position_bias: bias.get((config.relative_attention_num_buckets, config.num_heads), "weight")?,
            layers: (0..config.num_layers).map(|i| layer(encoder.pp(format!("block.{i}")))).collect::<Result<_>>()?,
            norm: RmsNorm::load(width, eps, encoder.pp("final_layer_norm"))?,
            activation,
            config,
        })
    }

    fn activate(&self, x: &Tensor) -> Result<Tensor> {
        match self.activation {
            Activation::Relu => x.relu(),
            Activation::Gelu => gelu(x),
            Activation::GeluNew => x.gelu(),
            Activation::Silu => x.silu(),
        }
    }

    /// `(1, heads, length, length)`.
    fn bias(&self, length: usize, device: &Device) -> Result<Tensor> {
        let (buckets, distance) =
            (self.config.relative_attention_num_buckets, self.config.relative_attention_max_distance);
        let ids: Vec<u32> =
            (0..length).flat_map(|query| (0..length).map(move |key| bucket(query, key, buckets, distance))).collect();
        let ids = Tensor::from_vec(ids, length * length, device)?;
        self.position_bias.index_select(&ids, 0)?.reshape((1, length, length, ()))?.permute((0, 3, 1, 2))?.contiguous()
    }
}

/// The bucket of a relative position: half of them for keys behind the query, half for keys ahead, each
/// half exact up to a quarter of all buckets, then logarithmic up to `max_distance` (Raffel et al., 2020, section 2.1).
fn bucket(query: usize, key: usize, buckets: usize, max_distance: usize) -> u32 {
    let half = buckets / 2;
    let exact = half / 2;
    let distance = query.abs_diff(key);
    let within = if distance < exact {
        distance
    } else {
        // In single precision, as transformers does, so that the bounds fall alike.
        let ratio = (distance as f32 / exact as f32).ln() / (max_distance as f64 / exact as f64).ln() as f32;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a ratio of at least 0, cut to the last bucket"
        )]
        let offset = (ratio * (half - exact) as f32) as usize;
        (exact + offset).min(half - 1)
    };
    u32::try_from(within + if key > query { half } else { 0 }).unwrap_or(u32::MAX)
}

impl Backbone for T5Encoder {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.config.d_model
    }

    fn max_positions(&self) -> Option<usize> {
        None
    }

    fn forward(&self, batch: &Batch) -> Result<Tensor> {
        let (texts, length) = batch.ids.dims2()?;
        let (width, heads) = (self.config.d_model, self.config.num_heads);
        let bias = self.bias(length, batch.ids.device())?;
        let mask = batch.attention_mask()?;
        let masks: Vec<&Tensor> = std::iter::once(&bias).chain(&mask).collect();
        let mut x = self.words.index_select(&batch.ids.flatten_all()?, 0)?;
        for layer in &self.layers {
            let normed = layer.attention_norm.forward(&x)?;
            let q = split_heads(&layer.q.forward(&normed)?, texts, heads)?;
            let k = split_heads(&layer.k.forward(&normed)?, texts, heads)?;
            let v = split_heads(&layer.v.forward(&normed)?, texts, heads)?;
            x = (x + layer.o.forward(&attention(&q, &k, &v, &masks)?)?)?;
            let normed = layer.norm.forward(&x)?;
            let up = layer.up.forward(&normed)?;
            let inner = match &layer.gate {
                Some(gate) => (self.activate(&gate.forward(&normed)?)? * up)?,
                None => self.activate(&up)?,
            };
            x = (x + layer.down.forward(&inner)?)?;
        }
        self.norm.forward(&x)?.reshape((texts, length, width))
    }
}

#[cfg(test)]
mod tests {
    use super::bucket;

    #[test]
    fn buckets_of_the_published_configuration() {
        // By `T5Attention._relative_position_bucket` of transformers, bidirectional, 32 buckets, 128.
        let behind: Vec<u32> =
            [0, 1, 7, 8, 11, 12, 16, 32, 64, 90, 91, 127, 500].map(|d| bucket(d, 0, 32, 128)).to_vec();
        assert_eq!(behind, [0, 1, 7, 8, 8, 9, 10, 12, 14, 14, 15, 15, 15]);
        assert_eq!(bucket(0, 1, 32, 128), 17);
        assert_eq!(bucket(3, 503, 32, 128), 31);
    }
}
