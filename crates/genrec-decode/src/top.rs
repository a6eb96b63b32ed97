//! The best few of many candidates.

/// A hypothesis that one more token would make.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    rank: u128,
    /// Sum of log-probabilities.
    pub(crate) log_prob: f32,
    /// Index of the parent among the user's hypotheses.
    pub(crate) parent: u32,
}

impl Candidate {
    /// `score` is what is compared, never NaN; `parent_order` the place of the parent when the user's hypotheses are sorted by
    /// their tokens; `token` what follows the parent, `None` for a complete parent that stays as it is.
    #[inline]
    pub(crate) fn new(score: f32, log_prob: f32, (parent, parent_order): (u32, u32), token: Option<u32>) -> Self {
        let token = token.map_or(0, |token| u64::from(token) + 1);
        let rank = (u128::from(descending(score)) << 65) | (u128::from(parent_order) << 33) | u128::from(token);
        Self { rank, log_prob, parent }
    }

    pub(crate) fn token(&self) -> Option<u32> {
        // What is cut off belongs to the parent's place.
        let token = (self.rank as u64) & ((1 << 33) - 1);
        token.checked_sub(1).map(|token| token as u32)
    }

    /// The best has the lowest: scores descend, equal ones come in the order of the tokens.
    #[inline]
    fn rank(&self) -> u128 {
        self.rank
    }
}

/// A number that is the smaller the larger the value, in the order of [`f32::total_cmp`].
#[inline]
fn descending(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 0 { !(bits | 1 << 31) } else { bits }
}

/// The value of such a number.
fn ascending(order: u32) -> f32 {
    f32::from_bits(if order >> 31 == 0 { !order & !(1 << 31) } else { order })
}

/// Keeps the `limit` best candidates of those pushed, in memory proportional to `limit`.
///
/// Pushes go into a buffer of twice the limit; a full one is cut back by selection, so that a push costs constant time
/// on average. From the first cut on, what scores below the worst kept need not be pushed.
pub(crate) struct Best {
    limit: usize,
    kept: Vec<Candidate>,
    threshold: f32,
}

impl Best {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, kept: Vec::with_capacity(limit.saturating_mul(2).min(256)), threshold: f32::NEG_INFINITY }
    }

    /// What scores below is not among the best.
    pub(crate) fn threshold(&self) -> f32 {
        self.threshold
    }

    #[inline]
    pub(crate) fn push(&mut self, candidate: Candidate) {
        self.kept.push(candidate);
        if self.kept.len() >= self.limit.saturating_mul(2) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.kept.len() > self.limit {
            let (_, worst, _) = self.kept.select_nth_unstable_by_key(self.limit - 1, Candidate::rank);
            self.threshold = ascending((worst.rank >> 65) as u32);
            self.kept.truncate(self.limit);
        }
    }

    /// The best, sorted.
    pub(crate) fn into_sorted(mut self) -> Vec<Candidate> {
        self.cut();
        self.kept.sort_unstable_by_key(Candidate::rank);
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn best_are_the_first_of_a_full_sort(scores in prop::collection::vec(-4i8..3, 0..200), limit in 1usize..20) {
            let all: Vec<(f32, u32, Option<u32>)> = scores
                .iter()
                .zip(0u32..)
                .map(|(&score, i)| (f32::from(score), i * 7 % 5, (i != 3).then_some(u32::MAX - i)))
                .collect();
            let mut best = Best::new(limit);
            for &(score, parent_order, token) in &all {
                prop_assert_eq!(Candidate::new(score, 0.0, (7, parent_order), token).token(), token);
                if score >= best.threshold() {
                    best.push(Candidate::new(score, score, (parent_order, parent_order), token));
                }
            }
            let mut sorted = all;
            sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
            sorted.truncate(limit);
            let found = best.into_sorted().into_iter().map(|found| (found.log_prob, found.parent, found.token()));
            prop_assert_eq!(found.collect::<Vec<_>>(), sorted);
        }

        #[test]
        fn numbers_descend_as_values_ascend(a in any::<f32>(), b in any::<f32>()) {
            prop_assert_eq!(descending(a).cmp(&descending(b)), b.total_cmp(&a));
            prop_assert_eq!(ascending(descending(a)).to_bits(), a.to_bits());
        }
    }
}
