//! How a saved embedder says which model outside of it embeds texts.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{AnyEmbedder, CONFIG, FORMAT_VERSION};
use crate::{
    error::Result,
    io::{create_dir, read_versioned, write_json},
    tfidf::Tfidf,
};

#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) r#type: Family,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Family {
    Tfidf,
    Bert,
    #[serde(rename = "sentence_t5")]
    SentenceT5,
    CausalLm,
}

/// An outside model by place and content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reference {
    pub(super) format_version: u32,
    pub(super) r#type: Family,
    pub(super) dir: PathBuf,
    pub(super) sha256: String,
    pub(super) max_length: usize,
}

/// The pretrained model that a saved embedder refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutsideModel {
    /// Its directory, or what it is called where it was published.
    pub dir: PathBuf,
    /// SHA-256 of its files.
    pub sha256: String,
}

impl AnyEmbedder {
    /// The pretrained model that what [`save`](Self::save) wrote refers to; `None` for TF-IDF, which is whole by itself.
    ///
    /// # Errors
    /// When `config.json` is missing, malformed or of a newer format.
    pub fn outside_model(saved: impl AsRef<Path>) -> Result<Option<OutsideModel>> {
        let path = saved.as_ref().join(CONFIG);
        let header: Header = read_versioned(&path, FORMAT_VERSION)?;
        if matches!(header.r#type, Family::Tfidf) {
            return Ok(None);
        }
        let Reference { dir, sha256, .. } = read_versioned(&path, FORMAT_VERSION)?;
        Ok(Some(OutsideModel { dir, sha256 }))
    }

    /// Copies what [`save`](Self::save) wrote to where others will read it: an outside model is called `name` from then on, as it
    /// is by those who publish it, and no longer by the directory that it lay in.
    ///
    /// [`load`](Self::load) looks for a directory of that name; who has the model elsewhere opens the copy by
    /// [`load_relocated`](Self::load_relocated), which checks that it is the same one.
    ///
    /// # Errors
    /// When a file is missing, malformed or of a newer format, or cannot be written.
    pub fn copy_saved(from: impl AsRef<Path>, to: impl AsRef<Path>, name: &str) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        create_dir(to)?;
        if Self::outside_model(from)?.is_none() {
            return Tfidf::load(from)?.save(to);
        }
        let reference: Reference = read_versioned(&from.join(CONFIG), FORMAT_VERSION)?;
        write_json(&to.join(CONFIG), &Reference { dir: name.into(), ..reference })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_names_the_model_and_keeps_what_it_is_known_by() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = r#"{"format_version": 1, "type": "bert", "dir": "/a/b", "sha256": "c0", "max_length": 9}"#;
        std::fs::write(from.path().join(CONFIG), config).unwrap();
        AnyEmbedder::copy_saved(from.path(), to.path().join("embedder"), "owner/name").unwrap();
        let model = AnyEmbedder::outside_model(to.path().join("embedder")).unwrap().unwrap();
        assert_eq!(model, OutsideModel { dir: "owner/name".into(), sha256: "c0".into() });
    }
}
