use proptest::prelude::*;

use super::*;
use crate::{EvalError, Metric};

/// Scores by another route: for each rank look at the list and the relevant items directly, without hashing.
fn brute_force(ranked: &[u8], relevant: &[u8], k: usize) -> Option<[f64; 4]> {
    let mut distinct: Vec<u8> = relevant.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.is_empty() {
        return None;
    }
    let gain: Vec<f64> = (0..k)
        .map(|i| match ranked.get(i) {
            Some(item) if relevant.contains(item) && !ranked[..i].contains(item) => 1.0,
            _ => 0.0,
        })
        .collect();
    let dcg = |gains: &[f64]| -> f64 {
        gains.iter().enumerate().map(|(i, g)| g * std::f64::consts::LN_2 / (i as f64 + 2.0).ln()).sum()
    };
    let found: f64 = gain.iter().sum();
    let ideal: Vec<f64> = (0..k).map(|i| if i < distinct.len() { 1.0 } else { 0.0 }).collect();
    let first = gain.iter().position(|&g| g > 0.0);
    Some([
        found / distinct.len() as f64,
        dcg(&gain) / dcg(&ideal),
        first.map_or(0.0, |i| 1.0 / (i + 1) as f64),
        if found > 0.0 { 1.0 } else { 0.0 },
    ])
}

fn scores(ranked: &[u8], relevant: &[u8], k: usize) -> Option<[f64; 4]> {
    let all = [
        Recall::over(k).score(ranked, relevant),
        Ndcg::over(k).score(ranked, relevant),
        Mrr::over(k).score(ranked, relevant),
        HitRate::over(k).score(ranked, relevant),
    ];
    Some([all[0]?, all[1]?, all[2]?, all[3]?])
}

proptest! {
    #[test]
    fn agrees_with_brute_force(
        ranked in prop::collection::vec(0u8..12, 0..15),
        relevant in prop::collection::vec(0u8..12, 0..6),
        k in 1usize..18,
    ) {
        match (scores(&ranked, &relevant, k), brute_force(&ranked, &relevant, k)) {
            (None, None) => prop_assert!(relevant.is_empty()),
            (Some(ours), Some(theirs)) => {
                for (a, b) in ours.into_iter().zip(theirs) {
                    prop_assert!((a - b).abs() < 1e-12, "{a} against {b}");
                    prop_assert!((0.0..=1.0 + 1e-12).contains(&a));
                }
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn grows_with_the_cutoff_where_it_must(
        ranked in prop::collection::vec(0u8..30, 0..20),
        relevant in prop::collection::vec(0u8..30, 1..6),
        k in 1usize..20,
    ) {
        let (Some(a), Some(b)) = (scores(&ranked, &relevant, k), scores(&ranked, &relevant, k + 1)) else {
            return Err(TestCaseError::fail("a user with relevant items must have scores"));
        };
        for i in [0, 2, 3] {
            prop_assert!(a[i] <= b[i]);
        }
    }

    #[test]
    fn merging_equals_one_pass(
        users in prop::collection::vec(
            (prop::collection::vec(0u8..9, 0..9), prop::collection::vec(0u8..9, 0..3)), 0..12),
        cut in 0usize..12,
    ) {
        let (mut whole, mut left, mut right) = (Ndcg::over(5), Ndcg::over(5), Ndcg::over(5));
        for (i, (ranked, relevant)) in users.iter().enumerate() {
            whole.update(ranked, relevant);
            if i < cut { left.update(ranked, relevant) } else { right.update(ranked, relevant) }
        }
        left.merge(&right);
        prop_assert_eq!(left.users(), whole.users());
        match (left.value(), whole.value()) {
            (Some(a), Some(b)) => prop_assert!((a - b).abs() < 1e-12),
            (a, b) => prop_assert_eq!(a, b),
        }
    }
}

#[test]
fn a_repeat_takes_a_rank_and_earns_nothing() {
    let ranked = ["a", "a", "b"];
    assert_eq!(Recall::over(2).score(&ranked, &["a", "b"]), Some(0.5));
    assert_eq!(Recall::over(3).score(&ranked, &["a", "b"]), Some(1.0));
    assert_eq!(Ndcg::over(2).score(&ranked, &["a"]), Some(1.0));
    assert_eq!(Mrr::over(3).score(&ranked, &["b"]), Some(1.0 / 3.0));
    let two_of_two = (1.0 + 0.5) / (1.0 + 1.0 / 3f64.log2());
    assert_eq!(Ndcg::over(3).score(&ranked, &["a", "b"]), Some(two_of_two));
}

#[test]
fn a_relevant_item_named_twice_counts_once() {
    assert_eq!(Recall::over(1).score(&[1], &[1, 1]), Some(1.0));
    assert_eq!(Ndcg::over(2).score(&[1], &[1, 1]), Some(1.0));
}

#[test]
fn an_empty_list_scores_zero_and_no_relevant_item_scores_nothing() {
    assert_eq!(scores(&[], &[1], 5), Some([0.0; 4]));
    assert_eq!(Recall::over(5).score(&[1, 2], &[]), None);
    let mut recall = Recall::new(5).unwrap();
    recall.update(&[1, 2], &[]);
    assert_eq!((recall.users(), recall.value()), (0, None));
    recall.update(&[], &[1]);
    assert_eq!((recall.users(), recall.value()), (1, Some(0.0)));
    recall.reset();
    assert_eq!(recall.value(), None);
}

#[test]
fn more_relevant_items_than_ranks() {
    assert_eq!(Recall::over(2).score(&[1, 2, 3], &[1, 2, 3, 4]), Some(0.5));
    assert_eq!(Ndcg::over(2).score(&[1, 2, 3], &[1, 2, 3, 4]), Some(1.0));
}

#[test]
fn names_carry_the_cutoff_and_zero_is_refused() {
    assert_eq!((Recall::over(5).name(), Metric::<u8>::name(&Recall::over(5))), ("recall@5".into(), "recall@5".into()));
    assert_eq!(ListMetric::<u8>::name(&Ndcg::over(10)), "ndcg@10");
    assert_eq!(ListMetric::<u8>::name(&Mrr::over(3)), "mrr@3");
    assert_eq!(ListMetric::<u8>::name(&HitRate::over(1)), "hit_rate@1");
    assert_eq!(Recall::new(0), Err(EvalError::ZeroCutoff { metric: "recall" }));
    assert_eq!(Ndcg::new(0), Err(EvalError::ZeroCutoff { metric: "ndcg" }));
    assert_eq!(Mrr::new(0), Err(EvalError::ZeroCutoff { metric: "mrr" }));
    assert_eq!(HitRate::new(0), Err(EvalError::ZeroCutoff { metric: "hit_rate" }));
    assert_eq!(Recall::new(7).map(|recall| recall.k()), Ok(7));
}

#[test]
fn unlike_cutoffs_have_no_common_value() {
    let mut five = Recall::over(5);
    let mut ten = Recall::over(10);
    five.update(&[1], &[1]);
    ten.update(&[1], &[1]);
    five.merge(&ten);
    assert_eq!(five.value(), None);
    five.reset();
    five.update(&[1], &[1]);
    assert_eq!(five.value(), Some(1.0));
}
