//! The three files of a checkpoint.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Checkpoint, DataSize, FORMAT_VERSION};
use crate::error::{Result, TrainError};
use crate::progress::Progress;

pub(super) const MODEL: &str = "model.safetensors";
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";
pub(super) const STATE: &str = "state.json";

/// `state.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    format_version: u64,
    checksums: Checksums,
    state: State,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    config: Value,
    data: DataSize,
    progress: Progress,
}

/// CRC-32 (IEEE) of each part, as eight hexadecimal digits.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checksums {
    model: String,
    optimizer: String,
    /// Of `state`, written as JSON without white space.
    state: String,
}

fn crc(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
    move |source| TrainError::Io { action, path: path.to_owned(), source }
}

fn unencodable(error: impl std::error::Error + Send + Sync + 'static) -> TrainError {
    TrainError::State { source: candle_core::Error::wrap(error) }
}

/// Writes the three files into an existing directory and syncs them and it.
pub(super) fn write(dir: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let model = encode(&checkpoint.weights)?;
    let optimizer = encode(&checkpoint.optimizer)?;
    let state =
        State { config: checkpoint.config.clone(), data: checkpoint.data, progress: checkpoint.progress.clone() };
    let checksums = Checksums {
        model: crc(&model),
        optimizer: crc(&optimizer),
        state: crc(&serde_json::to_vec(&state).map_err(unencodable)?),
    };
    let file = StateFile { format_version: FORMAT_VERSION, checksums, state };
    let json = serde_json::to_vec_pretty(&file).map_err(unencodable)?;
    for (name, bytes) in [(MODEL, &model), (OPTIMIZER, &optimizer), (STATE, &json)] {
        let path = dir.join(name);
        let mut file = File::create(&path).map_err(io("create", &path))?;
        file.write_all(bytes).map_err(io("write", &path))?;
        file.sync_all().map_err(io("sync", &path))?;
    }
    sync_dir(dir)
}

pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    genrec_files::sync_dir(dir).map_err(io("sync", dir))
}

/// Names, shapes, dtypes and values; the metadata is what Hugging Face's readers ask for.
pub(crate) fn encode(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), Some(metadata))
        .map_err(unencodable)
}

/// What [`encode`] wrote, on the CPU.
pub(crate) fn decode(bytes: &[u8]) -> candle_core::Result<BTreeMap<String, Tensor>> {
    Ok(candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?.into_iter().collect())
}

fn corrupt(path: &Path, reason: impl Into<String>) -> TrainError {
    TrainError::Corrupt { path: path.to_owned(), reason: reason.into() }
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => corrupt(path, "the file is missing"),
        _ => io("read", path)(error),
    })
}

/// Reads and checks the three files of a checkpoint.
pub(super) fn read(dir: &Path) -> Result<Checkpoint> {
    let path = dir.join(STATE);
    let bytes = read_file(&path)?;
    let json: Value = serde_json::from_slice(&bytes).map_err(|error| corrupt(&path, error.to_string()))?;
    match json.get("format_version").and_then(Value::as_u64) {
        Some(FORMAT_VERSION) => {}
        Some(found) => return Err(TrainError::Version { path, found, supported: FORMAT_VERSION }),
        None => return Err(corrupt(&path, "it has no format version")),
    }
    let StateFile { checksums, state, .. } =
        serde_json::from_slice(&bytes).map_err(|error| corrupt(&path, error.to_string()))?;
    if crc(&serde_json::to_vec(&state).map_err(unencodable)?) != checksums.state {
        return Err(corrupt(&path, "its checksum does not match its content"));
    }
    if let Some(contradiction) = state.progress.contradiction() {
        return Err(corrupt(&path, contradiction));
    }
    let weights = read_tensors(&dir.join(MODEL), &checksums.model)?;
    let optimizer = read_tensors(&dir.join(OPTIMIZER), &checksums.optimizer)?;
    Ok(Checkpoint { weights, optimizer, progress: state.progress, config: state.config, data: state.data })
}

fn read_tensors(path: &Path, checksum: &str) -> Result<BTreeMap<String, Tensor>> {
    let bytes = read_file(path)?;
    if crc(&bytes) != checksum {
        return Err(corrupt(path, format!("its {} bytes do not match the checksum in {STATE}", bytes.len())));
    }
    decode(&bytes).map_err(|error| corrupt(path, error.to_string()))
}
