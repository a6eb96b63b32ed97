use super::*;

struct ListLength;

impl ListMetric<u32> for ListLength {
    fn name(&self) -> String {
        "length".to_owned()
    }

    fn score(&self, ranked: &[u32], _relevant: &[u32]) -> Option<f64> {
        (!ranked.is_empty()).then_some(ranked.len() as f64)
    }
}

#[test]
fn standard_reports_the_papers_metrics_by_name() {
    let mut suite = Suite::standard();
    assert!(suite.report().is_empty());
    suite.update(&[1u32, 2, 3, 4, 5, 6], &[6]);
    suite.update(&[1, 2, 3], &[1]);
    suite.update(&[1, 2, 3], &[]);
    assert_eq!((suite.users(), suite.skipped()), (2, 1));
    let expected = [
        ("hit_rate@10", 1.0),
        ("mrr@10", (1.0 + 1.0 / 6.0) / 2.0),
        ("ndcg@10", (1.0 + 1.0 / 7f64.log2()) / 2.0),
        ("ndcg@5", 0.5),
        ("recall@10", 1.0),
        ("recall@5", 0.5),
    ];
    let report = suite.report();
    assert_eq!(report.len(), expected.len());
    for (name, value) in expected {
        assert!((report[name] - value).abs() < 1e-12, "{name}: {} against {value}", report[name]);
        assert_eq!(suite.value(name), Some(report[name]));
    }
    assert_eq!(suite.values("recall@5"), Some([0.0, 1.0].as_slice()));
    assert_eq!(suite.values("recall@7"), None);
    assert_eq!(suite.names().next(), Some("recall@5"));
}

#[test]
fn takes_metrics_from_outside_and_keeps_users_aligned() {
    let mut suite = Suite::new().with(ListLength).unwrap().with(Recall::new(1).unwrap()).unwrap();
    suite.update(&[4, 5], &[5]);
    suite.update(&[], &[5]);
    assert_eq!(suite.values("length"), Some([2.0, 0.0].as_slice()));
    assert_eq!(suite.values("recall@1"), Some([0.0, 0.0].as_slice()));
    let error = suite.clone().with(Recall::new(1).unwrap()).unwrap_err();
    assert_eq!(error, EvalError::DuplicateMetric { name: "recall@1".to_owned() });
    let wider = suite.with(Recall::new(2).unwrap()).unwrap();
    assert_eq!(wider.users(), 0);
    assert!(format!("{wider:?}").contains("users: 0"));
}

#[test]
fn merging_appends_users() {
    let mut whole = Suite::standard();
    let (mut left, mut right) = (Suite::standard(), Suite::standard());
    for user in 0..20u32 {
        let ranked: Vec<u32> = (0..12).map(|rank| (user * 7 + rank * 5) % 13).collect();
        let relevant: &[u32] = if user % 5 == 4 { &[] } else { &[3, 8] };
        whole.update(&ranked, relevant);
        if user < 9 { left.update(&ranked, relevant) } else { right.update(&ranked, relevant) }
    }
    left.merge(&right).unwrap();
    assert_eq!(left.report(), whole.report());
    assert_eq!((left.users(), left.skipped()), (whole.users(), whole.skipped()));
    assert_eq!(left.values("ndcg@10"), whole.values("ndcg@10"));
    left.reset();
    assert_eq!((left.users(), left.report().len()), (0, 0));
}

#[test]
fn unlike_suites_are_neither_merged_nor_compared() {
    let mut standard = Suite::<u32>::standard();
    let other = Suite::new().with(Recall::new(5).unwrap()).unwrap();
    assert!(matches!(standard.merge(&other), Err(EvalError::DifferentMetrics { .. })));
    let config = BootstrapConfig::default();
    assert!(matches!(standard.compare(&other, config), Err(EvalError::DifferentMetrics { .. })));
    let mut longer = Suite::standard();
    longer.update(&[1], &[1]);
    assert_eq!(standard.compare(&longer, config), Err(EvalError::Unpaired { left: 0, right: 1 }));
    assert_eq!(standard.intervals(config), Err(EvalError::NoValues));
    let config = RandomisationConfig::default();
    assert!(matches!(standard.test(&other, config), Err(EvalError::DifferentMetrics { .. })));
    assert_eq!(standard.test(&longer, config), Err(EvalError::Unpaired { left: 0, right: 1 }));
}

#[test]
fn comparison_is_paired_by_user() {
    let (mut ours, mut theirs) = (Suite::standard(), Suite::standard());
    for user in 0..60u32 {
        ours.update(&[1, 2], &[1 + user % 2]);
        theirs.update(&[2, 1], &[1 + user % 3 % 2]);
    }
    let config = BootstrapConfig::default().with_resamples(200);
    let differences = ours.compare(&theirs, config).unwrap();
    let (a, b) = (ours.values("mrr@10").unwrap(), theirs.values("mrr@10").unwrap());
    assert_eq!(differences["mrr@10"], paired_difference(a, b, config).unwrap());
    assert_eq!(differences["recall@5"], Interval { mean: 0.0, low: 0.0, high: 0.0 });
    assert_eq!(ours.intervals(config).unwrap()["mrr@10"], mean_interval(a, config).unwrap());
    let config = RandomisationConfig::default().with_relabellings(500);
    let tests = ours.test(&theirs, config).unwrap();
    assert_eq!(tests["mrr@10"], paired_randomisation(a, b, config).unwrap());
    assert_eq!((tests.len(), tests["recall@5"].p_value), (6, 1.0));
}
