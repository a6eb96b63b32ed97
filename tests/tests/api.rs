//! The public interface of each crate, one line an item, as it was last agreed on (`docs/api`): nothing that users write can
//! change by accident.
//!
//! The lines come from rustdoc's JSON, which a stable compiler writes for those alone who ask for it by
//! `RUSTC_BOOTSTRAP=1`: `.ci/run api` does, and names the folder in `GENREC_RUSTDOC_JSON`. A change that is meant is recorded by
//! `GENREC_RECORD_API=1 .ci/run api`, and reviewed with the change itself.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that cannot read its files must fail, and says what it skips"
)]

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use genrec_tests::manifest::root;

/// The interface that rustdoc describes: an item a line, without what every type gets from the compiler and derives.
fn lines(json: &Path) -> String {
    let api = public_api::Builder::from_rustdoc_json(json)
        .sorted(true)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}", json.display()));
    api.items().map(|item| format!("{item}\n")).collect()
}

/// What the recorded interface and this one do not share, as in a diff.
fn differences(recorded: &str, now: &str) -> Vec<String> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (recorded.lines().collect(), now.lines().collect());
    let gone = old.difference(&new).map(|line| format!("- {line}"));
    gone.chain(new.difference(&old).map(|line| format!("+ {line}"))).collect()
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).expect("a readable folder").map(|entry| entry.expect("a readable entry").path());
    entries.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect()
}

#[test]
fn every_crate_has_the_interface_on_record() {
    let Some(json) = env::var_os("GENREC_RUSTDOC_JSON").map(PathBuf::from) else {
        eprintln!("GENREC_RUSTDOC_JSON is not set: the public interface is not compared with docs/api");
        return;
    };
    let (records, crates) = (root().join("docs/api"), names(&root().join("crates")));
    let record = env::var_os("GENREC_RECORD_API").is_some();
    let mut changed = Vec::new();
    for name in &crates {
        let now = lines(&json.join(format!("{}.json", name.replace('-', "_"))));
        let file = records.join(format!("{name}.txt"));
        if record {
            fs::create_dir_all(&records).and_then(|()| fs::write(&file, now)).expect("docs/api can be written");
            continue;
        }
        let recorded = fs::read_to_string(&file).unwrap_or_default();
        changed.extend(differences(&recorded, &now).into_iter().map(|line| format!("{name}: {line}")));
    }
    assert_eq!(names(&records), crates, "docs/api has one file a crate");
    assert!(
        changed.is_empty(),
        "public interfaces changed; `GENREC_RECORD_API=1 .ci/run api` records what is meant:\n{}",
        changed.join("\n")
    );
}

#[test]
fn what_is_gone_and_what_is_new_are_told_apart() {
    let told = differences("pub fn a()\npub fn b()\n", "pub fn b()\npub fn c()\n");
    assert_eq!(told, ["- pub fn a()", "+ pub fn c()"]);
}
