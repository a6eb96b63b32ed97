//! Decoder language models as embedders.

use std::path::Path;

use candle_core::Device;

use crate::{
    encoder::{
        Encoder, Parts, embedder_over_encoder, files,
        head::{Head, Pooling},
        llama,
    },
    error::Result,
};

/// Default maximum length in tokens: item texts seldom need more, and a decoder's cost is high.
const MAX_LENGTH: usize = 128;

/// A decoder language model of the Llama family: the state of a text's last token after the last
/// normalisation, not scaled to unit length.
///
/// Reads `config.json` (`model_type` `llama`; grouped queries; plain, linear or llama3 rotary
/// scaling), `tokenizer.json` and safetensors weights, sharded or not. Texts beyond
/// [`max_length`](Self::max_length), by default 128 tokens, are cut at the end. Weights are held as
/// f32: 4 bytes a parameter, 27 GB for Llama-2-7b.
///
/// The embedding is that of left padding in `transformers`; [`TextTemplate::upper_case`](crate::TextTemplate::upper_case)
/// is the text layout it was tried with. A text of no tokens embeds to zeros.
#[derive(Debug)]
pub struct CausalLm(Encoder);

embedder_over_encoder!(CausalLm);

impl CausalLm {
    /// Opens a model directory and puts the weights on a device.
    ///
    /// # Errors
    /// When a file is missing or malformed, or the model is of a variant that is not supported; the error names both.
    pub fn open(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::open_checked(dir.as_ref(), None, device)
    }

    pub(crate) fn open_checked(dir: &Path, sha256: Option<&str>, device: &Device) -> Result<Self> {
        let config: llama::Config = files::config(dir, "llama")?;
        config.check(dir)?;
        let sha256 = files::checked_hash(dir, sha256)?;
        let backbone = llama::Llama::load(config, files::weights(dir, device)?)?;
        Encoder::new(Parts {
            family: "causal_lm",
            dir: dir.to_owned(),
            sha256,
            device: device.clone(),
            max_length: MAX_LENGTH,
            backbone: Box::new(backbone),
            head: Head::new(Pooling::Last, false),
        })
        .map(Self)
    }
}
