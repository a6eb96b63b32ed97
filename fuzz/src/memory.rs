//! An allocator that ends the process when one allocation is larger than the input can be the reason for.
//!
//! libFuzzer's own `-malloc_limit_mb` needs a sanitizer's hooks and does nothing on a stable compiler (`-s none`).

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

/// What a target itself may need beside the input: a forged file is up to 64 KiB longer, and written into a vector that grows.
const FIXED: usize = 1 << 18;

static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The system's allocator under the limit of [`within`].
#[derive(Debug)]
pub struct Limited;

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller keeps the promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller keeps the promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: the caller keeps the promises.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises.
        unsafe { System.dealloc(place, layout) }
    }
}

fn check(size: usize) {
    let limit = LIMIT.load(Ordering::Relaxed);
    if size > limit {
        LIMIT.store(usize::MAX, Ordering::Relaxed);
        eprintln!("an allocation of {size} bytes, where the input explains {limit} at most");
        std::process::abort();
    }
}

/// Does something whose single allocations may be as large as `bytes`, and a quarter of a mebibyte more.
pub fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    LIMIT.store(bytes + FIXED, Ordering::Relaxed);
    let done = work();
    LIMIT.store(usize::MAX, Ordering::Relaxed);
    done
}

/// A directory of this process in memory, where the system has such a thing: files are written some thousand times a second.
///
/// # Panics
/// When it cannot be made.
pub fn directory() -> std::path::PathBuf {
    let shared = std::path::Path::new("/dev/shm");
    let root = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    let dir = root.join(format!("genrec-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory for the files");
    dir
}
