//! Quantisers, models, checkpoints, embedders and embeddings.
#![no_main]

use std::{path::PathBuf, sync::LazyLock};

use genrec_fuzz::{memory, readers};

#[global_allocator]
static ALLOCATOR: memory::Limited = memory::Limited;

static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(memory::directory);

/// An encoder's files are hashed a mebibyte at a time, whatever their size.
const BLOCK: usize = 1 << 20;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    memory::within(input.len() + BLOCK, || readers::weights::read(input, &DIRECTORY));
});
