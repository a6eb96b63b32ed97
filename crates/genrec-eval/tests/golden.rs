//! Agreement with `ranx`, scikit-learn, SciPy and NumPy on recorded values (`tests/golden/scripts/eval.py`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use genrec_eval::bootstrap::{BootstrapConfig, mean_interval};
use genrec_eval::seeds::over_seeds;
use genrec_eval::significance::{RandomisationConfig, paired_randomisation};
use genrec_eval::{
    Coverage, Entropy, Gini, HitRate, ItemCounts, LevelAccuracy, Metric, Mrr, Ndcg, Popularity, PopularityScale,
    Recall, Suite, TargetGroups,
};
use serde_json::Value;

fn golden(name: &str) -> Value {
    let path = format!("{}/../../tests/golden/eval/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// That a value agrees to 1e-12, relative where it is above 1.
#[track_caller]
fn assert_close(ours: f64, theirs: &Value, what: &str) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() <= 1e-12 * theirs.abs().max(1.0), "{what}: {ours} against {theirs}");
}

fn suite() -> Suite<u64> {
    let mut suite = Suite::new();
    for k in [1, 3, 5, 10, 20] {
        suite = suite.with(Recall::new(k).unwrap()).unwrap().with(Ndcg::new(k).unwrap()).unwrap();
        suite = suite.with(Mrr::new(k).unwrap()).unwrap().with(HitRate::new(k).unwrap()).unwrap();
    }
    suite
}

#[test]
fn metrics_agree_with_ranx() {
    let golden = golden("metrics.json");
    let mut suite = suite();
    let users = golden["users"].as_array().unwrap();
    assert!(users.len() >= 100);
    for user in users {
        suite.update(&ids(&user["ranked"]), &ids(&user["relevant"]));
    }
    let means: BTreeMap<String, f64> = serde_json::from_value(golden["means"].clone()).unwrap();
    let report = suite.report();
    assert_eq!(means.keys().collect::<Vec<_>>(), report.keys().collect::<Vec<_>>());
    let mut worst = 0f64;
    for (name, mean) in &means {
        worst = worst.max((report[name] - mean).abs());
        for (ours, user) in suite.values(name).unwrap().iter().zip(users) {
            worst = worst.max((ours - user["scores"][name].as_f64().unwrap()).abs());
        }
    }
    assert!(worst < 1e-12, "the largest difference is {worst:e}");
}

#[test]
fn intervals_agree_with_numpy() {
    let golden = golden("bootstrap.json");
    let cases = golden.as_array().unwrap();
    assert!(cases.len() >= 4);
    for case in cases {
        let config = BootstrapConfig::default()
            .with_resamples(usize::try_from(case["resamples"].as_u64().unwrap()).unwrap())
            .with_level(case["level"].as_f64().unwrap())
            .with_seed(case["seed"].as_u64().unwrap());
        let ours = mean_interval(&floats(&case["values"]), config).unwrap();
        for (ours, theirs) in [(ours.mean, "mean"), (ours.low, "low"), (ours.high, "high")] {
            assert!((ours - case[theirs].as_f64().unwrap()).abs() < 1e-12, "{theirs} of {case}");
        }
    }
}

#[test]
fn metrics_by_group_agree_with_ranx() {
    let golden = golden("metrics.json");
    let mut groups = TargetGroups::new(suite());
    for user in golden["users"].as_array().unwrap() {
        groups.update(&ids(&user["ranked"]), &ids(&user["relevant"]), |item| item % 4 == 0);
    }
    for (unseen, name) in [(true, "unseen"), (false, "seen")] {
        let (ours, theirs) = (groups.get(&unseen).unwrap(), &golden["groups"][name]);
        assert_eq!(ours.users(), number(&theirs["users"]));
        let means = theirs["means"].as_object().unwrap();
        assert_eq!(means.len(), ours.names().len());
        means.iter().for_each(|(metric, mean)| assert_close(ours.value(metric).unwrap(), mean, metric));
    }
}

#[test]
fn diversity_agrees_with_scipy_and_scikit_learn() {
    let golden = golden("diversity.json");
    let (categories, counts) = (ids(&golden["categories"]), ids(&golden["counts"]));
    let lists: Vec<Vec<u64>> = golden["lists"].as_array().unwrap().iter().map(ids).collect();
    let kinds: Vec<Vec<u64>> =
        lists.iter().map(|list| list.iter().map(|&item| categories[item as usize]).collect()).collect();
    let (items, counts) = (counts.len(), ItemCounts::new((0..).zip(counts)));
    let cutoffs = golden["values"].as_object().unwrap();
    assert_eq!(cutoffs.len(), 5);
    for (k, values) in cutoffs {
        let k = k.parse().unwrap();
        assert_eq!(values.as_object().unwrap().len(), 7);
        assert_measures(Entropy::new(k).unwrap(), &kinds, values);
        assert_measures(Entropy::new(k).unwrap().in_nats(), &kinds, values);
        assert_measures(Coverage::new(k, items).unwrap(), &lists, values);
        assert_measures(Gini::new(k, items).unwrap(), &lists, values);
        for scale in [PopularityScale::Count, PopularityScale::Log, PopularityScale::Novelty] {
            assert_measures(Popularity::new(k, counts.clone(), scale).unwrap(), &lists, values);
        }
    }
}

#[track_caller]
fn assert_measures(mut metric: impl Metric<u64>, lists: &[Vec<u64>], values: &Value) {
    lists.iter().for_each(|list| metric.update(list, &[]));
    let name = metric.name();
    assert_close(metric.value().unwrap(), &values[name.split('@').next().unwrap()], &name);
}

#[test]
fn accuracy_by_level_agrees_with_numpy_and_scikit_learn() {
    let golden = golden("levels.json");
    let codes = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let mut suite = Suite::new();
    for (k, level) in [1, 5, 10].into_iter().flat_map(|k| (1..=4).map(move |level| (k, level))) {
        suite = suite.with(LevelAccuracy::new(k, level).unwrap()).unwrap();
    }
    for (ranked, target) in golden["ranked"].as_array().unwrap().iter().zip(golden["targets"].as_array().unwrap()) {
        let ranked: Vec<Vec<u32>> = ranked.as_array().unwrap().iter().map(codes).collect();
        suite.update(&ranked, &[codes(target)]);
    }
    assert_eq!(suite.users(), 60);
    let report = suite.report();
    assert_eq!(report.len(), golden["values"].as_object().unwrap().len());
    report.iter().for_each(|(name, value)| assert_close(*value, &golden["values"][name], name));
}

#[test]
fn randomisation_agrees_with_scipy() {
    let golden = golden("randomisation.json");
    let cases = golden.as_array().unwrap();
    assert!(cases.len() >= 6);
    for case in cases {
        let config = RandomisationConfig::default()
            .with_relabellings(number(&case["relabellings"]))
            .with_seed(case["seed"].as_u64().unwrap());
        let ours = paired_randomisation(&floats(&case["a"]), &floats(&case["b"]), config).unwrap();
        assert_eq!(ours.exact, case["exact"].as_bool().unwrap());
        assert_close(ours.difference, &case["difference"], "difference");
        assert_close(ours.p_value, &case["p_value"], "p-value");
    }
}

#[test]
fn intervals_over_seeds_agree_with_scipy() {
    let golden = golden("seeds.json");
    let cases = golden.as_array().unwrap();
    assert!(cases.len() >= 6);
    for case in cases {
        let ours = over_seeds(&floats(&case["values"]), case["level"].as_f64().unwrap()).unwrap();
        let spread = ours.spread.unwrap();
        assert_close(ours.mean, &case["mean"], "mean");
        assert_close(spread.standard_deviation, &case["standard_deviation"], "standard deviation");
        assert_close(spread.standard_error, &case["standard_error"], "standard error");
        assert_close(spread.low, &case["low"], "low");
        assert_close(spread.high, &case["high"], "high");
    }
}
