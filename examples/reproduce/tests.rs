//! Every table and figure, made on shops of a few hundred items.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use clap::{Parser, ValueEnum};
use genrec::data::SyntheticConfig;
use serde_json::{Value, json};

use crate::{
    Args,
    plan::{Experiment, Line, Set, Work},
    run,
};

/// A directory of the three sets, each another shop in the neutral form.
fn shops() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (seed, set) in Set::ALL.into_iter().enumerate() {
        let config = SyntheticConfig::default().with_items(300).with_users(120).with_seed(seed as u64);
        let dataset = config.generate().unwrap().dataset;
        let ids: Vec<&str> = dataset.catalogue.items().iter().map(|item| item.id.as_str()).collect();
        let (mut items, mut sequences) = (String::new(), String::new());
        for item in dataset.catalogue.items() {
            let (id, title, categories) = (&item.id, &item.title, &item.categories);
            writeln!(items, "{}", json!({"item_id": id, "title": title, "categories": categories})).unwrap();
        }
        for (user, history) in dataset.sequences.iter() {
            let history: Vec<&str> = history.iter().map(|item| ids[item.index()]).collect();
            writeln!(sequences, "{user} {}", history.join(" ")).unwrap();
        }
        let place = dir.path().join(set.name());
        fs::create_dir(&place).unwrap();
        fs::write(place.join("items.jsonl"), items).unwrap();
        fs::write(place.join("sequences.txt"), sequences).unwrap();
    }
    dir
}

struct Tables {
    data: tempfile::TempDir,
    results: PathBuf,
}

impl Tables {
    fn new() -> Self {
        let data = shops();
        let results = data.path().join("results");
        Self { data, results }
    }

    fn make(&self, name: &str, more: &[&str]) -> Result<(), String> {
        let path = |place: &Path| place.to_str().unwrap().to_owned();
        let (data, out, results) = (path(self.data.path()), path(&self.data.path().join("runs")), path(&self.results));
        let mut typed = vec!["reproduce", name, "--data", &data, "--out", &out, "--results", &results];
        typed.extend(["--budget", "0.001", "--seeds", "1"]);
        typed.extend(more);
        run(&Args::parse_from(typed)).map_err(|error| error.to_string())
    }

    /// Rows of a set by name.
    fn rows(&self, set: Set) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.results.join(set.name())).into_iter().flatten();
        let row = |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap());
        entries.map(|entry| row(entry.unwrap().path())).collect()
    }
}

/// Rows of an experiment: not those that only fit one more RQ-VAE, which takes seconds each.
fn wanted(experiment: Experiment) -> Vec<&'static str> {
    let is_rq_vae = |change: &Value| change["quantizer"]["type"].is_null();
    let one_more = |line: &Line| match &line.work {
        Work::Tiger(changes) => !["tiger", "tiger-3-layers"].contains(&line.name) && changes.iter().all(is_rq_vae),
        _ => false,
    };
    experiment.lines().iter().filter(|line| !one_more(line)).map(|line| line.name).collect()
}

#[test]
fn every_table_is_made_once_and_is_found_again() {
    let tables = Tables::new();
    let make = |experiment: Experiment| {
        let rows = wanted(experiment).join(",");
        let beauty = ["--sets", "beauty", "--rows", &rows];
        tables.make(&experiment.name(), &beauty[..if rows.is_empty() { 2 } else { 4 }])
    };
    // TF-IDF has other columns in each set.
    let (joint, others): (Vec<_>, Vec<_>) =
        Experiment::value_variants().iter().copied().partition(|&one| one == Experiment::Table10);
    for &experiment in &others {
        assert_eq!(make(experiment), Ok(()), "{}", experiment.name());
    }
    for experiment in joint {
        let refused = make(experiment);
        assert!(refused.as_ref().is_err_and(|error| error.contains("TF-IDF")), "{refused:?}");
    }
    let rows = tables.rows(Set::Beauty);
    for name in others.iter().flat_map(|&experiment| wanted(experiment)) {
        assert!(rows.contains_key(&format!("{name}-s1.json")), "{name}");
    }
    // Nothing is run again.
    fs::remove_dir_all(tables.data.path().join("runs")).unwrap();
    for &experiment in &others {
        assert_eq!(make(experiment), Ok(()), "{}", experiment.name());
    }
    assert!(!tables.data.path().join("runs").exists());
    assert_eq!(tables.rows(Set::Beauty), rows);
}

#[test]
fn a_document_has_all_sets_and_a_seed_can_be_made_alone() {
    let tables = Tables::new();
    let document = tables.data.path().join("tables.md");
    fs::write(&document, "# Tables\n").unwrap();
    let popular = ["--rows", "popularity", "--seed", "3", "--document", document.to_str().unwrap()];
    let refused = tables.make("table1", &[&popular[..], &["--sets", "beauty"]].concat());
    assert!(refused.as_ref().is_err_and(|error| error.contains("--sets")), "{refused:?}");
    assert_eq!(tables.make("table1", &popular), Ok(()));
    let text = fs::read_to_string(&document).unwrap();
    for set in Set::ALL {
        assert!(tables.rows(set).keys().eq(["popularity-s3.json"]), "{:?}", tables.rows(set).keys());
        assert!(text.contains(set.title()), "{text}");
    }
}

#[test]
fn rows_of_other_settings_are_refused() {
    let tables = Tables::new();
    let tiger = ["--sets", "beauty", "--rows", "tiger"];
    assert_eq!(tables.make("table8", &tiger), Ok(()));
    let refused = tables.make("table8", &[&tiger[..], &["--preset", "paper"]].concat());
    assert!(refused.as_ref().is_err_and(|error| error.contains("another `--results`")), "{refused:?}");
}
