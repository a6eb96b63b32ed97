//! What was done to break genrec, as `docs/reliability.md` counts it: one file for each kind of harm.
//!
//! Each is short by default. The variable that asks for its long form is named at the top of its file.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "a test says how often it has tried")]

mod beams;
#[cfg(unix)]
mod flips;
#[cfg(unix)]
mod kills;
#[cfg(unix)]
mod lengths;
#[cfg(unix)]
mod lies;
#[path = "../../../fuzz/src/memory.rs"]
#[allow(unsafe_code, dead_code, unreachable_pub, clippy::expect_used, reason = "it is the fuzz targets'")]
mod memory;
#[cfg(target_os = "linux")]
mod soak;
mod tiny;
mod values;

use std::sync::Mutex;

use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: memory::Limited = memory::Limited;

/// Held by who needs much memory, and by who limits it.
static MEMORY: Mutex<()> = Mutex::new(());

/// A directory in memory, where the system has such a thing: files are written some thousand times a second.
fn in_memory() -> TempDir {
    let shared = std::path::Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// An error as programs print it: what it says, and what those below it say.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        text += &format!(": {error}");
        below = error.source();
    }
    text
}

/// A number that the environment sets, or the one of the short form.
fn setting(variable: &str, short: u64) -> u64 {
    match std::env::var(variable) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{variable} is {value:?}, but must be a number")),
        Err(_) => short,
    }
}
