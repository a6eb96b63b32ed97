//! The BERT encoder.

use std::path::Path;

use candle_core::{D, DType, IndexOp, Result, Tensor};
use candle_nn::VarBuilder;
use serde::Deserialize;

use super::{
    Backbone, Batch,
    nn::{LayerNorm, Linear, attention, gelu, split_heads},
};
use crate::error::EmbedError;

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Activation {
    Gelu,
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    Relu,
}

/// Hugging Face's `config.json`, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: Activation,
    pub(crate) max_position_embeddings: usize,
    layer_norm_eps: f64,
    type_vocab_size: usize,
    #[serde(default)]
    position_embedding_type: Option<String>,
}

impl Config {
    pub(crate) fn check(&self, dir: &Path) -> crate::Result<()> {
        let path = || dir.join("config.json");
        let positions = self.position_embedding_type.as_deref().unwrap_or("absolute");
        if positions != "absolute" {
            return Err(EmbedError::Unsupported {
                path: path(),
                property: "position_embedding_type",
                value: positions.to_owned(),
                supported: "absolute",
            });
        }
        let heads = self.num_attention_heads;
        if heads == 0 || !self.hidden_size.is_multiple_of(heads) || self.max_position_embeddings == 0 {
            return Err(EmbedError::Unsupported {
                path: path(),
                property: "num_attention_heads",
                value: heads.to_string(),
                supported: "a divisor of hidden_size, with at least one position",
            });
        }
        Ok(())
    }
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
}

/// BERT (Devlin et al., 2019), post-norm, without the pooler.
pub(crate) struct Bert {
    words: Tensor,
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    config: Config,
}

impl Bert {
    pub(crate) fn load(config: Config, vb: VarBuilder<'_>) -> Result<Self> {
        let vb = if vb.contains_tensor("bert.embeddings.word_embeddings.weight") { vb.pp("bert") } else { vb };
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let e = vb.pp("embeddings");
        let types = e.pp("token_type_embeddings").get((config.type_vocab_size, width), "weight")?;
        let positions = e.pp("position_embeddings").get((config.max_position_embeddings, width), "weight")?;
        let layer = |vb: VarBuilder<'_>| {
            let own = vb.pp("attention.self");
            Ok(Layer {
                query: Linear::load(width, width, own.pp("query"))?,
                key: Linear::load(width, width, own.pp("key"))?,
                value: Linear::load(width, width, own.pp("value"))?,
                output: Linear::load(width, width, vb.pp("attention.output.dense"))?,
                attention_norm: LayerNorm::load(width, eps, vb.pp("attention.output.LayerNorm"))?,
                up: Linear::load(width, config.intermediate_size, vb.pp("intermediate.dense"))?,
                down: Linear::load(config.intermediate_size, width, vb.pp("output.dense"))?,
                norm: LayerNorm::load(width, eps, vb.pp("output.LayerNorm"))?,
            })
        };
        Ok(Self {
            words: e.pp("word_embeddings").get((config.vocab_size, width), "weight")?,
            // Every text is one segment of type 0.
            positions: positions.broadcast_add(&types.i(0)?)?,
            norm: LayerNorm::load(width, eps, e.pp("LayerNorm"))?,
            layers: (0..config.num_hidden_layers)
                .map(|i| layer(vb.pp(format!("encoder.layer.{i}"))))
                .collect::<Result<_>>()?,
            config,
        })
    }

    fn activate(&self, x: &Tensor) -> Result<Tensor> {
        match self.config.hidden_act {
            Activation::Gelu => gelu(x),
            Activation::GeluNew => x.gelu(),
            Activation::Relu => x.relu(),
        }
    }
}

impl Backbone for Bert {
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
        let (width, heads) = (self.config.hidden_size, self.config.num_attention_heads);
        let scale = 1.0 / ((width / heads) as f64).sqrt();
        let mask = batch.attention_mask()?;
        let masks: Vec<&Tensor> = mask.iter().collect();
        let words = self.words.index_select(&batch.ids.flatten_all()?, 0)?.reshape((texts, length, width))?;
        let x = words.broadcast_add(&self.positions.narrow(0, 0, length)?)?;
        let mut x = self.norm.forward(&x.reshape((texts * length, width))?)?;
        for layer in &self.layers {
            let q = split_heads(&(layer.query.forward(&x)? * scale)?, texts, heads)?;
            let k = split_heads(&layer.key.forward(&x)?, texts, heads)?;
            let v = split_heads(&layer.value.forward(&x)?, texts, heads)?;
            let attended = layer.output.forward(&attention(&q, &k, &v, &masks)?)?;
            x = layer.attention_norm.forward(&(x + attended)?)?;
            let fed = layer.down.forward(&self.activate(&layer.up.forward(&x)?)?)?;
            x = layer.norm.forward(&(x + fed)?)?;
        }
        debug_assert_eq!((x.dim(D::Minus1)?, x.dtype()), (width, DType::F32));
        x.reshape((texts, length, width))
    }
}
