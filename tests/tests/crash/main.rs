//! Whatever is written opens as what was there before or what was to come: after a crash at any moment, after any error of the
//! disk, and on a disk that is really full.
//!
//! A child process does a work with a library preloaded: `recorder.c` notes every file operation, so that what a crash would have
//! left after each can be written out and opened; `faults.c` lets operations fail.

// Elsewhere a library cannot be put before the system's own.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::print_stderr, reason = "a test that does not run says so")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod crashes;
mod faults;
mod full;
mod mapped;
mod replay;
mod works;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use genrec_tests::{not_run, told};
use works::{ALL, Work};

/// The tests' own name for a work, for the child that does it; where; and to which file it says how that ended.
const WORK: &str = "GENREC_CRASH_WORK";
const ROOT: &str = "GENREC_CRASH_ROOT";
const ENDED: &str = "GENREC_CRASH_ENDED";

/// Not a test of its own: the process that is watched.
#[test]
fn child() {
    let (Ok(name), Ok(root)) = (std::env::var(WORK), std::env::var(ROOT)) else { return };
    let work = ALL.iter().find(|work| work.name == name).unwrap();
    let done = (work.run)(Path::new(&root));
    match std::env::var_os(ENDED) {
        None => done.unwrap(),
        Some(path) => fs::write(path, done.map_or_else(|error| told(&*error), |()| String::new())).unwrap(),
    }
}

/// A process that will do a work.
fn child_of(work: &Work, root: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--test-threads", "1"]).stdout(Stdio::null());
    command.env(WORK, work.name).env(ROOT, root);
    command
}

/// A library of this directory, or `None` where there is no C compiler, which is said.
fn library(source: &str, dir: &Path) -> Option<PathBuf> {
    let library = dir.join(source).with_extension("so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash").join(source);
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    match Command::new(compiler).args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl").status()
    {
        Ok(status) => {
            assert!(status.success(), "{} does not compile", source.display());
            Some(library)
        }
        Err(error) => {
            not_run(&source.display().to_string(), &format!("there is no C compiler ({error})"));
            None
        }
    }
}

/// Files with their contents, directories without, by their paths below.
type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn tree(dir: &Path) -> Tree {
    let (mut tree, mut open) = (BTreeMap::new(), vec![dir.to_path_buf()]);
    while let Some(at) = open.pop() {
        for path in fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()) {
            let contents = (!path.is_dir()).then(|| fs::read(&path).unwrap());
            tree.insert(path.strip_prefix(dir).unwrap().to_path_buf(), contents);
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    tree
}

/// Writes a tree into an empty or new directory.
fn plant(tree: &Tree, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for (path, contents) in tree {
        match contents {
            None => fs::create_dir(dir.join(path)).unwrap(),
            Some(contents) => fs::write(dir.join(path), contents).unwrap(),
        }
    }
}

/// In what two trees differ, but for what a work says of the time.
fn difference(work: &Work, one: &Tree, other: &Tree) -> Vec<PathBuf> {
    let plain = |tree: &Tree| -> Tree {
        let known = |(path, bytes): (&PathBuf, &Option<Vec<u8>>)| {
            let path = path.to_str().unwrap();
            ((work.alias)(path).into(), bytes.clone().filter(|_| !(work.is_timed)(path)))
        };
        tree.iter().map(known).collect()
    };
    let (one, other) = (plain(one), plain(other));
    let unlike = |a: &Tree, b: &Tree| -> Vec<PathBuf> {
        a.iter().filter(|(path, bytes)| b.get(*path) != Some(bytes)).map(|(path, _)| path.clone()).collect()
    };
    let mut all = unlike(&one, &other);
    all.extend(unlike(&other, &one));
    all
}
