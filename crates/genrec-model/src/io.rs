//! Files that are either whole or absent.

use std::{
    fs::{self, File},
    io::{Error, Write},
    path::Path,
};

use crate::error::ModelError;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(Error) -> ModelError {
    let path = path.to_owned();
    move |source| ModelError::Io { action, path, source }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    fs::read(path).map_err(failed("read", path))
}

pub(crate) fn create_dir(path: &Path) -> Result<(), ModelError> {
    fs::create_dir_all(path).map_err(failed("create", path))
}

/// Writes beside the file, flushes to the disk, then renames, so that a crash leaves the old file or the new one.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary).map_err(failed("write", &temporary))?;
    file.write_all(bytes).map_err(failed("write", &temporary))?;
    file.sync_all().map_err(failed("sync", &temporary))?;
    drop(file);
    fs::rename(&temporary, path).map_err(failed("rename", path))?;
    // The rename itself reaches the disk with its directory; not every system lets a directory be opened.
    if let Some(dir) = path.parent()
        && let Ok(dir) = File::open(dir)
    {
        dir.sync_all().map_err(failed("sync", path))?;
    }
    Ok(())
}
