//! Decoding step by step is teacher forcing, whatever else is in the batch and however rows are permuted.

use candle_core::Device;
use genrec_model::{DecodeState, RaggedBatch, Seq2Seq, t5::T5};
use proptest::prelude::*;

use super::{batch, ids, largest_difference, next, tiny, values, variants};

const VOCAB: u32 = 23;

fn source() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(0..VOCAB, 1..15)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A random walk over the operations of beam search: feed tokens, then select rows with repetition, reordering and
    /// loss, so that rows are grouped evenly, unevenly and not at all.
    #[test]
    fn steps_are_teacher_forcing(
        variant in 0usize..5,
        graph: bool,
        seed in 0u64..1000,
        sources in proptest::collection::vec(source(), 1..4),
        walk in proptest::collection::vec((any::<u64>(), 1usize..7, any::<bool>()), 1..5),
    ) {
        let model = T5::new(variants(VOCAB as usize)[variant].clone(), seed, &Device::Cpu).unwrap();
        let model = if graph { model.with_autograd() } else { model };
        let rows: Vec<_> = sources.iter().map(|source| (source.clone(), vec![])).collect();
        let mut state = model.start(&batch(&rows)).unwrap();
        // The user and the tokens decoded so far of every row, first the start token.
        let mut expected: Vec<(usize, Vec<u32>)> = (0..sources.len()).map(|user| (user, vec![])).collect();
        let mut tokens = vec![model.decoder_start_token(); sources.len()];
        for (word, width, even) in walk {
            let found = model.step(&ids(&tokens), &mut state).unwrap();
            prop_assert_eq!(found.dims(), [expected.len(), VOCAB as usize]);
            for (row, (user, prefix)) in expected.iter().enumerate() {
                let oracle = next(&model, &sources[*user], prefix).unwrap();
                let difference = largest_difference(&found.get(row).unwrap(), &oracle);
                let greatest = values(&oracle).into_iter().fold(1f32, |top, value| top.max(value.abs()));
                prop_assert!(difference < 1e-5 * greatest, "row {row} differs by {difference}");
            }
            let count = expected.len() as u64;
            let draw = |i: u64| word.rotate_left((i % 64) as u32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            let selected: Vec<u32> = if even {
                (0..count).flat_map(|row| std::iter::repeat_n(row as u32, width.min(3))).collect()
            } else {
                (0..width as u64).map(|i| (draw(i) % count) as u32).collect()
            };
            state.select_rows(&ids(&selected)).unwrap();
            prop_assert_eq!(state.rows(), selected.len());
            expected = selected.iter().map(|row| expected[*row as usize].clone()).collect();
            tokens = (0..selected.len() as u64).map(|i| (draw(i + 7) % u64::from(VOCAB)) as u32).collect();
            for ((_, prefix), token) in expected.iter_mut().zip(&tokens) {
                prefix.push(*token);
            }
        }
    }

    /// A row's outputs do not depend on the rows beside it or on their lengths.
    #[test]
    fn rows_do_not_influence_one_another(
        variant in 0usize..5,
        seed in 0u64..1000,
        sources in proptest::collection::vec(source(), 2..6),
        target in proptest::collection::vec(0..VOCAB, 3),
    ) {
        let model = T5::new(variants(VOCAB as usize)[variant].clone(), seed, &Device::Cpu).unwrap();
        let rows: Vec<_> = sources.iter().map(|source| (source.clone(), target.clone())).collect();
        let together = model.logits(&batch(&rows)).unwrap();
        for (i, row) in rows.iter().enumerate() {
            let alone = model.logits(&batch(std::slice::from_ref(row))).unwrap();
            let alone = alone.get(0).unwrap();
            let difference = largest_difference(&together.get(i).unwrap(), &alone);
            let greatest = values(&alone).into_iter().fold(1f32, |top, value| top.max(value.abs()));
            prop_assert!(difference < 1e-5 * greatest, "row {i} differs by {difference}");
        }
    }
}

/// A user alone is encoded by all threads.
#[test]
fn a_long_source_alone_is_teacher_forcing() {
    for causal in [false, true] {
        let model = T5::new(tiny(VOCAB as usize).with_causal_encoder(causal), 8, &Device::Cpu).unwrap();
        let source: Vec<u32> = (0..83).map(|i| (i * 7 + i / 5) % VOCAB).collect();
        let mut state = model.start(&batch(&[(source.clone(), vec![])])).unwrap();
        let found = model.step(&ids(&[model.decoder_start_token()]), &mut state).unwrap();
        let difference = largest_difference(&found.get(0).unwrap(), &next(&model, &source, &[]).unwrap());
        assert!(difference < 1e-5, "{difference}");
    }
}

#[test]
fn a_state_of_another_model_is_refused() {
    let [a, b] = [3, 4].map(|seed| T5::new(tiny(23), seed, &Device::Cpu).unwrap());
    for b in [b.clone(), b.with_autograd()] {
        let mut state = a.start(&batch(&[(vec![4, 5, 6], vec![])])).unwrap();
        let error = b.step(&ids(&[0]), &mut state).unwrap_err().to_string();
        assert!(error.contains("started by another model"), "{error}");
        assert_eq!(state.position(), 0);
        a.step(&ids(&[0]), &mut state).unwrap();
    }
}

#[test]
fn a_step_returns_log_probabilities() {
    let model = T5::new(tiny(23), 3, &Device::Cpu).unwrap();
    let mut state = model.start(&batch(&[(vec![4, 5, 6], vec![]), (vec![7], vec![])])).unwrap();
    assert_eq!((state.rows(), state.position(), state.sequences()), (2, 0, &[0, 1][..]));
    let found = model.step(&ids(&[0, 0]), &mut state).unwrap();
    for row in found.to_vec2::<f32>().unwrap() {
        assert!((row.iter().map(|x| x.exp()).sum::<f32>() - 1.0).abs() < 1e-5);
    }
    assert_eq!(state.position(), 1);
}

#[test]
fn the_model_and_a_cloned_state_are_not_changed_by_a_step() {
    let model = T5::new(tiny(23), 3, &Device::Cpu).unwrap();
    let mut state = model.start(&batch(&[(vec![4, 5, 6], vec![])])).unwrap();
    model.step(&ids(&[0]), &mut state).unwrap();
    let mut other = state.clone();
    let first = model.step(&ids(&[9]), &mut state).unwrap();
    model.step(&ids(&[2]), &mut state).unwrap();
    let again = model.step(&ids(&[9]), &mut other).unwrap();
    assert_eq!(values(&first), values(&again));
}

#[test]
fn wrong_inputs_are_named() {
    let model = T5::new(tiny(23), 3, &Device::Cpu).unwrap();
    let text = |result: candle_core::Result<_>| result.map(|_: ()| ()).unwrap_err().to_string();
    let start = |batch: &RaggedBatch| model.start(batch).map(|_| ());
    assert!(text(start(&RaggedBatch::new())).contains("holds no sequence"));
    assert!(text(start(&batch(&[(vec![3], vec![]), (vec![], vec![])]))).contains("sequence 1 is empty"));
    let outside = text(start(&batch(&[(vec![3, 23], vec![])])));
    assert!(outside.contains("token 23 at position 1 of sequence 0 is outside the vocabulary of 23"), "{outside}");

    let mut state = model.start(&batch(&[(vec![3], vec![])])).unwrap();
    assert!(text(model.step(&ids(&[0, 0]), &mut state).map(|_| ())).contains("2 tokens were given for 1 rows"));
    assert!(text(model.step(&ids(&[99]), &mut state).map(|_| ())).contains("token 99"));
    assert!(text(state.select_rows(&ids(&[1]))).contains("row 1 was selected, but the state has 1 rows"));
    assert!(text(state.select_rows(&ids(&[]))).contains("holds no sequence"));
    assert_eq!(state.rows(), 1);
    model.step(&ids(&[0]), &mut state).unwrap();
}
