//! The files of a model directory in Hugging Face's and sentence-transformers' layout.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Component, Path, PathBuf},
};

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    error::{EmbedError, Result},
    hash::PartHasher,
    io::{read_file, read_json},
};

/// The path of a file that must be there.
pub(crate) fn require(dir: &Path, file: &'static str, remedy: &'static str) -> Result<PathBuf> {
    let path = dir.join(file);
    if path.is_file() { Ok(path) } else { Err(EmbedError::MissingFile { dir: dir.to_owned(), file, remedy }) }
}

/// A JSON file that may be absent.
pub(crate) fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if path.is_file() { read_json(path).map(Some) } else { Ok(None) }
}

/// The model's own `config.json`, after a look at its `model_type`.
pub(crate) fn config<T: DeserializeOwned>(dir: &Path, family: &'static str) -> Result<T> {
    #[derive(Deserialize)]
    struct Family {
        model_type: String,
    }
    let path = require(dir, "config.json", "give the directory of a model in Hugging Face's layout")?;
    let found: Family = read_json(&path)?;
    if found.model_type != family {
        return Err(EmbedError::Unsupported {
            path,
            property: "model_type",
            value: found.model_type,
            supported: family,
        });
    }
    read_json(&path)
}

/// Longest text in tokens, by `sentence_bert_config.json`, else by `tokenizer_config.json`.
pub(crate) fn max_length(dir: &Path) -> Result<Option<usize>> {
    #[derive(Deserialize)]
    struct SentenceConfig {
        max_seq_length: Option<usize>,
    }
    #[derive(Deserialize)]
    struct TokenizerConfig {
        // A tokenizer without a bound says 1e30.
        model_max_length: Option<f64>,
    }
    let sentence: Option<SentenceConfig> = optional(&dir.join("sentence_bert_config.json"))?;
    if let Some(length) = sentence.and_then(|config| config.max_seq_length) {
        return Ok(Some(length));
    }
    let tokenizer: Option<TokenizerConfig> = optional(&dir.join("tokenizer_config.json"))?;
    let length = tokenizer.and_then(|config| config.model_max_length).filter(|length| (1.0..1e6).contains(length));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    Ok(length.map(|length| length as usize))
}

/// The weight files of a directory: `model.safetensors`, or the shards of its index.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let index_path = dir.join("model.safetensors.index.json");
    if dir.join("model.safetensors").is_file() || !index_path.is_file() {
        let remedy = "convert other weights by `save_pretrained(dir, safe_serialization=True)` in transformers";
        return Ok(vec![require(dir, "model.safetensors", remedy)?]);
    }
    let index: Index = read_json(&index_path)?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    names
        .into_iter()
        .map(|name| {
            let plain = matches!(Path::new(&name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
            if plain {
                Ok(dir.join(name))
            } else {
                Err(EmbedError::Unsupported {
                    path: index_path.clone(),
                    property: "weight file",
                    value: name,
                    supported: "file names without a directory",
                })
            }
        })
        .collect()
}

/// The weights of a directory as f32 on a device.
pub(crate) fn weights(dir: &Path, device: &Device) -> Result<VarBuilder<'static>> {
    let mut tensors = HashMap::new();
    for path in weight_files(dir)? {
        tensors.extend(candle_core::safetensors::load_buffer(&read_file(&path)?, device)?);
    }
    Ok(VarBuilder::from_tensors(tensors, DType::F32, device))
}

/// SHA-256 over the files that decide a model's embeddings: configurations, tokenizer, weights, and the
/// same in the sub-directories of sentence-transformers' modules.
pub(crate) fn content_hash(dir: &Path) -> Result<String> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| EmbedError::Io { action: "list", path, source }
    };
    let mut files: BTreeSet<String> = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(error(dir))? {
        let entry = entry.map_err(error(dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && name.starts_with(|c: char| c.is_ascii_digit()) {
            files.extend(MODULE_FILES.iter().map(|file| format!("{name}/{file}")));
        }
    }
    files.extend(MODEL_FILES.iter().map(|file| (*file).to_owned()));
    files.retain(|file| dir.join(file).is_file());
    for path in weight_files(dir)? {
        files.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    let mut hasher = PartHasher::default();
    for file in files {
        hasher = hasher.part(file.as_bytes()).file(&dir.join(&file))?;
    }
    Ok(hasher.hex())
}

/// Fails unless a directory's content hash is the expected one, if one is expected.
pub(crate) fn checked_hash(dir: &Path, expected: Option<&str>) -> Result<String> {
    let got = content_hash(dir)?;
    match expected {
        Some(expected) if expected != got => {
            Err(EmbedError::HashMismatch { path: dir.to_owned(), expected: expected.to_owned(), got })
        }
        _ => Ok(got),
    }
}

const MODEL_FILES: [&str; 5] =
    ["config.json", "modules.json", "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json"];
const MODULE_FILES: [&str; 3] = ["config.json", "model.safetensors", "pytorch_model.bin"];
