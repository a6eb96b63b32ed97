use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::*;
use crate::{CounterRng, init};

fn normal(seed: u64, dims: &[usize], device: &Device) -> Tensor {
    init::normal(&CounterRng::new(seed), dims, 1.0, &Device::Cpu).unwrap().to_device(device).unwrap()
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn close(what: &str, got: &Tensor, want: &Tensor, tolerance: f32) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let (got, want) = (flat(got), flat(want));
    let scale = want.iter().fold(0.1f32, |m, v| m.max(v.abs()));
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!((got - want).abs() <= tolerance * scale, "{what}: element {i} is {got}, not {want} (scale {scale})");
    }
}

/// A GPU, or word that there is none.
fn gpu() -> Option<Device> {
    let device = Device::new_cuda(0).ok();
    if device.is_none() {
        eprintln!("NOT RUN: the CUDA kernels beside their compositions (no GPU, or built without the feature `cuda`)");
    }
    device
}

fn at(tensor: &Tensor, first: usize) -> Columns<'_> {
    Columns { tensor, first }
}

fn spans(rng: &CounterRng, sequences: usize, longest: usize, device: &Device) -> Spans {
    let lengths = (0..sequences as u64).map(|i| 1 + rng.below(i, longest as u64) as usize);
    Spans::new(lengths, device).unwrap()
}

/// What the kernels of a device give for one draw of shapes and values, by name.
fn results(device: &Device, dtype: DType, seed: u64, p: f64) -> Vec<(String, Tensor)> {
    let rng = CounterRng::new(seed);
    let draw = |stream: u64, dims: &[usize]| normal(seed ^ (stream << 32), dims, device);
    let mask = |site: u64| DropoutMask::new(p, &rng.stream(site)).unwrap();
    let size = |at: u64, most: u64| 1 + rng.below(at, most) as usize;
    let mut found: Vec<(String, Tensor)> = Vec::new();
    let mut keep = |name: &str, tensor: &Tensor| found.push((name.to_owned(), tensor.to_device(&Device::Cpu).unwrap()));

    let (rows, d) = (size(0, 700), [8, 48, 64, 128, 136, 256][rng.below(1, 6) as usize]);
    let (x, branch, weight) = (draw(1, &[rows, d]), draw(2, &[rows, d]).to_dtype(dtype).unwrap(), draw(3, &[d]));
    let (inner, outer) = (mask(0), mask(1));
    let norm = Norm { weight: &weight, eps: 1e-6, scale: 0.3, mask: outer.as_ref(), dtype };
    let (sum, y) = add_norm(&x, Some((&branch, inner.as_ref())), &norm).unwrap();
    keep("add_norm sum", &sum);
    keep("add_norm y", &y);
    let (y_grad, sum_grad) = (draw(4, &[rows, d]).to_dtype(dtype).unwrap(), draw(5, &[rows, d]));
    let back = add_norm_grad(&sum, &norm, &y_grad, Some(&sum_grad), Some(inner.as_ref())).unwrap();
    keep("add_norm_grad x", &back.x);
    keep("add_norm_grad branch", &back.branch.unwrap());
    keep("add_norm_grad weight", &(back.weight / (rows as f64).sqrt()).unwrap());
    let (_, y) = add_norm(&x, None, &norm).unwrap();
    keep("norm y", &y);
    keep("norm_grad x", &add_norm_grad(&x, &norm, &y_grad, None, None).unwrap().x);

    let wide = draw(6, &[rows, 3 * d]).to_dtype(dtype).unwrap();
    let active = relu_dropout(wide.copy().unwrap(), inner.as_ref()).unwrap();
    keep("relu_dropout", &active);
    let grad = draw(7, &[rows, 3 * d]).to_dtype(dtype).unwrap();
    keep("relu_dropout_grad", &relu_dropout_grad(&active, grad, inner.as_ref()).unwrap());

    let vocab = size(2, 400);
    let labels: Vec<u32> = (0..rows as u64).map(|i| u32::try_from(rng.stream(9).below(i, vocab as u64)).unwrap()).collect();
    let labels = Tensor::new(labels, device).unwrap();
    let logits = (draw(8, &[rows, vocab]) * 3.0).unwrap().to_dtype(dtype).unwrap();
    let (loss, grad) = cross_entropy(logits, &labels).unwrap();
    keep("cross_entropy", &loss);
    keep("cross_entropy grad", &(grad * rows as f64).unwrap());

    let table = draw(10, &[vocab, d]);
    let embedded = embed(&table, &labels, inner.as_ref()).unwrap();
    keep("embed", &embedded);
    let start = draw(11, &[vocab, d]);
    keep("embed_grad", &embed_grad(&x, &labels, inner.as_ref(), start).unwrap());
    keep("gather", &gather(&[&table, &weight, &table.narrow(0, vocab / 2, 1).unwrap()], dtype).unwrap());

    for (name, own) in [("self", true), ("cross", false)] {
        let (heads, width) = (size(12, 3), [16, 32, 64][rng.below(13, 3) as usize]);
        let inner_width = heads * width;
        let sequences = size(14, 9);
        let queries = spans(&rng.stream(15), sequences, if own { 150 } else { 9 }, device);
        let other = spans(&rng.stream(16), sequences, 150, device);
        let keys = if own { &queries } else { &other };
        let sight = Sight { queries: &queries, keys, heads, causal: own && rng.below(17, 2) == 1, mask: inner.as_ref() };
        // Small, as trained scores are: exponentials of large ones magnify what bf16 rounds.
        let project = |stream: u64, rows: usize, columns: usize| {
            (draw(stream, &[rows, columns]) * 0.3).unwrap().to_dtype(dtype).unwrap()
        };
        let (q, kv) = (project(18, queries.rows(), 3 * inner_width), project(19, keys.rows(), 2 * inner_width + 8));
        let kv = if own { &q } else { &kv };
        let inputs = [at(&q, 0), at(kv, if own { inner_width } else { 8 }), at(kv, if own { 2 * inner_width } else { inner_width + 8 })];
        let bias = draw(20, &[2 * size(21, 40) + 1, heads]);
        let bias = own.then_some(&bias);
        let attended = attention(inputs[0], inputs[1], inputs[2], inner_width, bias, &sight).unwrap();
        keep(&format!("{name} attention"), &attended.out);
        let out_grad = draw(22, &[queries.rows(), inner_width]).to_dtype(dtype).unwrap();
        let q_grad = q.zeros_like().unwrap();
        let kv_grad = if own { q_grad.clone() } else { kv.zeros_like().unwrap() };
        let grads = [at(&q_grad, inputs[0].first), at(&kv_grad, inputs[1].first), at(&kv_grad, inputs[2].first)];
        let bias = bias.map(|bias| (bias, bias.zeros_like().unwrap()));
        let bias_grad = attention_grad(&Pull { inputs, grads }, bias, &sight, &attended, &out_grad).unwrap();
        keep(&format!("{name} attention queries"), &q_grad);
        keep(&format!("{name} attention keys and values"), &kv_grad);
        if let Some(grad) = bias_grad {
            keep(&format!("{name} attention bias"), &grad);
        }
    }
    found
}

#[test]
fn kernels_are_their_compositions() {
    let Some(gpu) = gpu() else { return };
    for seed in 0..40 {
        for p in [0.0, 0.2] {
            let want = results(&Device::Cpu, DType::F32, seed, p);
            for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::BF16, 3e-2)] {
                for ((name, got), (_, want)) in results(&gpu, dtype, seed, p).iter().zip(&want) {
                    close(&format!("{name}, {dtype:?}, seed {seed}, dropout {p}"), got, want, tolerance);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// The compositions' gradients against differences of their values, along the gradient.
    #[test]
    fn gradients_are_slopes(seed in 0u64..1_000, p in 0usize..2) {
        let device = Device::Cpu;
        let rng = CounterRng::new(seed);
        let mask = DropoutMask::new([0.0, 0.3][p], &rng).unwrap();
        let (queries, keys) = (spans(&rng.stream(1), 3, 6, &device), spans(&rng.stream(2), 3, 9, &device));
        let sight = Sight { queries: &queries, keys: &keys, heads: 2, causal: false, mask: mask.as_ref() };
        let (q, kv) = (normal(seed, &[queries.rows(), 8], &device), normal(seed ^ 1, &[keys.rows(), 16], &device));
        let (q, kv) = ((q * 0.5).unwrap(), (kv * 0.5).unwrap());
        let bias = normal(seed ^ 2, &[5, 2], &device);
        let probe = normal(seed ^ 3, &[queries.rows(), 8], &device);
        let value = |q: &Tensor, kv: &Tensor, bias: &Tensor| {
            let out = attention(at(q, 0), at(kv, 0), at(kv, 8), 8, Some(bias), &sight).unwrap().out;
            f64::from((out * &probe).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap())
        };
        let attended = attention(at(&q, 0), at(&kv, 0), at(&kv, 8), 8, Some(&bias), &sight).unwrap();
        let (q_grad, kv_grad) = (blank_like(&q).unwrap(), blank_like(&kv).unwrap());
        let pull = Pull {
            inputs: [at(&q, 0), at(&kv, 0), at(&kv, 8)],
            grads: [at(&q_grad, 0), at(&kv_grad, 0), at(&kv_grad, 8)],
        };
        let bias_grad = attention_grad(&pull, Some((&bias, bias.zeros_like().unwrap())), &sight, &attended, &probe).unwrap().unwrap();
        let h = 1e-2;
        let moved = |x: &Tensor, by: &Tensor, step: f64| (x + (by * step).unwrap()).unwrap();
        for (name, grad, slope) in [
            ("queries", &q_grad, (value(&moved(&q, &q_grad, h), &kv, &bias) - value(&moved(&q, &q_grad, -h), &kv, &bias)) / (2.0 * h)),
            ("keys", &kv_grad, (value(&q, &moved(&kv, &kv_grad, h), &bias) - value(&q, &moved(&kv, &kv_grad, -h), &bias)) / (2.0 * h)),
            ("bias", &bias_grad, (value(&q, &kv, &moved(&bias, &bias_grad, h)) - value(&q, &kv, &moved(&bias, &bias_grad, -h))) / (2.0 * h)),
        ] {
            let norm = f64::from(grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
            prop_assert!((slope - norm).abs() < 0.02 * norm + 1e-3, "{name}: slope {slope}, norm {norm}");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let device = Device::Cpu;
    let (x, weight) = (normal(1, &[3, 4], &device), normal(2, &[5], &device));
    let norm = Norm { weight: &weight, eps: 1e-6, scale: 1.0, mask: None, dtype: DType::F32 };
    assert!(add_norm(&x, None, &norm).is_err());
    assert!(cross_entropy(normal(1, &[0, 4], &device), &Tensor::new(Vec::<u32>::new(), &device).unwrap()).is_err());
    assert!(relu_dropout_grad(&x, normal(1, &[4, 3], &device), None).is_err());
    assert!(gather(&[], DType::F32).is_err());
    let spans = Spans::new([2, 1], &device).unwrap();
    let short = Spans::new([2], &device).unwrap();
    let sight = Sight { queries: &spans, keys: &spans, heads: 2, causal: false, mask: None };
    assert!(attention(at(&x, 0), at(&x, 0), at(&x, 0), 4, None, &sight).is_ok());
    assert!(attention(at(&x, 1), at(&x, 0), at(&x, 0), 4, None, &sight).is_err());
    assert!(attention(at(&x, 0), at(&x, 0), at(&x, 0), 3, None, &sight).is_err());
    let bias = normal(3, &[4, 2], &device);
    assert!(attention(at(&x, 0), at(&x, 0), at(&x, 0), 4, Some(&bias), &sight).is_err());
    let fewer = Sight { keys: &short, ..sight };
    assert!(attention(at(&x, 0), at(&x, 0), at(&x, 0), 4, None, &fewer).is_err());
    assert!(!supports(&device, DType::BF16, 64) && supports(&device, DType::F32, 7));
}
