//! How often each item of a catalogue is recommended: what coverage and Gini are computed from.

use std::collections::HashMap;
use std::hash::Hash;

use crate::error::{EvalError, Result, check_cutoff};

/// Counts of the items among the first `k` of each list; an item counts once a list.
#[derive(Debug, Clone)]
pub(crate) struct Exposure<I> {
    k: usize,
    catalogue: usize,
    items: HashMap<I, Seen>,
    lists: u64,
    spoilt: bool,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Lists that hold the item.
    lists: u64,
    /// Number of the last of them, which tells a repeat within a list from another list.
    last: u64,
}

impl<I: Eq + Hash + Clone> Exposure<I> {
    pub(crate) fn new(metric: &'static str, k: usize, catalogue: usize) -> Result<Self> {
        check_cutoff(metric, k)?;
        if catalogue == 0 {
            return Err(EvalError::EmptyCatalogue);
        }
        Ok(Self { k, catalogue, items: HashMap::new(), lists: 0, spoilt: false })
    }

    pub(crate) fn k(&self) -> usize {
        self.k
    }

    pub(crate) fn catalogue(&self) -> usize {
        self.catalogue
    }

    /// Distinct items recommended.
    pub(crate) fn distinct(&self) -> usize {
        self.items.len()
    }

    /// In how many lists each item is that is in any, in no particular order.
    pub(crate) fn counts(&self) -> impl Iterator<Item = u64> {
        self.items.values().map(|seen| seen.lists)
    }

    /// Whether there is something to compute a value from, and nothing of other settings was merged into it.
    pub(crate) fn has_value(&self) -> bool {
        self.lists > 0 && !self.spoilt
    }

    pub(crate) fn update(&mut self, ranked: &[I]) {
        self.lists += 1;
        let last = self.lists;
        for item in ranked.iter().take(self.k) {
            match self.items.get_mut(item) {
                Some(seen) if seen.last == last => {}
                Some(seen) => *seen = Seen { lists: seen.lists + 1, last },
                None => {
                    self.items.insert(item.clone(), Seen { lists: 1, last });
                }
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        // The next list's number is above those of both sides, so what `last` is does not matter.
        self.lists += other.lists;
        for (item, more) in &other.items {
            match self.items.get_mut(item) {
                Some(seen) => seen.lists += more.lists,
                None => {
                    self.items.insert(item.clone(), *more);
                }
            }
        }
        self.spoilt |= other.spoilt || (self.k, self.catalogue) != (other.k, other.catalogue);
    }

    pub(crate) fn reset(&mut self) {
        self.items.clear();
        self.lists = 0;
        self.spoilt = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(exposure: &Exposure<u32>) -> Vec<u64> {
        let mut counts: Vec<u64> = exposure.counts().collect();
        counts.sort_unstable();
        counts
    }

    #[test]
    fn an_item_counts_once_a_list_before_and_after_a_merge() {
        let mut left = Exposure::new("gini", 3, 9).unwrap();
        left.update(&[7, 7, 8, 9]); // 9 is beyond the cut-off
        let mut right = left.clone();
        right.update(&[7]);
        left.merge(&right);
        assert_eq!(counts(&left), [2, 3]);
        left.update(&[8, 8, 8]);
        assert_eq!((counts(&left), left.distinct()), (vec![3, 3], 2));
    }
}
