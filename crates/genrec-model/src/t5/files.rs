//! A model on disk: `config.json` and `model.safetensors`, as Hugging Face lays them out.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use candle_core::{Device, Tensor, safetensors::Load};
use genrec_kernels::ParamError;
use safetensors::SafeTensors;

use super::{
    T5, T5Config,
    config::{CAUSAL_MODEL_TYPE, FORMAT_VERSION, MODEL_TYPE},
    weights,
};
use crate::{error::ModelError, io};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// The embedding table.
const TABLE: &str = "shared.weight";
/// The output layer where it is not the table.
const HEAD: &str = "lm_head.weight";
/// Names under which Hugging Face's files may repeat the embedding table.
const ALIASES: [&str; 2] = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];

impl T5 {
    /// Writes `config.json` and `model.safetensors` into a directory, making it where it is missing.
    ///
    /// Both are written under temporary names and flushed to the disk before the first is renamed, so that a full disk leaves
    /// what was there. A crash between the two renames leaves the new configuration beside the old weights, which
    /// [`load`](Self::load) refuses where their shapes differ. The directory is a plain Hugging
    /// Face T5: `transformers.T5ForConditionalGeneration.from_pretrained(dir)` reads it, unless its encoder is causal.
    ///
    /// # Errors
    /// [`ModelError::Io`] when a file cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), ModelError> {
        let dir = dir.as_ref();
        io::create_dir(dir)?;
        let json = dir.join(CONFIG);
        let mut text = serde_json::to_vec_pretty(&self.config).map_err(|source| ModelError::Json {
            path: json.clone(),
            expected: MODEL_TYPE,
            source,
        })?;
        text.push(b'\n');
        let path = dir.join(WEIGHTS);
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let tensors = self.params.iter();
        let bytes = safetensors::serialize(tensors, Some(metadata))
            .map_err(|source| ModelError::Safetensors { path: path.clone(), source })?;
        io::write_all(&[(&json, &text), (&path, &bytes)])
    }

    /// Reads a directory written by [`save`](Self::save) or by Hugging Face's `save_pretrained`.
    ///
    /// Weights of any floating type are converted to `f32`. Names, shapes and finiteness are checked.
    ///
    /// # Errors
    /// [`ModelError`] says which file cannot be read, is damaged, or does not fit its configuration.
    pub fn load(dir: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError> {
        let dir = dir.as_ref();
        let mut config = read_config(&dir.join(CONFIG))?;
        let path = dir.join(WEIGHTS);
        let values = read_weights(&path, &mut config)?;
        let params = weights::zeros(&config, device)?;
        params.restore(&values).map_err(|source| ModelError::Weights { path, source })?;
        Ok(Self::from_parameters(config, params)?)
    }
}

fn read_config(path: &Path) -> Result<T5Config, ModelError> {
    let text = io::read(path)?;
    let json = |source| ModelError::Json { path: path.to_owned(), expected: MODEL_TYPE, source };
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(json)?;
    match value.get("model_type") {
        None => {}
        Some(found) if found == MODEL_TYPE || found == CAUSAL_MODEL_TYPE => {}
        Some(found) => {
            let found = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
            return Err(ModelError::Architecture { path: path.to_owned(), expected: MODEL_TYPE, found });
        }
    }
    if let Some(found) = value.get("format_version").and_then(serde_json::Value::as_u64)
        && found > FORMAT_VERSION
    {
        return Err(ModelError::FormatVersion { path: path.to_owned(), found, supported: FORMAT_VERSION });
    }
    let config: T5Config = serde_json::from_value(value).map_err(json)?;
    config.validate()?;
    Ok(config)
}

/// The tensors of a file by the names of the configuration's weights. Names and shapes are compared with the file's
/// header before anything of the configuration's size is allocated.
///
/// Transformers 5 writes `tie_word_embeddings: true` whatever the model is and unties where the file holds two tables
/// that differ; so does this.
fn read_weights(path: &Path, config: &mut T5Config) -> Result<BTreeMap<String, Tensor>, ModelError> {
    let bytes = io::read(path)?;
    let damaged = |source| ModelError::Safetensors { path: path.to_owned(), source };
    let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
    let misfit = |source| ModelError::Weights { path: path.to_owned(), source };

    // Files that drop shared tensors keep the first name in alphabetical order.
    let table = [TABLE].iter().chain(&ALIASES).find_map(|name| file.tensor(name).ok());
    if let (Some(table), Ok(head)) = (&table, file.tensor(HEAD))
        && *table != head
    {
        config.tie_word_embeddings = false;
    }
    let mut values = BTreeMap::new();
    for weight in weights::layout(config) {
        let view = if weight.name == TABLE { table.clone() } else { file.tensor(&weight.name).ok() };
        let Some(view) = view else {
            return Err(misfit(ParamError::Missing { name: weight.name }));
        };
        if view.shape() != weight.shape {
            let (expected, got) = (weight.shape, view.shape().to_vec());
            return Err(misfit(ParamError::Shape { name: weight.name, expected, got }));
        }
        values.insert(weight.name, view.load(&Device::Cpu)?);
    }
    for name in file.names() {
        let repeated = (ALIASES.contains(&name) || name == HEAD) && file.tensor(name).ok() == table;
        if !repeated && !values.contains_key(name) {
            return Err(misfit(ParamError::Unexpected { name: name.to_owned() }));
        }
    }
    Ok(values)
}
