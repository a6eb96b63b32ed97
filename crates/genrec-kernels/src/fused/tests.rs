//! The functions against the compositions of candle's operations, forward and backward, by random shapes.

use candle_core::{Device, Tensor, Var};
use proptest::prelude::*;

use super::*;
use crate::graph::{self, AttentionOptions};
use crate::matmul::padded;
use crate::rng::CounterRng;

fn values(seed: u64, n: usize) -> Vec<f32> {
    let mut v = vec![0f32; n];
    CounterRng::new(seed).fill_normal(&mut v);
    v
}

fn var(v: &[f32], dims: &[usize]) -> Var {
    Var::from_tensor(&Tensor::from_slice(v, dims, &Device::Cpu).unwrap()).unwrap()
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference relative to the largest value.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let top = b.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / top
}

fn mask(p: f64, seed: u64) -> Option<DropoutMask> {
    DropoutMask::new(p, &CounterRng::new(seed)).unwrap()
}

/// Weights each result differently, so that every gradient differs.
fn weighted(y: &Tensor, seed: u64) -> Tensor {
    let w = Tensor::from_vec(values(seed, y.elem_count()), y.dims(), &Device::Cpu).unwrap();
    (y * w).unwrap().sum_all().unwrap()
}

/// `(rows, heads * d)` to `(1, heads, rows, d)`.
fn split(t: &Tensor, heads: usize) -> Tensor {
    let (rows, width) = t.dims2().unwrap();
    t.reshape((1, rows, heads, width / heads)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap()
}

#[derive(Debug, Clone)]
struct Case {
    heads: usize,
    d: usize,
    queries: usize,
    keys: usize,
    causal: bool,
    biased: bool,
    p: f64,
    pad: usize,
}

fn case() -> impl Strategy<Value = Case> {
    (1usize..4, 1usize..40, 1usize..24, 0usize..40, any::<bool>(), any::<bool>(), 0usize..3, 0usize..5).prop_map(
        |(heads, d, queries, more, causal, biased, p, pad)| {
            let keys = if causal { queries + more } else { more + 1 };
            Case { heads, d, queries, keys, causal, biased, p: [0.0, 0.1, 0.5][p], pad }
        },
    )
}

/// Lays the rows `stride` elements apart.
fn spread(x: &[f32], width: usize, stride: usize) -> Vec<f32> {
    x.chunks(width).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(7.0, stride - width))).collect()
}

fn gather(x: &[f32], width: usize, stride: usize) -> Vec<f32> {
    x.chunks(stride).flat_map(|row| row[..width].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn attention_equals_its_composition(case in case()) {
        let Case { heads, d, queries, keys, causal, biased, p, pad } = case;
        let (width, span) = (heads * d, queries + keys + 3);
        let (stride, centre) = (width + pad, queries + 1);
        let (q, k, v) = (values(1, queries * width), values(2, keys * width), values(3, keys * width));
        let table = values(4, heads * span);
        let (qv, kv, vv) = (var(&q, &[queries, width]), var(&k, &[keys, width]), var(&v, &[keys, width]));
        let dense: Vec<f32> = (0..heads)
            .flat_map(|h| (0..queries).flat_map(move |i| (0..keys).map(move |j| h * span + centre + j - i)))
            .map(|at| table[at])
            .collect();
        let bias = var(&dense, &[1, heads, queries, keys]);
        let rng = CounterRng::new(9);
        let mut options = AttentionOptions::default().with_causal(causal);
        if biased {
            options = options.with_bias(Some(&bias));
        }
        if p > 0.0 {
            options = options.with_dropout(p, rng);
        }
        let y = graph::attention(&split(&qv, heads), &split(&kv, heads), &split(&vv, heads), &options).unwrap();
        let y = y.transpose(1, 2).unwrap().contiguous().unwrap().reshape((queries, width)).unwrap();
        let grads = weighted(&y, 5).backward().unwrap();

        let attention = Attention {
            heads, d_kv: d, queries, keys, causal,
            bias: biased.then_some(RelativeBias { values: &table, span, centre }),
            dropout: mask(p, 9),
        };
        let (qs, ks, vs) = (spread(&q, width, stride), spread(&k, width, stride), spread(&v, width, stride));
        let inputs = AttentionInputs { q: &qs, q_stride: stride, k: &ks, v: &vs, kv_stride: stride };
        let mut scratch = AttentionScratch::default();
        let mut probs = vec![f32::NAN; attention.probs_len()];
        let mut out = vec![7f32; queries * stride];
        attention.forward(inputs, &mut probs, &mut out, stride, &mut scratch).unwrap();
        prop_assert!(distance(&gather(&out, width, stride), &flat(&y)) < 1e-5);
        prop_assert_eq!(out.chunks(stride).flat_map(|row| &row[width..]).filter(|v| **v != 7.0).count(), 0);

        let d_out = spread(&values(5, queries * width), width, stride);
        let (mut dq, mut dkv) = (qs.clone(), [ks.clone(), vs.clone()].concat());
        let mut d_bias = vec![0f32; table.len()];
        let mut out_grads =
            AttentionGrads { q: &mut dq, kv: &mut dkv, v_start: ks.len(), bias: biased.then_some(d_bias.as_mut_slice()) };
        attention.backward(inputs, &probs, &d_out, stride, &mut out_grads, &mut scratch).unwrap();
        let (dk, dv) = dkv.split_at(ks.len());
        for (name, got, want) in [("q", dq.as_slice(), &qv), ("k", dk, &kv), ("v", dv, &vv)] {
            let far = distance(&gather(got, width, stride), &flat(grads.get(want).unwrap()));
            prop_assert!(far < 1e-5, "d{name}: {far}");
        }
        if biased {
            let mut want = vec![0f32; table.len()];
            for (i, g) in flat(grads.get(&bias).unwrap()).into_iter().enumerate() {
                let (h, i, j) = (i / (queries * keys), i / keys % queries, i % keys);
                want[h * span + centre + j - i] += g;
            }
            prop_assert!(distance(&d_bias, &want) < 1e-5);
        }
    }

    #[test]
    fn rms_norm_equals_its_composition(rows in 1usize..9, d in 2usize..70) {
        let (x, w, dy, before) = (values(1, rows * d), values(2, d), values(3, rows * d), values(4, rows * d));
        let (xv, wv) = (var(&x, &[rows, d]), var(&w, &[d]));
        let y = graph::compose::rms_norm(&xv, &wv, 1e-6).unwrap();
        let grads = weighted(&y, 3).backward().unwrap();
        let (mut out, mut inverses) = (vec![0f32; rows * d], vec![0f32; rows]);
        rms_norm(&x, &w, 1e-6, &mut out, &mut inverses);
        prop_assert!(distance(&out, &flat(&y)) < 1e-5);
        let (mut dx, mut dw, mut dy) = (before.clone(), vec![0f32; d], dy);
        rms_norm_backward(&x, &w, &inverses, &mut dy, &mut dx, &mut dw);
        let want: Vec<f32> = flat(grads.get(&xv).unwrap()).iter().zip(&before).map(|(g, b)| g + b).collect();
        prop_assert!(distance(&dx, &want) < 1e-5);
        prop_assert!(distance(&dw, &flat(grads.get(&wv).unwrap())) < 1e-5);
    }

    #[test]
    fn cross_entropy_equals_its_composition(rows in 1usize..9, width in 1usize..90) {
        let x = values(1, rows * width);
        let labels: Vec<u32> = (0..rows as u32).map(|r| (r * 7) % width as u32).collect();
        let xv = var(&x, &[rows, width]);
        let loss = graph::compose::cross_entropy(&xv, &Tensor::new(labels.as_slice(), &Device::Cpu).unwrap()).unwrap();
        let grads = loss.backward().unwrap();
        let stride = padded(width);
        let mut logits = spread(&x, width, stride);
        let mut logs = Vec::new();
        log_softmax(&logits, stride, width, &mut logs);
        let want = flat(&graph::compose::log_softmax(&xv).unwrap());
        prop_assert!(distance(&logs, &want) < 1e-5);
        let total = cross_entropy(&mut logits, stride, width, &labels, 1.0 / rows as f32);
        prop_assert!((total / rows as f64 - f64::from(loss.to_scalar::<f32>().unwrap())).abs() < 1e-5);
        prop_assert!(distance(&gather(&logits, width, stride), &flat(grads.get(&xv).unwrap())) < 1e-5);
        prop_assert!(logits.chunks(stride).all(|row| row[width..].iter().all(|v| *v == 0.0)));
    }

    #[test]
    fn layer_norm_equals_its_composition(rows in 1usize..9, d in 2usize..70) {
        let (x, w, b, dy, before) =
            (values(1, rows * d), values(2, d), values(5, d), values(3, rows * d), values(4, rows * d));
        let (xv, wv, bv) = (var(&x, &[rows, d]), var(&w, &[d]), var(&b, &[d]));
        let y = graph::compose::layer_norm(&xv, &wv, &bv, 1e-4).unwrap();
        let grads = weighted(&y, 3).backward().unwrap();
        let (mut hats, mut out, mut inverses) = (vec![0f32; rows * d], vec![0f32; rows * d], vec![0f32; rows]);
        layer_norm(&x, &w, &b, 1e-4, &mut hats, &mut out, &mut inverses);
        prop_assert!(distance(&out, &flat(&y)) < 1e-5);
        let (mut dx, mut dw, mut db, mut dy) = (before.clone(), vec![0f32; d], vec![0f32; d], dy);
        let mut sums = LayerNormGrads { x: &mut dx, w: &mut dw, b: &mut db };
        layer_norm_backward(&hats, &w, &inverses, &mut dy, &mut sums);
        let want: Vec<f32> = flat(grads.get(&xv).unwrap()).iter().zip(&before).map(|(g, b)| g + b).collect();
        // Of two elements the parts of a gradient nearly cancel out.
        prop_assert!(distance(&dx, &want) < 1e-4);
        prop_assert!(distance(&dw, &flat(grads.get(&wv).unwrap())) < 1e-5);
        prop_assert!(distance(&db, &flat(grads.get(&bv).unwrap())) < 1e-5);
    }

    #[test]
    fn smoothed_cross_entropy_equals_its_composition(rows in 1usize..9, width in 1usize..90, smoothing in 0.0f64..0.9) {
        let x = values(1, rows * width);
        let labels: Vec<u32> = (0..rows as u32).map(|r| (r * 7) % width as u32).collect();
        let xv = var(&x, &[rows, width]);
        let logs = graph::compose::log_softmax(&xv).unwrap();
        let right = logs.gather(&Tensor::new(labels.as_slice(), &Device::Cpu).unwrap().unsqueeze(1).unwrap(), 1).unwrap();
        let right = (right.mean_all().unwrap() * (1.0 - smoothing)).unwrap();
        let loss = (right + (logs.mean_all().unwrap() * smoothing).unwrap()).unwrap().neg().unwrap();
        let grads = loss.backward().unwrap();
        let stride = padded(width);
        let mut logits = spread(&x, width, stride);
        let total = smoothed_cross_entropy(&mut logits, stride, width, &labels, smoothing as f32, 1.0 / rows as f32);
        prop_assert!((total / rows as f64 - f64::from(loss.to_scalar::<f32>().unwrap())).abs() < 1e-5);
        prop_assert!(distance(&gather(&logits, width, stride), &flat(grads.get(&xv).unwrap())) < 1e-4);
    }

    #[test]
    fn logistic_equals_its_composition(rows in 1usize..6, n in 1usize..9, per_row in 1usize..5, d in 1usize..40) {
        let (h, table) = (values(1, rows * d), values(2, n * d));
        let ids: Vec<u32> = (0..(rows * per_row) as u64).map(|i| CounterRng::new(3).below(i, n as u64) as u32).collect();
        let (hv, tv) = (var(&h, &[rows, d]), var(&table, &[n, d]));
        let at = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap();
        let e = tv.index_select(&at, 0).unwrap().reshape((rows, per_row, d)).unwrap();
        let scores = e.broadcast_mul(&hv.unsqueeze(1).unwrap()).unwrap().sum(2).unwrap();
        let mut signs = vec![1f32; per_row];
        signs[0] = -1.0;
        let signed = scores.broadcast_mul(&Tensor::new(signs.as_slice(), &Device::Cpu).unwrap()).unwrap();
        let loss = (signed.exp().unwrap() + 1.0).unwrap().log().unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        // One candidate more that stands for none.
        let with_none: Vec<u32> = ids.chunks(per_row).flat_map(|ids| [ids, &[u32::MAX]].concat()).collect();
        let candidates = Candidates { table: &table, ids: &with_none, per_row: per_row + 1, width: d };
        let (mut dh, mut dt) = (vec![0f32; h.len()], vec![0f32; table.len()]);
        let sums = LogisticGrads { hidden: &mut dh, table: &mut dt, factor: 1.0 };
        let total = logistic(&h, candidates, Some(sums));
        let wanted = f64::from(loss.to_scalar::<f32>().unwrap());
        prop_assert!((total - wanted).abs() < 1e-4 * wanted.max(1.0), "{total} {wanted}");
        prop_assert_eq!(total, logistic(&h, candidates, None));
        prop_assert!(distance(&dh, &flat(grads.get(&hv).unwrap())) < 1e-5);
        prop_assert!(distance(&dt, &flat(grads.get(&tv).unwrap())) < 1e-5);
    }

    #[test]
    fn elementwise_functions_equal_their_compositions(n in 1usize..400, p in 0usize..3) {
        let p = [0.0, 0.1, 0.5][p];
        let (x, gate, dy) = (values(1, n), values(2, n), values(3, n));
        let (xv, gv) = (var(&x, &[n]), var(&gate, &[n]));
        let (rng, mask) = (CounterRng::new(4), mask(p, 4));
        let mask = mask.as_ref();

        let y = graph::compose::relu_dropout(&xv, p, &rng).unwrap();
        let grads = weighted(&y, 3).backward().unwrap();
        let mut out = x.clone();
        relu_dropout(&mut out, mask);
        prop_assert!(distance(&out, &flat(&y)) < 1e-6);
        let mut d = dy.clone();
        relu_dropout_backward(&out, mask, &mut d);
        prop_assert!(distance(&d, &flat(grads.get(&xv).unwrap())) < 1e-6);

        let y = (graph::compose::gelu_new(&gv).unwrap() * xv.as_tensor()).unwrap();
        let y = graph::compose::dropout(&y, p, &rng).unwrap();
        let grads = weighted(&y, 3).backward().unwrap();
        gated_gelu(&gate, &x, mask, &mut out);
        prop_assert!(distance(&out, &flat(&y)) < 1e-5);
        let (mut dg, mut dx) = (gate.clone(), x.clone());
        gated_gelu_backward(&mut dg, &mut dx, mask, &dy);
        prop_assert!(distance(&dg, &flat(grads.get(&gv).unwrap())) < 1e-5);
        prop_assert!(distance(&dx, &flat(grads.get(&xv).unwrap())) < 1e-5);

        let y = flat(&graph::compose::dropout(&xv, p, &rng).unwrap());
        dropped(&x, mask, &mut out);
        prop_assert_eq!(&out, &y);
        let mut sum = gate.clone();
        add_dropped(&mut sum, &x, mask);
        let want: Vec<f32> = gate.iter().zip(&y).map(|(a, b)| a + b).collect();
        prop_assert!(distance(&sum, &want) < 1e-6);
    }
}

#[test]
fn scores_that_are_large_overflow_nowhere() {
    let (hidden, table) = ([1000.0f32, 0.0], [1.0f32, 0.0, -1.0, 0.0]);
    let candidates = Candidates { table: &table, ids: &[1, 0], per_row: 2, width: 2 };
    let (mut dh, mut dt) = ([0f32; 2], [0f32; 4]);
    let sums = LogisticGrads { hidden: &mut dh, table: &mut dt, factor: 1.0 };
    assert_eq!(logistic(&hidden, candidates, Some(sums)), 2000.0);
    assert_eq!((dh, dt), ([2.0, 0.0], [1000.0, 0.0, -1000.0, 0.0]));
}
