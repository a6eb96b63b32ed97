//! A file before it has its name.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};

use crate::{parent, still_at};

/// A whole file on the disk, open and so locked for as long as it bears its temporary name. Unless it takes its own, it goes.
pub(crate) struct Staged<'a> {
    path: &'a Path,
    temporary: PathBuf,
    file: BufWriter<File>,
    is_named: bool,
}

impl<'a> Staged<'a> {
    pub(crate) fn new(path: &'a Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<Self> {
        let (file, temporary) = create_beside(path)?;
        let mut staged = Self { path, temporary, file: BufWriter::new(file), is_named: false };
        fill(&mut staged.file)?;
        staged.file.flush()?;
        staged.file.get_ref().sync_all()?;
        Ok(staged)
    }

    /// The old file, if any, is gone then.
    pub(crate) fn take_name(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, self.path)?;
        self.is_named = true;
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.is_named {
            // There is an error already, and that is the one to report.
            let _ = fs::remove_file(&self.temporary);
        }
    }
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
