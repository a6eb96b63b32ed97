use proptest::prelude::*;
use sid_index::{CollisionPolicy, SidIndex, SidLayout, SidVocab};

use super::*;
use crate::{catalogue::Catalogue, toy::Toy};

fn batch(histories: &[Vec<u32>]) -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    histories.iter().for_each(|history| batch.push(history, &[]).unwrap());
    batch
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Brute force over the catalogue, a beam as wide as it, and the pruned walk agree, however narrow its first search.
    #[test]
    fn all_ways_to_the_best_agree(
        codes in prop::collection::vec(prop::array::uniform3(0u32..4), 1..40),
        histories in prop::collection::vec(prop::collection::vec(0u32..9, 0..4), 1..4),
        seed: u64, logits in 1u64..1000, k in 1usize..8, beams in 1usize..9,
    ) {
        let layout = SidLayout::new(vec![4; 3]).unwrap();
        let rows = ndarray::Array2::from_shape_vec((codes.len(), 3), codes.concat()).unwrap();
        let index = SidIndex::from_codes(layout.clone(), rows.view(), CollisionPolicy::Suffix).unwrap();
        let vocab = SidVocab::new(&layout, 1).unwrap();
        let toy = Toy::new(vocab.size(), seed, logits);
        let catalogue = Catalogue::new(&index, &vocab).unwrap();
        let search = ExactSearch { beams, ..ExactSearch::new(k) };
        let found = search.decode(&toy, &batch(&histories), &[&catalogue]).unwrap();
        let wide = BeamSearch::new(codes.len()).decode(&toy, &batch(&histories), &[&catalogue]).unwrap();
        for ((history, found), wide) in histories.iter().zip(&found).zip(&wide) {
            let mut all: Vec<Hypothesis> = index.sids().map(|(_, sid)| {
                let mut tokens = Vec::new();
                vocab.encode_sid(&sid, &mut tokens).unwrap();
                Hypothesis { log_prob: toy.score(history, &tokens), tokens }
            }).collect();
            all.sort_by(|a, b| b.log_prob.total_cmp(&a.log_prob).then_with(|| a.tokens.cmp(&b.tokens)));
            prop_assert_eq!(&all, wide);
            all.truncate(k);
            prop_assert_eq!(&all, found);
        }
    }
}

#[test]
fn a_walk_that_grows_too_wide_says_so() {
    let layout = SidLayout::new(vec![6; 2]).unwrap();
    let rows = ndarray::Array2::from_shape_fn((36, 2), |(i, level)| [i / 6, i % 6][level] as u32);
    let index = SidIndex::from_codes(layout.clone(), rows.view(), CollisionPolicy::Suffix).unwrap();
    let vocab = SidVocab::new(&layout, 1).unwrap();
    let catalogue = Catalogue::new(&index, &vocab).unwrap();
    // All sequences are equally probable.
    let toy = Toy::new(vocab.size(), 1, 1);
    let narrow = ExactSearch::new(2).with_max_rows(20);
    let error = narrow.decode(&toy, &batch(&[vec![1]]), &[&catalogue]).unwrap_err();
    assert!(matches!(error, DecodeError::TooWide { user: 0, step: 1, max_rows: 20 }), "{error}");
    assert_eq!(narrow.with_max_rows(36).decode(&toy, &batch(&[vec![1]]), &[&catalogue]).unwrap()[0].len(), 2);
    let unbounded = narrow.with_max_rows(usize::MAX);
    assert_eq!(unbounded.decode(&toy, &batch(&[vec![1]]), &[&catalogue]).unwrap()[0].len(), 2);
    assert!(matches!(ExactSearch::new(0).validate(), Err(DecodeError::NoBeams)));
}
