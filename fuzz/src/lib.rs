//! What the fuzz targets share: the readers they drive, and a limit on the memory these may ask for.
//!
//! The readers are plain functions of bytes and a directory for the files, so that the workspace's own tests replay the
//! kept inputs without libFuzzer (`tests/tests/fuzz_corpus` includes the module by its path).

pub mod memory;
pub mod readers;
