//! A catalogue that grows twice: what was given stays, what is new is numbered after all of it, and ids that are there twice are refused.
//! What a person gets wrong on the way is answered with what helps.

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
    let given = given.iter().map(|given| dir.join(given).join("sids")).collect();
    run(&Job { given, ..job(dir, input, out) })
}

fn job(dir: &Path, input: PathBuf, out: &str) -> Job {
    Job {
        quantizer: dir.join("quantizer"),
        input,
        out: dir.join(out),
        id: "id".to_owned(),
        embedding: "embedding".to_owned(),
        given: Vec::new(),
        place: Place { memory: 64, partitions: Some(2), cluster: None },
    }
}

fn run(job: &Job) -> Result<Outcome, String> {
    block_on(job.run()).map_err(|error| error.to_string())
}

fn sample(input: PathBuf) -> Sample {
    let (method, codebooks) = (Method::ResidualKMeans, vec![4, 4]);
    Sample { input, embedding: None, rows: 1000, method, codebooks, seed: 0, epochs: Some(3) }
}

#[test]
fn what_was_given_stays_and_all_are_unique() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let sizes = [1000, 2000, 3000].map(|rows| make(dir, rows));
    let sample = sample(sizes[0].clone());
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

#[test]
fn what_is_misnamed_is_answered_with_what_helps() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let input = make(dir, 500);
    sample(input.clone()).fit().unwrap().save(dir.join("quantizer")).unwrap();
    quantize(dir, input.clone(), "done", &[]).unwrap();
    let empty = dir.join("empty");
    std::fs::create_dir(&empty).unwrap();

    let job = || job(dir, input.clone(), "out");
    let jobs = [
        (
            Job { id: "item".to_owned(), ..job() },
            "has no column `item`, only `id`, `embedding`; name one of them by `--id`",
        ),
        (
            Job { embedding: "vector".to_owned(), ..job() },
            "no column `vector`, only `id`, `embedding`; name one of them by `--embedding`",
        ),
        (Job { input: empty.clone(), ..job() }, "empty` has no file that ends in .parquet"),
        (Job { given: vec![dir.join("done")], ..job() }, "done/sids`?"),
        (
            Job { given: vec![input.clone()], ..job() },
            "no column `sid`, only `id`, `embedding`; give the `sids` of an earlier job",
        ),
        (Job { place: Place { memory: 0, ..job().place }, ..job() }, "needs more memory; raise `--memory`"),
    ];
    for (job, remedy) in jobs {
        let error = run(&job).unwrap_err();
        assert!(error.contains(remedy), "{error}");
        assert!(!dir.join("out/sids").exists(), "{error}");
    }
    assert_eq!(run(&job()).unwrap().rows, 500);
}
