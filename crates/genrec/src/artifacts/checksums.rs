//! `checksums.json`: what the files of a finished run held.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Component, Path, PathBuf},
};

use genrec_train::Checkpoint;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sid_index::SidIndex;

use super::{FORMAT_VERSION, RunDir, exists, read_versioned, serves, write_json};
use crate::{Damage, Error, Result};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checksums {
    format_version: u32,
    /// By path within the run, with slashes.
    files: BTreeMap<String, Sum>,
    /// Items that the index had, or item numbers ever given.
    items: u32,
    /// Over `files` and `items` as compact JSON.
    crc32: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    bytes: u64,
    crc32: u32,
}

/// What [`RunDir::verify`] has looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Files that hold what they held when the run was finished, the index's and the checkpoints' included.
    pub files: usize,
    /// Their size in all.
    pub bytes: u64,
    /// Bytes at the end of the catalogue that no checksum covers: items whose addition was cut short before the end.
    pub unsummed: u64,
}

impl RunDir {
    /// The checksums of a finished run's files.
    pub fn checksums(&self) -> PathBuf {
        self.root().join("checksums.json")
    }

    /// Reads every file of a finished run and holds it against the checksums that the run ended with; of the index and of the
    /// checkpoints that are there, which have their own, against those. Any bit that changed since is found, any file that is shorter,
    /// longer or gone, and an index of before items were added. Checkpoints may be gone: what is finished does without. Nobody should
    /// write to the run meanwhile.
    ///
    /// [`Recommender::load`](crate::Recommender::load) checks what it reads for consistency, but of the files in the formats of others
    /// (weights above all) it cannot tell one finite number from another.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the first file that is not as it was, [`Error::MissingArtifact`] one that is gone: `checksums.json`
    /// itself where the run is not finished or older than this check. Otherwise as the readers of the index and of checkpoints.
    pub fn verify(&self) -> Result<Verified> {
        let mut verified = Verified { files: 0, bytes: 0, unsummed: 0 };
        let catalogue = self.name(&self.catalogue());
        let checksums = self.read_checksums()?;
        for (name, expected) in &checksums.files {
            let path = self.root().join(name);
            let grows = Some(name) == catalogue.as_ref();
            let size = size(&path)?;
            if size < expected.bytes || (size > expected.bytes && !grows) {
                return Err(damaged(path, Damage::Size { was: expected.bytes, now: size }));
            }
            if sum(&path, expected.bytes)?.crc32 != expected.crc32 {
                return Err(damaged(path, Damage::Contents));
            }
            verified.files += 1;
            verified.bytes += expected.bytes;
            verified.unsummed += size - expected.bytes;
        }
        let indexed = SidIndex::open(&self.index())?.id_bound();
        if indexed < checksums.items {
            return Err(damaged(self.index(), Damage::Items { was: checksums.items, now: indexed }));
        }
        // The payload has another name until a save is over.
        let names = ["index.json", "index.safetensors", "index.safetensors.next"].map(|name| self.index().join(name));
        let mut others = Vec::new();
        for name in names {
            if exists(&name)? {
                others.push(name);
            }
        }
        for checkpoint in ["last", "best"].map(|name| self.train().join(name)) {
            if exists(&checkpoint)? {
                Checkpoint::read(&checkpoint)?;
                others.extend(files_below(&checkpoint)?);
            }
        }
        for path in others {
            verified.files += 1;
            verified.bytes += size(&path)?;
        }
        Ok(verified)
    }

    /// What tells a finished run from others: the first half of a SHA-256 over the checksums of its files, reports left out, and over the
    /// contents of `run.json`, `decode.json`, which users edit, and `index.json`. Copies of a run have one fingerprint, and so have runs
    /// that came to the same bytes; adding an item changes it.
    ///
    /// It is of what the run says that it holds; whether it does [`verify`](Self::verify) finds out.
    ///
    /// # Errors
    /// [`Error::MissingArtifact`] for `checksums.json` where the run is not finished or older than checksums, and for the other files;
    /// [`Error::Damaged`] where the checksums are not whole.
    pub fn fingerprint(&self) -> Result<[u8; 16]> {
        let path = self.checksums();
        let Checksums { mut files, items, .. } = self.read_checksums()?;
        files.remove("report.json");
        let json = serde_json::to_vec(&(files, items)).map_err(|source| Error::Json { path, source })?;
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(&json);
        for path in [self.manifest(), self.decode(), self.index().join("index.json")] {
            part(&fs::read(&path).map_err(failed("read", &path))?);
        }
        let mut first = [0; 16];
        first.copy_from_slice(&hash.finalize()[..16]);
        Ok(first)
    }

    /// Sums up every file that [`serves`], but for those of the index, which have checksums of their own; `items` are the item numbers
    /// that the index has given.
    ///
    /// # Errors
    /// [`Error::Io`] names the file that could not be read or written.
    pub(crate) fn seal(&self, items: u32) -> Result<()> {
        let mut files = BTreeMap::new();
        for path in files_below(self.root())? {
            let Some(name) = self.name(&path) else { continue };
            if serves(&name) && !path.starts_with(self.index()) && path != self.checksums() {
                files.insert(name, sum(&path, u64::MAX)?);
            }
        }
        self.write_checksums(files, items)
    }

    /// Sums up the catalogue anew, to which items were added. An older run has no checksums, and one that is not finished gets
    /// them at its end.
    ///
    /// # Errors
    /// As [`seal`](Self::seal) and, where the checksums are not whole, [`Error::Damaged`].
    pub(crate) fn reseal_catalogue(&self, items: u32) -> Result<()> {
        if !exists(&self.checksums())? {
            return Ok(());
        }
        let mut files = self.read_checksums()?.files;
        if let Some(name) = self.name(&self.catalogue()) {
            files.insert(name, sum(&self.catalogue(), u64::MAX)?);
        }
        self.write_checksums(files, items)
    }

    /// Removes the checksums of a run that goes on, for it is not finished then.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be removed.
    pub(crate) fn unseal(&self) -> Result<()> {
        match fs::remove_file(self.checksums()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", &self.checksums())(error)),
            Err(_) => Ok(()),
            Ok(()) => genrec_files::sync_dir(self.root()).map_err(failed("sync", self.root())),
        }
    }

    fn write_checksums(&self, files: BTreeMap<String, Sum>, items: u32) -> Result<()> {
        let crc32 = own(&files, items, &self.checksums())?;
        write_json(&self.checksums(), &Checksums { format_version: FORMAT_VERSION, files, items, crc32 })
    }

    fn read_checksums(&self) -> Result<Checksums> {
        let path = self.checksums();
        let read: Checksums = read_versioned(&path)?;
        let inside = |name: &String| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if own(&read.files, read.items, &path)? != read.crc32 {
            return Err(damaged(path, Damage::Contents));
        }
        if !read.files.keys().all(inside) {
            return Err(damaged(path, Damage::Outside));
        }
        Ok(read)
    }

    /// A file's path within the run, with slashes.
    fn name(&self, path: &Path) -> Option<String> {
        let parts = path.strip_prefix(self.root()).ok()?.components();
        let parts: Option<Vec<&str>> = parts.map(|part| part.as_os_str().to_str()).collect();
        Some(parts?.join("/"))
    }
}

fn damaged(path: PathBuf, damage: Damage) -> Error {
    Error::Damaged { path, damage }
}

fn own(files: &BTreeMap<String, Sum>, items: u32, path: &Path) -> Result<u32> {
    let json =
        serde_json::to_vec(&(files, items)).map_err(|source| Error::Json { path: path.to_path_buf(), source })?;
    Ok(crc32fast::hash(&json))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        ErrorKind::NotFound => Error::MissingArtifact { path },
        _ => Error::Io { action, path, source },
    }
}

fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).map_err(failed("read", path))?.len())
}

/// Of the first bytes of a file.
fn sum(path: &Path, first: u64) -> Result<Sum> {
    let mut file = File::open(path).map_err(failed("read", path))?.take(first);
    let (mut hash, mut bytes, mut buffer) = (crc32fast::Hasher::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Sum { bytes, crc32: hash.finalize() }),
            Ok(read) => {
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", path)(error)),
        }
    }
}

/// The files of a directory and of those in it, but for temporary ones.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut open) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).map_err(failed("read", &dir))? {
            let path = entry.map_err(failed("read", &dir))?.path();
            if fs::metadata(&path).map_err(failed("read", &path))?.is_dir() {
                open.push(path);
            } else if !genrec_files::is_temporary(&path) {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}
