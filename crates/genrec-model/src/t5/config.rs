//! The shape of a T5 and its `config.json`.

use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// The highest number of weights that a configuration may ask for: 16 GiB in `f32`.
const MAX_PARAMETERS: usize = 1 << 32;

/// The most blocks of the encoder, and of the decoder, that a configuration may ask for.
const MAX_LAYERS: usize = 1024;

/// The version of the model directory's format.
pub(crate) const FORMAT_VERSION: u64 = 1;

/// What `model_type` says in a file of Hugging Face's T5.
pub(crate) const MODEL_TYPE: &str = "t5";
/// What it says where the encoder is causal, so that nothing reads such a model as a T5.
pub(crate) const CAUSAL_MODEL_TYPE: &str = "genrec-t5-causal-encoder";

/// The position-wise network of every block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FeedForwardKind {
    /// `W_o relu(W_i x)`, of T5 1.0 and of TIGER.
    #[serde(rename = "relu")]
    Relu,
    /// `W_o (gelu(W_0 x) * W_1 x)` with the tanh form of GELU, of T5 1.1 ([Shazeer 2020](https://arxiv.org/abs/2002.05202)).
    #[serde(rename = "gated-gelu")]
    GatedGelu,
}

/// The shape of a T5 encoder-decoder, field by field that of Hugging Face's `config.json`.
///
/// It is read leniently, because the files of others carry fields that do not concern the model: unknown fields are
/// ignored and absent ones take the defaults of `transformers.T5Config`. It is written so that
/// `transformers.T5ForConditionalGeneration.from_pretrained` builds the same model, unless
/// [`causal_encoder`](Self::causal_encoder) makes it one that `transformers` does not know; its `model_type` says so.
///
/// ```
/// use genrec_model::t5::T5Config;
///
/// let config = T5Config::paper(3_027).with_dropout_rate(0.2);
/// config.validate()?;
/// assert_eq!((config.num_heads, config.d_kv, config.d_ff), (6, 64, 1024));
/// # Ok::<(), genrec_model::ModelError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "HuggingFaceConfig", into = "HuggingFaceConfig")]
#[non_exhaustive]
pub struct T5Config {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of one attention head. `num_heads * d_kv` need not be `d_model`.
    pub d_kv: usize,
    /// Inner width of the feed-forward network.
    pub d_ff: usize,
    /// Blocks of the encoder; at most 1,024.
    pub num_layers: usize,
    /// Blocks of the decoder; at most 1,024.
    pub num_decoder_layers: usize,
    /// Attention heads of every block.
    pub num_heads: usize,
    /// Buckets of the relative position bias; an even number, at least 4.
    pub relative_attention_num_buckets: usize,
    /// Distance in tokens from which on all positions share the last bucket.
    pub relative_attention_max_distance: usize,
    /// Probability of dropping an activation in training; in `[0, 1)`.
    pub dropout_rate: f64,
    /// Added to the mean square in RMSNorm.
    pub layer_norm_epsilon: f64,
    /// Factor on the standard deviations of the initial weights.
    pub initializer_factor: f64,
    /// The position-wise network.
    pub feed_forward_proj: FeedForwardKind,
    /// Whether the output layer is the embedding table or has weights of its own.
    pub tie_word_embeddings: bool,
    /// Whether the output layer's inputs are scaled by `d_model^-0.5`, as they are where the embeddings are tied.
    /// Where a file says nothing, this is `tie_word_embeddings`.
    pub scale_decoder_outputs: bool,
    /// Whether an encoder position sees only itself and those before it. This is not T5: it lets the CPU's engine encode
    /// the sources of a batch that are prefixes of one another, as are a user's histories, once for all of them. The
    /// buckets of the position bias are those of the decoder then.
    pub causal_encoder: bool,
    /// Token that pads; never read as input but for the decoder's start.
    pub pad_token_id: u32,
    /// Token that ends a sequence in T5's own tasks; Semantic IDs have one length and do without.
    pub eos_token_id: u32,
    /// Token fed at the first decoding step.
    pub decoder_start_token_id: u32,
}

impl T5Config {
    /// The model of TIGER ([section 4](https://arxiv.org/abs/2305.05065)): 4 + 4 blocks, 6 heads of 64, width 128,
    /// feed-forward 1,024 with ReLU, dropout 0.1, tied embeddings.
    ///
    /// These dimensions give about 4.8 million weights with a vocabulary of 3,000 (the paper says 13 million, which
    /// fits a width of 384).
    pub fn paper(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            d_model: 128,
            d_kv: 64,
            d_ff: 1024,
            num_layers: 4,
            num_decoder_layers: 4,
            num_heads: 6,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            dropout_rate: 0.1,
            layer_norm_epsilon: 1e-6,
            initializer_factor: 1.0,
            feed_forward_proj: FeedForwardKind::Relu,
            tie_word_embeddings: true,
            scale_decoder_outputs: true,
            causal_encoder: false,
            pad_token_id: 0,
            eos_token_id: 1,
            decoder_start_token_id: 0,
        }
    }

    /// A model that two CPU cores train in minutes: 2 + 2 blocks, 4 heads of 32, width 128, feed-forward 512.
    ///
    /// An example costs about a sixth of [`paper`](Self::paper)'s.
    pub fn cpu(vocab_size: usize) -> Self {
        Self { d_kv: 32, d_ff: 512, num_layers: 2, num_decoder_layers: 2, num_heads: 4, ..Self::paper(vocab_size) }
    }

    /// Sets the number of tokens.
    #[must_use]
    pub fn with_vocab_size(mut self, vocab_size: usize) -> Self {
        self.vocab_size = vocab_size;
        self
    }

    /// Sets the width of the residual stream.
    #[must_use]
    pub fn with_d_model(mut self, d_model: usize) -> Self {
        self.d_model = d_model;
        self
    }

    /// Sets the number of heads and the width of each.
    #[must_use]
    pub fn with_heads(mut self, num_heads: usize, d_kv: usize) -> Self {
        (self.num_heads, self.d_kv) = (num_heads, d_kv);
        self
    }

    /// Sets the inner width of the feed-forward network.
    #[must_use]
    pub fn with_d_ff(mut self, d_ff: usize) -> Self {
        self.d_ff = d_ff;
        self
    }

    /// Sets the blocks of the encoder and of the decoder.
    #[must_use]
    pub fn with_layers(mut self, encoder: usize, decoder: usize) -> Self {
        (self.num_layers, self.num_decoder_layers) = (encoder, decoder);
        self
    }

    /// Sets the probability of dropping an activation in training.
    #[must_use]
    pub fn with_dropout_rate(mut self, dropout_rate: f64) -> Self {
        self.dropout_rate = dropout_rate;
        self
    }

    /// Sets the position-wise network.
    #[must_use]
    pub fn with_feed_forward(mut self, kind: FeedForwardKind) -> Self {
        self.feed_forward_proj = kind;
        self
    }

    /// Sets whether the output layer is the embedding table, and its inputs scaled, as in T5 1.0, or neither, as in 1.1.
    #[must_use]
    pub fn with_tied_embeddings(mut self, tied: bool) -> Self {
        (self.tie_word_embeddings, self.scale_decoder_outputs) = (tied, tied);
        self
    }

    /// Sets whether encoder positions see only those before them.
    #[must_use]
    pub fn with_causal_encoder(mut self, causal: bool) -> Self {
        self.causal_encoder = causal;
        self
    }

    /// Sets the padding, end and decoder start tokens.
    #[must_use]
    pub fn with_special_tokens(mut self, pad: u32, eos: u32, decoder_start: u32) -> Self {
        (self.pad_token_id, self.eos_token_id, self.decoder_start_token_id) = (pad, eos, decoder_start);
        self
    }

    /// Width of all heads together.
    pub(crate) fn inner(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ModelError::Config`] names the first field out of its bounds.
    pub fn validate(&self) -> Result<(), ModelError> {
        let bad = |field, value: &dyn ToString, bound: &str| {
            Err(ModelError::Config { field, value: value.to_string(), bound: bound.to_owned() })
        };
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_layers", self.num_layers),
            ("num_decoder_layers", self.num_decoder_layers),
            ("num_heads", self.num_heads),
        ] {
            if value == 0 {
                return bad(field, &value, "at least 1");
            }
        }
        for (field, value) in [("num_layers", self.num_layers), ("num_decoder_layers", self.num_decoder_layers)] {
            if value > MAX_LAYERS {
                return bad(field, &value, &format!("at most {MAX_LAYERS}"));
            }
        }
        let buckets = self.relative_attention_num_buckets;
        if buckets < 4 || !buckets.is_multiple_of(2) {
            return bad("relative_attention_num_buckets", &buckets, "even and at least 4");
        }
        if self.relative_attention_max_distance <= buckets / 2 || self.relative_attention_max_distance > 1 << 24 {
            let bound = format!("above half of the {buckets} buckets and at most {}", 1 << 24);
            return bad("relative_attention_max_distance", &self.relative_attention_max_distance, &bound);
        }
        if !(0.0..1.0).contains(&self.dropout_rate) {
            return bad("dropout_rate", &self.dropout_rate, "in [0, 1)");
        }
        for (field, value) in
            [("layer_norm_epsilon", self.layer_norm_epsilon), ("initializer_factor", self.initializer_factor)]
        {
            if !(value.is_finite() && value > 0.0) {
                return bad(field, &value, "positive and finite");
            }
        }
        for (field, token) in [
            ("pad_token_id", self.pad_token_id),
            ("eos_token_id", self.eos_token_id),
            ("decoder_start_token_id", self.decoder_start_token_id),
        ] {
            if usize::try_from(token).map_or(true, |token| token >= self.vocab_size) {
                return bad(field, &token, &format!("below the vocabulary size, {}", self.vocab_size));
            }
        }
        match self.count_parameters() {
            Some(count) if count <= MAX_PARAMETERS => Ok(()),
            _ => bad("d_model", &self.d_model, &format!("so small that all weights number at most {MAX_PARAMETERS}")),
        }
    }

    /// Number of weights, or `None` where it overflows.
    fn count_parameters(&self) -> Option<usize> {
        let inner = self.num_heads.checked_mul(self.d_kv)?;
        let attention = inner.checked_mul(self.d_model)?.checked_mul(4)?.checked_add(self.d_model)?;
        let matrices = match self.feed_forward_proj {
            FeedForwardKind::Relu => 2,
            FeedForwardKind::GatedGelu => 3,
        };
        let feed_forward = self.d_ff.checked_mul(self.d_model)?.checked_mul(matrices)?.checked_add(self.d_model)?;
        let encoder = attention.checked_add(feed_forward)?.checked_mul(self.num_layers)?;
        let decoder = attention.checked_mul(2)?.checked_add(feed_forward)?.checked_mul(self.num_decoder_layers)?;
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        let embeddings = self.vocab_size.checked_mul(self.d_model)?.checked_mul(tables)?;
        let bias = self.relative_attention_num_buckets.checked_mul(self.num_heads)?.checked_mul(2)?;
        [encoder, decoder, bias, self.d_model.checked_mul(2)?].iter().try_fold(embeddings, |sum, n| sum.checked_add(*n))
    }
}

/// `config.json` as it stands in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
struct HuggingFaceConfig {
    architectures: Vec<String>,
    model_type: String,
    format_version: u64,
    is_encoder_decoder: bool,
    use_cache: bool,
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_decoder_layers: Option<usize>,
    num_heads: usize,
    relative_attention_num_buckets: usize,
    relative_attention_max_distance: usize,
    dropout_rate: f64,
    layer_norm_epsilon: f64,
    initializer_factor: f64,
    feed_forward_proj: FeedForwardKind,
    tie_word_embeddings: bool,
    scale_decoder_outputs: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    causal_encoder: bool,
    pad_token_id: u32,
    eos_token_id: u32,
    decoder_start_token_id: Option<u32>,
}

impl Default for HuggingFaceConfig {
    /// The defaults of `transformers.T5Config`, which a file may leave out.
    fn default() -> Self {
        Self {
            architectures: vec!["T5ForConditionalGeneration".to_owned()],
            model_type: MODEL_TYPE.to_owned(),
            format_version: FORMAT_VERSION,
            is_encoder_decoder: true,
            use_cache: true,
            vocab_size: 32_128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            dropout_rate: 0.1,
            layer_norm_epsilon: 1e-6,
            initializer_factor: 1.0,
            feed_forward_proj: FeedForwardKind::Relu,
            tie_word_embeddings: true,
            scale_decoder_outputs: None,
            causal_encoder: false,
            pad_token_id: 0,
            eos_token_id: 1,
            decoder_start_token_id: None,
        }
    }
}

impl From<HuggingFaceConfig> for T5Config {
    fn from(file: HuggingFaceConfig) -> Self {
        Self {
            vocab_size: file.vocab_size,
            d_model: file.d_model,
            d_kv: file.d_kv,
            d_ff: file.d_ff,
            num_layers: file.num_layers,
            num_decoder_layers: file.num_decoder_layers.unwrap_or(file.num_layers),
            num_heads: file.num_heads,
            relative_attention_num_buckets: file.relative_attention_num_buckets,
            relative_attention_max_distance: file.relative_attention_max_distance,
            dropout_rate: file.dropout_rate,
            layer_norm_epsilon: file.layer_norm_epsilon,
            initializer_factor: file.initializer_factor,
            feed_forward_proj: file.feed_forward_proj,
            tie_word_embeddings: file.tie_word_embeddings,
            scale_decoder_outputs: file.scale_decoder_outputs.unwrap_or(file.tie_word_embeddings),
            causal_encoder: file.causal_encoder,
            pad_token_id: file.pad_token_id,
            eos_token_id: file.eos_token_id,
            decoder_start_token_id: file.decoder_start_token_id.unwrap_or(file.pad_token_id),
        }
    }
}

impl From<T5Config> for HuggingFaceConfig {
    fn from(config: T5Config) -> Self {
        let mut file = Self::default();
        if config.causal_encoder {
            file.architectures = vec!["T5CausalEncoder".to_owned()];
            file.model_type = CAUSAL_MODEL_TYPE.to_owned();
        }
        Self {
            vocab_size: config.vocab_size,
            d_model: config.d_model,
            d_kv: config.d_kv,
            d_ff: config.d_ff,
            num_layers: config.num_layers,
            num_decoder_layers: Some(config.num_decoder_layers),
            num_heads: config.num_heads,
            relative_attention_num_buckets: config.relative_attention_num_buckets,
            relative_attention_max_distance: config.relative_attention_max_distance,
            dropout_rate: config.dropout_rate,
            layer_norm_epsilon: config.layer_norm_epsilon,
            initializer_factor: config.initializer_factor,
            feed_forward_proj: config.feed_forward_proj,
            tie_word_embeddings: config.tie_word_embeddings,
            scale_decoder_outputs: Some(config.scale_decoder_outputs),
            causal_encoder: config.causal_encoder,
            pad_token_id: config.pad_token_id,
            eos_token_id: config.eos_token_id,
            decoder_start_token_id: Some(config.decoder_start_token_id),
            ..file
        }
    }
}
