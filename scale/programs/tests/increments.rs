//! A catalogue that grows twice: what was given stays, what is new is numbered after all of it, and ids that are there twice are refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use genrec_scale::block_on;
use genrec_scale::fit::{Method, Sample};
use genrec_scale::generate::Table;
use genrec_scale::quantize::{Job, Outcome};
use genrec_scale::session::Place;

fn make(dir: &Path, rows: usize) -> PathBuf {
    let out = dir.join(format!("embeddings-{rows}"));
    // One file: the first rows of a longer table are those of a shorter one.
    Table { rows, width: 8, files: 1, seed: 3, out: out.clone() }.write().unwrap();
    out
}

fn quantize(dir: &Path, input: PathBuf, out: &str, given: &[&str]) -> Result<Outcome, String> {
    let job = Job {
        quantizer: dir.join("quantizer"),
        input,
        out: dir.join(out),
        id: "id".to_owned(),
        embedding: "embedding".to_owned(),
        given: given.iter().map(|given| dir.join(given).join("sids")).collect(),
        place: Place { memory: 64, partitions: Some(2), cluster: None },
    };
    block_on(job.run()).map_err(|error| error.to_string())
}

#[test]
fn what_was_given_stays_and_all_are_unique() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let sizes = [1000, 2000, 3000].map(|rows| make(dir, rows));
    let sample = Sample {
        input: sizes[0].clone(),
        embedding: None,
        rows: 1000,
        method: Method::ResidualKMeans,
        codebooks: vec![4, 4],
        seed: 0,
        epochs: Some(3),
    };
    sample.fit().unwrap().save(dir.join("quantizer")).unwrap();
    let [first, second, third] = sizes;
    assert_eq!(quantize(dir, first, "a", &[]).unwrap().rows, 1000);
    assert_eq!(quantize(dir, second.clone(), "b", &["a"]).unwrap().rows, 1000);
    let all = quantize(dir, third, "c", &["a", "b"]).unwrap();
    // With sixteen tuples of codes hardly any item is alone in its own.
    assert_eq!((all.rows, all.sids, all.distinct), (1000, 3000, 3000));
    assert!(all.cells <= 16, "{all:?}");

    // Codes of another quantiser mean something else.
    Sample { seed: 1, ..sample }.fit().unwrap().save(dir.join("quantizer")).unwrap();
    let refused = quantize(dir, second.clone(), "other", &["a"]);
    assert!(refused.as_ref().is_err_and(|error| error.contains("`genrec.quantizer`")), "{refused:?}");
    assert!(!dir.join("other").join("sids").exists());

    let table = std::fs::read_dir(&second).unwrap().next().unwrap().unwrap().path();
    std::fs::copy(&table, second.join("again.parquet")).unwrap();
    let refused = quantize(dir, second, "d", &[]);
    assert!(refused.as_ref().is_err_and(|error| error.contains("ids must be unique")), "{refused:?}");
    assert!(!dir.join("d/sids").exists());
}
