use candle_core::{D, DType, Device, Tensor, Var};
use proptest::prelude::*;

use super::*;
use crate::init;

fn normal(seed: u64, dims: &[usize]) -> Tensor {
    init::normal(&CounterRng::new(seed), dims, 1.0, &Device::Cpu).unwrap()
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn close(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let (a, b) = (flat(a), flat(b));
    let scale = b.iter().fold(0.1f64, |m, v| m.max(v.abs()));
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        assert!((x - y).abs() <= tolerance * scale, "{what}: element {i} is {x}, not {y} (scale {scale})");
    }
}

type Op<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// Value and gradients of a fixed random projection of an operation's result.
fn run(op: Op<'_>, args: &[Tensor]) -> (Tensor, Vec<Tensor>) {
    let vars: Vec<Var> = args.iter().map(|a| Var::from_tensor(a).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = op(&tensors).unwrap();
    let probe = normal(77, y.dims()).to_dtype(y.dtype()).unwrap();
    let grads = (&y * probe).unwrap().sum_all().unwrap().backward().unwrap();
    let grads = vars.iter().map(|v| grads.get(v).expect("a gradient for every argument").clone()).collect();
    (y, grads)
}

/// The fused form against the composition, and the composition in `f64` against central differences.
fn check(name: &str, fused: Op<'_>, composed: Op<'_>, args: &[Tensor]) {
    let (y, grads) = run(fused, args);
    let (want, want_grads) = run(composed, args);
    close(name, &y, &want, 1e-5);
    for (g, w) in grads.iter().zip(&want_grads) {
        close(&format!("gradient of {name}"), g, w, 1e-5);
    }
    let double: Vec<Tensor> = args.iter().map(|a| a.to_dtype(DType::F64).unwrap()).collect();
    let (_, exact) = run(composed, &double);
    let value = |args: &[Tensor]| {
        let y = composed(args).unwrap();
        let probe = normal(77, y.dims()).to_dtype(DType::F64).unwrap();
        (y * probe).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    let step = 1e-5;
    for (a, grad) in exact.iter().enumerate() {
        let (base, analytic) = (flat(&double[a]), flat(grad));
        for i in (0..base.len()).step_by(base.len().div_ceil(12).max(1)) {
            let moved = |by: f64| {
                let mut v = base.clone();
                v[i] += by;
                let mut args = double.clone();
                args[a] = Tensor::from_vec(v, double[a].dims(), &Device::Cpu).unwrap();
                value(&args)
            };
            let numeric = (moved(step) - moved(-step)) / (2.0 * step);
            let error = (numeric - analytic[i]).abs();
            assert!(
                error < 1e-6 * (1.0 + numeric.abs()),
                "{name}, argument {a}, element {i}: {numeric} {}",
                analytic[i]
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn row_operations(seed: u64, rows in 1usize..9, width in 1usize..70, deep: bool) {
        let dims = if deep { vec![2, rows, width] } else { vec![rows, width] };
        let x = (normal(seed, &dims) * 3.0).unwrap();
        check("softmax", &|a| softmax(&a[0]), &|a| compose::softmax(&a[0]), std::slice::from_ref(&x));
        check("log-softmax", &|a| log_softmax(&a[0]), &|a| compose::log_softmax(&a[0]), std::slice::from_ref(&x));
        check("gelu", &|a| gelu_new(&a[0]), &|a| compose::gelu_new(&a[0]), std::slice::from_ref(&x));
        // In few dimensions the gradient is the difference of nearly equal terms, which says nothing about the kernel.
        let mut wide = dims.clone();
        wide[dims.len() - 1] += 7;
        let args = [normal(seed ^ 4, &wide), normal(seed ^ 1, &[width + 7])];
        check("rms-norm", &|a| rms_norm(&a[0], &a[1], 1e-6), &|a| compose::rms_norm(&a[0], &a[1], 1e-6), &args);
        let w = normal(seed ^ 2, &[5, width]);
        check("linear", &|a| linear(&a[0], &a[1]), &|a| compose::linear(&a[0], &a[1]), &[x.clone(), w]);
        let rng = CounterRng::new(seed);
        check("dropout", &|a| dropout(&a[0], 0.3, &rng), &|a| compose::dropout(&a[0], 0.3, &rng), std::slice::from_ref(&x));
        let (f, c) = (&|a: &[Tensor]| relu_dropout(&a[0], 0.3, &rng), &|a: &[Tensor]| compose::relu_dropout(&a[0], 0.3, &rng));
        check("relu-dropout", f, c, std::slice::from_ref(&x));
        check("relu", &|a| relu(&a[0]), &|a| a[0].relu(), &[x]);
    }

    #[test]
    fn lookups(seed: u64, n in 1usize..12, v in 1usize..60, d in 1usize..20) {
        let rng = CounterRng::new(seed);
        let ids: Vec<u32> = (0..n as u64).map(|i| rng.below(i, v as u64) as u32).collect();
        let ids = Tensor::from_vec(ids, n, &Device::Cpu).unwrap();
        let logits = (normal(seed, &[n, v]) * 4.0).unwrap();
        check("cross-entropy", &|a| cross_entropy(&a[0], &ids), &|a| compose::cross_entropy(&a[0], &ids), &[logits]);
        let weight = normal(seed ^ 3, &[v, d]);
        check("embedding", &|a| embedding(&a[0], &ids), &|a| compose::embedding(&a[0], &ids), &[weight]);
    }

    #[test]
    fn attention_softmax(seed: u64, b in 1usize..4, h in 1usize..3, q in 1usize..6, extra in 0usize..4, causal: bool, masked: bool) {
        let k = q + extra;
        let lengths: Vec<u32> = (0..b as u64).map(|i| CounterRng::new(seed).below(i, k as u64 + 2) as u32).collect();
        let lengths = masked.then_some(lengths.as_slice());
        let (scores, bias) = (normal(seed, &[b, h, q, k]), normal(seed ^ 1, &[1, h, q, k]));
        check(
            "bias-softmax",
            &|a| bias_softmax(&a[0], Some(&a[1]), lengths, causal),
            &|a| compose::bias_softmax(&a[0], Some(&a[1]), lengths, causal),
            &[scores.clone(), bias],
        );
        check(
            "masked-softmax",
            &|a| bias_softmax(&a[0], None, lengths, causal),
            &|a| compose::bias_softmax(&a[0], None, lengths, causal),
            &[scores],
        );
    }
}

#[test]
fn rows_longer_than_a_task_and_non_contiguous_inputs() {
    let x = normal(1, &[300, 257]);
    let w = normal(2, &[257]);
    close("rms-norm", &rms_norm(&x, &w, 1e-6).unwrap(), &compose::rms_norm(&x, &w, 1e-6).unwrap(), 1e-5);
    let t = x.t().unwrap();
    assert!(!t.is_contiguous());
    close("softmax", &softmax(&t).unwrap(), &compose::softmax(&t).unwrap(), 1e-5);
    let n = x.narrow(1, 3, 100).unwrap();
    let (w, rng) = (normal(4, &[7, 100]), CounterRng::new(1));
    close("linear", &linear(&n, &w).unwrap(), &compose::linear(&n, &w).unwrap(), 1e-5);
    close("dropout", &dropout(&n, 0.5, &rng).unwrap(), &compose::dropout(&n, 0.5, &rng).unwrap(), 0.0);
}

#[test]
fn masked_keys_get_nothing_and_empty_rows_are_zero() {
    let scores = normal(3, &[2, 1, 3, 4]);
    let p = bias_softmax(&scores, None, Some(&[2, 0]), false).unwrap();
    let sums = flat(&p.sum(D::Minus1).unwrap());
    assert!(sums[..3].iter().all(|s| (s - 1.0).abs() < 1e-6));
    assert!(sums[3..].iter().all(|s| *s == 0.0));
    assert!(flat(&p.narrow(3, 2, 2).unwrap()).iter().all(|v| *v == 0.0));
    let c = bias_softmax(&scores, None, None, true).unwrap();
    // The three queries are the last of four positions.
    let row = flat(&c.narrow(0, 0, 1).unwrap());
    assert!(row[2] == 0.0 && row[3] == 0.0 && row[1] > 0.0 && row[7] == 0.0 && row[11] > 0.0);
}

#[test]
fn dropout_keeps_the_mean_and_the_share() {
    let x = Tensor::ones(200_000, DType::F32, &Device::Cpu).unwrap();
    let y = flat(&dropout(&x, 0.1, &CounterRng::new(5)).unwrap());
    let zeros = y.iter().filter(|v| **v == 0.0).count() as f64 / y.len() as f64;
    assert!((zeros - 0.1).abs() < 0.004, "{zeros}");
    assert!(y.iter().all(|v| *v == 0.0 || (*v - 1.0 / 0.9).abs() < 1e-4));
    assert_eq!(flat(&dropout(&x, 0.0, &CounterRng::new(5)).unwrap()), flat(&x));
    for p in [1.0, -0.1, f64::NAN] {
        assert!(dropout(&x, p, &CounterRng::new(5)).is_err());
    }
}

#[test]
fn the_positive_part_of_nan_is_nan() {
    let x = Tensor::new(&[f32::NAN, -1.0, 0.0, 2.0], &Device::Cpu).unwrap();
    let rng = CounterRng::new(1);
    for y in [relu(&x).unwrap(), relu_dropout(&x, 0.0, &rng).unwrap()] {
        let y = flat(&y);
        assert!(y[0].is_nan());
        assert_eq!(y[1..], [0.0, 0.0, 2.0]);
    }
    let y = flat(&relu_dropout(&x, 0.5, &rng).unwrap());
    assert!(y[0].is_nan() && y[1..3] == [0.0, 0.0], "{y:?}");
}

#[test]
fn the_same_bits_at_any_number_of_threads() {
    let (x, w) = (normal(1, &[900, 64]), normal(2, &[64]));
    let labels = Tensor::from_vec((0..900u32).map(|i| i % 64).collect(), 900, &Device::Cpu).unwrap();
    let bits = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let op = |a: &[Tensor]| {
                let y = dropout(&rms_norm(&a[0], &a[1], 1e-6)?, 0.2, &CounterRng::new(9))?;
                cross_entropy(&linear(&embedding(&y, &labels)?, &a[0].narrow(0, 0, 64)?)?, &labels)
            };
            let (y, grads) = run(&op, &[x.clone(), w.clone()]);
            std::iter::once(&y).chain(&grads).flat_map(flat).map(f64::to_bits).collect::<Vec<_>>()
        })
    };
    assert_eq!(bits(1), bits(2));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x = normal(1, &[2, 3]);
    let ids = |v: &[u32]| Tensor::from_slice(v, v.len(), &Device::Cpu).unwrap();
    assert!(cross_entropy(&x, &ids(&[0, 3])).is_err());
    assert!(cross_entropy(&x, &ids(&[0])).is_err());
    assert!(cross_entropy(&normal(1, &[0, 3]), &ids(&[])).is_err());
    assert!(embedding(&x, &ids(&[2])).is_err());
    assert!(rms_norm(&x, &normal(1, &[2]), 1e-6).is_err());
    assert!(linear(&x, &normal(1, &[4, 2])).is_err());
    let s = normal(1, &[2, 1, 3, 3]);
    assert!(bias_softmax(&s, Some(&normal(1, &[2, 1, 3, 3])), None, false).is_err());
    assert!(bias_softmax(&s, None, Some(&[1]), false).is_err());
}

#[test]
fn attention_is_the_composition_of_its_parts() {
    let (q, k, v) = (normal(1, &[2, 3, 4, 8]), normal(2, &[2, 3, 5, 8]), normal(3, &[2, 3, 5, 6]));
    let bias = normal(4, &[1, 3, 4, 5]);
    let lengths = [5, 3];
    let options = AttentionOptions::default().with_bias(Some(&bias)).with_key_lengths(Some(&lengths)).with_scale(0.5);
    let got = attention(&q, &k, &v, &options).unwrap();
    let scores = (q.matmul(&k.t().unwrap().contiguous().unwrap()).unwrap() * 0.5).unwrap();
    let probs = compose::bias_softmax(&scores, Some(&bias), Some(&lengths), false).unwrap();
    close("attention", &got, &probs.matmul(&v).unwrap(), 1e-5);
    let dropped = attention(&q, &k, &v, &options.with_dropout(0.5, CounterRng::new(1))).unwrap();
    assert!(flat(&(dropped - got).unwrap()).iter().any(|d| d.abs() > 0.01));
}
