//! Bits that find their ones.

use super::{BitsBuilder, Ints, IntsBuilder, Ones, Words, words::prefetch};

/// Bits between two counts.
const BLOCK: u64 = 2048;
/// From so many bits between two samples on, the counts are searched before the words.
const FAR: u64 = 2 * BLOCK;

/// Ones between two samples: so many that they mostly lie within 128 bits.
fn sampled(len: u64, ones: u32) -> u32 {
    if len < 3 * u64::from(ones) { 32 } else { 16 }
}

/// Bits with the place of every 32nd one, or every 16th where they are sparse, and, for where they lie far apart, the
/// number of ones before each block of 2048.
///
/// Finding the k-th one (*select*) reads two samples and 128 bits, in the worst case some counts as well.
#[derive(Debug)]
pub(crate) struct SelectBits {
    /// Below 2^32.
    len: u64,
    ones: u32,
    words: Words,
    /// Ones before each block, and their total.
    counts: Ints,
    samples: Ints,
    sampled: u32,
}

impl SelectBits {
    /// Numbers of words of the bits, the counts and the samples.
    pub(crate) fn words_for(len: u64, ones: u32) -> [u64; 3] {
        [
            len.div_ceil(64),
            Ints::words_for(len.div_ceil(BLOCK) + 1, 32),
            Ints::words_for(u64::from(ones.div_ceil(sampled(len, ones))), 32),
        ]
    }

    /// Bits over words that are as many as [`words_for`](Self::words_for) says.
    pub(crate) fn from_words(len: u64, ones: u32, [words, counts, samples]: [Words; 3]) -> Self {
        let counts = Ints::from_words(counts, 32, len.div_ceil(BLOCK) as usize + 1);
        let sampled = sampled(len, ones);
        let samples = Ints::from_words(samples, 32, ones.div_ceil(sampled) as usize);
        Self { len, ones, words, counts, samples, sampled }
    }

    pub(crate) fn words(&self) -> [&[u64]; 3] {
        [&self.words, self.counts.words(), self.samples.words()]
    }

    /// Place of the one with a number, counted from zero; the length when there are not so many.
    #[inline]
    pub(crate) fn select(&self, number: u32) -> u64 {
        if number >= self.ones {
            return self.len;
        }
        let sample = (number / self.sampled) as usize;
        let start = u64::from(self.samples.get(sample)).min(self.len);
        let next = if sample + 1 < self.samples.len() { u64::from(self.samples.get(sample + 1)) } else { self.len };
        if next.saturating_sub(start) > FAR {
            return self.select_far(number, start, next.min(self.len));
        }
        // Without a branch where the ones are within 128 bits, as they mostly are: which half they are in cannot be foretold.
        let words: &[u64] = &self.words;
        let (place, shift) = ((start / 64) as usize, start % 64);
        let at = |place: usize| words.get(place).copied().unwrap_or(0);
        let half = |place| (at(place) >> shift) | (at(place + 1) << 1 << (63 - shift));
        let (low, high, rest) = (half(place), half(place + 1), number % self.sampled);
        let ones = low.count_ones();
        let (word, left, skipped) = if rest < ones { (low, rest, 0) } else { (high, rest - ones, 64) };
        if left < word.count_ones() {
            return (start + skipped + u64::from(select_in_word(word, left))).min(self.len);
        }
        self.select_from(start, rest)
    }

    /// About where the one with a number is, by the samples alone.
    #[inline]
    pub(crate) fn guess(&self, number: u32) -> u32 {
        let sample = (number / self.sampled) as usize;
        let start = self.samples.get(sample);
        let next = if sample + 1 < self.samples.len() { self.samples.get(sample + 1) } else { start };
        let within = u64::from(next.saturating_sub(start)) * u64::from(number % self.sampled) / u64::from(self.sampled);
        start.saturating_add(within as u32)
    }

    /// As [`Ints::touch`].
    #[inline]
    pub(crate) fn touch(&self, place: u32) {
        prefetch(&self.words, place as usize / 64);
    }

    /// The one with number `rest` from a place on, word by word.
    fn select_from(&self, start: u64, mut rest: u32) -> u64 {
        let words: &[u64] = &self.words;
        let mut place = (start / 64) as usize;
        let mut word = words.get(place).copied().unwrap_or(0) & (u64::MAX << (start % 64));
        loop {
            let ones = word.count_ones();
            if rest < ones {
                return (place as u64 * 64 + u64::from(select_in_word(word, rest))).min(self.len);
            }
            rest -= ones;
            place += 1;
            match words.get(place) {
                Some(&next) => word = next,
                None => return self.len,
            }
        }
    }

    /// The same by the counts of the blocks between two samples.
    #[cold]
    fn select_far(&self, number: u32, start: u64, next: u64) -> u64 {
        let (mut low, mut high) = ((start / BLOCK) as usize, next.div_ceil(BLOCK) as usize);
        // The last block whose count is not above the number.
        while high - low > 1 {
            let middle = low.midpoint(high);
            if self.counts.get(middle) <= number { low = middle } else { high = middle }
        }
        self.select_from(low as u64 * BLOCK, number.saturating_sub(self.counts.get(low)))
    }

    /// The first one at a place or behind it; the length when there is none.
    #[inline]
    pub(crate) fn next_one(&self, place: u64) -> u64 {
        Ones::new(&self.words, place, self.len).next().unwrap_or(self.len)
    }
}

impl From<BitsBuilder> for SelectBits {
    /// Samples the ones. There are fewer than 2^32 bits.
    fn from(bits: BitsBuilder) -> Self {
        let (len, words) = (bits.len(), bits.into_words());
        let every = sampled(len, words.iter().map(|word| word.count_ones()).sum());
        let mut counts = IntsBuilder::new(32, words.len() / (BLOCK as usize / 64) + 2);
        let mut samples = IntsBuilder::new(32, 0);
        let mut ones = 0_u32;
        for (place, word) in words.iter().enumerate() {
            if place.is_multiple_of(BLOCK as usize / 64) {
                counts.push(ones);
            }
            let before = ones;
            ones += word.count_ones();
            while (samples.len() as u64) * u64::from(every) < u64::from(ones) {
                let number = samples.len() as u32 * every;
                samples.push((place as u32) * 64 + select_in_word(*word, number - before));
            }
        }
        counts.push(ones);
        Self { len, ones, words, counts: counts.finish(), samples: samples.finish(), sampled: every }
    }
}

/// Place of the one with number `rest` in a word that has more (Vigna, *Broadword implementation of rank/select queries*,
/// WEA 2008, algorithm 2).
#[inline]
pub(super) fn select_in_word(word: u64, rest: u32) -> u32 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let pairs = word - ((word >> 1) & 0x5555_5555_5555_5555);
    let nibbles = (pairs & 0x3333_3333_3333_3333) + ((pairs >> 2) & 0x3333_3333_3333_3333);
    let bytes = (nibbles + (nibbles >> 4)) & 0x0F0F_0F0F_0F0F_0F0F;
    // Ones up to and with each byte, at most 64.
    let sums = bytes.wrapping_mul(EACH);
    let not_above = (((u64::from(rest).wrapping_mul(EACH)) | HIGH) - sums) & HIGH;
    let place = (((not_above >> 7).wrapping_mul(EACH) >> 56) * 8) as u32;
    let before = (sums << 8) >> place.min(63) & 0xFF;
    let byte = (word >> place.min(63)) & 0xFF;
    let within = SELECT_IN_BYTE[(u64::from(rest).wrapping_sub(before) & 7) as usize][byte as usize];
    place + u32::from(within)
}

/// Place of the one with a number in a byte, by number and byte.
static SELECT_IN_BYTE: [[u8; 256]; 8] = {
    let mut table = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let (mut place, mut number) = (0, 0);
        while place < 8 {
            if byte >> place & 1 == 1 {
                table[number][byte] = place;
                number += 1;
            }
            place += 1;
        }
        byte += 1;
    }
    table
};
