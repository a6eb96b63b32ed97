//! Bits one behind the other.

use super::Words;

/// Places of the ones from a place to before another, ascending.
#[derive(Debug, Clone)]
pub(crate) struct Ones<'a> {
    words: &'a [u64],
    word: usize,
    /// What is left of that word.
    left: u64,
    end: u64,
}

impl<'a> Ones<'a> {
    #[inline]
    pub(crate) fn new(words: &'a [u64], start: u64, end: u64) -> Self {
        let word = (start / 64) as usize;
        let left = if start < end { words.get(word).copied().unwrap_or(0) & (u64::MAX << (start % 64)) } else { 0 };
        Self { words, word, left, end }
    }
}

impl Iterator for Ones<'_> {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        while self.left == 0 {
            if (self.word as u64 + 1) * 64 >= self.end {
                return None;
            }
            self.word += 1;
            self.left = *self.words.get(self.word)?;
        }
        let place = self.word as u64 * 64 + u64::from(self.left.trailing_zeros());
        self.left &= self.left - 1;
        (place < self.end).then_some(place)
    }

    /// Without asking of every place whether it is before the end.
    #[inline]
    fn fold<B, F: FnMut(B, u64) -> B>(self, init: B, mut f: F) -> B {
        let (mut sum, end) = (init, self.end);
        let words = self.words.get(self.word + 1..end.div_ceil(64) as usize).unwrap_or_default();
        for (word, mut left) in (self.word as u64..).zip(std::iter::once(self.left).chain(words.iter().copied())) {
            let past = ((word + 1) * 64).saturating_sub(end);
            if past > 0 {
                left &= u64::MAX.checked_shr(past.min(64) as u32).unwrap_or(0);
            }
            while left != 0 {
                sum = f(sum, word * 64 + u64::from(left.trailing_zeros()));
                left &= left - 1;
            }
        }
        sum
    }
}

/// Grows a set of bits.
#[derive(Debug, Default)]
pub(crate) struct BitsBuilder {
    words: Vec<u64>,
    len: u64,
}

impl BitsBuilder {
    /// So many zeros.
    pub(crate) fn zeros(len: u64) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len }
    }

    #[inline]
    pub(crate) fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        if let Some(word) = self.words.last_mut() {
            *word |= u64::from(bit) << (self.len % 64);
        }
        self.len += 1;
    }

    /// Makes a bit one; nothing past the end.
    #[inline]
    pub(crate) fn set(&mut self, place: u64) {
        if let Some(word) = self.words.get_mut((place / 64) as usize) {
            *word |= 1 << (place % 64);
        }
    }

    #[inline]
    pub(crate) fn get(&self, place: u64) -> bool {
        self.words.get((place / 64) as usize).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn into_words(mut self) -> Words {
        self.words.shrink_to_fit();
        self.words.into()
    }
}
