//! Agreement with `ranx`, scikit-learn and NumPy on recorded values (`tests/golden/scripts/eval.py`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use genrec_eval::bootstrap::{BootstrapConfig, mean_interval};
use genrec_eval::{HitRate, Mrr, Ndcg, Recall, Suite};
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

#[test]
fn metrics_agree_with_ranx() {
    let golden = golden("metrics.json");
    let mut suite = Suite::new();
    for k in [1, 3, 5, 10, 20] {
        suite = suite.with(Recall::new(k).unwrap()).unwrap().with(Ndcg::new(k).unwrap()).unwrap();
        suite = suite.with(Mrr::new(k).unwrap()).unwrap().with(HitRate::new(k).unwrap()).unwrap();
    }
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
