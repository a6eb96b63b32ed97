//! Scores of the whole catalogue.

use candle_core::Device;
use genrec_model::{
    ItemScorer, RaggedBatch, Trainable,
    sasrec::{SasRec, SasRecConfig},
};

use super::{batch, largest_difference, random_model, reference::Reference, sequences, tiny, values, variants};

#[test]
fn scores_are_those_of_the_plain_loops() {
    let rows = sequences(5, 70, 7, 12);
    assert!(rows.iter().any(Vec::is_empty) && rows.iter().any(|row| row.len() > 7));
    for config in variants(7) {
        let model = random_model(config, 9);
        let reference = Reference::new(&model);
        for model in [model.clone(), model.with_autograd()] {
            let scores = model.scores(&batch(&rows)).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(scores.len(), rows.len());
            for (scores, row) in scores.iter().zip(&rows) {
                let expected = reference.scores(&row[row.len().saturating_sub(7)..]).pop().unwrap_or(vec![0.0; 7]);
                for (score, expected) in scores.iter().zip(expected) {
                    assert!((f64::from(*score) - expected).abs() < 1e-4, "{row:?}: {score} {expected}");
                }
            }
        }
    }
}

/// However a batch is cut and shared out, to the last bit.
#[test]
fn a_history_does_not_depend_on_the_others() {
    let model = random_model(SasRecConfig::new(120).with_heads(2), 9);
    let rows = sequences(8, 50, 120, 60);
    let together = model.scores(&batch(&rows)).unwrap();
    for (i, row) in rows.iter().enumerate() {
        let alone = model.scores(&batch(std::slice::from_ref(row))).unwrap();
        assert_eq!(values(&together.get(i).unwrap()), values(&alone), "{i}");
    }
}

#[test]
fn threads_may_share_a_model() {
    fn shared<T: ItemScorer + Send + Sync + Clone>(_: &T) {}
    let model = random_model(tiny(7), 1);
    shared(&model);
    let histories = batch(&sequences(2, 40, 7, 9));
    let alone = values(&model.scores(&histories).unwrap());
    std::thread::scope(|scope| {
        let other = || assert_eq!(values(&model.scores(&histories).unwrap()), alone);
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(other)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn what_lies_before_the_last_positions_is_not_read() {
    let model = random_model(tiny(7), 1);
    let long = model.scores(&batch(&[vec![4, 5, 6, 1, 2, 3, 4, 5, 6, 0]])).unwrap();
    let other = model.scores(&batch(&[vec![0, 0, 0, 1, 2, 3, 4, 5, 6, 0]])).unwrap();
    assert_eq!(values(&long), values(&other));
    let changed = model.scores(&batch(&[vec![4, 5, 6, 2, 2, 3, 4, 5, 6, 0]])).unwrap();
    assert!(largest_difference(&long, &changed) > 1e-4);
}

#[test]
fn changed_weights_are_seen() {
    let model = random_model(tiny(7), 1);
    let histories = batch(&[vec![4, 5, 6]]);
    let before = model.scores(&histories).unwrap();
    let table = model.parameters().get("item_embedding.weight").unwrap().affine(2.0, 0.0).unwrap();
    model.parameters().set("item_embedding.weight", &table).unwrap();
    assert!(largest_difference(&before, &model.scores(&histories).unwrap()) > 1e-3);
}

#[test]
fn wrong_histories_are_named() {
    let engine = SasRec::new(tiny(7), 2, &Device::Cpu).unwrap();
    for model in [engine.clone(), engine.with_autograd()] {
        let text = |batch: &RaggedBatch| model.scores(batch).unwrap_err().to_string();
        assert!(text(&RaggedBatch::new()).contains("holds no sequence"));
        let past = text(&batch(&[vec![1], vec![0, 7]]));
        assert!(past.contains("history 1 names item 7, but the catalogue has 7 items"), "{past}");
        assert_eq!(values(&model.scores(&batch(&[vec![]])).unwrap()), [0.0; 7]);
    }
}
