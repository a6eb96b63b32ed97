//! Reading and writing files, with errors that name them.

use std::{fs, io::Error, path::Path};

use crate::error::ModelError;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(Error) -> ModelError {
    let path = path.to_owned();
    move |source| ModelError::Io { action, path, source }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    fs::read(path).map_err(failed("read", path))
}

pub(crate) fn create_dir(path: &Path) -> Result<(), ModelError> {
    genrec_files::create_dir_all(path).map_err(failed("create", path))
}

/// Writes files that belong together, all under temporary names before the first takes its own.
pub(crate) fn write_all(files: &[(&Path, &[u8])]) -> Result<(), ModelError> {
    genrec_files::write_all(files).map_err(|(path, source)| failed("write", path)(source))
}

pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    genrec_files::write(path, bytes).map_err(failed("write", path))
}
