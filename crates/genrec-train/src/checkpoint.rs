//! Checkpoints on disk that are whole at every instant.
//!
//! A run's directory holds two: `last`, where the run stands, and `best`, where its best validation was. Each has
//! `model.safetensors` (the weights, by the model's own names), `optimizer.safetensors` (its moments by name) and
//! `state.json` (format version, configuration, [`Progress`], and a CRC-32 of every part).
//!
//! A checkpoint is written to `<name>.tmp`, every file and the directory are synced, and the directory is renamed to
//! `<name>.new`: from then on it counts. The old one then makes way (`<name>.old`), the new one takes its name and the
//! old one is deleted. A process that is killed anywhere in between leaves the old checkpoint or the new one, whole,
//! and the next to open the directory tidies up.

mod files;
mod store;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::Value;

use crate::error::{Result, TrainError};
use crate::progress::Progress;

pub(crate) use self::files::{decode, encode};
pub(crate) use self::store::{CheckpointStore, Resumed};

/// Version of `state.json`.
pub const FORMAT_VERSION: u64 = 1;

/// A checkpoint in memory: everything that a run's continuation depends on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The model's weights by name, on the CPU.
    pub weights: BTreeMap<String, Tensor>,
    /// The optimiser's state by name, on the CPU.
    pub optimizer: BTreeMap<String, Tensor>,
    /// Where the run stands.
    pub progress: Progress,
    /// The configuration's fields that decide the run's result.
    pub(crate) config: Value,
    /// Size of the data that the run reads.
    pub(crate) data: DataSize,
}

/// The size of a run's data, by which other data is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataSize {
    pub(crate) examples: u64,
    /// Batches in epoch 0.
    pub(crate) batches: u64,
}

impl Checkpoint {
    /// Reads the checkpoint `last` or `best` of a training directory, given as `<directory>/last` or
    /// `<directory>/best`, and checks every part against its checksum.
    ///
    /// # Errors
    /// [`TrainError::Corrupt`](crate::TrainError::Corrupt) when a file is missing or damaged,
    /// [`TrainError::Version`](crate::TrainError::Version) when another version wrote it.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        files::read(&store::resolve(path.as_ref())?)
    }

    /// The same with every tensor on the CPU.
    pub(crate) fn on_host(mut self) -> Result<Self> {
        for tensor in self.weights.values_mut().chain(self.optimizer.values_mut()) {
            *tensor = tensor.to_device(&Device::Cpu).map_err(|source| TrainError::State { source })?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
