use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::*;
use crate::{CounterRng, cuda::emulated, init};

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
fn results(device: &Device, dtype: DType, seed: u64, p: f64, most: (u64, u64)) -> Vec<(String, Tensor)> {
    let (most_rows, most_sequences) = most;
    let rng = CounterRng::new(seed);
    let draw = |stream: u64, dims: &[usize]| normal(seed ^ (stream << 32), dims, device);
    let mask = |site: u64| DropoutMask::new(p, &rng.stream(site)).unwrap();
    let size = |at: u64, most: u64| 1 + rng.below(at, most) as usize;
    let mut found: Vec<(String, Tensor)> = Vec::new();
    let mut keep = |name: &str, tensor: &Tensor| found.push((name.to_owned(), tensor.to_device(&Device::Cpu).unwrap()));

    let (rows, d) = (size(0, most_rows), [8, 48, 64, 128, 136, 256][rng.below(1, 6) as usize]);
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
    let labels: Vec<u32> =
        (0..rows as u64).map(|i| u32::try_from(rng.stream(9).below(i, vocab as u64)).unwrap()).collect();
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
        let sequences = size(14, most_sequences);
        let queries = spans(&rng.stream(15), sequences, if own { 150 } else { 9 }, device);
        let other = spans(&rng.stream(16), sequences, 150, device);
        let keys = if own { &queries } else { &other };
        let sight =
            Sight { queries: &queries, keys, heads, causal: own && rng.below(17, 2) == 1, mask: inner.as_ref() };
        // Small, as trained scores are: exponentials of large ones magnify what bf16 rounds.
        let project = |stream: u64, rows: usize, columns: usize| {
            (draw(stream, &[rows, columns]) * 0.3).unwrap().to_dtype(dtype).unwrap()
        };
        let (q, kv) = (project(18, queries.rows(), 3 * inner_width), project(19, keys.rows(), 2 * inner_width + 8));
        let kv = if own { &q } else { &kv };
        let inputs = [
            at(&q, 0),
            at(kv, if own { inner_width } else { 8 }),
            at(kv, if own { 2 * inner_width } else { inner_width + 8 }),
        ];
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

/// Kernels in both types, with and without dropout, beside the compositions in `f32`.
fn compare(seeds: u64, most: (u64, u64), kernels: impl Fn(DType, u64, f64) -> Option<Vec<(String, Tensor)>>) {
    for seed in 0..seeds {
        for p in [0.0, 0.2] {
            let want = results(&Device::Cpu, DType::F32, seed, p, most);
            for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::BF16, 3e-2)] {
                let Some(got) = kernels(dtype, seed, p) else { return };
                assert_eq!(got.len(), want.len());
                for ((name, got), (_, want)) in got.iter().zip(&want) {
                    close(&format!("{name}, {dtype:?}, seed {seed}, dropout {p}"), got, want, tolerance);
                }
            }
        }
    }
}

#[test]
fn kernels_on_a_gpu_are_their_compositions() {
    let Some(gpu) = gpu() else { return };
    let most = (700, 9);
    compare(40, most, |dtype, seed, p| Some(results(&gpu, dtype, seed, p, most)));
}

#[test]
fn kernels_on_a_processor_are_their_compositions() {
    let most = (60, 3);
    compare(4, most, |dtype, seed, p| emulated::with(|| results(&Device::Cpu, dtype, seed, p, most)));
}

/// Keys of earlier steps, found by way of rows that moved since.
#[test]
fn the_past_is_attended_to_where_it_was_computed() {
    let past = |device: &Device, dtype: DType| -> Vec<Tensor> {
        let (rows, heads) = (7, 3);
        let mut found = Vec::new();
        for width in [5, 16, 64, 100] {
            let draw = |seed: u64, rows: usize| {
                (normal(seed, &[rows, 3 * heads * width], device) * 0.3).unwrap().to_dtype(dtype).unwrap()
            };
            let moved = |seed: u64, of: u64| {
                let rng = CounterRng::new(seed);
                let rows: Vec<u32> = (0..rows as u64).map(|i| u32::try_from(rng.below(i, of)).unwrap()).collect();
                Tensor::new(rows, device).unwrap()
            };
            let steps = [
                Past { projected: vec![draw(1, 4), draw(2, 4)], rows: Some(moved(1, 4)) },
                Past { projected: vec![draw(3, 9), draw(4, 9)], rows: Some(moved(2, 9)) },
                Past { projected: vec![draw(5, rows), draw(6, rows)], rows: None },
            ];
            for earlier in 0..=steps.len() {
                let table = PastTable::new(&steps[..earlier], device).unwrap();
                let bias = normal(9, &[earlier + 1, heads], device);
                for layer in 0..2 {
                    let out = table.attend(layer, &draw(7 + layer as u64, rows), &bias).unwrap();
                    found.push(out.to_dtype(DType::F32).unwrap().to_device(&Device::Cpu).unwrap());
                }
            }
        }
        found
    };
    let want = past(&Device::Cpu, DType::F32);
    let devices = [("a GPU", gpu().map(|gpu| [past(&gpu, DType::F32), past(&gpu, DType::BF16)]))];
    let emulated = emulated::with(|| [past(&Device::Cpu, DType::F32), past(&Device::Cpu, DType::BF16)]);
    for (device, found) in devices.into_iter().chain([("a processor", emulated)]) {
        let Some([single, half]) = found else { continue };
        for (i, want) in want.iter().enumerate() {
            close(&format!("case {i} on {device}"), &single[i], want, 1e-5);
            close(&format!("case {i} on {device}, bf16"), &half[i], want, 2e-2);
        }
    }
}

/// Queries without a key attend to nothing and pull at nothing; later keys are those after the last queries.
#[test]
fn sequences_without_keys_and_fewer_queries_than_keys() {
    let work = |device: &Device| {
        let (queries, keys) = (Spans::new([2, 3, 1], device).unwrap(), Spans::new([0, 70, 4], device).unwrap());
        let (q, kv) = (normal(1, &[6, 32], device), normal(2, &[74, 64], device));
        let mut found = Vec::new();
        for causal in [false, true] {
            let sight = Sight { queries: &queries, keys: &keys, heads: 2, causal, mask: None };
            let inputs = [at(&q, 0), at(&kv, 0), at(&kv, 32)];
            let attended = attention(inputs[0], inputs[1], inputs[2], 32, None, &sight).unwrap();
            let (q_grad, kv_grad) = (blank_like(&q).unwrap(), blank_like(&kv).unwrap());
            let pull = Pull { inputs, grads: [at(&q_grad, 0), at(&kv_grad, 0), at(&kv_grad, 32)] };
            attention_grad(&pull, None, &sight, &attended, &normal(3, &[6, 32], device)).unwrap();
            found.extend([attended.out, q_grad, kv_grad].map(|tensor| tensor.to_device(&Device::Cpu).unwrap()));
        }
        found
    };
    let on_gpu = gpu().map(|gpu| work(&gpu));
    for found in on_gpu.into_iter().chain(emulated::with(|| work(&Device::Cpu))) {
        for part in &found {
            assert!(flat(part).iter().all(|value| value.is_finite()));
        }
        for (out, q_grad) in [(&found[0], &found[1]), (&found[3], &found[4])] {
            assert!(
                flat(&out.narrow(0, 0, 2).unwrap())
                    .iter()
                    .chain(&flat(&q_grad.narrow(0, 0, 2).unwrap()))
                    .all(|v| *v == 0.0)
            );
        }
        // The last of four queries sees all keys either way; the first of three sees two fewer where later ones are unseen.
        assert_eq!(flat(&found[0].narrow(0, 5, 1).unwrap()), flat(&found[3].narrow(0, 5, 1).unwrap()));
        assert_ne!(flat(&found[0].narrow(0, 2, 1).unwrap()), flat(&found[3].narrow(0, 2, 1).unwrap()));
    }
}

/// A trie of two levels and prefixes in it, searched by brute force.
#[test]
fn the_best_children_are_those_of_a_sort() {
    let search = |device: &Device| {
        for seed in 0..40u64 {
            let rng = CounterRng::new(seed);
            let (users, vocab, width) = (1 + rng.below(0, 3) as usize, 40u64, [1, 3, 20][rng.below(1, 3) as usize]);
            let beams = [1, 2, 7, 64, 200][rng.below(2, 5) as usize];
            // Nodes 1 to 20 are the root's children, those from 21 on theirs.
            let counts: Vec<u32> = (0..20).map(|i| rng.named("children").below(i, 12) as u32).collect();
            let mut first_child = vec![1, 21];
            for count in &counts {
                first_child.push(first_child[first_child.len() - 1] + count);
            }
            let nodes = first_child[21] as usize;
            first_child.resize(nodes + 1, nodes as u32);
            let token = |node: usize| rng.named("tokens").below(node as u64, vocab) as u32;
            let tokens: Vec<u32> = (0..nodes).map(token).collect();
            let left_out = |node: usize| rng.named("penalty").below(node as u64, 4) == 0;
            let penalty: Vec<f32> = (0..nodes).map(|n| if left_out(n) { f32::NEG_INFINITY } else { 0.0 }).collect();
            let ties = rng.below(3, 2) == 1;
            let value = |stream: &str, i: usize| {
                let value = rng.named(stream).normal_at(i as u64);
                if ties { value.round() } else { value }
            };
            let logs: Vec<f32> = (0..users * width * vocab as usize).map(|i| value("logs", i)).collect();
            let scores: Vec<f32> = (0..users * width)
                .map(
                    |i| if rng.named("empty").below(i as u64, 5) == 0 { f32::NEG_INFINITY } else { value("scores", i) },
                )
                .collect();
            let orders: Vec<Vec<u32>> =
                (0..users as u64).map(|user| rng.named("nodes").stream(user).permutation(20)).collect();
            let at = |user: usize, beam: usize| orders[user][beam] + 1;
            let tensor = |values: Vec<f32>, dims: (usize, usize)| Tensor::from_vec(values, dims, device).unwrap();
            let log_probs = tensor(logs.clone(), (users * width, vocab as usize));
            let prefixes = (width > 1).then(|| {
                let nodes: Vec<u32> = (0..users)
                    .flat_map(|user| (0..width).map(move |beam| (user, beam)))
                    .map(|(u, b)| at(u, b))
                    .collect();
                let empty = Tensor::zeros((users, width), DType::U32, device).unwrap();
                Prefixes {
                    scores: tensor(scores.clone(), (users, width)),
                    nodes: Tensor::from_vec(nodes, (users, width), device).unwrap(),
                    tokens: empty.clone(),
                    rows: empty.clone(),
                    broken: empty,
                }
            });
            let first_child_on = Tensor::new(first_child.as_slice(), device).unwrap();
            let tokens_on = Tensor::new(tokens.as_slice(), device).unwrap();
            let penalty_on = Tensor::new(penalty.as_slice(), device).unwrap();
            let filtered = rng.below(4, 2) == 1;
            let trie = TrieTables {
                first_child: &first_child_on,
                tokens: &tokens_on,
                penalty: filtered.then_some(&penalty_on),
            };
            let found = best_children(&log_probs, prefixes.as_ref(), trie, users, beams).unwrap();
            let floats = |tensor: &Tensor| tensor.to_vec2::<f32>().unwrap();
            let words = |tensor: &Tensor| tensor.to_vec2::<u32>().unwrap();
            let (got, nodes_of) = (floats(&found.scores), words(&found.nodes));
            let (tokens_of, rows_of) = (words(&found.tokens), words(&found.rows));
            for user in 0..users {
                let mut want = Vec::new();
                for beam in 0..width {
                    let (row, node) = (user * width + beam, if width > 1 { at(user, beam) } else { 0 });
                    let before = if width > 1 { scores[row] } else { 0.0 };
                    for child in first_child[node as usize]..first_child[node as usize + 1] {
                        let token = tokens[child as usize];
                        if before > f32::NEG_INFINITY && !(filtered && left_out(child as usize)) {
                            // As the kernel adds, for the sign of zero.
                            let score = before + 0.0 + logs[row * vocab as usize + token as usize];
                            want.push((score, child, token, row as u32));
                        }
                    }
                }
                want.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                want.resize(beams.max(want.len()), (f32::NEG_INFINITY, 0, 0, (user * width) as u32));
                for (i, want) in want[..beams].iter().enumerate() {
                    let got = (got[user][i], nodes_of[user][i], tokens_of[user][i], rows_of[user][i]);
                    assert_eq!(got, *want, "seed {seed}, user {user}, place {i}");
                }
            }
            assert!(found.broken.to_vec1::<u32>().unwrap().iter().all(|broken| *broken == 0));
            // What is no log-probability of the first user's is told of the first user alone, unless nobody asks for it.
            if width == 1 && counts.iter().any(|count| *count > 0) {
                for value in [f32::NAN, f32::INFINITY] {
                    let mut logs = logs.clone();
                    logs[..vocab as usize].fill(value);
                    let log_probs = tensor(logs, (users * width, vocab as usize));
                    let open = TrieTables { penalty: None, ..trie };
                    let found = best_children(&log_probs, None, open, users, beams).unwrap();
                    let broken = found.broken.to_vec1::<u32>().unwrap();
                    assert!(broken[0] == 1 && broken[1..].iter().all(|broken| *broken == 0), "{broken:?}");
                }
            }
        }
    };
    if let Some(gpu) = gpu() {
        search(&gpu);
    }
    emulated::with(|| search(&Device::Cpu));
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
    let taken = || {
        let all = [(DType::F32, 128, 64, 128), (DType::BF16, WIDEST, 16, FARTHEST), (DType::F16, 128, 64, 128)];
        let none = [(DType::F32, 128, 48, 128), (DType::F32, WIDEST + 1, 64, 128), (DType::F32, 128, 64, FARTHEST + 1)];
        [all, none].map(|cases| cases.map(|(dtype, d, head, far)| supports(&Device::Cpu, dtype, d, head, far)))
    };
    assert_eq!(taken(), [[false; 3]; 2]);
    if let Some(taken) = emulated::with(taken) {
        assert_eq!(taken, [[true, true, false], [false; 3]]);
    }
    // Selected sequences are keys, and have no gradient.
    let twice = spans.select(&[0, 0]).unwrap();
    assert!(spans.select(&[2]).is_err());
    let keys = Sight { keys: &twice, ..sight };
    let attended = attention(at(&x, 0), at(&x, 0), at(&x, 0), 4, None, &keys).unwrap();
    let grads = [at(&x, 0); 3];
    let pull = Pull { inputs: grads, grads };
    assert!(attention_grad(&pull, None, &keys, &attended, &attended.out).is_err());
    let queries = Sight { queries: &twice, ..sight };
    assert!(attention(at(&x, 0), at(&x, 0), at(&x, 0), 4, None, &queries).is_err());
    // A gradient lies as its input does.
    let narrow = normal(4, &[3, 8], &device);
    let pull = Pull { inputs: grads, grads: [at(&narrow, 0), at(&x, 0), at(&x, 0)] };
    assert!(attention_grad(&pull, None, &sight, &attended, &attended.out).is_err());
}
