//! 64-bit words in memory or in a mapped file.

use std::{fs::File, ops::Range, sync::Arc};

use memmap2::Mmap;

/// A fixed array of words. Its readers never trust the contents: a mapped file is not verified when it is opened.
pub(crate) enum Words {
    Owned(Vec<u64>),
    /// Memory that the system was asked to back with large pages.
    Large {
        memory: Mmap,
        bytes: usize,
    },
    /// Part of a file, by bytes; aligned to a word and a whole number of words, or it reads as empty.
    Mapped {
        file: Arc<Mmap>,
        bytes: Range<usize>,
    },
}

impl std::ops::Deref for Words {
    type Target = [u64];

    #[inline]
    fn deref(&self) -> &[u64] {
        match self {
            Self::Owned(words) => words,
            Self::Large { memory, bytes } => {
                bytemuck::try_cast_slice(memory.get(..*bytes).unwrap_or_default()).unwrap_or_default()
            }
            Self::Mapped { file, bytes } => {
                bytemuck::try_cast_slice(file.get(bytes.clone()).unwrap_or_default()).unwrap_or_default()
            }
        }
    }
}

/// Bytes from which on large pages are asked for: below, the caches for addresses suffice.
const LARGE: usize = 1 << 21;

impl From<Vec<u64>> for Words {
    fn from(words: Vec<u64>) -> Self {
        let large = if words.len() * 8 < LARGE { None } else { in_large_pages(&words) };
        match large {
            Some(memory) => Self::Large { memory, bytes: words.len() * 8 },
            None => Self::Owned(words),
        }
    }
}

/// A copy in large pages: a random read of many megabytes misses the cache for addresses as well as that for data, and
/// costs half as much without. `None` where the system has no such thing.
fn in_large_pages(words: &[u64]) -> Option<Mmap> {
    #[cfg(target_os = "linux")]
    {
        let bytes: &[u8] = bytemuck::cast_slice(words);
        // A whole number of pages, so that the end is in a large one too.
        let mut memory = memmap2::MmapMut::map_anon(bytes.len().next_multiple_of(LARGE)).ok()?;
        memory.advise(memmap2::Advice::HugePage).ok()?;
        memory.get_mut(..bytes.len())?.copy_from_slice(bytes);
        memory.make_read_only().ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = words;
        None
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = if matches!(self, Self::Mapped { .. }) { "mapped" } else { "owned" };
        write!(f, "{} words {place}", self.len())
    }
}

/// Maps a file to be read where it lies. It must not be shortened while it is mapped.
#[allow(unsafe_code, reason = "a mapped file may be changed by others; no reader here trusts what it holds")]
pub(crate) fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the bytes are only ever read as integers, each of which is checked before it is used as an index. That the
    // file must not be shortened is said to whoever opens it; `save` replaces files and changes none.
    unsafe { Mmap::map(file) }
}

/// Has the cache line of a word fetched that will be read soon: a miss takes longer than all else that a look-up does. Only
/// a hint, and none where the processor has no such instruction.
#[inline]
#[allow(unsafe_code, reason = "the instruction takes a pointer; it reads nothing and cannot fault")]
pub(super) fn prefetch(words: &[u64], place: usize) {
    let Some(word) = words.get(place) else { return };
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of the architecture, and the pointer comes from a reference.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(word).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = word;
}
