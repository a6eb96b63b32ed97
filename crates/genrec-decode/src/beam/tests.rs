use std::collections::BTreeSet;

use ndarray::Array2;
use proptest::prelude::*;
use sid_index::{CollisionPolicy, ItemId, SidIndex, SidLayout, SidVocab};

use super::*;
use crate::{
    catalogue::Catalogue,
    constraint::{FixedLength, ForbiddenTokens},
    toy::{Fault, START, Toy},
};

const LEVELS: usize = 2;
const CODES: u32 = 4;

struct World {
    index: SidIndex,
    vocab: SidVocab,
}

impl World {
    fn new(codes: &[[u32; LEVELS]], share: bool) -> Self {
        let layout = SidLayout::new(vec![CODES; LEVELS]).unwrap().with_suffix(16);
        let (layout, policy) =
            if share { (layout.without_suffix(), CollisionPolicy::Share) } else { (layout, CollisionPolicy::Suffix) };
        let codes = Array2::from_shape_vec((codes.len(), LEVELS), codes.concat()).unwrap();
        let vocab = SidVocab::new(&layout, 3).unwrap();
        Self { index: SidIndex::from_codes(layout, codes.view(), policy).unwrap(), vocab }
    }

    fn catalogue(&self) -> Catalogue<'_> {
        Catalogue::new(&self.index, &self.vocab).unwrap()
    }

    fn toy(&self, seed: u64, logits: u64) -> Toy {
        Toy::new(self.vocab.size(), seed, logits)
    }

    /// Token sequences of the items, sorted, without repetition.
    fn sequences(&self, keep: impl Fn(ItemId) -> bool) -> Vec<Vec<u32>> {
        let items = (0..self.index.len() as u32).map(ItemId).filter(|&item| keep(item));
        let sequences: BTreeSet<Vec<u32>> = items
            .map(|item| {
                let mut tokens = Vec::new();
                self.vocab.encode_sid(&self.index.sid(item).unwrap(), &mut tokens).unwrap();
                tokens
            })
            .collect();
        sequences.into_iter().collect()
    }
}

fn best_first(mut hypotheses: Vec<Hypothesis>, limit: usize) -> Vec<Hypothesis> {
    hypotheses.sort_by(|a, b| b.log_prob.total_cmp(&a.log_prob).then_with(|| a.tokens.cmp(&b.tokens)));
    hypotheses.truncate(limit);
    hypotheses
}

/// Scores every valid sequence.
fn exhaustive(toy: &Toy, history: &[u32], valid: &[Vec<u32>], limit: usize) -> Vec<Hypothesis> {
    let scored = valid.iter().map(|tokens| Hypothesis { tokens: tokens.clone(), log_prob: toy.score(history, tokens) });
    best_first(scored.collect(), limit)
}

/// Beam search of one user as a textbook has it: all continuations, full sort, no tries, no caches.
fn textbook(toy: &Toy, history: &[u32], valid: &[Vec<u32>], beams: usize) -> Vec<Hypothesis> {
    let mut kept = vec![Hypothesis { tokens: vec![], log_prob: 0.0 }];
    for _ in 0..valid[0].len() {
        let mut grown = Vec::new();
        for Hypothesis { tokens, log_prob } in &kept {
            let log_probs = toy.log_probs(history, &[&[START], tokens.as_slice()].concat());
            for token in 0..toy.vocab_size as u32 {
                let longer = [tokens.as_slice(), &[token]].concat();
                if valid.iter().any(|sequence| sequence.starts_with(&longer)) {
                    grown.push(Hypothesis { tokens: longer, log_prob: log_prob + log_probs[token as usize] });
                }
            }
        }
        kept = best_first(grown, beams);
    }
    kept
}

fn batch(histories: &[Vec<u32>]) -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    for history in histories {
        batch.push(history, &[]).unwrap();
    }
    batch
}

fn any_codes() -> impl Strategy<Value = Vec<[u32; LEVELS]>> {
    prop::collection::vec(prop::array::uniform2(0..CODES), 1..16)
}

fn any_histories() -> impl Strategy<Value = Vec<Vec<u32>>> {
    prop::collection::vec(prop::collection::vec(0u32..9, 0..4), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn wide_beams_find_the_true_best(
        codes in any_codes(), share: bool, histories in any_histories(),
        seed: u64, logits in 1u64..1000, excluded in prop::collection::btree_set(0u32..16, 0..12),
    ) {
        let world = World::new(&codes, share);
        let toy = world.toy(seed, logits);
        let excluded: Vec<ItemId> = excluded.into_iter().filter(|&i| (i as usize) < codes.len()).map(ItemId).collect();
        let kept = world.sequences(|item| !excluded.contains(&item));
        let catalogue = world.catalogue().excluding(excluded.iter().copied());
        if kept.is_empty() {
            let refused = matches!(catalogue, Err(DecodeError::Emptied { .. }));
            prop_assert!(refused);
            return Ok(());
        }
        let found = BeamSearch::new(64).decode(&toy, &batch(&histories), &[catalogue.unwrap()]).unwrap();
        for (history, found) in histories.iter().zip(&found) {
            prop_assert_eq!(found, &exhaustive(&toy, history, &kept, 64));
        }
    }

    #[test]
    fn narrow_beams_agree_with_the_textbook(
        codes in any_codes(), share: bool, histories in any_histories(),
        seed: u64, logits in 1u64..1000, beams in 1usize..6,
    ) {
        let world = World::new(&codes, share);
        let toy = world.toy(seed, logits);
        let valid = world.sequences(|_| true);
        let found = BeamSearch::new(beams).decode(&toy, &batch(&histories), &[world.catalogue()]).unwrap();
        for (history, found) in histories.iter().zip(&found) {
            prop_assert_eq!(found, &textbook(&toy, history, &valid, beams));
        }
    }

    #[test]
    fn free_generation_agrees_with_the_textbook(seed: u64, logits in 1u64..1000, beams in 1usize..20, whole: bool) {
        let world = World::new(&[[0, 0]], true);
        let toy = world.toy(seed, logits);
        let constraint = if whole { FixedLength::any_token(&world.vocab, 2) } else { FixedLength::new(&world.vocab, 2) };
        let range = |p| if whole { 0..world.vocab.size() as u32 } else { world.vocab.position_range(p) };
        let all: Vec<Vec<u32>> = range(0).flat_map(|a| range(1).map(move |b| vec![a, b])).collect();
        let found = BeamSearch::new(beams).decode(&toy, &batch(&[vec![5]]), &[constraint.unwrap()]).unwrap();
        prop_assert_eq!(&found[0], &textbook(&toy, &[5], &all, beams));
    }

    /// Whatever is left out, every hypothesis is an allowed item and the beam is as full as the items allow.
    #[test]
    fn exclusion_has_no_dead_ends(
        codes in any_codes(), share: bool, seed: u64, beams in 1usize..8, kept in prop::collection::btree_set(0u32..16, 1..6),
    ) {
        let world = World::new(&codes, share);
        let kept: BTreeSet<ItemId> = kept.into_iter().map(|i| ItemId(i % codes.len() as u32)).collect();
        let sequences = world.sequences(|item| kept.contains(&item));
        let others = (0..codes.len() as u32).map(ItemId).filter(|item| !kept.contains(item));
        let constraints = [world.catalogue().excluding(others).unwrap(), world.catalogue().only(kept.clone()).unwrap()];
        let found = BeamSearch::new(beams).decode(&world.toy(seed, 50), &batch(&[vec![1], vec![1]]), &constraints).unwrap();
        prop_assert_eq!(found[0].len(), beams.min(sequences.len()));
        prop_assert!(found[0].iter().all(|hypothesis| sequences.contains(&hypothesis.tokens)));
        prop_assert_eq!(&found[0], &found[1]);
        for item in (0..codes.len() as u32).map(ItemId) {
            prop_assert_eq!(constraints[0].allows(item), kept.contains(&item));
        }
    }

    /// Users decoded together, alone, in reverse, and on one or two threads, get the same to the last bit.
    #[test]
    fn company_changes_nothing(codes in any_codes(), histories in any_histories(), seed: u64, beams in 1usize..6) {
        let world = World::new(&codes, false);
        let toy = world.toy(seed, 4);
        let search = BeamSearch::new(beams);
        let constraints: Vec<_> = (0..histories.len() as u32)
            .map(|user| world.catalogue().only([0, user, user * 3].map(|i| ItemId(i % codes.len() as u32))).unwrap())
            .collect();
        let together = search.decode(&toy, &batch(&histories), &constraints).unwrap();
        for (user, history) in histories.iter().enumerate() {
            let alone = search.decode(&toy, &batch(std::slice::from_ref(history)), &constraints[user..=user]).unwrap();
            prop_assert_eq!(&alone[0], &together[user]);
        }
        let backwards: Vec<_> = histories.iter().rev().cloned().collect();
        let reversed: Vec<_> = constraints.iter().rev().cloned().collect();
        let mut found = search.decode(&toy, &batch(&backwards), &reversed).unwrap();
        found.reverse();
        prop_assert_eq!(&found, &together);
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| search.decode(&toy, &batch(&histories), &constraints).unwrap());
            prop_assert_eq!(&found, &together);
        }
    }

    #[test]
    fn conjunction_allows_what_both_allow(codes in any_codes(), seed: u64, forbidden in prop::collection::vec(2u32..30, 0..6)) {
        let world = World::new(&codes, false);
        let toy = world.toy(seed, 100);
        let search = BeamSearch::new(64);
        let users = batch(&[vec![3]]);
        let catalogue = search.decode(&toy, &users, &[world.catalogue()]).unwrap();
        let free = FixedLength::new(&world.vocab, LEVELS + 1).unwrap();
        prop_assert_eq!(&search.decode(&toy, &users, &[free.clone().and(world.catalogue())]).unwrap(), &catalogue);
        prop_assert_eq!(&search.decode(&toy, &users, &[(&world.catalogue()).and(&free)]).unwrap(), &catalogue);

        let rule = ForbiddenTokens::new(&world.vocab, forbidden.iter().copied());
        let found = search.decode(&toy, &users, &[world.catalogue().and(&rule)]).unwrap();
        let expected: Vec<Hypothesis> =
            catalogue[0].iter().filter(|h| !h.tokens.iter().any(|token| forbidden.contains(token))).cloned().collect();
        prop_assert_eq!(&found[0], &expected);
        prop_assert_eq!(&search.decode(&toy, &users, &[rule.and(world.catalogue())]).unwrap(), &found);
    }
}

#[test]
fn forbidden_tokens_list_what_they_accept() {
    let world = World::new(&[[0, 0]], false);
    let size = world.vocab.size() as u32;
    for forbidden in [vec![], vec![0], vec![size - 1, 3, 3, 1], vec![size, u32::MAX], (0..size).collect()] {
        let rule = ForbiddenTokens::new(&world.vocab, forbidden.iter().copied());
        let mut listed = Vec::new();
        rule.for_each_allowed(&(), &mut |token| listed.push(token));
        let accepted: Vec<u32> = (0..size + 9).filter(|&token| rule.accept(&(), token).is_some()).collect();
        assert_eq!(listed, accepted, "{forbidden:?}");
        assert_eq!(listed, (0..size).filter(|token| !forbidden.contains(token)).collect::<Vec<_>>());
    }
}

#[test]
fn thousands_of_hypotheses_are_all_items() {
    let codes: Vec<[u32; LEVELS]> = (0..40).map(|i| [i * 7 % CODES, i * i % CODES]).collect();
    let world = World::new(&codes, false);
    let histories: Vec<Vec<u32>> = (0..300).map(|user| vec![user]).collect();
    let found = BeamSearch::new(10).decode(&world.toy(11, 1 << 20), &batch(&histories), &[world.catalogue()]).unwrap();
    assert_eq!(found.iter().map(Vec::len).sum::<usize>(), 3000);
    for hypothesis in found.iter().flatten() {
        let sid = world.vocab.decode_tokens(&hypothesis.tokens).unwrap();
        assert!(world.index.item(&sid).is_some(), "{sid}");
        assert!(hypothesis.log_prob.is_finite());
    }
}

#[test]
fn greedy_takes_the_best_token_at_every_step() {
    let world = World::new(&[[0, 0], [0, 1], [3, 2]], false);
    let toy = world.toy(5, 1 << 20);
    let valid = world.sequences(|_| true);
    let found = BeamSearch::greedy().decode(&toy, &batch(&[vec![8, 1]]), &[world.catalogue()]).unwrap();
    assert_eq!(found, [textbook(&toy, &[8, 1], &valid, 1)]);
    assert_eq!(found[0].len(), 1);
}

#[test]
fn equal_scores_are_ordered_by_tokens() {
    let world = World::new(&[[3, 3], [1, 0], [0, 2], [2, 1]], false);
    let found = BeamSearch::new(3).decode(&world.toy(0, 1), &batch(&[vec![]]), &[world.catalogue()]).unwrap();
    assert_eq!(found[0].iter().map(|h| h.tokens.clone()).collect::<Vec<_>>(), world.sequences(|_| true)[..3]);
}

/// One or two tokens below three; complete after a first token of 2, or after two tokens.
struct Either;

impl Constraint for Either {
    type State = Vec<u32>;

    fn start(&self) -> Vec<u32> {
        Vec::new()
    }

    fn accept(&self, taken: &Vec<u32>, token: u32) -> Option<Vec<u32>> {
        (token < 3 && !self.is_complete(taken)).then(|| [taken.as_slice(), &[token]].concat())
    }

    fn for_each_allowed(&self, taken: &Vec<u32>, f: &mut dyn FnMut(u32)) {
        if !self.is_complete(taken) {
            (0..3).for_each(f);
        }
    }

    fn is_complete(&self, taken: &Vec<u32>) -> bool {
        taken.len() == 2 || taken[..] == [2]
    }
}

#[test]
fn complete_sequences_wait_for_the_others() {
    let all: Vec<Vec<u32>> =
        [vec![2]].into_iter().chain((0..2).flat_map(|a| (0..3).map(move |b| vec![a, b]))).collect();
    for seed in 0..50 {
        let toy = Toy::new(5, seed, 1 << 20);
        let histories = [vec![1], vec![2, 3]];
        let found = BeamSearch::new(7).decode(&toy, &batch(&histories), &[Either]).unwrap();
        for (history, found) in histories.iter().zip(&found) {
            assert_eq!(found, &exhaustive(&toy, history, &all, 7));
        }
    }
}

/// Complete before the first token for one user, after one token for another.
struct Short(usize);

impl Constraint for Short {
    type State = usize;

    fn start(&self) -> usize {
        0
    }

    fn accept(&self, taken: &usize, _token: u32) -> Option<usize> {
        Some(taken + 1)
    }

    fn for_each_allowed(&self, _taken: &usize, f: &mut dyn FnMut(u32)) {
        f(1);
    }

    fn is_complete(&self, taken: &usize) -> bool {
        *taken == self.0
    }
}

#[test]
fn users_may_end_at_different_steps() {
    let toy = Toy::new(4, 3, 100);
    let histories = [vec![1], vec![2], vec![3], vec![4]];
    let lengths = [0, 3, 1, 2];
    let found = BeamSearch::new(2).decode(&toy, &batch(&histories), &lengths.map(Short)).unwrap();
    for ((history, length), found) in histories.iter().zip(lengths).zip(&found) {
        let tokens = vec![1; length];
        assert_eq!(found, &[Hypothesis { log_prob: toy.score(history, &tokens), tokens }]);
    }
}

#[test]
fn dead_ends_leave_fewer_or_none() {
    let world = World::new(&[[0, 0], [1, 1]], false);
    let all_of_last = ForbiddenTokens::new(&world.vocab, world.vocab.position_range(LEVELS));
    let found =
        BeamSearch::new(4).decode(&world.toy(1, 9), &batch(&[vec![1]]), &[world.catalogue().and(all_of_last)]).unwrap();
    assert_eq!(found, [vec![]]);
}

#[test]
fn tokens_of_probability_zero_are_never_taken() {
    let world = World::new(&[[0, 0], [1, 1], [1, 2]], false);
    let impossible = world.vocab.token(1, 1).unwrap();
    let toy = Toy { fault: Fault::Value(1, impossible, f32::NEG_INFINITY), ..world.toy(1, 9) };
    let found = BeamSearch::new(4).decode(&toy, &batch(&[vec![1]]), &[world.catalogue()]).unwrap();
    assert_eq!(found[0].len(), 2);
    assert!(found[0].iter().all(|hypothesis| hypothesis.tokens[1] != impossible));
}

#[test]
fn every_misuse_is_a_typed_error() {
    let world = World::new(&[[0, 0], [1, 1]], false);
    let toy = world.toy(1, 9);
    let users = batch(&[vec![1], vec![2], vec![3]]);
    let search = BeamSearch::new(2);
    let all = world.catalogue();
    assert!(matches!(search.decode(&toy, &RaggedBatch::new(), &[&all]), Err(DecodeError::EmptyBatch)));
    for constraints in [vec![], vec![&all; 2], vec![&all; 4]] {
        assert!(matches!(
            search.decode(&toy, &users, &constraints),
            Err(DecodeError::Constraints { users: 3, constraints: n }) if n == constraints.len()
        ));
    }
    assert!(matches!(BeamSearch::new(0).decode(&toy, &users, &[&all]), Err(DecodeError::NoBeams)));
    let short = search.with_max_tokens(2);
    assert!(matches!(short.decode(&toy, &users, &[&all]), Err(DecodeError::TooLong { max_tokens: 2 })));
    assert!(search.with_max_tokens(3).decode(&toy, &users, &[&all]).is_ok());
    let small = Toy::new(3, 1, 9);
    assert!(matches!(search.decode(&small, &users, &[&all]), Err(DecodeError::UnknownToken { vocab_size: 3, .. })));

    let faulty = |fault| search.decode(&Toy { fault, ..toy }, &users, &[&all]).unwrap_err();
    assert!(matches!(faulty(Fault::Rows), DecodeError::StateRows { expected: 3, got: 4 }));
    assert!(matches!(faulty(Fault::Width), DecodeError::OutputShape { expected: [3, _], .. }));
    let token = world.vocab.token(1, 1).unwrap();
    for bad in [f32::NAN, f32::INFINITY] {
        let error = faulty(Fault::Value(1, token, bad));
        assert!(matches!(error, DecodeError::NotALogProb { user: 0, step: 1, token: t, .. } if t == token), "{error}");
    }
}

/// In smaller runs every user finds what it finds alone, under its own constraint.
#[test]
fn runs_change_nothing() {
    let world = World::new(&[[0, 0], [1, 1], [1, 2], [2, 3], [3, 3], [3, 0]], false);
    let users = batch(&(0..11).map(|user| vec![user, user % 3]).collect::<Vec<_>>());
    let constraints: Vec<_> = (0..11).map(|user| world.catalogue().excluding([ItemId(user % 6)]).unwrap()).collect();
    let together = BeamSearch::new(3).decode(&world.toy(5, 9), &users, &constraints).unwrap();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for run_size in [1, 2, 4, 30] {
            let toy = Toy { run_size: Some(run_size), ..world.toy(5, 9) };
            let found = pool.install(|| BeamSearch::new(3).decode(&toy, &users, &constraints)).unwrap();
            assert_eq!(found, together, "{threads} threads, runs of {run_size}");
        }
    }
    let token = world.vocab.token(0, 1).unwrap();
    let toy = Toy { run_size: Some(2), fault: Fault::Value(0, token, f32::NAN), ..world.toy(5, 9) };
    // Users 1 and 7 may not have item 1, but item 2 starts alike.
    let error = BeamSearch::new(3).decode(&toy, &users, &constraints).unwrap_err();
    assert!(matches!(error, DecodeError::NotALogProb { user: 0, .. }), "{error}");
    let last = [vec![&constraints[1]; 10], vec![&constraints[0]]].concat();
    let late = Fault::Value(2, world.vocab.token(2, 0).unwrap(), f32::NAN);
    let error = BeamSearch::new(3).decode(&Toy { fault: late, ..toy }, &users, &last).unwrap_err();
    assert!(matches!(error, DecodeError::NotALogProb { user: 0, step: 2, .. }), "{error}");
}

/// Lists a token and then refuses it.
struct Contrary;

impl Constraint for Contrary {
    type State = ();

    fn start(&self) {}

    fn accept(&self, (): &(), _token: u32) -> Option<()> {
        None
    }

    fn for_each_allowed(&self, (): &(), f: &mut dyn FnMut(u32)) {
        f(1);
    }

    fn is_complete(&self, (): &()) -> bool {
        false
    }
}

#[test]
fn contradictory_constraints_are_named() {
    let result = BeamSearch::new(2).decode(&Toy::new(4, 0, 9), &batch(&[vec![1]]), &[Contrary]);
    assert!(matches!(result, Err(DecodeError::Inconsistent { token: 1 })));
}

#[test]
fn constraints_refuse_what_does_not_fit() {
    let world = World::new(&[[0, 0]], false);
    let other = SidVocab::new(&SidLayout::new(vec![CODES; 3]).unwrap(), 3).unwrap();
    assert!(matches!(Catalogue::new(&world.index, &other), Err(DecodeError::VocabMismatch { .. })));
    let empty = SidIndex::from_sids(world.index.layout().clone(), &[], CollisionPolicy::Suffix).unwrap();
    assert!(matches!(Catalogue::new(&empty, &world.vocab), Err(DecodeError::NoItems)));
    assert!(matches!(world.catalogue().excluding([ItemId(0)]), Err(DecodeError::Emptied { before: 1, .. })));
    assert!(matches!(world.catalogue().only([]), Err(DecodeError::Emptied { before: 1, .. })));
    assert!(matches!(world.catalogue().excluding([ItemId(9)]), Err(DecodeError::Index(_))));
    assert!(!world.catalogue().allows(ItemId(1)));
    for length in [0, 4] {
        assert!(matches!(
            FixedLength::new(&world.vocab, length),
            Err(DecodeError::Length { length: l, positions: 3 }) if l == length
        ));
    }
}

#[test]
fn configuration_is_plain_json() {
    let json = serde_json::to_string(&BeamSearch::new(50)).unwrap();
    assert_eq!(json, r#"{"beams":50,"max_tokens":256}"#);
    assert_eq!(serde_json::from_str::<BeamSearch>(r#"{"beams":50}"#).unwrap(), BeamSearch::new(50));
    assert!(serde_json::from_str::<BeamSearch>(r#"{"beam":50}"#).is_err());
}

/// Different parents, the better one with the later tokens, reach one score.
#[test]
fn ties_between_parents_follow_the_tokens_too() {
    let beam = |token: u32, log_prob| {
        let tokens = [token].into_iter().collect();
        Beam { tokens, order: token, log_prob, state: 1, complete: false, mark: (), row: 0 }
    };
    let log_probs = [-9.0, -2.0, -9.0, -1.0];
    let beams = [beam(5, -1.0), Beam { row: 1, ..beam(3, -2.0) }];
    let step = Step { user: 0, key: 0, step: 1, vocab_size: 2, constraint: &Short(2), log_probs: &log_probs };
    let expanded = step.grow(&beams, BeamSearch::new(2).choose(&step, &beams).unwrap()).unwrap();
    let found: Vec<_> = expanded.iter().map(|beam| (beam.tokens.to_vec(), beam.log_prob)).collect();
    assert_eq!(found, [(vec![3, 1], -3.0), (vec![5, 1], -3.0)]);
}

proptest! {
    /// What the floor turns away could not even have tied.
    #[test]
    fn a_value_up_to_the_floor_ends_below_the_threshold(threshold in -500.0f32..0.0, log_prob in -500.0f32..0.0) {
        prop_assert!(log_prob + below(threshold, log_prob) < threshold);
    }
}
