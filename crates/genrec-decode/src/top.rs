//! The best few of many candidates.

use std::cmp::Ordering;

/// A hypothesis that one more token would make.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    /// What is compared; never NaN.
    pub(crate) score: f32,
    /// Sum of log-probabilities.
    pub(crate) log_prob: f32,
    /// Place of the parent when the user's hypotheses are sorted by their tokens.
    pub(crate) parent_order: u32,
    /// Index of the parent among the user's hypotheses.
    pub(crate) parent: u32,
    /// The token that follows the parent; `None` for a complete parent that stays as it is.
    pub(crate) token: Option<u32>,
}

impl Candidate {
    /// Best first; equal scores in the order of the tokens.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then(self.parent_order.cmp(&other.parent_order))
            .then(self.token.cmp(&other.token))
    }
}

/// Keeps the `limit` best candidates of those pushed, in memory proportional to `limit`.
///
/// Pushes go into a buffer of twice the limit; a full one is cut back by selection, so that a push costs constant time
/// on average. From the first cut on, what scores below the worst kept is turned away at once.
pub(crate) struct Best {
    limit: usize,
    kept: Vec<Candidate>,
    threshold: f32,
}

impl Best {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, kept: Vec::new(), threshold: f32::NEG_INFINITY }
    }

    /// What scores below is turned away.
    pub(crate) fn threshold(&self) -> f32 {
        self.threshold
    }

    pub(crate) fn push(&mut self, candidate: Candidate) {
        if candidate.score < self.threshold {
            return;
        }
        self.kept.push(candidate);
        if self.kept.len() >= self.limit.saturating_mul(2) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.kept.len() > self.limit {
            let (_, worst, _) = self.kept.select_nth_unstable_by(self.limit - 1, Candidate::compare);
            self.threshold = worst.score;
            self.kept.truncate(self.limit);
        }
    }

    /// The best, sorted.
    pub(crate) fn into_sorted(mut self) -> Vec<Candidate> {
        self.cut();
        self.kept.sort_unstable_by(Candidate::compare);
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn best_are_the_first_of_a_full_sort(scores in prop::collection::vec(-4i8..0, 0..200), limit in 1usize..20) {
            let all: Vec<Candidate> = scores
                .iter()
                .zip(0u32..)
                .map(|(&score, i)| Candidate {
                    score: f32::from(score),
                    log_prob: f32::from(score),
                    parent_order: i * 7 % 5,
                    parent: 0,
                    token: Some(i),
                })
                .collect();
            let mut best = Best::new(limit);
            all.iter().for_each(|&candidate| best.push(candidate));
            let mut sorted = all;
            sorted.sort_by(Candidate::compare);
            sorted.truncate(limit);
            prop_assert_eq!(best.into_sorted(), sorted);
        }
    }
}
