//! Files that are whole or not there, and directories whose names survive a crash.
//!
//! Depend on this crate rather than on `genrec` to replace files safely in another program. It has no dependencies, knows nothing of
//! what it writes, and leaves errors as [`std::io::Error`]: which file it was is what the caller knows.
//!
//! A file system promises less than it seems to: after a crash a file that was written and renamed may be empty (its bytes were
//! not synced), and a new name may be gone (its directory was not). [`write()`] and [`write_with`] sync both, [`create_dir_all`] the names
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

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};

/// Makes a directory and those above it that are missing, and syncs the names of all that it made. One that is there already is left
/// as it is.
///
/// # Errors
/// When a directory can be neither made nor synced.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
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
    let (file, temporary) = create_beside(path)?;
    let mut file = BufWriter::new(file);
    let written = fill(&mut file).and_then(|()| file.flush()).and_then(|()| file.get_ref().sync_all());
    // Open, and so locked, for as long as it bears the temporary name.
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_dir(parent(path))
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

/// Whether a file is one that [`write()`] or [`write_with`] left when its process was killed, or is still writing; or one of the crate
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

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file in the directory of another, locked, of a name that nobody else takes. One of that name whose process was killed is
/// removed.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the path names no file"))?;
    let mut attempt = 0_u32;
    loop {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{attempt}.tmp"));
        let temporary = parent(path).join(hidden);
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) if is_kept(&file, &temporary) => return Ok((file, temporary)),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < 10_000 => {
                if !remove_left_over(&temporary) {
                    attempt += 1;
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Locks a file that was just made; `false` when somebody else took it for one that was left over before it was locked.
fn is_kept(file: &File, path: &Path) -> bool {
    match file.try_lock() {
        Ok(()) => still_at(file, path) != Some(false),
        Err(TryLockError::WouldBlock) => false,
        // Where files cannot be locked, nothing passes for left over.
        Err(TryLockError::Error(_)) => true,
    }
}

/// Removes a temporary file that no process has locked; says whether it did.
fn remove_left_over(path: &Path) -> bool {
    if !fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
        return false;
    }
    let Ok(file) = OpenOptions::new().write(true).open(path) else { return false };
    // It may have got its name, and another writer this one, since it was opened.
    file.try_lock().is_ok() && still_at(&file, path) == Some(true) && fs::remove_file(path).is_ok()
}

/// The examples of the README, run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for bytes in [&b"first"[..], b"", b"third"] {
            write(&path, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert_eq!(names(dir.path()), ["file"]);
        }
    }

    #[test]
    fn what_fails_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, b"old").unwrap();
        let full = |file: &mut BufWriter<File>| {
            file.write_all(b"half of the new")?;
            Err(io::Error::from(ErrorKind::StorageFull))
        };
        assert_eq!(write_with(&path, full).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["file"]);
        assert_eq!(write(&dir.path().join("none/file"), b"").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(write(Path::new("/"), b"").unwrap_err().kind(), ErrorKind::InvalidInput);
        fs::create_dir(dir.path().join("dir")).unwrap();
        assert!(write(&dir.path().join("dir"), b"").is_err());
        assert_eq!(names(dir.path()), ["dir", "file"]);
    }

    #[test]
    fn a_temporary_name_that_is_taken_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let (path, taken) = (dir.path().join("file"), dir.path().join(".file.0.tmp"));
        let another = File::create(&taken).unwrap();
        another.lock().unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(names(dir.path()), [".file.0.tmp", "file"]);
        assert!(is_temporary(&taken) && !is_temporary(&path));
    }

    /// A process that ends, however it ends, gives its locks back.
    #[cfg(unix)]
    #[test]
    fn what_a_killed_process_left_is_removed_by_the_next_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(dir.path().join(".file.0.tmp"), "half of the n").unwrap();
        fs::write(dir.path().join(".other.0.tmp"), "of another file").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(names(dir.path()), [".other.0.tmp", "file"]);
        // What is no file was not left by a write.
        fs::create_dir(dir.path().join(".file.0.tmp")).unwrap();
        std::os::unix::fs::symlink(&path, dir.path().join(".file.1.tmp")).unwrap();
        write(&path, b"newer").unwrap();
        assert_eq!(names(dir.path()), [".file.0.tmp", ".file.1.tmp", ".other.0.tmp", "file"]);
        assert_eq!(fs::read(&path).unwrap(), b"newer");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_replaced_is_told_from_the_one_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("file"), dir.path().join("link"));
        write(&path, b"a").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = File::open(&link).unwrap();
        assert_eq!((still_at(&file, &path), still_at(&file, &link)), (Some(true), Some(true)));
        write(&path, b"a").unwrap();
        assert_eq!((still_at(&file, &path), still_at(&file, &link)), (Some(false), Some(false)));
        fs::remove_file(&path).unwrap();
        assert_eq!(still_at(&file, &path), Some(false));
    }

    #[test]
    fn writers_at_once_take_no_file_from_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::thread::scope(|scope| {
            for byte in b"abcd" {
                let path = &path;
                scope.spawn(move || (0..200).for_each(|_| write(path, &[*byte; 5_000]).unwrap()));
            }
        });
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() == 5_000 && bytes.iter().all(|&byte| byte == bytes[0]));
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn directories_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_dir_all(&deep).unwrap();
        create_dir_all(&deep).unwrap();
        assert!(deep.is_dir());
        rename(&deep, &dir.path().join("d")).unwrap();
        assert_eq!(names(dir.path()), ["a", "d"]);
        write(&dir.path().join("file"), b"").unwrap();
        assert!(create_dir_all(&dir.path().join("file/below")).is_err());
        assert!(rename(&deep, &dir.path().join("e")).is_err());
    }
}
