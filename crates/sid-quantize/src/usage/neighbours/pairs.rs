//! Pairs of items that share a prefix of codes and no more.

use genrec_kernels::CounterRng;
use ndarray::ArrayView2;

use super::super::{shared_prefix, sort_by_codes};

/// Items in the order of their codes.
#[derive(Debug)]
pub(super) struct Pairs {
    levels: usize,
    order: Vec<usize>,
    /// Codes that each item shares with the one before it.
    before: Vec<usize>,
}

/// All pairs that share so many codes, or some of them.
#[derive(Debug)]
pub(super) struct Drawn {
    /// Pairs there are.
    pub(super) count: u64,
    /// Those drawn, by item.
    pub(super) pairs: Vec<(usize, usize)>,
}

impl Pairs {
    pub(super) fn new(codes: ArrayView2<'_, u32>, items: &[usize]) -> Self {
        let mut order = items.to_vec();
        sort_by_codes(codes, &mut order);
        let shared = order.windows(2).map(|pair| shared_prefix(codes, pair[0], pair[1]));
        let before = std::iter::once(0).chain(shared).take(order.len()).collect();
        Self { levels: codes.ncols(), order, before }
    }

    /// For each place of the order the places `start..end` that share at least so many codes with it.
    fn groups(&self, length: usize) -> Vec<(u32, u32)> {
        let mut groups = Vec::with_capacity(self.order.len());
        for start in 0..self.order.len() {
            if groups.len() > start {
                continue;
            }
            // Beyond the last level every item is alone.
            let rest = self.before[start + 1..].iter();
            let end = start + 1 + rest.take_while(|&&shared| shared >= length && length <= self.levels).count();
            groups.resize(end, (start as u32, end as u32));
        }
        groups
    }

    /// The pairs that share the first `length` codes and not the next: all where there are no more than `most`, else so many
    /// drawn with replacement, each with the same chance.
    pub(super) fn sharing(&self, length: usize, most: usize, rng: &CounterRng) -> Drawn {
        let (outer, inner) = (self.groups(length), self.groups(length + 1));
        // Places with fewer than `place` places before them have so many partners, counted in both directions.
        let mut partners = Vec::with_capacity(outer.len());
        let mut sum = 0_u64;
        for (outer, inner) in outer.iter().zip(&inner) {
            sum += u64::from(outer.1 - outer.0) - u64::from(inner.1 - inner.0);
            partners.push(sum);
        }
        let count = sum / 2;
        let pair = |a: usize, b: usize| (self.order[a], self.order[b]);
        let pairs = if count <= most as u64 {
            // A partner in the group but not in the inner one lies before that or after it; each pair is met once.
            (0..self.order.len())
                .flat_map(|place| (inner[place].1..outer[place].1).map(move |other| pair(place, other as usize)))
                .collect()
        } else {
            (0..most as u64)
                .map(|draw| {
                    let place =
                        partners.partition_point(|&sum| sum <= rng.below(2 * draw, partners[partners.len() - 1]));
                    let (outer, inner) = (outer[place], inner[place]);
                    let (group, own) = (u64::from(outer.1 - outer.0), u64::from(inner.1 - inner.0));
                    let other = u64::from(outer.0) + rng.below(2 * draw + 1, group - own);
                    pair(place, (if other < u64::from(inner.0) { other } else { other + own }) as usize)
                })
                .collect()
        };
        Drawn { count, pairs }
    }
}

#[cfg(test)]
mod tests;
