//! A model on disk: `config.json` and `model.safetensors`.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use candle_core::{Device, Tensor, safetensors::Load};
use genrec_kernels::ParamError;
use safetensors::SafeTensors;
use serde_json::Value;

use super::{SasRec, SasRecConfig, weights};
use crate::{error::ModelError, io};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// What `model_type` says.
const MODEL_TYPE: &str = "sasrec";
/// The version of the directory's format.
const FORMAT_VERSION: u64 = 1;

impl SasRec {
    /// Writes `config.json` and `model.safetensors` into a directory, making it where it is missing.
    ///
    /// Both are written under temporary names and flushed to the disk before the first is renamed, so that a full disk leaves
    /// what was there. A crash between the two renames leaves the new configuration beside the old weights, which
    /// [`load`](Self::load) refuses where their shapes differ.
    ///
    /// # Errors
    /// [`ModelError::Io`] when a file cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), ModelError> {
        let dir = dir.as_ref();
        io::create_dir(dir)?;
        let config = dir.join(CONFIG);
        let json = |source| ModelError::Json { path: config.clone(), expected: MODEL_TYPE, source };
        let mut value = serde_json::to_value(&self.config).map_err(json)?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("model_type".to_owned(), MODEL_TYPE.into());
            fields.insert("format_version".to_owned(), FORMAT_VERSION.into());
        }
        let mut text = serde_json::to_vec_pretty(&value).map_err(json)?;
        text.push(b'\n');
        let path = dir.join(WEIGHTS);
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let bytes = safetensors::serialize(self.params.iter(), Some(metadata))
            .map_err(|source| ModelError::Safetensors { path: path.clone(), source })?;
        io::write_all(&[(&config, &text), (&path, &bytes)])
    }

    /// Reads a directory written by [`save`](Self::save).
    ///
    /// Weights of any floating type are converted to `f32`. Names, shapes and finiteness are checked, shapes before
    /// anything of the configuration's size is allocated.
    ///
    /// # Errors
    /// [`ModelError`] says which file cannot be read, is damaged, or does not fit its configuration.
    pub fn load(dir: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError> {
        let dir = dir.as_ref();
        let config = read_config(&dir.join(CONFIG))?;
        let path = dir.join(WEIGHTS);
        let values = read_weights(&path, &config)?;
        let params = weights::zeros(&config, device)?;
        params.restore(&values).map_err(|source| ModelError::Weights { path, source })?;
        Ok(Self::from_parameters(config, params))
    }
}

fn read_config(path: &Path) -> Result<SasRecConfig, ModelError> {
    let text = io::read(path)?;
    let json = |source| ModelError::Json { path: path.to_owned(), expected: MODEL_TYPE, source };
    let mut value: Value = serde_json::from_slice(&text).map_err(json)?;
    let mut take = |field: &str| value.as_object_mut().and_then(|fields| fields.remove(field));
    match take("model_type") {
        Some(found) if found == MODEL_TYPE => {}
        found => {
            let found = found.map_or_else(String::new, |found| found.as_str().map_or(found.to_string(), str::to_owned));
            return Err(ModelError::Architecture { path: path.to_owned(), expected: MODEL_TYPE, found });
        }
    }
    if let Some(found) = take("format_version") {
        let found: u64 = serde_json::from_value(found).map_err(json)?;
        if found > FORMAT_VERSION {
            return Err(ModelError::FormatVersion { path: path.to_owned(), found, supported: FORMAT_VERSION });
        }
    }
    let config: SasRecConfig = serde_json::from_value(value).map_err(json)?;
    config.validate()?;
    Ok(config)
}

/// The tensors of a file by the names of the configuration's weights.
fn read_weights(path: &Path, config: &SasRecConfig) -> Result<BTreeMap<String, Tensor>, ModelError> {
    let bytes = io::read(path)?;
    let damaged = |source| ModelError::Safetensors { path: path.to_owned(), source };
    let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
    let misfit = |source| ModelError::Weights { path: path.to_owned(), source };
    let mut values = BTreeMap::new();
    for weight in weights::layout(config) {
        let Ok(view) = file.tensor(&weight.name) else {
            return Err(misfit(ParamError::Missing { name: weight.name }));
        };
        if view.shape() != weight.shape {
            let (expected, got) = (weight.shape, view.shape().to_vec());
            return Err(misfit(ParamError::Shape { name: weight.name, expected, got }));
        }
        values.insert(weight.name, view.load(&Device::Cpu)?);
    }
    match file.names().into_iter().find(|name| !values.contains_key(*name)) {
        Some(name) => Err(misfit(ParamError::Unexpected { name: name.to_owned() })),
        None => Ok(values),
    }
}
