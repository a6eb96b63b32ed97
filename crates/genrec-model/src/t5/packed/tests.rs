//! The packed layers on the CPU, where compositions stand in for the kernels, against the graph.

use candle_core::{DType, Device};
use genrec_kernels::CounterRng;
use proptest::prelude::*;

use super::*;
use crate::{
    seq2seq::{DecodeState, Seq2Seq, Trainable},
    t5::T5,
};

fn batch(seed: u64, rows: u64, vocab: u64, longest: u64, targets: u64) -> RaggedBatch {
    let rng = CounterRng::new(seed);
    let mut batch = RaggedBatch::new();
    for row in 0..rows {
        let rng = rng.stream(row);
        let tokens = |stream: u64, count: u64| -> Vec<u32> {
            (0..count).map(|i| rng.stream(stream).below(i, vocab) as u32).collect()
        };
        batch.push(&tokens(0, 1 + rng.below(0, longest)), &tokens(1, targets)).unwrap();
    }
    batch
}

/// Loss and gradients by the packed layers, in `f32`.
fn packed(
    config: &T5Config,
    params: &Parameters,
    batch: &RaggedBatch,
    rng: Option<CounterRng>,
    backward: bool,
) -> Result<(f32, Gradients)> {
    loss(config, params, &Layers::new(config, params, DType::F32)?, batch, rng, backward)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn packed_equals_the_graph(
        tied: bool, causal: bool, heads in 1usize..4, d_kv in 1usize..12, d_model in 8usize..40,
        d_ff in 1usize..50, layers in (1usize..3, 1usize..3), vocab in 3usize..70,
        rows in 1u64..12, longest in 1u64..40, targets in 1u64..6, seed: u64,
    ) {
        let mut config = T5Config::cpu(vocab)
            .with_d_model(d_model).with_heads(heads, d_kv).with_d_ff(d_ff).with_layers(layers.0, layers.1)
            .with_tied_embeddings(tied).with_causal_encoder(causal).with_dropout_rate(0.0);
        config.relative_attention_num_buckets = 8;
        config.relative_attention_max_distance = 20;
        let batch = batch(seed, rows, vocab as u64, longest, targets);
        // A hidden unit at its kink has two slopes, and the order of a sum decides between them. Other weights move it away.
        let told = same_gradients(&config, seed, &batch).or_else(|first| {
            same_gradients(&config, seed.wrapping_add(1), &batch).map_err(|second| format!("{first}; with other weights {second}"))
        });
        prop_assert!(told.is_ok(), "{told:?}");
    }
}

/// Whether the packed layers agree with the graph, under weights of a seed; where they do not otherwise.
fn same_gradients(config: &T5Config, seed: u64, batch: &RaggedBatch) -> std::result::Result<(), String> {
    let model = T5::new(config.clone(), seed, &Device::Cpu).unwrap();
    let (got, gradients) = packed(config, model.parameters(), batch, None, true).unwrap();
    let (want, wanted) = model.clone().with_autograd().loss_and_grads(batch, 0).unwrap();
    assert!((got - want).abs() < 1e-5 * want, "loss {got}, not {want}");
    assert_eq!(gradients.len(), wanted.len());
    let (plain, none) = packed(config, model.parameters(), batch, None, false).unwrap();
    assert!(none.is_empty() && plain == got);
    for ((name, got), (other, want)) in gradients.iter().zip(wanted.iter()) {
        assert_eq!((name, got.dims()), (other, want.dims()));
        let (got, want) = (values(got), values(want));
        let top = want.iter().fold(1e-4f32, |m, v| m.max(v.abs()));
        if let Some((got, want)) = got.iter().zip(&want).find(|(got, want)| (*got - *want).abs() > 1e-3 * top) {
            return Err(format!("{name}: {got}, not {want}"));
        }
    }
    Ok(())
}

/// With dropout on, a gradient is the slope of the loss under the same masks.
#[test]
fn gradients_with_dropout_are_slopes() {
    let config =
        T5Config::cpu(40).with_d_model(16).with_heads(2, 8).with_d_ff(24).with_layers(2, 2).with_dropout_rate(0.3);
    let model = T5::new(config.clone(), 3, &Device::Cpu).unwrap();
    let (params, batch, rng) = (model.parameters(), batch(5, 6, 40, 20, 3), CounterRng::new(11));
    let at = || packed(&config, params, &batch, Some(rng), false).unwrap().0;
    let (first, gradients) = packed(&config, params, &batch, Some(rng), true).unwrap();
    assert_eq!(first, at());
    assert!((first - packed(&config, params, &batch, None, false).unwrap().0).abs() > 1e-4);
    for (name, gradient) in gradients.iter() {
        let start = params.get(name).unwrap().copy().unwrap();
        let norm = values(gradient).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 0.0, "{name}");
        // Along the gradient, so that the difference is large against the rounding of the loss.
        let step = 2e-3 / norm;
        let moved = |by: f64| {
            params.set(name, &(&start + gradient.affine(by, 0.0).unwrap()).unwrap()).unwrap();
            let loss = f64::from(at());
            params.set(name, &start).unwrap();
            loss
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * step * norm);
        assert!((slope - norm).abs() < 0.03 * norm + 2e-3, "{name}: slope {slope}, norm {norm}");
    }
}

/// Steps of beams that move between rows, as the search does, and of users that are dropped and repeated.
#[test]
fn caches_decode_as_the_graph_does() {
    for causal in [false, true] {
        let config = T5Config::cpu(40).with_d_model(16).with_heads(2, 8).with_d_ff(24).with_causal_encoder(causal);
        let model = T5::new(config, 5, &Device::Cpu).unwrap().with_autograd();
        let batch = batch(8, 3, 40, 20, 2);
        let mut state = model.start(&batch).unwrap();
        let mut caches = Caches::new(&model, &batch).unwrap();
        let tensor = |values: &[u32]| Tensor::new(values, &Device::Cpu).unwrap();
        let moves: [(&[u32], bool); 4] =
            [(&[0, 0, 1, 1, 2, 2], true), (&[1, 1, 3, 2, 4, 5], false), (&[0, 5, 5, 2], true), (&[3, 2, 1, 0], true)];
        let mut users = vec![0, 1, 2];
        for (step, (rows, other_users)) in moves.into_iter().enumerate() {
            let tokens = tensor(&(0..users.len() as u32).map(|i| 3 + 5 * i + step as u32).collect::<Vec<_>>());
            let want = model.step(&tokens, &mut state).unwrap();
            let got = caches.step(&users, &tokens).unwrap();
            assert_eq!(caches.position(), step + 1);
            for (got, want) in values(&got).iter().zip(values(&want)) {
                assert!((got - want).abs() < 1e-4, "step {step}: {got}, not {want}");
            }
            state.select_rows(&tensor(rows)).unwrap();
            caches.select(&tensor(rows), other_users).unwrap();
            users = rows.iter().map(|row| users[*row as usize]).collect();
        }
    }
}

/// A GPU beside the CPU's engine and graph: loss, gradients and decoding, in `f32` and roughly in `bf16`.
#[test]
fn a_gpu_computes_what_the_cpu_does() {
    let Ok(gpu) = Device::new_cuda(0) else {
        eprintln!("NOT RUN: the model on a GPU (no GPU, or built without the feature `cuda`)");
        return;
    };
    for (causal, tied, d_kv) in [(false, true, 64), (true, false, 32), (false, false, 16)] {
        let config = T5Config::paper(3_027)
            .with_heads(6, d_kv)
            .with_causal_encoder(causal)
            .with_tied_embeddings(tied)
            .with_dropout_rate(0.0);
        let host = T5::new(config.clone(), 4, &Device::Cpu).unwrap();
        let device = T5::new(config.clone(), 4, &gpu).unwrap();
        assert!(device.packed());
        let batch = batch(3, 40, 3_027, 90, 4);
        let (want, wanted) = host.loss_and_grads(&batch, 0).unwrap();
        for (dtype, tolerance) in [(DType::F32, 2e-3), (DType::BF16, 8e-2)] {
            let device = device.clone().with_compute_dtype(dtype).unwrap();
            let (got, gradients) = device.loss_and_grads(&batch, 0).unwrap();
            assert!((got - want).abs() < tolerance * want, "{dtype:?}: loss {got}, not {want}");
            for ((name, got), (_, want)) in gradients.iter().zip(wanted.iter()) {
                let (got, want) = (values(&got.to_device(&Device::Cpu).unwrap()), values(want));
                let norm = want.iter().map(|v| v * v).sum::<f32>().sqrt();
                let far = got.iter().zip(&want).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
                assert!(far <= tolerance * norm, "{dtype:?}, {name}: {far} off a norm of {norm}");
            }
            assert!((device.loss(&batch).unwrap() - got).abs() < 1e-5 * got);
            let parts = device.clone().with_micro_batch(Some(7)).loss_and_grads(&batch, 0).unwrap().0;
            assert!((parts - got).abs() < 1e-3 * got);
            let (mut a, mut b) = (host.start(&batch).unwrap(), device.start(&batch).unwrap());
            let tokens = Tensor::full(0u32, 40, &Device::Cpu).unwrap();
            for step in 0..3 {
                let (want, got) = (host.step(&tokens, &mut a).unwrap(), device.step(&tokens, &mut b).unwrap());
                let (want, got) = (values(&want), values(&got.to_device(&Device::Cpu).unwrap()));
                let off = want.iter().zip(&got).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
                assert!(off < 20.0 * tolerance, "{dtype:?}, step {step}: {off}");
                let rows =
                    Tensor::new((0..40u32).map(|row| (row * 7 + 3) % 40).collect::<Vec<_>>(), &Device::Cpu).unwrap();
                a.select_rows(&rows).unwrap();
                b.select_rows(&rows).unwrap();
            }
        }
        // Dropout: the packed layers on the host have the same masks.
        let rng = Some(CounterRng::new(9));
        let mut config = config;
        config.dropout_rate = 0.1;
        let (want, _) = packed(&config, host.parameters(), &batch, rng, true).unwrap();
        let (got, _) = packed(&config, device.parameters(), &batch, rng, true).unwrap();
        assert!((got - want).abs() < 1e-4 * want, "with dropout: {got}, not {want}");
    }
}
