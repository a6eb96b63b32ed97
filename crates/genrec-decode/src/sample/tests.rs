use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    constraint::FixedLength,
    toy::{START, Toy},
};

/// Two levels of a few codes and no suffix: few enough sequences to count them all.
fn vocab(sizes: &[u32]) -> sid_index::SidVocab {
    sid_index::SidVocab::new(&sid_index::SidLayout::new(sizes.to_vec()).unwrap().without_suffix(), 1).unwrap()
}

fn batch(histories: &[Vec<u32>]) -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    histories.iter().for_each(|history| batch.push(history, &[]).unwrap());
    batch
}

/// Probability of every sequence of two tokens under a shape, by the definition.
fn probabilities(toy: &Toy, constraint: &FixedLength, history: &[u32], shape: &Shape) -> BTreeMap<Vec<u32>, f64> {
    let level = |state: usize, prefix: &[u32]| {
        let log_probs = toy.log_probs(history, &[&[START], prefix].concat());
        let mut options = Vec::new();
        constraint.for_each_allowed(&state, &mut |token| options.push((token, log_probs[token as usize])));
        shape.apply(state, &options)
    };
    let mut all = BTreeMap::new();
    for (first, p) in level(0, &[]) {
        for (second, q) in level(1, &[first]) {
            all.insert(vec![first, second], (p + q).exp());
        }
    }
    all
}

/// Pearson's statistic over the sequences that are expected often enough, the rest as one, and its degrees of freedom.
fn chi_square(counts: &BTreeMap<Vec<u32>, usize>, expected: &BTreeMap<Vec<u32>, f64>, draws: usize) -> (f64, usize) {
    let (mut statistic, mut cells) = (0.0, 0);
    let (mut rare_count, mut rare_expected) = (0.0, 0.0);
    assert!(counts.keys().all(|sequence| expected.contains_key(sequence)), "a sequence that cannot be drawn");
    for (sequence, p) in expected {
        let (count, mean) = (counts.get(sequence).copied().unwrap_or(0) as f64, p * draws as f64);
        if mean < 8.0 {
            rare_count += count;
            rare_expected += mean;
        } else {
            statistic += (count - mean).powi(2) / mean;
            cells += 1;
        }
    }
    if rare_expected >= 8.0 {
        statistic += (rare_count - rare_expected).powi(2) / rare_expected;
        cells += 1;
    }
    (statistic, cells - 1)
}

/// The value that a chi-square variable exceeds once in ten thousand times (Wilson and Hilferty's approximation).
fn critical(freedom: usize) -> f64 {
    let n = freedom as f64;
    n * (1.0 - 2.0 / (9.0 * n) + 3.719 * (2.0 / (9.0 * n)).sqrt()).powi(3)
}

fn shapes() -> Vec<Shape> {
    let plain = Shape::default();
    vec![
        plain.clone(),
        Shape { temperature: vec![2.0, 0.5].into(), ..plain.clone() },
        Shape { top_k: Some(3.into()), ..plain.clone() },
        Shape { top_p: Some(vec![0.8, 0.6].into()), temperature: 1.3.into(), ..plain },
    ]
}

#[test]
fn independent_draws_have_the_models_frequencies() {
    let vocab = vocab(&[5, 4]);
    let (toy, constraint) = (Toy::new(vocab.size(), 3, 100), FixedLength::new(&vocab, 2).unwrap());
    for (seed, shape) in (1..).zip(shapes()) {
        let expected = probabilities(&toy, &constraint, &[4, 5], &shape);
        let sampling = Sampling::new(20_000, seed).with_replacement().with_shape(shape);
        let drawn = sampling.decode(&toy, &batch(&[vec![4, 5]]), &[&constraint]).unwrap();
        assert_eq!(drawn[0].len(), 20_000);
        let mut counts = BTreeMap::new();
        for hypothesis in &drawn[0] {
            *counts.entry(hypothesis.tokens.clone()).or_insert(0) += 1;
        }
        let (statistic, freedom) = chi_square(&counts, &expected, 20_000);
        assert!(statistic < critical(freedom), "{statistic} with {freedom} degrees of freedom");
    }
}

/// Without replacement the first of a list is a draw, and the second one of what is left: over many seeds, pairs come with
/// probability `p(a) p(b) / (1 - p(a))`.
#[test]
fn draws_without_replacement_have_the_right_order_of_inclusion() {
    let vocab = vocab(&[3, 2]);
    let (toy, constraint) = (Toy::new(vocab.size(), 8, 100), FixedLength::new(&vocab, 2).unwrap());
    for shape in shapes() {
        let p = probabilities(&toy, &constraint, &[7], &shape);
        let mut pairs = BTreeMap::new();
        for (first, p_first) in &p {
            for (second, p_second) in p.iter().filter(|(second, _)| *second != first) {
                pairs.insert([first.clone(), second.clone()].concat(), p_first * p_second / (1.0 - p_first));
            }
        }
        let (mut counts, draws) = (BTreeMap::new(), 8_000);
        for seed in 0..draws {
            let sampling = Sampling::new(2, seed).with_shape(shape.clone());
            let found = &sampling.decode(&toy, &batch(&[vec![7]]), &[&constraint]).unwrap()[0];
            *counts.entry(found.iter().flat_map(|h| h.tokens.clone()).collect()).or_insert(0) += 1;
        }
        let (statistic, freedom) = chi_square(&counts, &pairs, draws as usize);
        assert!(statistic < critical(freedom), "{statistic} with {freedom} degrees of freedom");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_comes_twice_and_asking_for_all_gives_all(seed: u64, samples in 1usize..30, logits in 1u64..50) {
        let vocab = vocab(&[4, 4]);
        let (toy, constraint) = (Toy::new(vocab.size(), seed, logits), FixedLength::new(&vocab, 2).unwrap());
        let found = &Sampling::new(samples, seed).decode(&toy, &batch(&[vec![1]]), &[&constraint]).unwrap()[0];
        let distinct: BTreeSet<&Vec<u32>> = found.iter().map(|hypothesis| &hypothesis.tokens).collect();
        prop_assert_eq!((found.len(), distinct.len()), (samples.min(16), samples.min(16)));
        for hypothesis in found {
            prop_assert_eq!(hypothesis.log_prob, toy.score(&[1], &hypothesis.tokens));
        }
        // The first draws are those of a shorter list.
        let fewer = &Sampling::new(samples.div_ceil(2), seed).decode(&toy, &batch(&[vec![1]]), &[&constraint]).unwrap()[0];
        prop_assert_eq!(&found[..fewer.len()], &fewer[..]);
    }

    #[test]
    fn a_users_draws_depend_on_nothing_else(
        histories in prop::collection::vec(prop::collection::vec(0u32..9, 0..4), 1..6), seed: u64, replacement: bool, cut in 1usize..5,
    ) {
        let vocab = vocab(&[4, 3]);
        let (mut toy, constraint) = (Toy::new(vocab.size(), seed, 40), FixedLength::new(&vocab, 2).unwrap());
        let mut sampling = Sampling::new(6, seed);
        sampling.replacement = replacement;
        let together = sampling.decode(&toy, &batch(&histories), &[&constraint]).unwrap();
        toy.run_size = Some(cut);
        prop_assert_eq!(&sampling.decode(&toy, &batch(&histories), &[&constraint]).unwrap(), &together);
        for (history, expected) in histories.iter().zip(&together) {
            let alone = sampling.decode(&toy, &batch(std::slice::from_ref(history)), &[&constraint]).unwrap();
            prop_assert_eq!(&alone[0], expected);
        }
    }
}

#[test]
fn no_samples_and_wrong_shapes_are_refused() {
    let vocab = vocab(&[2, 2]);
    let (toy, constraint) = (Toy::new(vocab.size(), 1, 5), FixedLength::new(&vocab, 2).unwrap());
    let fails = |sampling: Sampling| sampling.decode(&toy, &batch(&[vec![1]]), &[&constraint]).unwrap_err();
    assert!(matches!(fails(Sampling::new(0, 1)), DecodeError::NoBeams));
    let many = fails(Sampling::new(MOST_DRAWS + 1, 1).with_replacement());
    assert!(matches!(many, DecodeError::Shape { field: "samples", .. }), "{many:?}");
    assert!(Sampling::new(usize::MAX, 1).decode(&toy, &batch(&[vec![1]]), &[&constraint]).is_ok());
    let shape = Shape { temperature: f32::NAN.into(), ..Shape::default() };
    assert!(matches!(fails(Sampling::new(1, 1).with_shape(shape)), DecodeError::Shape { field: "temperature", .. }));
}
