//! Metrics by kind of target: recall of unseen and of seen items, of the head and of the tail.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Result;
use crate::suite::Suite;

/// A [`Suite`] for each group of targets, for instance those that training has seen and those that it has not.
///
/// Of a user's targets those of a group are asked for by the suite of the group; a user with targets in two groups
/// counts in both, one without targets in none ([`skipped`](Self::skipped)). The list is never filtered: items of
/// other groups keep their ranks, so that the recall of unseen items is that of a list in which seen items compete
/// with them. Cold-start recall over held-out items is that of TIGER's section 4.3 (arXiv 2305.05065).
///
/// `G` names a group and orders the reports. Groups appear with their first target; one that no target is of has no
/// suite.
///
/// ```
/// use genrec_eval::{Suite, TargetGroups};
/// let trained_on = ["soap", "comb"];
/// let mut groups = TargetGroups::new(Suite::standard());
/// for target in ["brush", "comb", "razor"] {
///     let ranked = ["soap", "comb", "brush"];
///     groups.update(&ranked, &[target], |item| if trained_on.contains(item) { "seen" } else { "unseen" });
/// }
/// assert_eq!(groups.value(&"unseen", "recall@5"), Some(0.5)); // the brush, not the razor
/// assert_eq!(groups.value(&"seen", "recall@5"), Some(1.0));
/// assert_eq!(groups.get(&"unseen").map(Suite::users), Some(2));
/// ```
pub struct TargetGroups<I, G> {
    empty: Suite<I>,
    groups: BTreeMap<G, Suite<I>>,
    skipped: usize,
}

impl<I: Clone, G: Ord> TargetGroups<I, G> {
    /// No groups yet; each will have the metrics of `suite`, whose users are forgotten.
    pub fn new(mut suite: Suite<I>) -> Self {
        suite.reset();
        Self { empty: suite, groups: BTreeMap::new(), skipped: 0 }
    }

    /// Adds one user: the items recommended, best first, the items that are right, and which group each of those is of.
    pub fn update(&mut self, ranked: &[I], relevant: &[I], group: impl Fn(&I) -> G) {
        if relevant.is_empty() {
            self.skipped += 1;
            return;
        }
        let mut targets: BTreeMap<G, Vec<I>> = BTreeMap::new();
        for item in relevant {
            targets.entry(group(item)).or_default().push(item.clone());
        }
        for (group, targets) in targets {
            self.groups.entry(group).or_insert_with(|| self.empty.clone()).update(ranked, &targets);
        }
    }

    /// Appends the users of another with the same metrics, group by group.
    ///
    /// # Errors
    /// [`EvalError::DifferentMetrics`](crate::EvalError::DifferentMetrics); nothing is changed then.
    pub fn merge(&mut self, other: &Self) -> Result<()>
    where
        G: Clone,
    {
        self.empty.merge(&other.empty)?;
        for (group, suite) in &other.groups {
            self.groups.entry(group.clone()).or_insert_with(|| self.empty.clone()).merge(suite)?;
        }
        self.skipped += other.skipped;
        Ok(())
    }
}

impl<I, G: Ord> TargetGroups<I, G> {
    /// The metrics over the targets of one group, with the values of its users; `None` when there was no such target.
    pub fn get(&self, group: &G) -> Option<&Suite<I>> {
        self.groups.get(group)
    }

    /// The mean of one metric over the users of one group; `None` when either is not there.
    pub fn value(&self, group: &G, name: &str) -> Option<f64> {
        self.get(group)?.value(name)
    }

    /// Every group with its metrics, in the groups' order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&G, &Suite<I>)> {
        self.groups.iter()
    }

    /// Users left out because nothing was relevant for them.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Forgets every user and every group, and keeps the metrics.
    pub fn reset(&mut self) {
        self.groups.clear();
        self.skipped = 0;
    }
}

impl<I, G: Clone> Clone for TargetGroups<I, G> {
    fn clone(&self) -> Self {
        Self { empty: self.empty.clone(), groups: self.groups.clone(), skipped: self.skipped }
    }
}

impl<I, G: fmt::Debug> fmt::Debug for TargetGroups<I, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetGroups")
            .field("groups", &self.groups)
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{EvalError, ListMetric, Recall};

    fn recall(k: usize) -> Suite<u8> {
        Suite::new().with(Recall::new(k).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn each_group_is_a_recall_of_its_targets_and_parts_merge(
            users in prop::collection::vec(
                (prop::collection::vec(0u8..12, 0..9), prop::collection::vec(0u8..12, 0..5)), 0..14),
            cut in 0usize..14,
        ) {
            let third = |item: &u8| item % 3;
            let mut whole = TargetGroups::new(recall(4));
            let (mut left, mut right) = (whole.clone(), whole.clone());
            let mut expected: BTreeMap<u8, Vec<f64>> = BTreeMap::new();
            for (i, (ranked, relevant)) in users.iter().enumerate() {
                whole.update(ranked, relevant, third);
                if i < cut { left.update(ranked, relevant, third) } else { right.update(ranked, relevant, third) }
                for group in 0..3 {
                    let own: Vec<u8> = relevant.iter().copied().filter(|item| third(item) == group).collect();
                    if let Some(score) = Recall::over(4).score(ranked, &own) {
                        expected.entry(group).or_default().push(score);
                    }
                }
            }
            left.merge(&right)?;
            for groups in [&whole, &left] {
                let found: BTreeMap<u8, Vec<f64>> =
                    groups.iter().map(|(&group, suite)| (group, suite.values("recall@4").unwrap().to_vec())).collect();
                prop_assert_eq!(&found, &expected);
                prop_assert_eq!(groups.skipped(), users.iter().filter(|(_, relevant)| relevant.is_empty()).count());
            }
        }
    }

    #[test]
    fn a_user_counts_in_each_group_of_its_targets() {
        let mut groups = TargetGroups::new(recall(3));
        groups.update(&[1, 2, 3], &[1, 8, 9, 9], |&item| item > 5);
        groups.update(&[9], &[9], |&item| item > 5);
        groups.update(&[9], &[], |&item| item > 5);
        assert_eq!((groups.value(&false, "recall@3"), groups.value(&true, "recall@3")), (Some(1.0), Some(0.5)));
        assert_eq!((groups.value(&true, "recall@9"), groups.skipped(), groups.iter().len()), (None, 1, 2));
        assert!(format!("{groups:?}").contains("skipped: 1"));
        groups.reset();
        assert!(groups.get(&true).is_none() && groups.skipped() == 0);
    }

    #[test]
    fn users_of_the_pattern_are_forgotten_and_other_metrics_refused() {
        let mut used = recall(3);
        used.update(&[1], &[1]);
        let mut groups = TargetGroups::new(used);
        groups.update(&[2], &[1], |_| ());
        assert_eq!(groups.value(&(), "recall@3"), Some(0.0));
        let error = groups.merge(&TargetGroups::new(recall(4))).unwrap_err();
        assert!(matches!(error, EvalError::DifferentMetrics { .. }));
    }
}
