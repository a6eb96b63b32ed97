//! The inputs that fuzzing has kept, once through the same readers: none may panic, on a stable compiler and without libFuzzer.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "the input before a panic is named")]
#![allow(unreachable_pub, reason = "the readers are those of a library")]

#[path = "../../../fuzz/src/readers/mod.rs"]
mod readers;
mod seeds;

use std::{
    fs,
    path::{Path, PathBuf},
};

use genrec_tests::manifest::root;

fn corpora() -> PathBuf {
    root().join("fuzz/corpus")
}

/// Sends every kept input of a target through `read`.
fn replay<T>(target: &str, fewest: usize, read: impl Fn(&[u8], &Path) -> T) {
    let corpus = corpora().join(target);
    let entries = fs::read_dir(&corpus).unwrap_or_else(|error| panic!("no inputs under {}: {error}", corpus.display()));
    let files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= fewest, "{} inputs under {}: where is the rest?", files.len(), corpus.display());
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        eprintln!("{}", file.display());
        read(&fs::read(&file).unwrap(), dir.path());
    }
}

#[test]
fn indexes() {
    replay("index", 200, readers::index::read);
}

#[test]
fn settings() {
    replay("config", 200, readers::config::read);
}

#[test]
fn weights() {
    replay("weights", 200, readers::weights::read);
}

#[test]
fn data() {
    replay("data", 200, readers::data::read);
}

/// Seeds that are refused would leave the fuzzer to guess: of the indexes a few are, which is what they are for.
#[test]
fn seeds_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (_, seeds) = seeds::all().unwrap().into_iter().find(|(target, _)| *target == "index").unwrap();
    let refused: Vec<_> =
        seeds.iter().filter(|(_, bytes)| !readers::index::read(bytes, dir.path())).map(|(name, _)| name).collect();
    assert!(refused.len() * 4 < seeds.len(), "refused of {}: {refused:?}", seeds.len());
}

/// `cargo test -p genrec-tests --test fuzz_corpus -- --ignored` writes what fuzzing starts from beside what it has kept.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn write_seeds() {
    for (target, seeds) in seeds::all().unwrap() {
        let dir = corpora().join(target);
        fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in seeds {
            fs::write(dir.join(format!("seed-{name}")), bytes).unwrap();
        }
    }
}
