//! Semantic IDs as packed rows, and their order.

use crate::{
    error::Result,
    id::SemanticId,
    layout::SidLayout,
    packed::{Words, read_bits, width_of, write_bits},
};

/// Where in a packed row the code of each position lies. The first code has the highest bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowFormat {
    /// Offset and width of each position, in bits.
    fields: Vec<(u32, u32)>,
    /// Bits of a row.
    bits: u32,
}

impl RowFormat {
    pub(crate) fn new(layout: &SidLayout) -> Self {
        let mut bits = 0;
        let mut fields: Vec<(u32, u32)> = Vec::with_capacity(layout.positions());
        for &size in layout.sizes().iter().rev() {
            fields.push((bits, width_of(size)));
            bits += width_of(size);
        }
        fields.reverse();
        Self { fields, bits }
    }

    /// Number of words that so many rows take.
    pub(crate) fn words_for(&self, rows: u32) -> u64 {
        (u64::from(rows) * u64::from(self.bits)).div_ceil(64)
    }
}

/// The Semantic IDs of all items by item.
#[derive(Debug)]
pub(crate) struct Rows {
    format: RowFormat,
    words: Words,
    len: u32,
}

impl Rows {
    /// Rows over words that are as many as [`RowFormat::words_for`] says.
    pub(crate) fn from_words(format: RowFormat, words: Words, len: u32) -> Self {
        Self { format, words, len }
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The row of an item; zeros outside.
    #[inline]
    pub(crate) fn sid(&self, item: u32) -> SemanticId {
        let words: &[u64] = &self.words;
        let start = u64::from(item) * u64::from(self.format.bits);
        self.format.fields.iter().map(|&(offset, width)| read_bits(words, start + u64::from(offset), width)).collect()
    }
}

/// Rows that are still being written.
#[derive(Debug)]
pub(crate) struct RowsBuilder {
    format: RowFormat,
    words: Vec<u64>,
    len: u32,
}

impl RowsBuilder {
    pub(crate) fn new(layout: &SidLayout, len: u32) -> Self {
        let format = RowFormat::new(layout);
        Self { words: vec![0; format.words_for(len) as usize], format, len }
    }

    /// Writes the row of an item, once.
    pub(crate) fn set(&mut self, item: u32, row: &[u32]) {
        let start = u64::from(item) * u64::from(self.format.bits);
        for (&(offset, width), &code) in self.format.fields.iter().zip(row) {
            write_bits(&mut self.words, start + u64::from(offset), width, code);
        }
    }

    pub(crate) fn finish(self) -> Rows {
        Rows { format: self.format, words: self.words.into(), len: self.len }
    }
}

/// Calls `visit` with every item and its row, sorted by row and then by item.
///
/// `sizes` bound the values of the columns; `fill` writes the row of an item.
pub(crate) fn for_each_sorted(
    sizes: &[u32],
    items: u32,
    fill: impl Fn(u32, &mut [u32]),
    visit: impl FnMut(u32, &[u32]) -> Result<()>,
) -> Result<()> {
    let bits = width_of(items) + sizes.iter().map(|&size| width_of(size)).sum::<u32>();
    match bits {
        // The usual case, 4 x 8 bits and up to four thousand million items: row and item are one integer.
        0..=64 => by_keys::<u64>(sizes, items, fill, visit),
        65..=128 => by_keys::<u128>(sizes, items, fill, visit),
        _ => by_rows(sizes.len(), items, fill, visit),
    }
}

/// An integer that small ones are packed into.
trait Key: Copy + Ord {
    const ZERO: Self;
    fn push(self, width: u32, value: u32) -> Self;
    fn pop(&mut self, width: u32) -> u32;
}

macro_rules! impl_key {
    ($($integer:ty),*) => {$(
        impl Key for $integer {
            const ZERO: Self = 0;

            fn push(self, width: u32, value: u32) -> Self {
                (self << width) | Self::from(value)
            }

            fn pop(&mut self, width: u32) -> u32 {
                let value = *self & ((1 << width) - 1);
                *self >>= width;
                value as u32
            }
        }
    )*};
}

impl_key!(u64, u128);

fn by_keys<K: Key>(
    sizes: &[u32],
    items: u32,
    fill: impl Fn(u32, &mut [u32]),
    mut visit: impl FnMut(u32, &[u32]) -> Result<()>,
) -> Result<()> {
    let widths: Vec<u32> = sizes.iter().map(|&size| width_of(size)).collect();
    let item_width = width_of(items);
    let mut row = vec![0; sizes.len()];
    let mut keys: Vec<K> = Vec::with_capacity(items as usize);
    for item in 0..items {
        fill(item, &mut row);
        let key = row.iter().zip(&widths).fold(K::ZERO, |key, (&code, &width)| key.push(width, code));
        keys.push(key.push(item_width, item));
    }
    keys.sort_unstable();
    for mut key in keys {
        let item = key.pop(item_width);
        for (code, &width) in row.iter_mut().zip(&widths).rev() {
            *code = key.pop(width);
        }
        visit(item, &row)?;
    }
    Ok(())
}

fn by_rows(
    columns: usize,
    items: u32,
    fill: impl Fn(u32, &mut [u32]),
    mut visit: impl FnMut(u32, &[u32]) -> Result<()>,
) -> Result<()> {
    let mut rows = vec![0; items as usize * columns];
    let row = |rows: &[u32], item: u32| -> std::ops::Range<usize> {
        let start = item as usize * columns;
        start..(start + columns).min(rows.len())
    };
    for item in 0..items {
        let range = row(&rows, item);
        fill(item, &mut rows[range]);
    }
    let mut order: Vec<u32> = (0..items).collect();
    order.sort_unstable_by(|&a, &b| rows[row(&rows, a)].cmp(&rows[row(&rows, b)]).then(a.cmp(&b)));
    for item in order {
        visit(item, &rows[row(&rows, item)])?;
    }
    Ok(())
}
