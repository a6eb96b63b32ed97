//! The files of an index.
#![no_main]

use std::{path::PathBuf, sync::LazyLock};

use genrec_fuzz::{memory, readers};

#[global_allocator]
static ALLOCATOR: memory::Limited = memory::Limited;

static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(memory::directory);

libfuzzer_sys::fuzz_target!(|input: &[u8]| memory::within(input.len(), || _ = readers::index::read(input, &DIRECTORY)));
