//! The embedders this crate has, chosen by value.

mod reference;

use std::path::{Path, PathBuf};

use candle_core::Device;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::{
    bert::Bert,
    causal_lm::CausalLm,
    embedder::Embedder,
    error::{EmbedError, Result},
    io::{create_dir, read_versioned, write_json},
    sentence_t5::SentenceT5,
    tfidf::{Tfidf, TfidfConfig},
};

/// Newest format of `config.json` written and read.
const FORMAT_VERSION: u32 = 1;
const CONFIG: &str = "config.json";

pub use reference::OutsideModel;
use reference::{Family, Header, Reference};

/// Which embedder to use, as configuration files and command lines say it.
///
/// ```
/// use genrec_embed::EmbedderSpec;
///
/// # fn main() -> Result<(), serde_json::Error> {
/// let spec: EmbedderSpec = serde_json::from_str(r#"{"type": "bert", "dir": "models/all-MiniLM-L6-v2"}"#)?;
/// assert!(matches!(spec, EmbedderSpec::Bert { .. }));
/// assert!(matches!(EmbedderSpec::default(), EmbedderSpec::Tfidf(_)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EmbedderSpec {
    /// TF-IDF, fitted on the catalogue.
    Tfidf(TfidfConfig),
    /// A BERT sentence encoder.
    Bert {
        /// Model directory.
        dir: PathBuf,
    },
    /// Sentence-T5.
    #[serde(rename = "sentence_t5")]
    SentenceT5 {
        /// Model directory.
        dir: PathBuf,
    },
    /// A decoder language model.
    CausalLm {
        /// Model directory.
        dir: PathBuf,
    },
}

impl Default for EmbedderSpec {
    /// TF-IDF, which needs no weights.
    fn default() -> Self {
        Self::Tfidf(TfidfConfig::default())
    }
}

/// An embedder of any kind this crate has, that can be saved into and loaded from a run directory.
#[derive(Debug)]
#[non_exhaustive]
pub enum AnyEmbedder {
    /// TF-IDF.
    Tfidf(Tfidf),
    /// A BERT sentence encoder.
    Bert(Bert),
    /// Sentence-T5.
    SentenceT5(SentenceT5),
    /// A decoder language model.
    CausalLm(CausalLm),
}

impl AnyEmbedder {
    /// Opens a model that has weights.
    ///
    /// # Errors
    /// [`EmbedError::NotFitted`] for TF-IDF, which [`fit`](Self::fit) makes; otherwise as the embedder's own `open`.
    pub fn open(spec: &EmbedderSpec, device: &Device) -> Result<Self> {
        match spec {
            EmbedderSpec::Tfidf(_) => Err(EmbedError::NotFitted),
            EmbedderSpec::Bert { dir } => Bert::open(dir, device).map(Self::Bert),
            EmbedderSpec::SentenceT5 { dir } => SentenceT5::open(dir, device).map(Self::SentenceT5),
            EmbedderSpec::CausalLm { dir } => CausalLm::open(dir, device).map(Self::CausalLm),
        }
    }

    /// Fits TF-IDF on the catalogue's texts, or opens a model that has weights already.
    ///
    /// # Errors
    /// As [`Tfidf::fit`] or [`open`](Self::open).
    pub fn fit(spec: &EmbedderSpec, texts: &[String], device: &Device) -> Result<Self> {
        match spec {
            EmbedderSpec::Tfidf(config) => Tfidf::fit(texts, config.clone()).map(Self::Tfidf),
            other => Self::open(other, device),
        }
    }

    /// Saves into a directory, which is made if need be: TF-IDF with its weights, an outside model as
    /// `config.json` with its absolute path, its content's SHA-256 and its maximum length.
    ///
    /// # Errors
    /// [`EmbedError::Io`] when a file cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let (family, model, sha256, max_length) = match self {
            Self::Tfidf(tfidf) => return tfidf.save(dir),
            Self::Bert(model) => (Family::Bert, model.dir(), model.sha256(), model.max_length()),
            Self::SentenceT5(model) => (Family::SentenceT5, model.dir(), model.sha256(), model.max_length()),
            Self::CausalLm(model) => (Family::CausalLm, model.dir(), model.sha256(), model.max_length()),
        };
        let model = std::path::absolute(model).map_err(|source| EmbedError::Io {
            action: "resolve",
            path: model.to_owned(),
            source,
        })?;
        create_dir(dir)?;
        let reference = Reference {
            format_version: FORMAT_VERSION,
            r#type: family,
            dir: model,
            sha256: sha256.to_owned(),
            max_length,
        };
        write_json(&dir.join(CONFIG), &reference)
    }

    /// Loads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`EmbedError::HashMismatch`] when the model's files are not those of then; otherwise when a file
    /// is missing, malformed or of a newer format.
    pub fn load(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::load_at(dir.as_ref(), None, device)
    }

    /// [`load`](Self::load) with the outside model in another place than when it was saved, such as on another machine.
    ///
    /// # Errors
    /// As [`load`](Self::load). For TF-IDF, which refers to no outside model, the place is ignored.
    pub fn load_relocated(dir: impl AsRef<Path>, model: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::load_at(dir.as_ref(), Some(model.as_ref()), device)
    }

    fn load_at(dir: &Path, model: Option<&Path>, device: &Device) -> Result<Self> {
        let path = dir.join(CONFIG);
        let header: Header = read_versioned(&path, FORMAT_VERSION)?;
        if matches!(header.r#type, Family::Tfidf) {
            return Tfidf::load(dir).map(Self::Tfidf);
        }
        let Reference { r#type, dir, sha256, max_length, .. } = read_versioned(&path, FORMAT_VERSION)?;
        let (dir, sha256) = (model.unwrap_or(&dir), Some(sha256.as_str()));
        match r#type {
            Family::Tfidf => Err(EmbedError::NotFitted),
            Family::Bert => Bert::open_checked(dir, sha256, device)?.with_max_length(max_length).map(Self::Bert),
            Family::SentenceT5 => {
                SentenceT5::open_checked(dir, sha256, device)?.with_max_length(max_length).map(Self::SentenceT5)
            }
            Family::CausalLm => {
                CausalLm::open_checked(dir, sha256, device)?.with_max_length(max_length).map(Self::CausalLm)
            }
        }
    }

    fn inner(&self) -> &dyn Embedder {
        match self {
            Self::Tfidf(embedder) => embedder,
            Self::Bert(embedder) => embedder,
            Self::SentenceT5(embedder) => embedder,
            Self::CausalLm(embedder) => embedder,
        }
    }
}

impl Embedder for AnyEmbedder {
    fn dim(&self) -> usize {
        self.inner().dim()
    }

    fn fingerprint(&self) -> String {
        self.inner().fingerprint()
    }

    fn embed_with(&self, texts: &[String], progress: &mut dyn FnMut(usize, usize)) -> Result<Array2<f32>> {
        self.inner().embed_with(texts, progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_looked_at_first() {
        let dir = tempfile::tempdir().unwrap();
        for (config, newer) in [
            (r#"{"format_version": 2, "type": "of_the_future", "more": 1}"#, true),
            (r#"{"format_version": 2, "type": "tfidf", "more": 1}"#, true),
            (r#"{"format_version": 1, "type": "of_the_future"}"#, false),
        ] {
            std::fs::write(dir.path().join(CONFIG), config).unwrap();
            for error in
                [AnyEmbedder::load(dir.path(), &Device::Cpu).unwrap_err(), Tfidf::load(dir.path()).unwrap_err()]
            {
                match error {
                    EmbedError::FormatVersion { got: 2, supported: 1, .. } => assert!(newer, "{config}"),
                    EmbedError::Json { .. } => assert!(!newer, "{config}"),
                    other => panic!("{config}: {other}"),
                }
            }
        }
    }
}
