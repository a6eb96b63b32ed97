//! Determinism, seeds, what is learnt, and what is refused.

use candle_core::Device;
use genrec_kernels::optim::{AdamW, AdamWConfig, Optimizer};
use genrec_model::{
    BatchShare, Gradients, ItemScorer, RaggedBatch, Trainable,
    sasrec::{SasRec, SasRecConfig, SasRecLoss},
};

use super::{batch, sequences, tiny, values, variants};

fn flat(gradients: &Gradients) -> Vec<u32> {
    gradients.iter().flat_map(|(_, gradient)| values(gradient)).map(f32::to_bits).collect()
}

#[test]
fn equal_arguments_give_equal_bytes_at_any_number_of_threads() {
    for loss in [SasRecLoss::full_cross_entropy(), SasRecLoss::bce(4)] {
        let engine = SasRec::new(SasRecConfig::new(40).with_loss(loss), 11, &Device::Cpu).unwrap();
        // Some 4,000 positions: several chunks in each share.
        for (model, rows) in [(engine.clone(), 300), (engine.with_autograd(), 20)] {
            let batch = batch(&sequences(1, rows, 40, 30));
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let (loss, gradients) = model.loss_and_grads(&batch, 3).unwrap();
                    let scores: Vec<u32> =
                        values(&model.scores(&batch).unwrap()).into_iter().map(f32::to_bits).collect();
                    (loss.to_bits(), flat(&gradients), scores)
                })
            };
            let one = run(1);
            assert_eq!(one, run(1));
            assert_eq!(one, run(2));
            assert_eq!(one, run(3));
            assert_eq!(one, run(8));
        }
    }
}

#[test]
fn workers_add_up_to_one() {
    for config in variants(40) {
        let engine = SasRec::new(config.with_dropout_rate(0.2), 11, &Device::Cpu).unwrap();
        for (model, rows) in [(engine.clone(), 400), (engine.clone(), 3), (engine.with_autograd(), 9)] {
            let batch = batch(&sequences(1, rows, 40, 30));
            let (loss, gradients) = model.loss_and_grads(&batch, 3).unwrap();
            let whole: Vec<f32> = gradients.iter().flat_map(|(_, gradient)| values(gradient)).collect();
            for ranks in [2, 3, 10] {
                let (mut total, mut sum) = (0.0, vec![0.0; whole.len()]);
                for rank in 0..ranks {
                    let share = BatchShare::new(rank, ranks).unwrap();
                    let (loss, gradients) = model.share_loss_and_grads(&batch, share, 3).unwrap();
                    total += loss;
                    let part = gradients.iter().flat_map(|(_, gradient)| values(gradient));
                    sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                }
                assert!((total - loss).abs() <= 1e-5 * loss, "{ranks} workers: {total} {loss}");
                for (a, b) in whole.iter().zip(&sum) {
                    assert!((a - b).abs() < 1e-6 + 1e-4 * a.abs(), "{ranks} workers: {a} {b}");
                }
            }
        }
    }
}

#[test]
fn seeds_matter() {
    let weights = |seed| {
        let model = SasRec::new(tiny(19), seed, &Device::Cpu).unwrap();
        values(model.parameters().get("blocks.0.attention.q.weight").unwrap())
    };
    assert_eq!(weights(1), weights(1));
    assert_ne!(weights(1), weights(2));
    let batch = batch(&sequences(1, 9, 19, 9));
    for config in [tiny(19).with_dropout_rate(0.3), tiny(19).with_loss(SasRecLoss::bce(1))] {
        let model = SasRec::new(config, 1, &Device::Cpu).unwrap();
        let loss = |seed| model.loss_and_grads(&batch, seed).unwrap().0;
        assert_eq!(loss(5), loss(5));
        assert_ne!(loss(5), loss(6));
        assert_ne!(loss(5), model.loss(&batch).unwrap());
    }
}

#[test]
fn initial_scales_are_xaviers() {
    let model = SasRec::new(SasRecConfig::new(2_000).with_d_model(96).with_d_ff(300), 1, &Device::Cpu).unwrap();
    for (name, fans) in [
        ("item_embedding.weight", 2_096),
        ("position_embedding.weight", 146),
        ("blocks.1.attention.v.weight", 192),
        ("blocks.0.feed_forward.output.weight", 396),
    ] {
        let values = values(model.parameters().get(name).unwrap());
        let std = (values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        let expected = (2.0 / f64::from(fans)).sqrt();
        assert!((std / expected - 1.0).abs() < 0.03, "{name}: {std} for {expected}");
    }
    let constant = |name: &str| values(model.parameters().get(name).unwrap())[5];
    assert_eq!(constant("blocks.1.attention_norm.weight"), 1.0);
    assert_eq!(constant("blocks.1.feed_forward.input.bias"), 0.0);
    let sum: usize = model.parameters().iter().map(|(_, weight)| weight.elem_count()).sum();
    assert_eq!((model.num_parameters(), model.items()), (sum, 2_000));
}

#[test]
fn the_next_item_of_a_cycle_is_learnt() {
    // Forwards and backwards around the same items: one item alone does not tell which follows.
    let cycle = |start: u32, step: u32, len: u32| (0..len).map(|i| (start + i * step) % 40).collect::<Vec<u32>>();
    let rows: Vec<Vec<u32>> = (0..40).flat_map(|start| [cycle(start, 1, 9), cycle(start, 39, 9)]).collect();
    for loss in [SasRecLoss::full_cross_entropy(), SasRecLoss::bce(4)] {
        let sampled = matches!(loss, SasRecLoss::Bce { .. });
        let config = SasRecConfig::new(40).with_d_model(24).with_max_len(10).with_dropout_rate(0.1).with_loss(loss);
        let model = SasRec::new(config, 1, &Device::Cpu).unwrap();
        let mut optimizer = AdamW::new(AdamWConfig::default(), model.parameters()).unwrap();
        for step in 0..200 {
            let (_, gradients) = model.loss_and_grads(&batch(&rows), step).unwrap();
            optimizer.step(model.parameters(), &gradients, 5e-3).unwrap();
        }
        let histories: Vec<Vec<u32>> = rows.iter().map(|row| row[2..6].to_vec()).collect();
        let scores = model.scores(&batch(&histories)).unwrap().to_vec2::<f32>().unwrap();
        for (row, scores) in rows.iter().zip(scores) {
            // The rest of the sequence is never a negative of the binary loss.
            let rivals = |item: &usize| !sampled || !row.contains(&(*item as u32));
            let best = (0..40).filter(rivals).map(|item| scores[item]).fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(scores[row[6] as usize].max(best), scores[row[6] as usize], "{row:?}");
        }
    }
}

#[test]
fn dropout_averages_out() {
    let model = SasRec::new(tiny(19).with_dropout_rate(0.05), 1, &Device::Cpu).unwrap();
    let batch = batch(&sequences(1, 40, 19, 9));
    let losses: Vec<f32> = (0..40).map(|seed| model.loss_and_grads(&batch, seed).unwrap().0).collect();
    let mean = losses.iter().sum::<f32>() / 40.0;
    let without = model.loss(&batch).unwrap();
    assert!((mean - without).abs() < 0.1 * without, "mean {mean}, without dropout {without}");
}

#[test]
fn a_sequence_of_every_item_has_no_negatives() {
    let engine = SasRec::new(tiny(3).with_loss(SasRecLoss::bce(2)), 1, &Device::Cpu).unwrap();
    let all = batch(&[vec![0, 1, 2]]);
    let scores = engine.scores(&batch(&[vec![0, 1]])).unwrap();
    assert!(values(&scores).iter().all(|score| score.is_finite()));
    let graph = engine.clone().with_autograd();
    let (loss, expected) = (engine.loss(&all).unwrap(), graph.loss(&all).unwrap());
    assert!((loss - expected).abs() < 1e-6 && (0.2..2.0).contains(&loss), "{loss} {expected}");
}

#[test]
fn wrong_batches_are_named() {
    for config in variants(19) {
        let engine = SasRec::new(config, 2, &Device::Cpu).unwrap();
        for model in [engine.clone(), engine.with_autograd()] {
            let text = |batch: &RaggedBatch| {
                // candle appends a backtrace where the environment asks for one.
                let first = |error: candle_core::Error| error.to_string().lines().next().unwrap().to_owned();
                let text = first(model.loss(batch).unwrap_err());
                assert_eq!(text, first(model.loss_and_grads(batch, 0).unwrap_err()));
                text
            };
            assert!(text(&RaggedBatch::new()).contains("holds no sequence"));
            assert!(text(&batch(&[vec![1], vec![]])).contains("nothing to predict"));
            let item = text(&batch(&[vec![1, 2], vec![3, 19, 4]]));
            assert!(item.contains("history 1 names item 19, but the catalogue has 19 items"), "{item}");
            let labels = RaggedBatch::from_parts(vec![1, 2], vec![0, 2], vec![3]).unwrap();
            assert!(text(&labels).contains("the batch has 1 labels"));
        }
    }
}
