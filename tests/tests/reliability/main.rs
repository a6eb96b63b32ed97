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

/// A small directory in memory, where the system has such a thing: files are written some thousand times a second.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
