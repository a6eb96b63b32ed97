//! The kernels one by one, at the sizes of the paper's model and of its data: `cargo bench -p genrec-benches`.
//!
//! The rates are floating-point operations a second where a kernel is a product, elements a second elsewhere.

use std::hint::black_box;

use candle_core::Error;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use genrec::kernels::{
    CounterRng,
    fused::{self, Attention, AttentionGrads, AttentionInputs, AttentionScratch, DropoutMask},
    matmul::{Panels, Target, View, padded, product},
    nearest::{ClusterSums, Codebook, residual_codes},
    simhash::SimHash,
};

fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    CounterRng::new(seed).fill_normal(&mut values);
    values
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Times `work`, which does that much of something.
fn time(group: &mut Group<'_>, name: &str, amount: usize, mut work: impl FnMut() -> Result<(), Error>) {
    group.throughput(Throughput::Elements(amount as u64));
    group.bench_function(name, |bencher| {
        bencher.iter(|| assert!(black_box(work()).is_ok(), "the operands do not fit"));
    });
}

/// Products of a chunk of activations by packed weights, and of a weight's gradient.
fn matmul(c: &mut Criterion) {
    let mut group = c.benchmark_group("matmul");
    let rows = 256;
    for (inputs, outputs) in [(128, 384), (384, 128), (128, 1024), (1024, 128), (128, 3027)] {
        let (x, weight, dy) = (values(1, rows * inputs), values(2, inputs * outputs), values(3, rows * outputs));
        let mut panels = Panels::default();
        if let Ok(view) = View::new(&weight, outputs, inputs, inputs) {
            panels.pack(view.t());
        }
        let stride = padded(outputs);
        let (mut y, mut dw) = (vec![0.0; rows * stride], vec![0.0; inputs * outputs]);
        let flops = 2 * rows * inputs * outputs;
        time(&mut group, &format!("{rows} x {inputs} by {inputs} x {outputs}"), flops, || {
            let x = View::new(&x, rows, inputs, inputs).map_err(Error::wrap)?;
            product(x, &panels, Target::set(&mut y, stride).with_padding()).map_err(Error::wrap)
        });
        time(&mut group, &format!("gradient of {inputs} x {outputs} over {rows}"), flops, || {
            let x = View::new(&x, rows, inputs, inputs).map_err(Error::wrap)?;
            let dy = View::new(&dy, rows, outputs, outputs).map_err(Error::wrap)?;
            product(dy.t(), x, Target::add(&mut dw, inputs)).map_err(Error::wrap)
        });
    }
}

/// Attention of a user's history, 20 items, and its gradient.
fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    let (heads, d_kv, positions) = (6, 64, 81);
    let inner = heads * d_kv;
    let dropout = DropoutMask::new(0.1, &CounterRng::new(1)).ok().flatten();
    let shape = Attention { heads, d_kv, queries: positions, keys: positions, causal: false, bias: None, dropout };
    let (q, kv, d_out) = (values(1, positions * inner), values(2, positions * 2 * inner), values(3, positions * inner));
    let inputs = AttentionInputs { q: &q, q_stride: inner, k: &kv, v: &kv[inner..], kv_stride: 2 * inner };
    let (mut probs, mut out) = (vec![0.0; shape.probs_len()], vec![0.0; positions * inner]);
    let (mut dq, mut dkv) = (vec![0.0; q.len()], vec![0.0; kv.len()]);
    let mut scratch = AttentionScratch::default();
    let flops = 4 * positions * positions * inner;
    time(&mut group, "forward", flops, || {
        shape.forward(inputs, &mut probs, &mut out, inner, &mut scratch).map_err(Error::wrap)
    });
    time(&mut group, "backward", 2 * flops, || {
        let mut grads = AttentionGrads { q: &mut dq, kv: &mut dkv, v_start: inner, bias: None };
        shape.backward(inputs, &probs, &d_out, inner, &mut grads, &mut scratch).map_err(Error::wrap)
    });
}

/// What is done element by element.
fn elementwise(c: &mut Criterion) {
    let mut group = c.benchmark_group("elementwise");
    let (rows, width, vocab) = (256, 128, 3027);
    let stride = padded(vocab);
    let (x, weight) = (values(1, rows * width), values(2, width));
    let (mut normed, mut inverses) = (vec![0.0; x.len()], vec![0.0; rows]);
    time(&mut group, "RMSNorm", x.len(), || {
        fused::rms_norm(black_box(&x), &weight, 1e-6, &mut normed, &mut inverses);
        Ok(())
    });
    let mask = DropoutMask::new(0.1, &CounterRng::new(1)).ok().flatten();
    let mut hidden = values(3, rows * 1024);
    time(&mut group, "ReLU and dropout", hidden.len(), || {
        fused::relu_dropout(black_box(&mut hidden), mask.as_ref());
        Ok(())
    });
    let labels: Vec<u32> = (0..rows as u32).collect();
    let given = values(4, rows * stride);
    let mut logits = given.clone();
    time(&mut group, "softmax cross-entropy", rows * vocab, || {
        logits.copy_from_slice(&given);
        black_box(fused::cross_entropy(&mut logits, stride, vocab, &labels, 1.0));
        Ok(())
    });
}

/// Quantisers on all threads.
fn nearest(c: &mut Criterion) {
    let mut group = c.benchmark_group("nearest");
    group.sample_size(20);
    let (rows, codes) = (9216, 256);
    for d in [32, 768] {
        let x = values(1, rows * d);
        let books: Vec<Codebook> = (2..5).filter_map(|seed| Codebook::new(&values(seed, codes * d), d).ok()).collect();
        let Some(book) = books.first() else { continue };
        let flops = 2 * rows * codes * d;
        let (mut found, mut distances) = (vec![0; rows], vec![0.0; rows]);
        time(&mut group, &format!("assign, d {d}"), flops, || book.assign(&x, &mut found, None).map_err(Error::wrap));
        let mut shares = vec![ClusterSums::new(codes, d); 16];
        time(&mut group, &format!("pass of Lloyd, d {d}"), flops, || {
            book.assign_and_sum(&x, &mut found, &mut distances, &mut shares).map_err(Error::wrap)
        });
        let mut tuples = vec![0; rows * books.len()];
        time(&mut group, &format!("residual codes, d {d}"), books.len() * flops, || {
            residual_codes(&x, &books, &mut tuples).map_err(Error::wrap)
        });
    }
    let (d, bits) = (768, 64);
    let x = values(1, rows * d);
    if let Ok(hash) = SimHash::new(&values(2, bits * d), d) {
        let mut words = vec![0; rows * hash.words()];
        time(&mut group, "SimHash, 64 bits of 768", 2 * rows * bits * d, || {
            hash.hash(&x, &mut words).map_err(Error::wrap)
        });
    }
}

criterion_group!(kernels, matmul, attention, elementwise, nearest);
criterion_main!(kernels);
