//! Sentence encoders of the BERT family.

use std::path::Path;

use candle_core::Device;

use crate::{
    encoder::{
        Encoder, Parts, bert, embedder_over_encoder, files,
        head::{Head, Pooling},
    },
    error::Result,
};

/// A BERT encoder with the head that its directory describes: all-MiniLM-L6/L12-v2 and kin.
///
/// Reads a directory in sentence-transformers' layout: `config.json` (`model_type` `bert`),
/// `tokenizer.json`, `model.safetensors`, and where they are there `modules.json` with
/// `1_Pooling/config.json` (mean, cls or last token), dense layers and normalisation, and
/// `sentence_bert_config.json` for the maximum length. Without `modules.json` it is the mean over
/// tokens, not normalised, as in sentence-transformers.
///
/// Agrees with sentence-transformers to a cosine of 0.99999 and better. A text of no tokens, which a
/// tokenizer without special tokens makes of an empty one, embeds to zeros.
///
/// Reimers and Gurevych, *Sentence-BERT* (2019), section 3.
#[derive(Debug)]
pub struct Bert(Encoder);

embedder_over_encoder!(Bert);

impl Bert {
    /// Opens a model directory and puts the weights on a device.
    ///
    /// # Errors
    /// When a file is missing or malformed, or the model is of a variant that is not supported; the error names both.
    pub fn open(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::open_checked(dir.as_ref(), None, device)
    }

    pub(crate) fn open_checked(dir: &Path, sha256: Option<&str>, device: &Device) -> Result<Self> {
        let config: bert::Config = files::config(dir, "bert")?;
        config.check(dir)?;
        let sha256 = files::checked_hash(dir, sha256)?;
        let max_length = files::max_length(dir)?.unwrap_or(config.max_position_embeddings);
        let backbone = bert::Bert::load(config, files::weights(dir, device)?)?;
        let head = Head::open(dir, Head::new(Pooling::Mean, false), device)?;
        Encoder::new(Parts {
            family: "bert",
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
