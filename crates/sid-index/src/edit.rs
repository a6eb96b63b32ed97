//! Adding and removing items.

use std::ops::Range;

use ndarray::ArrayView2;

use crate::{
    base::BaseBuilder,
    error::{IndexError, Result},
    id::{ItemId, SemanticId},
    index::{SidIndex, check_codes, check_item_count},
};

impl SidIndex {
    /// Adds an item with the codes that the quantiser gave it and returns its number, the old
    /// [`id_bound`](Self::id_bound).
    ///
    /// Under [`CollisionPolicy::Suffix`](crate::CollisionPolicy::Suffix) it gets the suffix above the greatest that its codes
    /// have, or, when that was the last, the lowest that is free; Semantic IDs given before stay as they are, so a trained
    /// model stays valid. Takes time in proportion to the items added since the last [`compact`](Self::compact), a
    /// few bytes moved for each.
    ///
    /// # Errors
    /// As [`from_codes`](Self::from_codes); then nothing has changed.
    pub fn insert(&mut self, codes: &[u32]) -> Result<ItemId> {
        let levels = self.layout.levels();
        let row = ArrayView2::from_shape((1, codes.len()), codes)
            .map_err(|_| IndexError::Levels { expected: levels, got: codes.len() })?;
        Ok(ItemId(self.extend(row)?.start))
    }

    /// Adds items as [`insert`](Self::insert) does, in the order of the rows, and returns their numbers.
    ///
    /// # Shapes
    /// `codes`: `(new items, levels)`.
    ///
    /// # Errors
    /// As [`from_codes`](Self::from_codes); then nothing has changed.
    #[allow(clippy::needless_pass_by_value, reason = "a view is passed by value, as ndarray does")]
    pub fn extend(&mut self, codes: ArrayView2<'_, u32>) -> Result<Range<u32>> {
        let (levels, positions) = (self.layout.levels(), self.layout.positions());
        if codes.ncols() != levels {
            return Err(IndexError::Levels { expected: levels, got: codes.ncols() });
        }
        let start = self.id_bound();
        let end = check_item_count((start as usize).saturating_add(codes.nrows()), positions)?;
        check_codes(&self.layout, start, codes.rows().into_iter().map(|row| row.into_iter().copied()))?;
        let mut sids: Vec<u32> = Vec::with_capacity(codes.nrows() * positions);
        for row in codes.rows() {
            sids.extend(row);
            sids.resize(sids.len() + positions - levels, 0);
        }
        if let Some(suffix_size) = self.layout.suffix_size() {
            self.number_suffixes(&mut sids, suffix_size)?;
        }
        self.overlay.extend(&sids);
        Ok(start..end)
    }

    /// Writes suffixes into new rows, in item order.
    fn number_suffixes(&self, sids: &mut [u32], suffix_size: u32) -> Result<()> {
        let (levels, positions) = (self.layout.levels(), self.layout.positions());
        let mut rows: Vec<&mut [u32]> = sids.chunks_exact_mut(positions).collect();
        // Stable: rows of equal codes stay in item order.
        rows.sort_by(|a, b| a[..levels].cmp(&b[..levels]));
        for group in rows.chunk_by_mut(|a, b| a[..levels] == b[..levels]) {
            let Some(codes) = group.first().map(|row| row[..levels].to_vec()) else { continue };
            let used: Vec<u32> = match self.find(&codes) {
                Some(node) => self.children(node).map(|(suffix, _)| suffix).collect(),
                None => Vec::new(),
            };
            if (used.len() + group.len()) as u64 > u64::from(suffix_size) {
                let items = used.len() + group.len();
                return Err(IndexError::SuffixOverflow { items, codes, suffix_size });
            }
            let above = used.last().map_or(0, |&suffix| suffix + 1);
            let free = (above..suffix_size).chain((0..above).filter(|suffix| used.binary_search(suffix).is_err()));
            for (row, suffix) in group.iter_mut().zip(free) {
                row[levels] = suffix;
            }
        }
        Ok(())
    }

    /// Takes an item out and returns the Semantic ID that it had, or `None` when there is no such item.
    ///
    /// Its number is never given again; its Semantic ID may be, to a new item of the same codes.
    pub fn remove(&mut self, item: ItemId) -> Option<SemanticId> {
        let sid = self.sid(item)?;
        match item.0.checked_sub(self.base.id_bound()) {
            Some(arrival) => {
                self.overlay.remove(arrival);
            }
            None => {
                self.removed.insert(self.base.rank(item.0)?);
                self.removed_items.insert(item.0);
            }
        }
        Some(sid)
    }

    /// Number of items that were added, and of those that were removed, since the last [`compact`](Self::compact).
    pub fn pending(&self) -> usize {
        self.overlay.arrivals() as usize + self.removed.len() as usize
    }

    /// Makes one base of all that is there. No answer changes but those about [`Node`](crate::Node)s and
    /// [`ItemFilter`](crate::ItemFilter)s that were made before, which are to be made anew.
    ///
    /// Takes time in proportion to the catalogue (a few tenths of a second for a million items); worth it when
    /// [`pending`](Self::pending) has grown to some hundredths of [`len`](Self::len). Clones go on with the old base.
    ///
    /// # Errors
    /// [`IndexError::DuplicateSid`] when the index was mapped from a damaged file; then nothing has changed.
    pub fn compact(&mut self) -> Result<()> {
        if self.pending() == 0 {
            return Ok(());
        }
        // No more than `id_bound`.
        let mut builder = BaseBuilder::new(&self.layout, self.policy, self.len() as u32, self.id_bound());
        for item in self.items_below(self.root()) {
            if let Some(sid) = self.sid(item) {
                builder.push(item, &sid)?;
            }
        }
        *self = Self::of_base(self.layout.clone(), self.policy, self.codebook, builder.finish());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
