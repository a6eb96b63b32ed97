//! Files that were never written: their checksums are right, and their parts contradict one another or what they belong to. Each lie
//! is an error of its own, which names the fact.

pub(crate) mod checkpoints;
mod embeddings;
mod files;
pub(crate) mod index;
mod models;
pub(crate) mod quantizers;
mod runs;

use std::{collections::BTreeMap, path::Path};

use crate::in_memory;

/// What a lie was answered with.
struct Answer {
    lie: &'static str,
    /// The error's variant, as the pattern that it matched.
    variant: &'static str,
    text: String,
}

/// Reads what is a lie, and holds the answer against the variant of the error and a part of what it says.
macro_rules! lie {
    ($answers:expr, $lie:expr, $read:expr, $variant:pat, $fact:expr) => {{
        let Err(error) = $read else { panic!("{}: it was believed", $lie) };
        let text = genrec_tests::told(&error);
        assert!(matches!(error, $variant), "{}: {error:?}", $lie);
        assert!(text.contains($fact), "{}: {text}", $lie);
        $answers.push(crate::lies::Answer { lie: $lie, variant: stringify!($variant), text });
    }};
}
use lie;

#[test]
fn every_lie_is_an_error_of_its_own() {
    let dir = in_memory();
    let of_part = |name: &str, lies: fn(&Path) -> Vec<Answer>| {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        lies(&dir)
    };
    let answers: Vec<Answer> = [
        of_part("index", index::lies),
        of_part("quantizer", quantizers::lies),
        of_part("model", models::lies),
        of_part("embeddings", embeddings::lies),
        of_part("checkpoint", checkpoints::lies),
        of_part("run", runs::lies),
    ]
    .into_iter()
    .flatten()
    .collect();
    let root = dir.path().display().to_string();
    let mut lies = BTreeMap::new();
    for Answer { lie, variant, text } in &answers {
        let unnumbered: String = text.replace(&root, "").chars().filter(|c| !c.is_ascii_digit()).collect();
        if let Some(other) = lies.insert((*variant, unnumbered), *lie) {
            panic!("`{other}` and `{lie}` are told alike: {text}");
        }
    }
    eprintln!("{} lies, each with an error of its own", answers.len());
    assert!(answers.len() >= 40);
}
