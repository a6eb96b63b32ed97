//! Arrays of whole words that hold small integers and sets of bits, owned or mapped from a file.

mod bits;
mod ints;
mod rank;
mod select;
mod words;

pub(crate) use bits::{BitsBuilder, Ones};
pub(crate) use ints::{Ints, IntsBuilder, read_bits, write_bits};
pub(crate) use rank::RankBits;
pub(crate) use select::SelectBits;
pub(crate) use words::{Words, map_file};

/// Bits that hold the values `0..size`.
pub(crate) fn width_of(size: u32) -> u32 {
    u32::BITS - size.saturating_sub(1).leading_zeros()
}

#[cfg(test)]
mod tests;
