//! Indexes on disk.
//!
//! A directory holds `index.json`, which describes, and `index.safetensors`, which has one tensor `sids` of type U32 and
//! shape `(items, positions)`. Suffixes are stored and never computed anew. The description records the length and
//! CRC-32 of the payload and the CRC-32 of its own fields.
//!
//! A save never leaves the directory without a readable index. The new payload is first written beside the old one as
//! `index.safetensors.next`; replacing `index.json` is the commit; then the payload is moved to its place. A reader that
//! comes between the last two finds the payload under the first name.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::{
    collision::CollisionPolicy,
    error::{IndexError, Result},
    index::SidIndex,
    layout::SidLayout,
};

const FORMAT_VERSION: u32 = 1;
const DESCRIPTION: &str = "index.json";
const PAYLOAD: &str = "index.safetensors";
const NEXT_PAYLOAD: &str = "index.safetensors.next";
const TENSOR: &str = "sids";
/// Far above the description of the longest layout, far below what would hurt.
const MAX_DESCRIPTION: u64 = 1 << 16;
/// A safetensors header for one tensor takes about a hundred bytes.
const MAX_HEADER: u64 = 1 << 12;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    format_version: u32,
    layout: SidLayout,
    collision_policy: CollisionPolicy,
    items: u32,
    payload_bytes: u64,
    payload_crc32: u32,
    /// CRC-32 of this object as compact JSON with this field zero.
    crc32: u32,
}

#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

impl SidIndex {
    /// Writes the index into a directory, which is made if need be; an index already there is replaced.
    ///
    /// When this returns, the files are on the disk (written, synced, renamed). A crash at any moment leaves either the
    /// old index or the new one. Two writers at once are not guarded against.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        finish_interrupted(dir)?;
        let bytes = self.payload(&dir.join(PAYLOAD))?;
        let mut description = Description {
            format_version: FORMAT_VERSION,
            layout: self.layout().clone(),
            collision_policy: self.policy(),
            // An index never holds more.
            items: self.len() as u32,
            payload_bytes: bytes.len() as u64,
            payload_crc32: crc32fast::hash(&bytes),
            crc32: 0,
        };
        let path = dir.join(DESCRIPTION);
        description.crc32 = description.checksum(&path)?;
        let mut json = serde_json::to_vec_pretty(&description).map_err(description_error(&path))?;
        json.push(b'\n');

        write_synced(&dir.join(NEXT_PAYLOAD), &bytes)?;
        sync_dir(dir)?;
        let temporary = dir.join("index.json.tmp");
        write_synced(&temporary, &json)?;
        rename(&temporary, &path)?;
        sync_dir(dir)?;
        rename(&dir.join(NEXT_PAYLOAD), &dir.join(PAYLOAD))?;
        sync_dir(dir)?;
        tracing::debug!(items = self.len(), dir = %dir.display(), "index saved");
        Ok(())
    }

    /// Reads an index that [`save`](Self::save) wrote. Suffixes are as they were saved.
    ///
    /// Nothing is allocated on the word of the file before it is checked against the file's real length, and nothing is
    /// believed before the checksums agree; then the contents are checked as [`from_sids`](Self::from_sids) does.
    ///
    /// # Errors
    /// When a file is missing, of another format version, truncated, damaged, or contradicts itself.
    pub fn load(dir: &Path) -> Result<Self> {
        let description = Description::read(&dir.join(DESCRIPTION))?;
        let Description { layout, collision_policy, items, .. } = &description;
        let (path, bytes) = description.read_payload(dir)?;

        let tensors = SafeTensors::deserialize(&bytes).map_err(payload_error(&path))?;
        let tensor = tensors.tensor(TENSOR).map_err(payload_error(&path))?;
        let expected = vec![*items as usize, layout.positions()];
        if tensors.len() != 1 || tensor.dtype() != Dtype::U32 || tensor.shape() != expected {
            return Err(IndexError::Tensor {
                path,
                dtype: format!("{:?}", tensor.dtype()),
                expected,
                got: tensor.shape().to_vec(),
            });
        }
        let (words, _) = tensor.data().as_chunks::<4>();
        let sids = words.iter().map(|&word| u32::from_le_bytes(word)).collect();
        Self::from_sids(layout.clone(), sids, *collision_policy)
    }

    fn payload(&self, path: &Path) -> Result<Vec<u8>> {
        let data: Vec<u8> = self.sids().iter().flat_map(|code| code.to_le_bytes()).collect();
        let shape = vec![self.len(), self.layout().positions()];
        let view = TensorView::new(Dtype::U32, shape, &data).map_err(payload_error(path))?;
        safetensors::serialize([(TENSOR, view)], None).map_err(payload_error(path))
    }
}

impl Description {
    fn read(path: &Path) -> Result<Self> {
        let bytes = read_at_most(path, MAX_DESCRIPTION)?;
        // The version first: another version's fields are not an error in themselves.
        let Version { format_version } = serde_json::from_slice(&bytes).map_err(description_error(path))?;
        if format_version == 0 || format_version > FORMAT_VERSION {
            return Err(IndexError::FormatVersion {
                path: path.to_owned(),
                got: format_version,
                supported: FORMAT_VERSION,
            });
        }
        let description: Self = serde_json::from_slice(&bytes).map_err(description_error(path))?;
        let got = description.checksum(path)?;
        if got != description.crc32 {
            return Err(IndexError::Checksum { path: path.to_owned(), expected: description.crc32, got });
        }
        Ok(description)
    }

    fn checksum(&self, path: &Path) -> Result<u32> {
        let unsigned = Self {
            layout: self.layout.clone(),
            crc32: 0,
            format_version: self.format_version,
            collision_policy: self.collision_policy,
            items: self.items,
            payload_bytes: self.payload_bytes,
            payload_crc32: self.payload_crc32,
        };
        Ok(crc32fast::hash(&serde_json::to_vec(&unsigned).map_err(description_error(path))?))
    }

    /// The payload that this description was written with, wherever an interrupted save may have left it.
    fn read_payload(&self, dir: &Path) -> Result<(PathBuf, Vec<u8>)> {
        let path = dir.join(PAYLOAD);
        let verdict = self.checked_payload(&path);
        if verdict.is_err() {
            let next = dir.join(NEXT_PAYLOAD);
            if let Ok(bytes) = self.checked_payload(&next) {
                return Ok((next, bytes));
            }
        }
        verdict.map(|bytes| (path, bytes))
    }

    fn checked_payload(&self, path: &Path) -> Result<Vec<u8>> {
        let data = u64::from(self.items) * self.layout.positions() as u64 * 4;
        if self.payload_bytes < data || self.payload_bytes > data + MAX_HEADER {
            return Err(IndexError::FileSize { path: path.to_owned(), expected: data, got: self.payload_bytes });
        }
        let bytes = read_at_most(path, self.payload_bytes)?;
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

/// Moves a payload to its place that an earlier save had committed but not moved.
fn finish_interrupted(dir: &Path) -> Result<()> {
    let next = dir.join(NEXT_PAYLOAD);
    let Ok(description) = Description::read(&dir.join(DESCRIPTION)) else { return Ok(()) };
    if description.checked_payload(&next).is_ok() {
        rename(&next, &dir.join(PAYLOAD))?;
        sync_dir(dir)?;
    }
    Ok(())
}

fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(io_error("read", path))?;
    let length = file.metadata().map_err(io_error("read", path))?.len();
    if length > limit {
        return Err(IndexError::FileSize { path: path.to_owned(), expected: limit, got: length });
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    Ok(bytes)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(io_error("write", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_error("write", path))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(io_error("rename", from))
}

/// Makes renames inside the directory durable. Only Unix lets a directory be opened and synced.
fn sync_dir(dir: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))?;
    }
    Ok(())
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> IndexError + 'a {
    move |source| IndexError::Io { action, path: path.to_owned(), source }
}

fn description_error(path: &Path) -> impl Fn(serde_json::Error) -> IndexError + '_ {
    |source| IndexError::Description { path: path.to_owned(), source }
}

fn payload_error(path: &Path) -> impl Fn(safetensors::SafeTensorError) -> IndexError + '_ {
    |source| IndexError::Payload { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
