//! Integers of a fixed number of bits.

use super::{Words, words::prefetch};

/// `width <= 32` bits from a bit offset on; zero where the words end.
#[inline]
pub(crate) fn read_bits(words: &[u64], offset: u64, width: u32) -> u32 {
    let (word, shift) = ((offset / 64) as usize, (offset % 64) as u32);
    let mut bits = words.get(word).copied().unwrap_or(0) >> shift;
    if shift + width > 64 {
        bits |= words.get(word + 1).copied().unwrap_or(0) << (64 - shift);
    }
    (bits & ((1 << width) - 1)) as u32
}

/// Sets `width <= 32` bits that are still zero.
#[inline]
pub(crate) fn write_bits(words: &mut [u64], offset: u64, width: u32, value: u32) {
    let (word, shift) = ((offset / 64) as usize, (offset % 64) as u32);
    if let Some(low) = words.get_mut(word) {
        *low |= u64::from(value) << shift;
    }
    if shift + width > 64
        && let Some(high) = words.get_mut(word + 1)
    {
        *high |= u64::from(value) >> (64 - shift);
    }
}

/// An array of integers of `width` bits each, one behind the other.
#[derive(Debug)]
pub(crate) struct Ints {
    words: Words,
    width: u32,
    len: usize,
}

impl Ints {
    /// Number of words that so many integers take.
    pub(crate) fn words_for(len: u64, width: u32) -> u64 {
        (len * u64::from(width)).div_ceil(64)
    }

    /// An array over words that are as many as [`words_for`](Self::words_for) says.
    pub(crate) fn from_words(words: Words, width: u32, len: usize) -> Self {
        Self { words, width, len }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// The integer at a place; zero past the end.
    #[inline]
    pub(crate) fn get(&self, place: usize) -> u32 {
        read_bits(&self.words, place as u64 * u64::from(self.width), self.width)
    }
}

impl Ints {
    /// Has the memory around a place fetched, for what will be read there soon.
    #[inline]
    pub(crate) fn touch(&self, place: usize) {
        prefetch(&self.words, (place as u64 * u64::from(self.width) / 64) as usize);
    }
}

/// Grows an [`Ints`] from its first integer on.
#[derive(Debug)]
pub(crate) struct IntsBuilder {
    words: Vec<u64>,
    width: u32,
    len: usize,
}

impl IntsBuilder {
    pub(crate) fn new(width: u32, expected: usize) -> Self {
        Self { words: Vec::with_capacity(Ints::words_for(expected as u64, width) as usize), width, len: 0 }
    }

    #[inline]
    pub(crate) fn push(&mut self, value: u32) {
        let offset = self.len as u64 * u64::from(self.width);
        self.words.resize((offset + u64::from(self.width)).div_ceil(64) as usize, 0);
        write_bits(&mut self.words, offset, self.width, value);
        self.len += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn finish(mut self) -> Ints {
        self.words.shrink_to_fit();
        Ints { words: self.words.into(), width: self.width, len: self.len }
    }
}
