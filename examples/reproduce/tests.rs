//! Tables and figures, made on shops of a few hundred items.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use clap::{Parser, ValueEnum};
use genrec::data::SyntheticConfig;
use serde_json::json;

use crate::{
    Args,
    plan::{Experiment, Set},
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

/// One row of most kinds of work; searches for unseen items take too long where nothing is optimised.
const ROWS: [&str; 14] = [
    "popularity",
    "transitions",
    "co-occurrence",
    "semantic-knn",
    "sasrec",
    "tiger",
    "tiger-random",
    "tiger-lsh",
    "sampled-1.5",
    "sampled-1-1-2-1",
    "hierarchy",
    "best",
    "best-reranked",
    "best-together",
];

fn wanted(experiment: Experiment) -> Vec<&'static str> {
    experiment.lines().iter().map(|line| line.name).filter(|name| ROWS.contains(name)).collect()
}

#[test]
fn tables_are_made_once_and_are_found_again() {
    let tables = Tables::new();
    let all = Experiment::value_variants().iter().map(|&experiment| (experiment, wanted(experiment)));
    let some: Vec<_> = all.filter(|(one, rows)| *one == Experiment::Table6 || !rows.is_empty()).collect();
    let make_all = || {
        for (experiment, rows) in &some {
            let rows = rows.join(",");
            let typed = ["--sets", "beauty", "--rows", &rows];
            let made = tables.make(&experiment.name(), &typed[..if rows.is_empty() { 2 } else { 4 }]);
            assert_eq!(made, Ok(()), "{}", experiment.name());
        }
        tables.rows(Set::Beauty)
    };
    let rows = make_all();
    for name in ROWS {
        assert!(rows.contains_key(&format!("{name}-s1.json")), "{name}");
    }
    for (name, row) in &rows {
        let row: serde_json::Value = serde_json::from_slice(row).unwrap();
        let reads =
            !["popularity", "transitions", "co-occurrence", "sasrec"].iter().any(|other| name.starts_with(other));
        assert_eq!(row["manifest"]["embeddings_crc32"].is_u64(), reads, "{name}");
    }
    // Nothing is run again.
    fs::remove_dir_all(tables.data.path().join("runs")).unwrap();
    assert_eq!(make_all(), rows);
    assert!(!tables.data.path().join("runs").exists());
    // TF-IDF has other columns in each set.
    let refused = tables.make("table10", &["--rows", "tiger-joint"]);
    assert!(refused.as_ref().is_err_and(|error| error.contains("TF-IDF")), "{refused:?}");
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
    let before = fs::read_to_string(&document).unwrap();
    let paper = [&popular[..], &["--preset", "paper"]].concat();
    assert_eq!(tables.make("table1", &paper), Ok(()));
    let text = fs::read_to_string(&document).unwrap();
    assert!(text.starts_with(before.trim_end()), "the section of a preset is its own");
    assert!(text.contains("<!-- reproduce table1-paper -->"), "{text}");
    for set in Set::ALL {
        assert!(tables.rows(set).keys().eq(["popularity-s3.json"]), "{:?}", tables.rows(set).keys());
        assert!(text.contains(set.title()), "{text}");
    }
}

#[test]
fn rows_of_other_settings_are_refused() {
    let tables = Tables::new();
    let random = ["--sets", "beauty", "--rows", "tiger-random"];
    assert_eq!(tables.make("table2", &random), Ok(()));
    let shown = tables.make("table2", &["--sets", "beauty", "--preset", "paper", "--finished"]);
    assert!(shown.as_ref().is_err_and(|error| error.contains("another `model")), "{shown:?}");
    let other = tables.make("table2", &["--sets", "beauty", "--patience", "2", "--finished"]);
    assert!(other.as_ref().is_err_and(|error| error.contains("another `train.patience` (null, now 2)")), "{other:?}");
    let beauty = tables.results.join(Set::Beauty.name());
    fs::copy(beauty.join("tiger-random-s1.json"), beauty.join("tiger-lsh-s1.json")).unwrap();
    let renamed = tables.make("table2", &["--sets", "beauty", "--finished"]);
    assert!(renamed.as_ref().is_err_and(|error| error.contains("is the row `tiger-random`")), "{renamed:?}");
    fs::remove_file(beauty.join("tiger-lsh-s1.json")).unwrap();
    let blocks = tables.make("blocks", &["--preset", "paper"]);
    assert!(blocks.as_ref().is_err_and(|error| error.contains("preset `cpu`")), "{blocks:?}");
    let best = tables.make("table1", &["--rows", "best", "--preset", "paper"]);
    assert!(best.as_ref().is_err_and(|error| error.contains("no row of these tables with this preset")), "{best:?}");
    let refused = tables.make("table2", &[&random[..], &["--preset", "paper"]].concat());
    assert!(refused.as_ref().is_err_and(|error| error.contains("another `--results`")), "{refused:?}");
}
