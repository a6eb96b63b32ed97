//! Sentence-T5.

use std::path::Path;

use candle_core::Device;

use crate::{
    encoder::{
        Encoder, Parts, embedder_over_encoder, files,
        head::{Head, Pooling},
        t5,
    },
    error::Result,
};

/// Maximum length where a directory states none, as published for Sentence-T5.
const MAX_LENGTH: usize = 256;

/// The encoder of TIGER's own experiments: a T5 encoder, the mean over tokens, a dense layer without
/// bias, unit length; 768 dimensions for sentence-t5-base.
///
/// Reads a directory in sentence-transformers' layout: `config.json` (`model_type` `t5`),
/// `tokenizer.json`, `model.safetensors`, `modules.json`, `1_Pooling/`, `2_Dense/`. The published
/// dense layer is a PyTorch pickle, `2_Dense/pytorch_model.bin`, read only where no `model.safetensors`
/// lies beside it: convert it unless you trust the source. Weights other than the dense layer's must be safetensors.
///
/// Padding is masked in attention and in the mean, so that a text's neighbours in a batch do not matter.
///
/// Ni et al., *Sentence-T5* (2022), the "encoder mean" variant; Rajput et al., *TIGER* (2023), section 4.1.
#[derive(Debug)]
pub struct SentenceT5(Encoder);

embedder_over_encoder!(SentenceT5);

impl SentenceT5 {
    /// Opens a model directory and puts the weights on a device.
    ///
    /// # Errors
    /// When a file is missing or malformed, or the model is of a variant that is not supported; the error names both.
    pub fn open(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::open_checked(dir.as_ref(), None, device)
    }

    pub(crate) fn open_checked(dir: &Path, sha256: Option<&str>, device: &Device) -> Result<Self> {
        let config: t5::Config = files::config(dir, "t5")?;
        config.check(dir)?;
        let sha256 = files::checked_hash(dir, sha256)?;
        let max_length = files::max_length(dir)?.unwrap_or(MAX_LENGTH);
        let backbone = t5::T5Encoder::load(config, files::weights(dir, device)?)?;
        let head = Head::open(dir, Head::new(Pooling::Mean, true), device)?;
        Encoder::new(Parts {
            family: "sentence_t5",
            dir: dir.to_owned(),
            sha256,
            device: device.clone(),
            max_length,
            backbone: Box::new(backbone),
            head,
        })
        .map(Self)
    }
}
