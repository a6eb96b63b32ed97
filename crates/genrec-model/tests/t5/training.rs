//! Determinism, micro-batches, dropout and the loss itself.

use candle_core::Device;
use genrec_kernels::{
    CounterRng,
    optim::{AdamW, AdamWConfig, Optimizer},
};
use genrec_model::{
    Gradients, RaggedBatch, Trainable,
    t5::{T5, T5Config},
};

use super::{batch, row_argmax, tiny, values, variants};

/// Sequences of 1 to 12 tokens with targets of 3.
pub(super) fn examples(rows: u64, vocab: u64) -> RaggedBatch {
    let rng = CounterRng::new(9);
    let mut batch = RaggedBatch::new();
    for row in 0..rows {
        let rng = rng.stream(row);
        let token = |i: u64| u32::try_from(2 + rng.below(i, vocab - 2)).unwrap();
        let source: Vec<u32> = (0..1 + rng.below(100, 12)).map(token).collect();
        batch.push(&source, &[token(50), token(51), token(52)]).unwrap();
    }
    batch
}

pub(super) fn flat(gradients: &Gradients) -> Vec<f32> {
    gradients.iter().flat_map(|(_, gradient)| values(gradient)).collect()
}

#[test]
fn the_loss_is_the_mean_negative_log_likelihood() {
    for config in variants(19) {
        let model = T5::new(config, 2, &Device::Cpu).unwrap().with_micro_batch(Some(3));
        let batch = examples(10, 19);
        let graph = model.clone().with_autograd();
        let logits = model.logits(&batch).unwrap().to_vec3::<f32>().unwrap();
        let mut total = 0.0;
        for (row, target) in logits.iter().zip(batch.labels().chunks(3)) {
            for (scores, label) in row.iter().zip(target) {
                let norm = scores.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
                total += norm - f64::from(scores[*label as usize]);
            }
        }
        let expected = total / 30.0;
        for model in [model, graph] {
            assert!((f64::from(model.loss(&batch).unwrap()) - expected).abs() < 1e-5);
            assert!((f64::from(model.loss_and_grads(&batch, 4).unwrap().0) - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn micro_batches_change_rounding_alone() {
    let whole = T5::new(tiny(19), 2, &Device::Cpu).unwrap().with_autograd().with_micro_batch(None);
    let batch = examples(13, 19);
    let (loss, gradients) = whole.loss_and_grads(&batch, 0).unwrap();
    for rows in [0, 1, 4, 100] {
        let (other, others) = whole.clone().with_micro_batch(Some(rows)).loss_and_grads(&batch, 0).unwrap();
        assert!((loss - other).abs() < 1e-5);
        for (a, b) in flat(&gradients).iter().zip(flat(&others)) {
            assert!((a - b).abs() < 1e-5 + 1e-4 * a.abs(), "{a} {b}");
        }
    }
}

#[test]
fn equal_arguments_give_equal_bytes_at_any_number_of_threads() {
    let engine = T5::new(T5Config::cpu(40).with_dropout_rate(0.1), 11, &Device::Cpu).unwrap();
    let graph = engine.clone().with_autograd().with_micro_batch(Some(4));
    // Some 2,800 positions: several chunks in each share.
    for (model, batch) in [(engine, examples(300, 40)), (graph, examples(21, 40))] {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (loss, gradients) = model.loss_and_grads(&batch, 3).unwrap();
                (loss.to_bits(), flat(&gradients).iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            })
        };
        let one = run(1);
        assert_eq!(one, run(1));
        assert_eq!(one, run(2));
        assert_eq!(one, run(3));
        assert_eq!(one, run(8));
    }
}

#[test]
fn seeds_matter() {
    let weights = |seed| {
        let model = T5::new(tiny(19), seed, &Device::Cpu).unwrap();
        values(model.parameters().get("encoder.block.0.layer.0.SelfAttention.q.weight").unwrap())
    };
    assert_eq!(weights(1), weights(1));
    assert_ne!(weights(1), weights(2));
    let model = T5::new(tiny(19).with_dropout_rate(0.3), 1, &Device::Cpu).unwrap();
    let batch = examples(5, 19);
    let loss = |seed| model.loss_and_grads(&batch, seed).unwrap().0;
    assert_eq!(loss(1), loss(1));
    assert_ne!(loss(1), loss(2));
    assert_ne!(loss(1), model.loss(&batch).unwrap());
}

#[test]
fn dropout_averages_out() {
    let model = T5::new(tiny(19).with_dropout_rate(0.05), 1, &Device::Cpu).unwrap();
    let batch = examples(40, 19);
    let losses: Vec<f32> = (0..40).map(|seed| model.loss_and_grads(&batch, seed).unwrap().0).collect();
    let mean = losses.iter().sum::<f32>() / 40.0;
    let without = model.loss(&batch).unwrap();
    assert!((mean - without).abs() < 0.1 * without, "mean {mean}, without dropout {without}");
}

#[test]
fn initial_scales_are_those_of_the_reference() {
    let config = T5Config::paper(500).with_tied_embeddings(false);
    let model = T5::new(config, 1, &Device::Cpu).unwrap();
    let std = |name: &str| {
        let values = values(model.parameters().get(name).unwrap());
        (values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    };
    for (name, expected) in [
        ("shared.weight", 1.0),
        ("lm_head.weight", 1.0),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", (128.0f64 * 64.0).powf(-0.5)),
        ("decoder.block.3.layer.1.EncDecAttention.k.weight", 128f64.powf(-0.5)),
        ("decoder.block.3.layer.1.EncDecAttention.o.weight", 384f64.powf(-0.5)),
        ("encoder.block.2.layer.1.DenseReluDense.wi.weight", 128f64.powf(-0.5)),
        ("encoder.block.2.layer.1.DenseReluDense.wo.weight", 1024f64.powf(-0.5)),
        ("encoder.final_layer_norm.weight", 1.0),
    ] {
        assert!((std(name) / expected - 1.0).abs() < 0.02, "{name}: {} for {expected}", std(name));
    }
}

#[test]
fn the_presets_have_the_published_sizes() {
    let paper = T5::new(T5Config::paper(3_027), 0, &Device::Cpu).unwrap();
    assert!((4.7e6..4.9e6).contains(&(paper.num_parameters() as f64)), "{}", paper.num_parameters());
    let cpu = T5::new(T5Config::cpu(3_027), 0, &Device::Cpu).unwrap();
    assert!(cpu.num_parameters() < 1_500_000, "{}", cpu.num_parameters());
}

#[test]
fn a_small_model_learns_a_small_data_set_by_heart() {
    let config = tiny(24).with_d_model(32).with_heads(4, 8).with_d_ff(64).with_layers(1, 1);
    let model = T5::new(config, 1, &Device::Cpu).unwrap();
    let batch = examples(12, 24);
    let mut optimizer = AdamW::new(AdamWConfig::default(), model.parameters()).unwrap();
    let first = model.loss(&batch).unwrap();
    for step in 0..150 {
        let (_, gradients) = model.loss_and_grads(&batch, step).unwrap();
        optimizer.step(model.parameters(), &gradients, 5e-3).unwrap();
    }
    let last = model.loss(&batch).unwrap();
    assert!(first > 2.0 && last < 0.02, "from {first} to {last}");
    let logits = model.logits(&batch).unwrap();
    assert_eq!(row_argmax(&logits.flatten_to(1).unwrap()), batch.labels());
}

#[test]
fn wrong_batches_are_named() {
    let model = T5::new(tiny(19), 2, &Device::Cpu).unwrap();
    let text = |batch: &RaggedBatch| {
        // candle appends a backtrace where the environment asks for one.
        let first = |error: candle_core::Error| error.to_string().lines().next().unwrap().to_owned();
        let text = first(model.loss(batch).unwrap_err());
        assert_eq!(text, first(model.loss_and_grads(batch, 0).unwrap_err()));
        assert_eq!(text, first(model.logits(batch).unwrap_err()));
        text
    };
    assert!(text(&RaggedBatch::new()).contains("holds no sequence"));
    assert!(text(&batch(&[(vec![1], vec![])])).contains("has no labels"));
    assert!(text(&batch(&[(vec![], vec![1])])).contains("sequence 0 is empty"));
    assert!(text(&batch(&[(vec![19], vec![1])])).contains("token 19 at position 0"));
    let label = text(&batch(&[(vec![1], vec![1, 2]), (vec![1], vec![3, 30])]));
    assert!(label.contains("label 30 at position 1 of sequence 1 is outside the vocabulary of 19"), "{label}");
}
