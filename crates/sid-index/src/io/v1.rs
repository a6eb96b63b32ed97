//! Format version 1: one tensor `sids` of type U32 and shape `(items, positions)`.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::{
    description::description_error,
    files::{either, read_at_most},
    payload::{NEXT_PAYLOAD, PAYLOAD, payload_error},
};
use crate::{
    collision::CollisionPolicy,
    error::{IndexError, Result},
    index::SidIndex,
    layout::SidLayout,
};

const TENSOR: &str = "sids";
/// A safetensors header for one tensor takes about a hundred bytes.
const MAX_HEADER: u64 = 1 << 12;

/// `index.json` of version 1. The order of the fields is part of the checksum.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DescriptionV1 {
    pub(super) format_version: u32,
    pub(super) layout: SidLayout,
    pub(super) collision_policy: CollisionPolicy,
    pub(super) items: u32,
    pub(super) payload_bytes: u64,
    pub(super) payload_crc32: u32,
    /// CRC-32 of this object as compact JSON with this field zero.
    pub(super) crc32: u32,
}

impl DescriptionV1 {
    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let mut description: Self = serde_json::from_slice(bytes).map_err(description_error(path))?;
        let expected = std::mem::take(&mut description.crc32);
        let got = crc32fast::hash(&serde_json::to_vec(&description).map_err(description_error(path))?);
        if got != expected {
            return Err(IndexError::Checksum { path: path.to_owned(), expected, got });
        }
        description.crc32 = expected;
        Ok(description)
    }

    pub(super) fn open(&self, dir: &Path) -> Result<SidIndex> {
        let (path, bytes) = self.read_payload(dir)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(payload_error(&path))?;
        let tensor = tensors.tensor(TENSOR).map_err(payload_error(&path))?;
        let expected = vec![self.items as usize, self.layout.positions()];
        if tensors.len() != 1 || tensor.dtype() != Dtype::U32 || tensor.shape() != expected {
            let found = format!("{:?} of shape {:?}", tensor.dtype(), tensor.shape());
            let expected = format!("U32 of shape {expected:?}");
            return Err(IndexError::Tensor { path, name: TENSOR.to_owned(), expected, found });
        }
        let (words, _) = tensor.data().as_chunks::<4>();
        let sids: Vec<u32> = words.iter().map(|&word| u32::from_le_bytes(word)).collect();
        SidIndex::from_sids(self.layout.clone(), &sids, self.collision_policy)
    }

    pub(super) fn check_payload(&self, path: &Path) -> Result<()> {
        self.checked_payload(path).map(drop)
    }

    /// The payload that this description was written with, wherever an interrupted save may have left it.
    fn read_payload(&self, dir: &Path) -> Result<(PathBuf, Vec<u8>)> {
        let attempt = |path: PathBuf| self.checked_payload(&path).map(|bytes| (path, bytes));
        either(attempt(dir.join(NEXT_PAYLOAD)), || attempt(dir.join(PAYLOAD)))
    }

    fn checked_payload(&self, path: &Path) -> Result<Vec<u8>> {
        let data = u64::from(self.items) * self.layout.positions() as u64 * 4;
        if self.payload_bytes < data || self.payload_bytes > data + MAX_HEADER {
            return Err(IndexError::FileSize { path: path.to_owned(), expected: data, got: self.payload_bytes });
        }
        let (bytes, _) = read_at_most(path, self.payload_bytes)?;
        if bytes.len() as u64 != self.payload_bytes {
            let (expected, got) = (self.payload_bytes, bytes.len() as u64);
            return Err(IndexError::FileSize { path: path.to_owned(), expected, got });
        }
        let got = crc32fast::hash(&bytes);
        if got != self.payload_crc32 {
            return Err(IndexError::Checksum { path: path.to_owned(), expected: self.payload_crc32, got });
        }
        Ok(bytes)
    }
}
