//! Beam search agrees with `transformers`: see `tests/golden/t5/README.md`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use candle_core::Device;
use genrec::{
    decode::{BeamSearch, Constraint, Decoder, Hypothesis},
    model::{RaggedBatch, Seq2Seq, t5::T5},
};
use genrec_tests::manifest::root;
use serde::Deserialize;

const NAMES: [&str; 2] = ["relu_tied", "gated_untied"];
/// Nats: single precision in both libraries, summed over four tokens.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Recorded {
    sources: Vec<Vec<u32>>,
    valid: Vec<Vec<u32>>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    constrained: bool,
    num_beams: usize,
    /// `(users, beams, tokens)`.
    sequences: Vec<Vec<Vec<u32>>>,
    /// `(users, beams)`.
    scores: Vec<Vec<f32>>,
}

/// Every prefix of a valid sequence, with the tokens that may follow it.
struct Trie(BTreeMap<Vec<u32>, BTreeSet<u32>>);

impl Trie {
    fn new(valid: &[Vec<u32>]) -> Self {
        let mut children: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for sequence in valid {
            for (length, &token) in sequence.iter().enumerate() {
                children.entry(sequence[..length].to_vec()).or_default().insert(token);
            }
        }
        Self(children)
    }
}

impl Constraint for Trie {
    type State = Vec<u32>;

    fn start(&self) -> Vec<u32> {
        Vec::new()
    }

    fn accept(&self, prefix: &Vec<u32>, token: u32) -> Option<Vec<u32>> {
        self.0.get(prefix)?.contains(&token).then(|| [prefix, &[token][..]].concat())
    }

    fn for_each_allowed(&self, prefix: &Vec<u32>, f: &mut dyn FnMut(u32)) {
        self.0.get(prefix).into_iter().flatten().copied().for_each(f);
    }

    fn is_complete(&self, prefix: &Vec<u32>) -> bool {
        !self.0.contains_key(prefix)
    }
}

/// `length` tokens, each any of the vocabulary.
struct Free {
    vocab_size: u32,
    length: usize,
}

impl Constraint for Free {
    type State = usize;

    fn start(&self) -> usize {
        0
    }

    fn accept(&self, taken: &usize, token: u32) -> Option<usize> {
        (*taken < self.length && token < self.vocab_size).then_some(taken + 1)
    }

    fn for_each_allowed(&self, taken: &usize, f: &mut dyn FnMut(u32)) {
        if *taken < self.length {
            (0..self.vocab_size).for_each(f);
        }
    }

    fn is_complete(&self, taken: &usize) -> bool {
        *taken == self.length
    }
}

fn read(name: &str) -> (T5, Recorded, RaggedBatch) {
    let folder = root().join("tests/golden/t5").join(name);
    let recorded: Recorded = serde_json::from_slice(&fs::read(folder.join("beams.json")).unwrap()).unwrap();
    let mut batch = RaggedBatch::new();
    for source in &recorded.sources {
        batch.push(source, &[]).unwrap();
    }
    (T5::load(folder, &Device::Cpu).unwrap(), recorded, batch)
}

fn assert_agree(name: &str, run: &Run, found: &[Vec<Hypothesis>]) {
    let label = format!("{name}, {} beams, constrained: {}", run.num_beams, run.constrained);
    assert_eq!(found.len(), run.sequences.len(), "{label}");
    for (user, hypotheses) in found.iter().enumerate() {
        let tokens: Vec<_> = hypotheses.iter().map(|hypothesis| hypothesis.tokens.clone()).collect();
        assert_eq!(tokens.len(), run.num_beams, "{label}, user {user}");
        assert_eq!(tokens, run.sequences[user], "{label}, user {user}");
        for (rank, hypothesis) in hypotheses.iter().enumerate() {
            let difference = (hypothesis.log_prob - run.scores[user][rank]).abs();
            assert!(
                difference <= TOLERANCE,
                "{label}, user {user}, rank {rank}: the scores differ by {difference} nats"
            );
        }
    }
}

fn check(constrained: bool) {
    for name in NAMES {
        let (model, recorded, batch) = read(name);
        let runs: Vec<_> = recorded.runs.iter().filter(|run| run.constrained == constrained).collect();
        assert_eq!(runs.iter().map(|run| run.num_beams).collect::<Vec<_>>(), [4, 10, 20], "{name}");
        for run in runs {
            let search = BeamSearch::new(run.num_beams);
            let found = if constrained {
                search.decode(&model, &batch, &[Trie::new(&recorded.valid)]).unwrap()
            } else {
                let vocab_size = u32::try_from(model.vocab_size()).unwrap();
                search.decode(&model, &batch, &[Free { vocab_size, length: recorded.valid[0].len() }]).unwrap()
            };
            assert_agree(name, run, &found);
        }
    }
}

#[test]
fn free_generation_agrees() {
    check(false);
}

#[test]
fn generation_held_to_a_catalogue_agrees() {
    check(true);
}

/// The comparison must be able to fail: a sequence out of place, a score too far off.
#[test]
fn a_difference_is_found() {
    let (model, recorded, batch) = read(NAMES[0]);
    let trie = Trie::new(&recorded.valid);
    let run = recorded.runs.iter().find(|run| run.constrained).unwrap();
    let good = BeamSearch::new(run.num_beams).decode(&model, &batch, &[trie]).unwrap();
    assert_agree(NAMES[0], run, &good);

    let fails = |bad: Vec<Vec<Hypothesis>>| std::panic::catch_unwind(|| assert_agree(NAMES[0], run, &bad)).is_err();
    let mut swapped = good.clone();
    swapped[1].swap(0, 1);
    assert!(fails(swapped));
    let mut off = good;
    off[2][3].log_prob += 2.0 * TOLERANCE;
    assert!(fails(off));
}
