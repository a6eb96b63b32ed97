//! Bits that count their ones.

use super::{BitsBuilder, Ints, IntsBuilder, Ones, Words, words::prefetch};

/// Bits between two counts: those of a parent of 256 codes, whose first child is then one look-up away.
const BLOCK: u64 = 256;

/// Bits with the number of ones before each block of 256: an eighth more.
///
/// Counting (*rank*) reads one count and at most four words.
#[derive(Debug)]
pub(crate) struct RankBits {
    len: u64,
    ones: u32,
    words: Words,
    /// Ones before each block, and their total.
    counts: Ints,
}

impl RankBits {
    /// Numbers of words of the bits and of the counts.
    pub(crate) fn words_for(len: u64) -> [u64; 2] {
        [len.div_ceil(64), Ints::words_for(len.div_ceil(BLOCK) + 1, 32)]
    }

    /// Bits over words that are as many as [`words_for`](Self::words_for) says, of which so many are ones.
    pub(crate) fn from_words(len: u64, ones: u32, [words, counts]: [Words; 2]) -> Self {
        Self { len, ones, words, counts: Ints::from_words(counts, 32, len.div_ceil(BLOCK) as usize + 1) }
    }

    pub(crate) fn words(&self) -> [&[u64]; 2] {
        [&self.words, self.counts.words()]
    }

    #[inline]
    pub(crate) fn get(&self, place: u64) -> bool {
        place < self.len && self.words.get((place / 64) as usize).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// The 64 bits from a place on; zeros past the end.
    #[inline]
    pub(crate) fn group(&self, place: u64) -> u64 {
        let (word, shift) = ((place / 64) as usize, place % 64);
        let words: &[u64] = &self.words;
        let low = words.get(word).copied().unwrap_or(0) >> shift;
        if shift == 0 { low } else { low | words.get(word + 1).copied().unwrap_or(0) << (64 - shift) }
    }

    /// As [`Ints::touch`].
    #[inline]
    pub(crate) fn touch(&self, place: u64) {
        prefetch(&self.words, (place / 64) as usize);
    }

    /// Number of ones before a place.
    #[inline]
    pub(crate) fn rank(&self, place: u64) -> u32 {
        let place = place.min(self.len);
        let (block, word) = ((place / BLOCK) as usize, (place / 64) as usize);
        let mut ones = self.counts.get(block);
        let words: &[u64] = &self.words;
        for word in words.get(block * (BLOCK as usize / 64)..word).unwrap_or_default() {
            ones = ones.saturating_add(word.count_ones());
        }
        if !place.is_multiple_of(64) {
            let below = words.get(word).copied().unwrap_or(0) << (64 - place % 64);
            ones = ones.saturating_add(below.count_ones());
        }
        // A damaged file may count more.
        ones.min(self.ones)
    }

    /// Places of the ones from `start` to before `end`, ascending.
    #[inline]
    pub(crate) fn ones(&self, start: u64, end: u64) -> Ones<'_> {
        Ones::new(&self.words, start, end.min(self.len))
    }
}

impl From<BitsBuilder> for RankBits {
    /// Counts the ones, of which there are fewer than 2^32.
    fn from(bits: BitsBuilder) -> Self {
        let (len, words) = (bits.len(), bits.into_words());
        let mut counts = IntsBuilder::new(32, words.len() / (BLOCK as usize / 64) + 2);
        let mut ones = 0_u32;
        for block in words.chunks(BLOCK as usize / 64) {
            counts.push(ones);
            ones += block.iter().map(|word| word.count_ones()).sum::<u32>();
        }
        counts.push(ones);
        Self { len, ones, words, counts: counts.finish() }
    }
}
