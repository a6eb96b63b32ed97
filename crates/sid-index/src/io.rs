//! Indexes on disk.
//!
//! A directory holds `index.json`, which describes, and `index.safetensors`, which has the packed arrays. The description
//! records the length of the payload, the CRC-32 of its header and of its data, and the CRC-32 of its own fields. The
//! payload's header records the CRC-32 of the data too: so header and data belong together, and description and header.
//!
//! A save never leaves the directory without a readable index. The new payload is first written beside the old one as
//! `index.safetensors.next`; replacing `index.json` is the commit; then the payload is moved to its place. A reader looks for the
//! payload under the first name and then under the second, so that it misses none that is moved meanwhile; when both are of
//! another index, the description has been replaced since it was read, and it begins anew. A file that is mapped is replaced,
//! never changed.

mod description;
mod files;
mod payload;
mod v1;

use std::path::Path;

pub(crate) use description::Description;
use description::{DESCRIPTION, Saved};
use files::io_error;
use payload::{NEXT_PAYLOAD, PAYLOAD, Payload};

use crate::{error::Result, index::SidIndex};

impl SidIndex {
    /// Writes the index into a directory, which is made if need be; an index already there is replaced.
    ///
    /// What was added and removed is [compacted](Self::compact) on the way. When this returns, the files are on the disk
    /// (written, synced, renamed). A crash at any moment leaves either the old index or the new one, and who opens the
    /// directory meanwhile gets one of them. Two writers at once are not guarded against.
    ///
    /// # Errors
    /// [`IndexError::Io`](crate::IndexError::Io) when a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let compacted;
        let index = match self.pending() {
            0 => self,
            _ => {
                let mut copy = self.clone();
                copy.compact()?;
                compacted = copy;
                &compacted
            }
        };
        genrec_files::create_dir_all(dir).map_err(io_error("create", dir))?;
        finish_interrupted(dir)?;
        let next = dir.join(NEXT_PAYLOAD);
        commit(index, dir, &next).inspect_err(|_| {
            // A payload that nothing describes takes room, of which there may be none. After an error of the last sync it is described.
            if matches!(is_committed(dir), Ok(false)) {
                // The first error is the one to report.
                let _ = std::fs::remove_file(&next);
            }
        })?;
        genrec_files::rename(&next, &dir.join(PAYLOAD)).map_err(io_error("rename", &next))?;
        tracing::debug!(items = index.len(), dir = %dir.display(), "index saved");
        Ok(())
    }

    /// Reads an index that [`save`](Self::save) wrote, of this release or an earlier one, into memory.
    ///
    /// Nothing is allocated on the word of the file before it is checked against the file's real length, and nothing is
    /// believed before the checksums agree; then the contents are checked as [`verify`](Self::verify) does.
    ///
    /// # Errors
    /// When a file is missing, of another format version, truncated, damaged, or contradicts itself.
    pub fn open(dir: &Path) -> Result<Self> {
        retried(dir, |saved| match saved {
            Saved::V1(description) => description.open(dir),
            Saved::V2(description) => {
                let index = description.in_payload(dir, |payload| description.read(&payload))?;
                index.verify_structure(&dir.join(PAYLOAD))?;
                Ok(index)
            }
        })
    }

    /// Opens an index without reading it: its file is mapped, and what is looked up is read from the disk, or from the system's
    /// cache that all processes share. Takes milliseconds whatever the size.
    ///
    /// Only the description and the file's header are checked. Damage elsewhere makes wrong answers, never a panic;
    /// [`verify`](Self::verify) finds it. Files of format version 1, and machines whose words are big-endian, have no arrays to map:
    /// there this is [`open`](Self::open).
    ///
    /// # While it is open
    /// The file must not be shortened, nor its disk fail: on Unix a process that reads a mapped page which is not there any more is
    /// ended by the system (SIGBUS), and no code here can prevent it. [`open`](Self::open) copies the file into memory and fears
    /// nothing. [`save`](Self::save) never shortens a file: it writes another and renames it, and whoever has the old one mapped
    /// reads on in that, whatever becomes of the save; Windows has it fail while the old file is mapped. Whoever replaces an index by
    /// other means should rename too, as `rsync` does, and `mv` within a file system; `cp`, `rsync --inplace` and a shell's `>`
    /// shorten.
    ///
    /// # Errors
    /// As [`open`](Self::open), for what is checked.
    pub fn open_mapped(dir: &Path) -> Result<Self> {
        if cfg!(target_endian = "big") {
            return Self::open(dir);
        }
        retried(dir, |saved| match saved {
            Saved::V1(description) => description.open(dir),
            Saved::V2(description) => description.in_payload(dir, |payload| description.map(&payload)),
        })
    }

    /// Checks everything that [`open_mapped`](Self::open_mapped) has taken on trust: that the data of `dir` have their checksum
    /// and that this index, opened from there, does not contradict itself. Reads all of it.
    ///
    /// # Errors
    /// [`IndexError::Checksum`](crate::IndexError::Checksum) when the data are damaged,
    /// [`IndexError::Contradiction`](crate::IndexError::Contradiction), [`IndexError::Array`](crate::IndexError::Array) and others
    /// when they never were an index, and [`IndexError::Io`](crate::IndexError::Io).
    pub fn verify(&self, dir: &Path) -> Result<()> {
        retried(dir, |saved| match saved {
            Saved::V1(_) => Ok(()),
            Saved::V2(description) => description.in_payload(dir, |payload| payload.check_data()),
        })?;
        self.verify_structure(&dir.join(PAYLOAD))
    }
}

/// Times that an index may be replaced while it is opened: a bound on a loop, never met by a writer that syncs what it writes.
const MOST_REPLACEMENTS: usize = 1_000;

/// Opens an index by its description, and once more for as long as another was saved between reading the description and the payload.
fn retried<T>(dir: &Path, open: impl Fn(&Saved) -> Result<T>) -> Result<T> {
    let path = dir.join(DESCRIPTION);
    let mut replacements = 0;
    loop {
        let (saved, file) = Saved::read(&path)?;
        let error = match open(&saved) {
            Err(error) if replacements < MOST_REPLACEMENTS => error,
            last => return last,
        };
        // A payload is not touched before the description that it belongs to is gone.
        let replaced = match genrec_files::still_at(&file, &path) {
            Some(still) => !still,
            None => Saved::read(&path).is_ok_and(|(now, _)| now.crc32() != saved.crc32()),
        };
        if !replaced {
            return Err(error);
        }
        replacements += 1;
    }
}

/// Writes a payload beside the old one, and a description of it in the place of the old.
fn commit(index: &SidIndex, dir: &Path, next: &Path) -> Result<()> {
    let description = Description::write_payload(index, next)?;
    let path = dir.join(DESCRIPTION);
    genrec_files::write(&path, &description.to_json(&path)?).map_err(io_error("write", &path))
}

/// Moves a payload to its place that an earlier save had committed but not moved.
fn finish_interrupted(dir: &Path) -> Result<()> {
    if is_committed(dir)? {
        let next = dir.join(NEXT_PAYLOAD);
        genrec_files::rename(&next, &dir.join(PAYLOAD)).map_err(io_error("rename", &next))?;
    }
    Ok(())
}

/// Whether a payload that is not in its place is the one described. If it cannot be read, that is not known, and nothing may take its
/// place.
fn is_committed(dir: &Path) -> Result<bool> {
    let next = dir.join(NEXT_PAYLOAD);
    let found = Saved::read(&dir.join(DESCRIPTION)).and_then(|(saved, _)| match saved {
        Saved::V1(description) => description.check_payload(&next),
        Saved::V2(description) => Payload::open(&next, &description)?.check_data(),
    });
    match found {
        Err(error) if error.is_unread() => Err(error),
        found => Ok(found.is_ok()),
    }
}

#[cfg(test)]
mod tests;
