//! The fused engine against candle's autograd: the same loss and gradients, with the same dropout masks.

use candle_core::{Device, Tensor};
use genrec_kernels::CounterRng;
use genrec_model::{
    RaggedBatch, Trainable,
    t5::{FeedForwardKind, T5, T5Config},
};
use proptest::prelude::*;

use super::values;

/// Sequences of 1 to `longest` tokens.
fn batch(seed: u64, rows: u64, vocab: u64, longest: u64, targets: u64) -> RaggedBatch {
    let rng = CounterRng::new(seed);
    let mut batch = RaggedBatch::new();
    for row in 0..rows {
        let rng = rng.stream(row);
        let tokens = |stream: u64, count: u64| -> Vec<u32> {
            (0..count).map(|i| u32::try_from(rng.stream(stream).below(i, vocab)).unwrap()).collect()
        };
        batch.push(&tokens(0, 1 + rng.below(0, longest)), &tokens(1, targets)).unwrap();
    }
    batch
}

/// `model` with every weight a rounding error away, up or down at random.
fn nudged(model: &T5, seed: u64) -> T5 {
    let nudged = T5::new(model.config().clone(), seed, &Device::Cpu).unwrap();
    for (stream, (name, weight)) in (0..).zip(model.parameters().iter()) {
        let rng = CounterRng::new(seed).named("nudged").stream(stream);
        let values = values(weight)
            .into_iter()
            .zip(0..)
            .map(|(value, i)| value * if rng.below(i, 2) == 0 { 1.0 - f32::EPSILON } else { 1.0 + f32::EPSILON });
        let weight = Tensor::from_iter(values, &Device::Cpu).unwrap().reshape(weight.shape()).unwrap();
        nudged.parameters().set(name, &weight).unwrap();
    }
    nudged
}

/// Largest difference of any gradient relative to the largest entry of that gradient. Ten times what a rounding error of
/// the weights changes in a gradient is forgiven, up to a fiftieth: the norm of two channels near zero multiplies rounding
/// errors by thousands, in the oracle too.
fn compare(model: &T5, batch: &RaggedBatch, seed: u64) -> (f32, f32, String) {
    let oracle = model.clone().with_autograd().with_micro_batch(Some(1));
    let (loss, gradients) = model.loss_and_grads(batch, seed).unwrap();
    let (wanted_loss, wanted) = oracle.loss_and_grads(batch, seed).unwrap();
    let (_, near) = nudged(model, seed).with_autograd().with_micro_batch(Some(1)).loss_and_grads(batch, seed).unwrap();
    assert_eq!(gradients.len(), wanted.len());
    let mut worst = (0f32, String::new());
    // Sums whose terms cancel are as exact as their terms, which are of the size of the other gradients.
    let all = wanted.iter().flat_map(|(_, want)| values(want)).fold(0f32, |most, value| most.max(value.abs()));
    let greater = |most: f32, value: f32| if value.is_nan() || value > most { value } else { most };
    let most = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, greater);
    for (((name, got), (_, want)), (_, near)) in gradients.iter().zip(wanted.iter()).zip(near.iter()) {
        assert_eq!(got.dims(), want.dims(), "{name}");
        let (got, want, near) = (values(got), values(want), values(near));
        let top = want.iter().fold(1e-4f32.max(0.01 * all), |m, v| m.max(v.abs()));
        let forgiven = (10.0 * most(&near, &want) / top).min(0.02);
        let far = greater(0.0, most(&got, &want) / top - forgiven);
        if far > worst.0 || far.is_nan() {
            worst = (far, name.to_owned());
        }
    }
    ((loss - wanted_loss).abs() / wanted_loss, worst.0, worst.1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn engine_equals_autograd(
        gated: bool, tied: bool, causal: bool, dropout in 0usize..3, heads in 1usize..4, d_kv in 1usize..12, d_model in 2usize..40,
        d_ff in 1usize..50, layers in (1usize..3, 1usize..3), vocab in 3usize..70,
        rows in 1u64..40, longest in 1u64..40, targets in 1u64..6, seed: u64,
    ) {
        let kind = if gated { FeedForwardKind::GatedGelu } else { FeedForwardKind::Relu };
        // Where sources are encoded at once, so are their masks drawn: the test after this one.
        let dropout = if causal { 0 } else { dropout };
        let mut config = T5Config::cpu(vocab)
            .with_d_model(d_model).with_heads(heads, d_kv).with_d_ff(d_ff).with_layers(layers.0, layers.1)
            .with_feed_forward(kind).with_tied_embeddings(tied).with_causal_encoder(causal).with_dropout_rate([0.0, 0.1, 0.4][dropout]);
        config.relative_attention_num_buckets = 8;
        config.relative_attention_max_distance = 20;
        let model = T5::new(config, seed, &Device::Cpu).unwrap();
        let batch = batch(seed, rows, vocab as u64, longest, targets);
        let (loss, far, name) = compare(&model, &batch, seed);
        prop_assert!(loss < 1e-5, "loss: {loss}");
        prop_assert!(far < 1e-3, "{name}: {far}");
        let plain = model.clone().with_autograd().loss(&batch).unwrap();
        prop_assert!((model.loss(&batch).unwrap() - plain).abs() < 1e-5 * plain);
    }
}

/// Rows of which many are the start of another.
fn prefixes(seed: u64, trunks: u64, vocab: u64, longest: u64) -> RaggedBatch {
    let long = batch(seed, trunks, vocab, longest, 3);
    let rng = CounterRng::new(seed).named("prefixes");
    let mut rows = RaggedBatch::new();
    for i in 0..4 * trunks {
        let rng = rng.stream(i);
        let row = usize::try_from(rng.below(0, trunks)).unwrap();
        let source = long.sequence(row).unwrap();
        let len = 1 + usize::try_from(rng.below(1, source.len() as u64)).unwrap();
        let target: Vec<u32> = (2..5).map(|j| u32::try_from(rng.below(j, vocab)).unwrap()).collect();
        rows.push(&source[..len], &target).unwrap();
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn sources_encoded_at_once_give_what_each_gives_alone(
        trunks in 1u64..12, longest in 1u64..90, vocab in 3usize..70, gated: bool, seed: u64,
    ) {
        let kind = if gated { FeedForwardKind::GatedGelu } else { FeedForwardKind::Relu };
        let config = T5Config::cpu(vocab).with_d_model(24).with_heads(3, 7).with_d_ff(20).with_layers(2, 2)
            .with_feed_forward(kind).with_causal_encoder(true).with_dropout_rate(0.0);
        let model = T5::new(config, seed, &Device::Cpu).unwrap();
        let batch = prefixes(seed, trunks, vocab as u64, longest);
        let (loss, far, name) = compare(&model, &batch, seed);
        prop_assert!(loss < 1e-5, "loss: {loss}");
        prop_assert!(far < 1e-3, "{name}: {far}");
    }
}

#[test]
fn calls_from_the_tasks_of_one_pool_do_not_wait_for_themselves() {
    use genrec_model::Seq2Seq;
    use rayon::prelude::*;

    let model = T5::new(T5Config::cpu(300), 3, &Device::Cpu).unwrap();
    let batches: Vec<RaggedBatch> = (0..6).map(|i| batch(i, 30, 300, 40, 4)).collect();
    let alone: Vec<f32> = batches.iter().map(|batch| model.loss_and_grads(batch, 1).unwrap().0).collect();
    for round in 0..10 {
        // A new version, so that every task finds the packed weights out of date.
        let weight = model.parameters().get("shared.weight").unwrap().copy().unwrap();
        model.parameters().set("shared.weight", &weight).unwrap();
        let together: Vec<f32> = batches
            .par_iter()
            .map(|batch| {
                model.start(batch).unwrap();
                model.loss_and_grads(batch, 1).unwrap().0
            })
            .collect();
        assert_eq!(together, alone, "round {round}");
    }
}

#[test]
fn a_model_is_asked_while_its_weights_change() {
    use genrec_kernels::optim::{Optimizer, OptimizerConfig};
    use rayon::prelude::*;

    let model = T5::new(T5Config::cpu(300), 3, &Device::Cpu).unwrap();
    let batches: Vec<RaggedBatch> = (0..4).map(|i| batch(i, 20, 300, 30, 4)).collect();
    let (_, gradients) = model.loss_and_grads(&batches[0], 1).unwrap();
    let mut optimizer = OptimizerConfig::default().build(model.parameters()).unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for _ in 0..40 {
                optimizer.step(model.parameters(), &gradients, 1e-4).unwrap();
            }
        });
        threads.spawn(|| {
            for _ in 0..20 {
                assert!(batches.par_iter().all(|batch| model.loss(batch).unwrap().is_finite()));
            }
        });
    });
}

#[test]
fn the_papers_model_agrees_and_an_earlier_batch_leaves_no_trace() {
    let batches: Vec<RaggedBatch> = (0..3).map(|i| batch(i, [20, 1, 9][i as usize], 3_027, 81, 4)).collect();
    for causal in [false, true] {
        // Of another seed some ReLU may lie on its kink, where rounding decides whether a gradient passes.
        let model = T5::new(T5Config::paper(3_027).with_causal_encoder(causal), 4, &Device::Cpu).unwrap();
        for (seed, batch) in (7..).zip(&batches) {
            let (loss, far, name) = compare(&model, batch, seed);
            assert!(loss < 1e-6, "loss: {loss}");
            assert!(far < 2e-5, "{name}: {far}");
        }
    }
}
