use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{beam::BeamSearch, constraint::FixedLength, toy::Toy};

fn vocab() -> sid_index::SidVocab {
    let layout = sid_index::SidLayout::new(vec![5, 5, 5]).unwrap().without_suffix();
    sid_index::SidVocab::new(&layout, 1).unwrap()
}

fn batch() -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    [vec![1, 2], vec![], vec![7]].iter().for_each(|history| batch.push(history, &[]).unwrap());
    batch
}

/// How many first codes a user's list has.
fn first_codes(found: &[Hypothesis]) -> usize {
    found.iter().map(|hypothesis| hypothesis.tokens[0]).collect::<BTreeSet<_>>().len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn lists_are_sorted_and_without_repetition(
        seed: u64, beams in 1usize..20, groups in 1usize..20, strength in 0.0f32..50.0,
    ) {
        let (vocab, groups) = (vocab(), groups.min(beams));
        let (toy, constraint) = (Toy::new(vocab.size(), seed, 100), FixedLength::new(&vocab, 3).unwrap());
        let search = DiverseBeamSearch::new(beams, groups).with_strength(strength);
        let found = search.decode(&toy, &batch(), &[&constraint]).unwrap();
        for (user, history) in found.iter().zip([vec![1, 2], vec![], vec![7]]) {
            let distinct: BTreeSet<_> = user.iter().map(|hypothesis| &hypothesis.tokens).collect();
            prop_assert_eq!(user.len(), distinct.len());
            prop_assert!(user.len() <= beams && user.len() >= beams.min(5));
            prop_assert!(user.is_sorted_by(|a, b| a.log_prob >= b.log_prob));
            prop_assert!(user.iter().all(|found| found.log_prob == toy.score(&history, &found.tokens)));
        }
        let one = DiverseBeamSearch::new(beams, 1).with_strength(strength).decode(&toy, &batch(), &[&constraint]).unwrap();
        prop_assert_eq!(one, BeamSearch::new(beams).decode(&toy, &batch(), &[&constraint]).unwrap());
    }
}

#[test]
fn a_strong_penalty_sends_every_group_its_own_way() {
    let vocab = vocab();
    let constraint = FixedLength::new(&vocab, 3).unwrap();
    for seed in 0..20 {
        let toy = Toy::new(vocab.size(), seed, 100);
        let found = DiverseBeamSearch::new(5, 5).with_strength(1e3).decode(&toy, &batch(), &[&constraint]).unwrap();
        assert!(found.iter().all(|user| first_codes(user) == 5));
    }
}

#[test]
fn groups_that_beams_cannot_fill_are_refused() {
    assert!(matches!(DiverseBeamSearch::new(0, 0).validate(), Err(DecodeError::NoBeams)));
    for (groups, strength) in [(0, 1.0), (4, 1.0), (2, -1.0), (2, f32::NAN)] {
        let search = DiverseBeamSearch::new(3, groups).with_strength(strength);
        assert!(matches!(search.validate(), Err(DecodeError::Groups { .. })));
    }
}

#[test]
fn groups_beyond_any_use_are_refused_and_beams_beyond_any_count_are_shared_out() {
    let asked = DiverseBeamSearch::new(usize::MAX, MOST_GROUPS + 1).validate();
    assert!(matches!(asked, Err(DecodeError::Shape { field: "groups", .. })), "{asked:?}");
    let vocab = vocab();
    let (toy, constraint) = (Toy::new(vocab.size(), 1, 100), FixedLength::new(&vocab, 3).unwrap());
    let found = DiverseBeamSearch::new(usize::MAX, 3).decode(&toy, &batch(), &[&constraint]).unwrap();
    let all = BeamSearch::new(usize::MAX).decode(&toy, &batch(), &[&constraint]).unwrap();
    assert_eq!(found, all);
}
