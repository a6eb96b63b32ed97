//! The files of a model directory in Hugging Face's and sentence-transformers' layout.

use std::{
    collections::{BTreeSet, HashMap},
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
    let index_path = dir.join(INDEX);
    if dir.join("model.safetensors").is_file() || !index_path.is_file() {
        let remedy = "convert other weights by `save_pretrained(dir, safe_serialization=True)` in transformers";
        return Ok(vec![require(dir, "model.safetensors", remedy)?]);
    }
    let index: Index = read_json(&index_path)?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    names
        .into_iter()
        .map(|name| {
            if is_plain(&name) {
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

/// A module of sentence-transformers.
#[derive(Debug, Deserialize)]
pub(crate) struct Module {
    /// Its directory within the model's; empty for the model's own.
    #[serde(default)]
    pub(crate) path: String,
    /// Its class, as a Python path.
    pub(crate) r#type: String,
}

/// The modules that `modules.json` lists, if there is one.
pub(crate) fn modules(dir: &Path) -> Result<Option<Vec<Module>>> {
    let path = dir.join(MODULES);
    let modules: Option<Vec<Module>> = optional(&path)?;
    for module in modules.iter().flatten() {
        if !(module.path.is_empty() || is_plain(&module.path)) {
            return Err(EmbedError::Unsupported {
                path,
                property: "module path",
                value: module.path.clone(),
                supported: "names of directories beside it",
            });
        }
    }
    Ok(modules)
}

/// Whether a name leads to an entry of the directory itself.
fn is_plain(name: &str) -> bool {
    matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)])
}

/// SHA-256 over the files that decide a model's embeddings: configurations, tokenizer, weights, and the
/// same in the directories of the modules that `modules.json` lists.
pub(crate) fn content_hash(dir: &Path) -> Result<String> {
    let mut files: BTreeSet<String> = BTreeSet::new();
    for Module { path: name, .. } in modules(dir)?.into_iter().flatten().filter(|module| !module.path.is_empty()) {
        files.extend(MODULE_FILES.iter().map(|file| format!("{name}/{file}")));
        if dir.join(&name).join(INDEX).is_file() {
            let shards = weight_files(&dir.join(&name))?;
            files.extend(
                shards.iter().filter_map(|path| Some(format!("{name}/{}", path.file_name()?.to_string_lossy()))),
            );
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

const MODULES: &str = "modules.json";
const INDEX: &str = "model.safetensors.index.json";
const MODEL_FILES: [&str; 5] =
    ["config.json", MODULES, "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json"];
const MODULE_FILES: [&str; 3] = ["config.json", "model.safetensors", "pytorch_model.bin"];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A model directory of the given files; directories are made.
    fn model(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    /// As all-MiniLM-L6-v2 is laid out.
    const MINILM: [(&str, &str); 8] = [
        ("config.json", "{}"),
        ("modules.json", r#"[{"path": "", "type": "a.Transformer"}, {"path": "1_Pooling", "type": "a.Pooling"}]"#),
        ("sentence_bert_config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "{}"),
        ("model.safetensors", "weights"),
        ("1_Pooling/config.json", "{}"),
        ("onnx/config.json", "{}"),
    ];

    #[test]
    fn the_hash_of_a_common_layout_does_not_change() {
        assert_eq!(
            content_hash(model(&MINILM).path()).unwrap(),
            "8dcc66772796ba1d8cf0e62f128ab68b2e6785adaeb4058426a575e596e59727"
        );
    }

    #[test]
    fn every_file_of_a_listed_module_counts() {
        let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
        let mut files = MINILM.to_vec();
        files[1].1 = r#"[{"path": "", "type": "a.Transformer"}, {"path": "head", "type": "a.Dense"}, {"path": "1_Pooling", "type": "a.Pooling"}]"#;
        files.extend([
            ("head/config.json", "{}"),
            ("head/model.safetensors.index.json", index),
            ("head/model-1.safetensors", "one"),
            ("head/model-2.safetensors", "two"),
            ("9_not_listed/config.json", "{}"),
        ]);
        let dir = model(&files);
        let hash = content_hash(dir.path()).unwrap();
        for (file, counts) in [
            ("head/config.json", true),
            ("head/model-1.safetensors", true),
            ("head/model-2.safetensors", true),
            ("1_Pooling/config.json", true),
            ("9_not_listed/config.json", false),
        ] {
            let before = fs::read(dir.path().join(file)).unwrap();
            fs::write(dir.path().join(file), "changed").unwrap();
            assert_eq!(content_hash(dir.path()).unwrap() != hash, counts, "{file}");
            fs::write(dir.path().join(file), before).unwrap();
        }
        assert_eq!(content_hash(dir.path()).unwrap(), hash);
    }

    #[test]
    fn module_paths_stay_in_the_directory() {
        for path in ["..", "../other", "/etc", "a/b", "."] {
            let modules = format!(r#"[{{"path": "{path}", "type": "a.Dense"}}]"#);
            let dir = model(&[("modules.json", &modules), ("model.safetensors", "")]);
            match content_hash(dir.path()) {
                Err(EmbedError::Unsupported { property: "module path", value, .. }) => assert_eq!(value, path),
                other => panic!("{path}: {other:?}"),
            }
        }
    }
}
