//! Reading files, and errors that name them.

use std::{fs::File, io::Read, path::Path};

use crate::error::{IndexError, Result};

/// All that is in a file, unless it is longer than the limit, and the file.
pub(super) fn read_at_most(path: &Path, limit: u64) -> Result<(Vec<u8>, File)> {
    let file = File::open(path).map_err(io_error("read", path))?;
    let length = file.metadata().map_err(io_error("read", path))?.len();
    if length > limit {
        return Err(IndexError::FileSize { path: path.to_owned(), expected: limit, got: length });
    }
    let mut bytes = Vec::new();
    (&file).take(limit).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    Ok((bytes, file))
}

/// What was found in one place, or else in another; the error of the first where that could not be read, as it may have been there.
pub(super) fn either<T>(first: Result<T>, second: impl FnOnce() -> Result<T>) -> Result<T> {
    first.or_else(|error| second().map_err(|other| if error.is_unread() { error } else { other }))
}

pub(super) fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> IndexError + 'a {
    move |source| IndexError::Io { action, path: path.to_owned(), source }
}
