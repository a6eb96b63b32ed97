//! Files that are whole or not there, and directories whose names survive a crash.
//!
//! Depend on this crate rather than on `genrec` to replace files safely in another program. It has no dependencies, knows nothing of
//! what it writes, and leaves errors as [`std::io::Error`]: which file it was is what the caller knows.
//!
//! A file system promises less than it seems to: after a crash a file that was written and renamed may be empty (its bytes were
//! not synced), and a new name may be gone (its directory was not). [`write()`], [`write_with`] and [`write_all`] sync both, [`create_dir_all`] the names
//! of directories, [`rename`] the name that something is moved to. When one of them returns, what it did is on the disk; a crash before
//! leaves the old file or the new one, and at worst a temporary file beside it, whose name ends in `.tmp`. On Unix the next to write that
//! file removes it: whoever writes it holds a lock on it, which the system takes back when the process ends, however it ends.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! # let dir = tempfile::tempdir()?;
//! let home = dir.path().join("runs/first");
//! genrec_files::create_dir_all(&home)?;
//! genrec_files::write(&home.join("settings.json"), b"{}")?;
//! assert_eq!(std::fs::read(home.join("settings.json"))?, b"{}");
//! # Ok(())
//! # }
//! ```
//!
//! # Alternatives
//! `atomic-write-file` replaces files too, and `tempfile` gives temporary ones their name; new directories are left to the caller.
//!
//! # References
//! Pillai et al., *All file systems are not created equal: on the complexity of crafting crash-consistent applications*, OSDI 2014.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc(test(attr(deny(warnings))))]

mod staged;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, ErrorKind, Write},
    path::Path,
};

use staged::Staged;

/// Makes a directory and those above it that are missing, and syncs the names of all that it made. One that is there already is left
/// as it is, and so is the empty path, which is the directory that the process works in.
///
/// # Errors
/// When a directory can be neither made nor synced.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() {
        return Ok(());
    }
    let mut missing = Vec::new();
    for dir in dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty()) {
        if dir.try_exists()? {
            break;
        }
        missing.push(dir);
    }
    // Of one that is there and cannot be looked at, `std` says that it exists, and not why that is an error.
    if missing.is_empty() && fs::metadata(dir)?.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    missing.iter().rev().try_for_each(|made| sync_dir(parent(made)))
}

/// Replaces a file by one of these bytes.
///
/// # Errors
/// When it cannot be written, for lack of room or of permission, say; the old file, if any, is untouched then.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// Replaces a file by what a function writes.
///
/// # Errors
/// Those of the function, and when the file cannot be written; the old one, if any, is untouched then.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    Staged::new(path, fill)?.take_name()?;
    sync_dir(parent(path))
}

/// Replaces several files by these bytes. All are written and synced under temporary names before the first takes its own, so that
/// a disk without room for all of them, or a directory that may not be written, leaves all old ones.
///
/// They take their names one after the other, in this order. A crash in between, or an error of renaming itself, leaves new files
/// beside old ones: the last should tell whether the others belong to it.
///
/// # Errors
/// Which of them cannot be written, or which directory not be synced, and why.
pub fn write_all<'a>(files: &[(&'a Path, &[u8])]) -> Result<(), (&'a Path, io::Error)> {
    let stage = |&(path, bytes): &(&'a Path, &[u8])| {
        Staged::new(path, |file| file.write_all(bytes)).map_err(|error| (path, error))
    };
    let staged = files.iter().map(stage).collect::<Result<Vec<_>, _>>()?;
    for ((path, _), staged) in files.iter().zip(staged) {
        staged.take_name().map_err(|error| (*path, error))?;
    }
    let dirs: BTreeSet<&Path> = files.iter().map(|(path, _)| parent(path)).collect();
    dirs.into_iter().try_for_each(|dir| sync_dir(dir).map_err(|error| (dir, error)))
}

/// Renames a file or a directory and syncs its new name. One that bears that name already is replaced, as far as the system does that.
///
/// # Errors
/// When it cannot be renamed, or its directory cannot be synced.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_dir(parent(to))
}

/// Makes the names in a directory safe. Does nothing where the system has no such notion.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    // Only Unix lets a directory be opened and synced.
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Whether a file is one that [`write()`], [`write_with`] or [`write_all`] left when its process was killed, or is still writing; or one of the crate
/// `tempfile`, by which others write.
pub fn is_temporary(path: &Path) -> bool {
    let by_tempfile = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".tmp"));
    by_tempfile || path.extension().is_some_and(|extension| extension == "tmp")
}

/// Whether a path leads to this open file still, rather than to another that has taken its place or to none: so a reader of several
/// files that belong together learns that they were replaced meanwhile. `None` where the system does not tell files apart, which Unix
/// does.
pub fn still_at(file: &File, path: &Path) -> Option<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let open = place(file.metadata().ok()?);
        Some(fs::metadata(path).is_ok_and(|found| place(found) == open))
    }
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        None
    }
}

/// What helps against an error of a disk, for the end of a message that names the file: empty, or "; " and what to do.
///
/// ```
/// let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
/// let message = format!("cannot write `a`{}", genrec_files::remedy(&full));
/// assert_eq!(message, "cannot write `a`; free some room there, or choose another place");
/// ```
pub fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; free some room there, or choose another place",
        ErrorKind::PermissionDenied => "; get the permission, or choose another place",
        ErrorKind::ReadOnlyFilesystem => "; nothing can be written there: choose another place",
        _ => "",
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The examples of the README, run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
