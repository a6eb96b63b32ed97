//! The Llama decoder, up to the hidden states after its last normalisation.

use std::path::Path;

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;
use serde::Deserialize;

use super::{
    Backbone, Batch,
    nn::{Linear, RmsNorm, attention, rotate, split_heads},
};
use crate::error::EmbedError;

/// Hugging Face's `config.json`, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    #[serde(default = "silu")]
    hidden_act: String,
    rope_theta: Option<f64>,
    /// Older files; absent or null for plain rotary embeddings.
    rope_scaling: Option<Rope>,
    /// Newer files.
    rope_parameters: Option<Rope>,
}

fn silu() -> String {
    "silu".to_owned()
}

#[derive(Debug, Clone, Deserialize)]
struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl Config {
    fn heads(&self) -> (usize, usize, usize) {
        let heads = self.num_attention_heads;
        let width = self.head_dim.unwrap_or(self.hidden_size / heads.max(1));
        (heads, self.num_key_value_heads.unwrap_or(heads), width)
    }

    /// Checks what the forward pass relies on.
    pub(crate) fn check(&self, dir: &Path) -> crate::Result<()> {
        let error = |property, value: String, supported| {
            Err(EmbedError::Unsupported { path: dir.join("config.json"), property, value, supported })
        };
        let (heads, groups, width) = self.heads();
        if groups == 0 || heads == 0 || !heads.is_multiple_of(groups) {
            return error("num_key_value_heads", groups.to_string(), "a divisor of num_attention_heads");
        }
        if width == 0 || !width.is_multiple_of(2) {
            return error("head_dim", width.to_string(), "an even number");
        }
        if self.hidden_act != "silu" {
            return error("hidden_act", self.hidden_act.clone(), "silu");
        }
        if self.inverse_frequencies().is_none() {
            return error(
                "rope_scaling",
                format!("{:?}", self.rope()),
                "default, linear, or llama3 with its four numbers",
            );
        }
        Ok(())
    }

    fn rope(&self) -> Option<&Rope> {
        self.rope_parameters.as_ref().or(self.rope_scaling.as_ref())
    }

    /// Angles a position, one for each pair of components (Su et al., 2021, equation 15), after scaling.
    fn inverse_frequencies(&self) -> Option<Vec<f64>> {
        let (_, _, width) = self.heads();
        let theta = self.rope().and_then(|rope| rope.rope_theta).or(self.rope_theta).unwrap_or(10_000.0);
        let plain = (0..width / 2).map(|i| theta.powf(-2.0 * i as f64 / width as f64));
        let Some(rope) = self.rope() else { return Some(plain.collect()) };
        match rope.rope_type.as_deref().unwrap_or("default") {
            "default" => Some(plain.collect()),
            "linear" => {
                let factor = rope.factor?;
                Some(plain.map(|frequency| frequency / factor).collect())
            }
            "llama3" => {
                let (factor, low, high) = (rope.factor?, rope.low_freq_factor?, rope.high_freq_factor?);
                let context = rope.original_max_position_embeddings?;
                let scale = move |frequency: f64| {
                    // Turns within the original context: many keep their frequency, few are slowed down, between is blended.
                    let turns = context * frequency / std::f64::consts::TAU;
                    let blend = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - blend) * frequency / factor + blend * frequency
                };
                Some(plain.map(scale).collect())
            }
            _ => None,
        }
    }
}

struct Layer {
    attention_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// Llama (Touvron et al., 2023) without its language-model head.
///
/// Texts are padded on the right: a token attends only to those before it, so padding is never seen,
/// and as rotary embeddings depend on distances alone the last token's state is that of a text padded on the left.
pub(crate) struct Llama {
    words: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    inverse_frequencies: Vec<f64>,
    config: Config,
}

impl Llama {
    pub(crate) fn load(config: Config, vb: VarBuilder<'_>) -> Result<Self> {
        let vb = if vb.contains_tensor("model.embed_tokens.weight") { vb.pp("model") } else { vb };
        let (heads, groups, head) = config.heads();
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.rms_norm_eps);
        let layer = |vb: VarBuilder<'_>| {
            let (own, mlp) = (vb.pp("self_attn"), vb.pp("mlp"));
            Ok(Layer {
                attention_norm: RmsNorm::load(width, eps, vb.pp("input_layernorm"))?,
                q: Linear::load(width, heads * head, own.pp("q_proj"))?,
                k: Linear::load(width, groups * head, own.pp("k_proj"))?,
                v: Linear::load(width, groups * head, own.pp("v_proj"))?,
                o: Linear::load(heads * head, width, own.pp("o_proj"))?,
                norm: RmsNorm::load(width, eps, vb.pp("post_attention_layernorm"))?,
                gate: Linear::load(width, inner, mlp.pp("gate_proj"))?,
                up: Linear::load(width, inner, mlp.pp("up_proj"))?,
                down: Linear::load(inner, width, mlp.pp("down_proj"))?,
            })
        };
        Ok(Self {
            words: vb.pp("embed_tokens").get((config.vocab_size, width), "weight")?,
            layers: (0..config.num_hidden_layers)
                .map(|i| layer(vb.pp(format!("layers.{i}"))))
                .collect::<Result<_>>()?,
            norm: RmsNorm::load(width, eps, vb.pp("norm"))?,
            inverse_frequencies: config.inverse_frequencies().unwrap_or_default(),
            config,
        })
    }

    /// Cosines and sines, each `(length, head_dim / 2)`.
    fn angles(&self, length: usize, device: &Device) -> Result<(Tensor, Tensor)> {
        #[allow(clippy::cast_possible_truncation, reason = "cosines and sines")]
        let table = |f: fn(f64) -> f64| -> Vec<f32> {
            let row = |position| self.inverse_frequencies.iter().map(move |angle| f(position as f64 * angle) as f32);
            (0..length).flat_map(row).collect()
        };
        let shape = (length, self.inverse_frequencies.len());
        Ok((Tensor::from_vec(table(f64::cos), shape, device)?, Tensor::from_vec(table(f64::sin), shape, device)?))
    }
}

/// Minus infinity above the diagonal: `(1, 1, length, length)`.
fn causal_mask(length: usize, device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = (0..length)
        .flat_map(|query| (0..length).map(move |key| if key > query { f32::NEG_INFINITY } else { 0.0 }))
        .collect();
    Tensor::from_vec(values, (1, 1, length, length), device)
}

/// Each of `(texts, groups, length, width)` as often as a group has query heads.
fn repeat_groups(x: &Tensor, times: usize) -> Result<Tensor> {
    if times == 1 {
        return Ok(x.clone());
    }
    let (texts, groups, length, width) = x.dims4()?;
    let shape = (texts, groups, times, length, width);
    x.unsqueeze(2)?.broadcast_as(shape)?.reshape((texts, groups * times, length, width))
}

impl Backbone for Llama {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn max_positions(&self) -> Option<usize> {
        Some(self.config.max_position_embeddings)
    }

    fn forward(&self, batch: &Batch) -> Result<Tensor> {
        let (texts, length) = batch.ids.dims2()?;
        let (heads, groups, head) = self.config.heads();
        let scale = 1.0 / (head as f64).sqrt();
        let mask = causal_mask(length, batch.ids.device())?;
        let (cos, sin) = self.angles(length, batch.ids.device())?;
        let mut x = self.words.index_select(&batch.ids.flatten_all()?, 0)?;
        for layer in &self.layers {
            let normed = layer.attention_norm.forward(&x)?;
            let q = split_heads(&(layer.q.forward(&normed)? * scale)?, texts, heads)?;
            let k = split_heads(&layer.k.forward(&normed)?, texts, groups)?;
            let v = split_heads(&layer.v.forward(&normed)?, texts, groups)?;
            let q = rotate(&q, &cos, &sin)?;
            let k = repeat_groups(&rotate(&k, &cos, &sin)?, heads / groups)?;
            let v = repeat_groups(&v, heads / groups)?;
            x = (x + layer.o.forward(&attention(&q, &k, &v, &[&mask])?)?)?;
            let normed = layer.norm.forward(&x)?;
            let inner = (layer.gate.forward(&normed)?.silu()? * layer.up.forward(&normed)?)?;
            x = (x + layer.down.forward(&inner)?)?;
        }
        self.norm.forward(&x)?.reshape((texts, length, self.config.hidden_size))
    }
}
