//! The feature table of the workspace: device features are pure pass-through from crate to crate, the facade reaches every
//! feature of every crate, and documentation builds name their features.

#![allow(clippy::expect_used, reason = "a test that cannot read the workspace must fail")]

use std::sync::LazyLock;

use genrec_tests::manifest::{Dependency, Workspace};

/// Where tensors are computed. Each is candle's own feature of the same name; what else `cuda` and `nccl` turn on is in the kernels.
const DEVICES: &[&str] = &["cuda", "cudnn", "nccl", "metal", "accelerate", "mkl"];

/// What needs a library that docs.rs does not have.
const LIBRARIES: &[&str] = &["mpi"];

/// Whether `entry` of a feature list turns `feature` of `key` on.
fn turns_on(entry: &str, key: &str, feature: &str) -> bool {
    entry.strip_suffix(feature).and_then(|e| e.strip_suffix('/')).is_some_and(|e| e.trim_end_matches('?') == key)
}

/// Every member passes a device feature to exactly those of its dependencies that have it.
fn pass_through(workspace: &Workspace) -> Vec<String> {
    let mut breaches = Vec::new();
    for (name, package) in &workspace.members {
        for device in DEVICES {
            let has =
                |d: &&Dependency| d.normal && workspace.features.get(&d.package).is_some_and(|f| f.contains(*device));
            let targets: Vec<&str> = package.dependencies.iter().filter(has).map(|d| d.key.as_str()).collect();
            let Some(list) = package.features.get(*device) else {
                if !targets.is_empty() {
                    breaches.push(format!("{name} lacks the feature {device}, which {targets:?} have"));
                }
                continue;
            };
            // A program need not name candle itself: the facade turns it on.
            let member = |target: &&&str| package.published || workspace.members.contains_key(**target);
            for target in targets.iter().filter(member) {
                if !list.iter().any(|entry| turns_on(entry, target, device)) {
                    breaches.push(format!("{name}/{device} does not turn on {target}/{device}"));
                }
            }
            for entry in list {
                if !targets.iter().any(|target| turns_on(entry, target, device)) {
                    breaches.push(format!("{name}/{device} turns on {entry}: it must be pure pass-through"));
                }
            }
            if targets.is_empty() {
                breaches.push(format!("{name}/{device} turns on nothing"));
            }
            if package.features.get("default").is_some_and(|on| on.iter().any(|f| f == device)) {
                breaches.push(format!("{name} turns {device} on by default"));
            }
        }
    }
    breaches
}

/// A user of the facade alone reaches every feature of every crate: by the facade's feature of that name, or because it
/// is always on.
fn facade(workspace: &Workspace) -> Vec<String> {
    let Some(facade) = workspace.members.get("genrec") else {
        return vec!["the facade is not a member".to_owned()];
    };
    let mut breaches = Vec::new();
    for dependency in facade.dependencies.iter().filter(|d| d.normal) {
        let Some(package) = workspace.members.get(&dependency.package) else { continue };
        let default = package.features.get("default").map(Vec::as_slice).unwrap_or_default();
        for feature in package.features.keys().filter(|f| *f != "default") {
            let always = dependency.features.contains(feature)
                || (dependency.default_features && default.iter().any(|on| on == feature));
            let reached = facade
                .features
                .get(feature)
                .is_some_and(|list| list.iter().any(|entry| turns_on(entry, &dependency.key, feature)));
            if !always && !reached {
                breaches.push(format!("genrec has no feature that turns on {}/{feature}", dependency.package));
            }
        }
    }
    breaches
}

/// Documentation is built without a GPU tool chain: features by name, never all of them, and no device among them.
fn documentation(workspace: &Workspace) -> Vec<String> {
    let mut breaches = Vec::new();
    for (name, package) in workspace.members.iter().filter(|(_, package)| package.published) {
        let docs = &package.metadata["docs"]["rs"];
        if docs["all-features"] == true {
            breaches.push(format!("{name} documents all features: docs.rs has no CUDA; name them"));
        }
        for device in DEVICES {
            if docs["features"].as_array().is_some_and(|list| list.iter().any(|f| f == device)) {
                breaches.push(format!("{name} documents the feature {device}, which docs.rs cannot build"));
            }
        }
        let default = package.features.get("default").map(Vec::as_slice).unwrap_or_default();
        let built = |f: &str| !DEVICES.contains(&f) && !LIBRARIES.contains(&f);
        let plain = |f: &&String| *f != "default" && built(f) && !default.contains(*f);
        for feature in package.features.keys().filter(plain) {
            let named = docs["features"].as_array().is_some_and(|list| list.iter().any(|f| f == feature.as_str()));
            if !named {
                breaches.push(format!(
                    "{name} does not document its feature {feature}: name it in package.metadata.docs.rs"
                ));
            }
        }
    }
    breaches
}

/// Read once: `cargo metadata` takes a while on a busy machine.
fn workspace() -> Workspace {
    static WORKSPACE: LazyLock<Workspace> =
        LazyLock::new(|| Workspace::load().expect("cargo metadata describes the workspace"));
    WORKSPACE.clone()
}

fn assert_none(breaches: &[String]) {
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

fn assert_one(breaches: &[String], part: &str) {
    assert!(breaches.iter().any(|b| b.contains(part)), "no breach says {part:?}: {breaches:?}");
}

#[test]
fn device_features_are_pure_pass_through() {
    assert_none(&pass_through(&workspace()));
}

#[test]
fn the_facade_reaches_every_feature() {
    assert_none(&facade(&workspace()));
}

#[test]
fn documentation_names_its_features() {
    assert_none(&documentation(&workspace()));
}

#[test]
fn every_missing_pass_through_is_found() {
    let good = workspace();
    let mut tried = 0;
    for (name, package) in &good.members {
        for device in DEVICES {
            let Some(list) = package.features.get(*device) else { continue };
            for dropped in list {
                let mut bad = good.clone();
                let features = &mut bad.member_mut(name).features;
                features.insert((*device).to_owned(), list.iter().filter(|e| *e != dropped).cloned().collect());
                assert_one(&pass_through(&bad), &format!("{name}/{device} does not turn on {dropped}"));
                tried += 1;
            }
            let mut bad = good.clone();
            bad.member_mut(name).features.remove(*device);
            assert_one(&pass_through(&bad), &format!("{name} lacks the feature {device}"));
        }
    }
    assert!(tried >= 6 * 7, "only {tried} pass-through entries: were the features read?");
}

#[test]
fn an_impure_device_feature_is_found() {
    let good = workspace();

    let mut bad = good.clone();
    let features = &mut bad.member_mut("genrec-model").features;
    features.entry("cuda".to_owned()).or_default().push("fast-math".to_owned());
    assert_one(&pass_through(&bad), "genrec-model/cuda turns on fast-math");

    let mut bad = good.clone();
    bad.member_mut("genrec-eval").features.insert("cuda".to_owned(), Vec::new());
    assert_one(&pass_through(&bad), "genrec-eval/cuda turns on nothing");

    let mut bad = good;
    bad.member_mut("genrec").features.insert("default".to_owned(), vec!["mkl".to_owned()]);
    assert_one(&pass_through(&bad), "genrec turns mkl on by default");
}

#[test]
fn a_feature_out_of_reach_is_found() {
    let good = workspace();

    let mut bad = good.clone();
    bad.member_mut("genrec-decode").features.insert("sampling".to_owned(), Vec::new());
    assert_one(&facade(&bad), "genrec has no feature that turns on genrec-decode/sampling");

    let mut bad = good.clone();
    bad.member_mut("genrec").features.remove("hub");
    assert_one(&facade(&bad), "genrec has no feature that turns on genrec-embed/hub");

    let mut bad = good.clone();
    bad.member_mut("genrec").features.remove("parquet");
    assert_one(&facade(&bad), "genrec has no feature that turns on genrec-data/parquet");

    let mut bad = good;
    for dependency in &mut bad.member_mut("genrec").dependencies {
        dependency.features.clear();
        dependency.default_features = false;
    }
    assert_one(&facade(&bad), "genrec has no feature that turns on genrec-eval/serde");
}

#[test]
fn a_documentation_build_that_needs_a_gpu_is_found() {
    let good = workspace();

    let mut bad = good.clone();
    bad.member_mut("genrec").metadata = serde_json::json!({ "docs": { "rs": { "all-features": true } } });
    assert_one(&documentation(&bad), "genrec documents all features");
    assert_one(&documentation(&bad), "genrec does not document its feature hub");

    let mut bad = good;
    bad.member_mut("genrec").metadata = serde_json::json!({ "docs": { "rs": { "features": ["hub", "cuda"] } } });
    assert_one(&documentation(&bad), "genrec documents the feature cuda");
}

#[test]
fn entries_are_read_exactly() {
    assert!(turns_on("candle-core/cuda", "candle-core", "cuda"));
    assert!(turns_on("candle-core?/cuda", "candle-core", "cuda"));
    assert!(!turns_on("candle-core/cudnn", "candle-core", "cuda"));
    assert!(!turns_on("my-candle-core/cuda", "candle-core", "cuda"));
    assert!(!turns_on("dep:candle-core", "candle-core", "cuda"));
}
