//! What holds of every metric: pieces merge to the whole, the order of users does not matter, values stay in their
//! range, and nothing panics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use genrec_eval::{
    Coverage, Entropy, Gini, HitRate, InvalidRate, ItemCounts, LevelAccuracy, Metric, Mrr, Ndcg, Popularity,
    PopularityScale, Recall,
};
use proptest::prelude::*;

/// Ranked and relevant items of each user.
type Users<I> = Vec<(Vec<I>, Vec<I>)>;

const ITEMS: u8 = 9;

fn users<I: std::fmt::Debug + Clone>(
    item: impl Strategy<Value = I> + Clone + 'static,
) -> impl Strategy<Value = Users<I>> {
    prop::collection::vec((prop::collection::vec(item.clone(), 0..9), prop::collection::vec(item, 0..4)), 0..14)
}

fn value<I, M: Metric<I>>(mut metric: M, users: &[(Vec<I>, Vec<I>)]) -> Option<f64> {
    users.iter().for_each(|(ranked, relevant)| metric.update(ranked, relevant));
    metric.value()
}

/// Accumulators of three runs of users, merged from the left, or the last two first.
fn merged<I, M: Metric<I> + Clone>(empty: &M, users: &[(Vec<I>, Vec<I>)], cuts: [usize; 2], left: bool) -> Option<f64> {
    let at = |cut: usize| cut.min(users.len());
    let (first, second) = (at(cuts[0].min(cuts[1])), at(cuts[0].max(cuts[1])));
    let [mut a, mut b, c] = [&users[..first], &users[first..second], &users[second..]].map(|part| {
        let mut metric = empty.clone();
        part.iter().for_each(|(ranked, relevant)| metric.update(ranked, relevant));
        metric
    });
    if left {
        a.merge(&b);
        a.merge(&c);
    } else {
        b.merge(&c);
        a.merge(&b);
    }
    a.value()
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-12,
        (None, None) => true,
        _ => false,
    }
}

/// Holds one metric to all of it; `range` is that of its values.
fn holds<I: Clone, M: Metric<I> + Clone>(
    empty: &M,
    users: &Users<I>,
    cuts: [usize; 2],
    range: std::ops::RangeInclusive<f64>,
) -> Result<(), TestCaseError> {
    let name = empty.name();
    let whole = value(empty.clone(), users);
    for left in [true, false] {
        let parts = merged(empty, users, cuts, left);
        prop_assert!(close(whole, parts), "{name}: {whole:?} at once, {parts:?} in parts");
    }
    let backwards: Users<I> = users.iter().rev().cloned().collect();
    prop_assert!(close(whole, value(empty.clone(), &backwards)), "{name} depends on the order of users");
    let in_range = whole.is_none_or(|value| range.start() - 1e-12 <= value && value <= range.end() + 1e-12);
    prop_assert!(in_range, "{name}: {whole:?} is not within {range:?}");
    let mut used = empty.clone();
    users.iter().for_each(|(ranked, relevant)| used.update(ranked, relevant));
    used.reset();
    prop_assert_eq!(used.value(), None);
    prop_assert!(close(value(used, users), whole), "{name} remembers what it should have forgotten");
    Ok(())
}

proptest! {
    #[test]
    fn of_ranked_items(users in users(0..ITEMS), cuts: [usize; 2], k in 1usize..10) {
        let cuts = cuts.map(|cut| cut % 15);
        holds(&Recall::new(k)?, &users, cuts, 0.0..=1.0)?;
        holds(&Ndcg::new(k)?, &users, cuts, 0.0..=1.0)?;
        holds(&Mrr::new(k)?, &users, cuts, 0.0..=1.0)?;
        holds(&HitRate::new(k)?, &users, cuts, 0.0..=1.0)?;
        holds(&Entropy::new(k)?, &users, cuts, 0.0..=(k as f64).log2())?;
        holds(&Entropy::new(k)?.in_nats(), &users, cuts, 0.0..=(k as f64).ln())?;
        holds(&Coverage::new(k, usize::from(ITEMS))?, &users, cuts, 0.0..=1.0)?;
        holds(&Gini::new(k, usize::from(ITEMS))?, &users, cuts, 0.0..=1.0 - 1.0 / f64::from(ITEMS))?;
    }

    #[test]
    fn of_popularity(
        users in users(0..ITEMS),
        cuts: [usize; 2],
        k in 1usize..10,
        counts in prop::collection::vec((0..ITEMS, 0u64..90), 0..12),
    ) {
        let cuts = cuts.map(|cut| cut % 15);
        let counts = ItemCounts::new(counts);
        let most = (0..ITEMS).map(|item| counts.count(&item)).max().unwrap() as f64;
        let popularity = |scale| Popularity::new(k, counts.clone(), scale);
        holds(&popularity(PopularityScale::Count)?, &users, cuts, 0.0..=most)?;
        holds(&popularity(PopularityScale::Log)?, &users, cuts, 0.0..=most.ln_1p())?;
        holds(&popularity(PopularityScale::Novelty)?, &users, cuts, 0.0..=(counts.total().max(1) as f64).log2())?;
    }

    #[test]
    fn of_codes(
        users in users(prop::collection::vec(0u32..3, 0..5)),
        cuts: [usize; 2],
        k in 1usize..10,
        level in 1usize..6,
    ) {
        holds(&LevelAccuracy::new(k, level)?, &users, cuts.map(|cut| cut % 15), 0.0..=1.0)?;
    }

    #[test]
    fn of_hypotheses(users in users(prop::option::of(0..ITEMS)), cuts: [usize; 2], k in 1usize..10) {
        holds(&InvalidRate::new(k)?, &users, cuts.map(|cut| cut % 15), 0.0..=1.0)?;
    }

    #[test]
    fn neither_names_nor_the_order_of_what_is_relevant_count(users in users(0..ITEMS), k in 1usize..10) {
        let renamed: Users<String> = users
            .iter()
            .map(|(ranked, relevant)| {
                let name = |item: &u8| format!("item {}", item.wrapping_mul(37));
                (ranked.iter().map(name).collect(), relevant.iter().rev().map(name).collect())
            })
            .collect();
        prop_assert!(close(value(Recall::new(k)?, &users), value(Recall::new(k)?, &renamed)));
        prop_assert!(close(value(Ndcg::new(k)?, &users), value(Ndcg::new(k)?, &renamed)));
        prop_assert!(close(value(Mrr::new(k)?, &users), value(Mrr::new(k)?, &renamed)));
        prop_assert!(close(value(Gini::new(k, 9)?, &users), value(Gini::new(k, 9)?, &renamed)));
        prop_assert!(close(value(Coverage::new(k, 9)?, &users), value(Coverage::new(k, 9)?, &renamed)));
        prop_assert!(close(value(Entropy::new(k)?, &users), value(Entropy::new(k)?, &renamed)));
    }

    #[test]
    fn coverage_grows_with_the_cutoff_and_with_users(users in users(0..ITEMS), k in 1usize..10) {
        let all = value(Coverage::new(k, 9)?, &users);
        prop_assert!(all <= value(Coverage::new(k + 1, 9)?, &users));
        let fewer = &users[..users.len() / 2];
        prop_assert!(value(Coverage::new(k, 9)?, fewer) <= all);
    }

    #[test]
    fn a_cutoff_beyond_every_list_takes_no_memory(users in users(0..ITEMS)) {
        let far = usize::MAX;
        prop_assert_eq!(value(Recall::new(far)?, &users), value(Recall::new(9)?, &users));
        prop_assert_eq!(value(Ndcg::new(far)?, &users), value(Ndcg::new(9)?, &users));
        prop_assert_eq!(value(Entropy::new(far)?, &users), value(Entropy::new(9)?, &users));
        prop_assert_eq!(value(Gini::new(far, 9)?, &users), value(Gini::new(9, 9)?, &users));
        let hypotheses: Users<Option<u8>> =
            users.iter().map(|(ranked, _)| (ranked.iter().map(|&i| (i > 4).then_some(i)).collect(), vec![])).collect();
        prop_assert_eq!(value(InvalidRate::new(far)?, &hypotheses), value(InvalidRate::new(9)?, &hypotheses));
    }
}
