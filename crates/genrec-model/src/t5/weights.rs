//! Names, shapes and initial values of every weight.

use candle_core::{DType, Device, Result, Tensor};
use genrec_kernels::{CounterRng, Parameters, init};

use super::config::{FeedForwardKind, T5Config};

/// How a weight starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// The same value everywhere.
    Constant(f64),
}

/// One weight of the model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weight {
    /// Hugging Face's name.
    pub(crate) name: String,
    /// A matrix is `(outputs, inputs)`.
    pub(crate) shape: Vec<usize>,
    pub(crate) init: Init,
}

/// Every weight of a configuration, with the initial scales of `transformers` (those of Mesh TensorFlow's T5).
pub(crate) fn layout(config: &T5Config) -> Vec<Weight> {
    let mut layout = Layout { config, weights: Vec::new() };
    let factor = config.initializer_factor;
    layout.push("shared.weight".to_owned(), &[config.vocab_size, config.d_model], Init::Normal(factor));
    for (stack, layers) in [("encoder", config.num_layers), ("decoder", config.num_decoder_layers)] {
        for block in 0..layers {
            layout.block(stack, block);
        }
        layout.norm(format!("{stack}.final_layer_norm.weight"));
    }
    if !config.tie_word_embeddings {
        layout.push("lm_head.weight".to_owned(), &[config.vocab_size, config.d_model], Init::Normal(factor));
    }
    layout.weights
}

/// Allocates and initialises every weight; each is drawn from a stream of its own name, so that its values do not depend
/// on what else the model holds.
pub(crate) fn initialise(config: &T5Config, seed: u64, device: &Device) -> Result<Parameters> {
    let rng = CounterRng::new(seed);
    fill(config, device, |weight| match weight.init {
        Init::Normal(std) => init::normal(&rng.named(&weight.name), weight.shape.as_slice(), std, device),
        Init::Constant(value) => Tensor::full(value as f32, weight.shape.as_slice(), device),
    })
}

/// Allocates every weight with zeros, to be overwritten by stored values.
pub(crate) fn zeros(config: &T5Config, device: &Device) -> Result<Parameters> {
    fill(config, device, |weight| Tensor::zeros(weight.shape.as_slice(), DType::F32, device))
}

fn fill(config: &T5Config, device: &Device, value: impl Fn(&Weight) -> Result<Tensor>) -> Result<Parameters> {
    let mut params = Parameters::new(device);
    for weight in layout(config) {
        let value = value(&weight)?;
        params.insert(weight.name, &value)?;
    }
    Ok(params)
}

struct Layout<'a> {
    config: &'a T5Config,
    weights: Vec<Weight>,
}

impl Layout<'_> {
    fn push(&mut self, name: String, shape: &[usize], init: Init) {
        self.weights.push(Weight { name, shape: shape.to_vec(), init });
    }

    fn norm(&mut self, name: String) {
        self.push(name, &[self.config.d_model], Init::Constant(self.config.initializer_factor));
    }

    fn matrix(&mut self, name: String, outputs: usize, inputs: usize, std: f64) {
        self.push(name, &[outputs, inputs], Init::Normal(self.config.initializer_factor * std));
    }

    fn block(&mut self, stack: &str, block: usize) {
        let prefix = format!("{stack}.block.{block}.layer");
        self.attention(&format!("{prefix}.0.SelfAttention"), block == 0);
        self.norm(format!("{prefix}.0.layer_norm.weight"));
        let mut layer = 1;
        if stack == "decoder" {
            self.attention(&format!("{prefix}.1.EncDecAttention"), false);
            self.norm(format!("{prefix}.1.layer_norm.weight"));
            layer = 2;
        }
        self.feed_forward(&format!("{prefix}.{layer}.DenseReluDense"));
        self.norm(format!("{prefix}.{layer}.layer_norm.weight"));
    }

    fn attention(&mut self, prefix: &str, with_bias: bool) {
        let config = self.config;
        let (d_model, inner) = (config.d_model, config.inner());
        let scale = |fan: usize| (fan as f64).sqrt().recip();
        // T5 does not divide scores by sqrt(d_kv); the queries start smaller instead.
        self.matrix(format!("{prefix}.q.weight"), inner, d_model, scale(d_model * config.d_kv));
        self.matrix(format!("{prefix}.k.weight"), inner, d_model, scale(d_model));
        self.matrix(format!("{prefix}.v.weight"), inner, d_model, scale(d_model));
        self.matrix(format!("{prefix}.o.weight"), d_model, inner, scale(inner));
        if with_bias {
            let (buckets, heads) = (config.relative_attention_num_buckets, config.num_heads);
            self.matrix(format!("{prefix}.relative_attention_bias.weight"), buckets, heads, scale(d_model));
        }
    }

    fn feed_forward(&mut self, prefix: &str) {
        let (d_model, d_ff) = (self.config.d_model, self.config.d_ff);
        let scale = |fan: usize| (fan as f64).sqrt().recip();
        let inputs: &[&str] = match self.config.feed_forward_proj {
            FeedForwardKind::Relu => &["wi"],
            FeedForwardKind::GatedGelu => &["wi_0", "wi_1"],
        };
        for input in inputs {
            self.matrix(format!("{prefix}.{input}.weight"), d_ff, d_model, scale(d_model));
        }
        self.matrix(format!("{prefix}.wo.weight"), d_model, d_ff, scale(d_ff));
    }
}
