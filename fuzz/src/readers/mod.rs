//! Bytes to files, and files through every reader that a user can hand them to. None may panic, whatever the bytes.

pub mod config;
pub mod data;
pub mod index;
pub mod weights;

use std::{fs, path::Path};

/// The bytes before the first NUL, which no JSON text has, and those behind it.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

/// Writes a file that a reader is to be given.
fn put(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).expect("a file of the test");
}

/// An error must be able to say what it is.
fn told<T, E: std::error::Error>(result: Result<T, E>) -> Option<T> {
    result.map_err(|error| assert!(!error.to_string().is_empty())).ok()
}

/// The same for what is of no further use.
fn tell<T, E: std::error::Error>(result: Result<T, E>) {
    told(result);
}
