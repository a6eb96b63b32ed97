use ndarray::array;
use sid_index::{CollisionPolicy, SidLayout};

use super::*;

/// Items 0 to 4: (0,1,0), (0,1,1), (0,2,0), (3,3,0), (0,0,0).
fn world() -> (SidIndex, SidVocab) {
    let layout = SidLayout::new(vec![4, 4]).unwrap().with_suffix(3);
    let vocab = SidVocab::new(&layout, 2).unwrap();
    let codes = array![[0, 1], [0, 1], [0, 2], [3, 3], [0, 0]];
    (SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix).unwrap(), vocab)
}

fn hypotheses(vocab: &SidVocab, sids: &[[u32; 3]]) -> Vec<Hypothesis> {
    let tokens = |sid: &[u32; 3]| (0..3).map(|p| vocab.token(p, sid[p]).unwrap()).collect();
    (1u8..).zip(sids).map(|(i, sid)| Hypothesis { tokens: tokens(sid), log_prob: -f32::from(i) }).collect()
}

fn run(resolve: Resolve, sids: &[[u32; 3]], k: usize) -> (Vec<(u32, f32)>, usize, usize) {
    let (index, vocab) = world();
    let resolved = resolve.resolve(&index, &vocab, &hypotheses(&vocab, sids), k).unwrap();
    for best in &resolved.items {
        assert_eq!(best.sid.codes(), &index.sid(best.item).unwrap()[..]);
    }
    (resolved.items.iter().map(|best| (best.item.0, best.score)).collect(), resolved.invalid, resolved.generated)
}

/// Two items, an unknown suffix, an unknown second code, an unknown first code, an item.
const MIXED: [[u32; 3]; 6] = [[3, 3, 0], [0, 1, 1], [0, 1, 2], [0, 3, 0], [2, 0, 0], [0, 2, 0]];

#[test]
fn exact_passes_over_what_is_no_item() {
    assert_eq!(run(Resolve::Exact, &MIXED, 10), (vec![(3, -1.0), (1, -2.0), (2, -6.0)], 3, 6));
    // Wider beams fill the list; invalid ones are counted among the first three alone.
    assert_eq!(run(Resolve::Exact, &MIXED, 3), (vec![(3, -1.0), (1, -2.0), (2, -6.0)], 1, 3));
    assert_eq!(run(Resolve::Exact, &MIXED, 1), (vec![(3, -1.0)], 0, 1));
    assert_eq!(run(Resolve::Exact, &[], 5), (vec![], 0, 0));
    assert_eq!(run(Resolve::Exact, &[[2, 0, 0], [3, 3, 0]], 2), (vec![(3, -2.0)], 1, 2));
}

#[test]
fn prefixes_stand_for_their_items_once() {
    let two = Resolve::LongestPrefix { at_least: 2 };
    assert_eq!(run(two, &MIXED, 10), (vec![(3, -1.0), (1, -2.0), (0, -3.0), (2, -6.0)], 3, 6));
    let one = Resolve::LongestPrefix { at_least: 1 };
    assert_eq!(run(one, &MIXED, 10), (vec![(3, -1.0), (1, -2.0), (0, -3.0), (4, -4.0), (2, -4.0)], 3, 6));
    assert_eq!(run(one, &MIXED, 4).0, [(3, -1.0), (1, -2.0), (0, -3.0), (4, -4.0)]);
    let any = Resolve::LongestPrefix { at_least: 0 };
    assert_eq!(run(any, &[[2, 0, 0]], 10).0, [(4, -1.0), (0, -1.0), (1, -1.0), (2, -1.0), (3, -1.0)]);
    assert_eq!(run(Resolve::LongestPrefix { at_least: 9 }, &MIXED, 10), run(Resolve::Exact, &MIXED, 10));
}

#[test]
fn counting_goes_on_when_the_list_is_full() {
    let sids = [[0, 3, 0], [2, 0, 0], [3, 3, 1]];
    assert_eq!(run(Resolve::LongestPrefix { at_least: 1 }, &sids, 3).1, 3);
}

#[test]
fn refused_items_are_passed_over() {
    let (index, vocab) = world();
    let found = hypotheses(&vocab, &MIXED);
    let resolve = Resolve::LongestPrefix { at_least: 1 };
    let kept = resolve.resolve_where(&index, &vocab, &found, 10, |item| item.0 % 2 == 0).unwrap();
    assert_eq!(kept.items.iter().map(|best| best.item.0).collect::<Vec<_>>(), [0, 4, 2]);
}

#[test]
fn items_that_share_a_semantic_id_come_together() {
    let layout = SidLayout::new(vec![4]).unwrap().without_suffix();
    let vocab = SidVocab::new(&layout, 2).unwrap();
    let index = SidIndex::from_codes(layout, array![[2], [1], [2]].view(), CollisionPolicy::Share).unwrap();
    let found = [Hypothesis { tokens: vec![vocab.token(0, 2).unwrap()], log_prob: -1.0 }];
    let resolved = Resolve::Exact.resolve(&index, &vocab, &found, 5).unwrap();
    assert_eq!(resolved.items.iter().map(|best| best.item.0).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(Resolve::Exact.resolve(&index, &vocab, &found, 1).unwrap().items.len(), 1);
}

#[test]
fn sequences_of_other_tokens_or_lengths_are_invalid() {
    let (index, vocab) = world();
    let good = hypotheses(&vocab, &[[3, 3, 0]]).remove(0).tokens;
    let odd = [
        vec![],
        good[..2].to_vec(),
        [&good[..], &[1]].concat(),
        vec![good[1], good[0], good[2]],
        vec![vocab.user("a").unwrap(), SidVocab::PAD, u32::MAX],
    ];
    let found: Vec<Hypothesis> = odd.into_iter().map(|tokens| Hypothesis { tokens, log_prob: -1.0 }).collect();
    let resolved = Resolve::Exact.resolve(&index, &vocab, &found, 10).unwrap();
    assert_eq!((resolved.items.len(), resolved.invalid, resolved.generated), (0, 5, 5));
    let resolved = Resolve::LongestPrefix { at_least: 2 }.resolve(&index, &vocab, &found, 10).unwrap();
    assert_eq!((resolved.items.len(), resolved.invalid), (1, 5));
}

#[test]
fn misuse_is_a_typed_error() {
    let (index, vocab) = world();
    assert!(matches!(Resolve::Exact.resolve(&index, &vocab, &[], 0), Err(DecodeError::NoResults)));
    let other = SidVocab::new(&SidLayout::new(vec![4, 4]).unwrap(), 2).unwrap();
    assert!(matches!(Resolve::Exact.resolve(&index, &other, &[], 1), Err(DecodeError::VocabMismatch { .. })));
}

#[test]
fn configuration_is_plain_json() {
    let resolve = Resolve::LongestPrefix { at_least: 3 };
    let json = serde_json::to_string(&resolve).unwrap();
    assert_eq!(json, r#"{"type":"longest_prefix","at_least":3}"#);
    assert_eq!(serde_json::from_str::<Resolve>(&json).unwrap(), resolve);
    assert_eq!(serde_json::from_str::<Resolve>(r#"{"type":"exact"}"#).unwrap(), Resolve::Exact);
    assert!(serde_json::from_str::<Resolve>(r#"{"type":"longest_prefix","at_least":3,"at_most":4}"#).is_err());
}
