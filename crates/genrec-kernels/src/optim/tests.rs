use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::*;
use crate::{CounterRng, init};

type Values = BTreeMap<String, Vec<f32>>;

#[derive(Deserialize)]
struct Case {
    lr: f64,
    config: OptimizerConfig,
    after: Vec<Values>,
}

#[derive(Deserialize)]
struct Golden {
    shapes: BTreeMap<String, Vec<usize>>,
    start: Values,
    grads: Vec<Values>,
    cases: Vec<Case>,
}

fn golden() -> Golden {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/optim/optim.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn parameters(g: &Golden, dtype: DType) -> Parameters {
    let mut params = Parameters::new(&Device::Cpu);
    for (name, values) in &g.start {
        let t = Tensor::from_slice(values, g.shapes[name].as_slice(), &Device::Cpu).unwrap();
        params.insert(name, &t.to_dtype(dtype).unwrap()).unwrap();
    }
    params
}

fn gradients(g: &Golden, values: &Values, dtype: DType) -> Gradients {
    let mut grads = Gradients::default();
    for (name, values) in values {
        let t = Tensor::from_slice(values, g.shapes[name].as_slice(), &Device::Cpu).unwrap();
        grads.insert(name, t.to_dtype(dtype).unwrap());
    }
    grads
}

#[test]
fn trajectories_of_torch_and_transformers() {
    let g = golden();
    assert_eq!(g.cases.len(), 6);
    // f32 runs the fused updates, f64 the compositions.
    for dtype in [DType::F32, DType::F64] {
        for case in &g.cases {
            let params = parameters(&g, dtype);
            let mut optimizer = case.config.build(&params).unwrap();
            for (step, (values, want)) in g.grads.iter().zip(&case.after).enumerate() {
                optimizer.step(&params, &gradients(&g, values, dtype), case.lr).unwrap();
                for (name, var) in params.iter() {
                    let got = var.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    for (a, b) in got.iter().zip(&want[name]) {
                        let error = (a - b).abs();
                        assert!(error < 2e-6 * (1.0 + b.abs()), "{:?} {dtype:?} {step} {name}: {a} {b}", case.config);
                    }
                }
            }
        }
    }
}

fn configs() -> Vec<OptimizerConfig> {
    vec![
        OptimizerConfig::AdamW(AdamWConfig::default()),
        OptimizerConfig::Adagrad(AdagradConfig::default()),
        OptimizerConfig::Adafactor(AdafactorConfig::default()),
        OptimizerConfig::Adafactor(AdafactorConfig::default().with_beta1(Some(0.9))),
    ]
}

fn large(seed: u64) -> BTreeMap<String, Tensor> {
    let rng = CounterRng::new(seed);
    let make = |name: &str, dims: &[usize]| {
        (name.to_owned(), init::normal(&rng.named(name), dims, 1.0, &Device::Cpu).unwrap())
    };
    [make("a", &[700, 64]), make("b", &[64])].into_iter().collect()
}

fn model() -> Parameters {
    let mut params = Parameters::new(&Device::Cpu);
    for (name, value) in large(0) {
        params.insert(name, &value).unwrap();
    }
    params
}

fn grads(step: u64) -> Gradients {
    let mut grads = Gradients::default();
    for (name, value) in large(100 + step) {
        grads.insert(name, value);
    }
    grads
}

fn bits(tensors: &BTreeMap<String, Tensor>) -> Vec<(String, Vec<u32>)> {
    let values = |t: &Tensor| t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    tensors.iter().map(|(n, t)| (n.clone(), values(t).iter().map(|v| v.to_bits()).collect())).collect()
}

#[test]
fn a_resumed_run_continues_bit_for_bit() {
    for config in configs() {
        let params = model();
        let mut optimizer = config.build(&params).unwrap();
        for step in 0..3 {
            optimizer.step(&params, &grads(step), 0.01).unwrap();
        }
        let (weights, state) = (params.snapshot().unwrap(), optimizer.state().unwrap());
        let resumed = model();
        resumed.restore(&weights).unwrap();
        let mut other = config.build(&resumed).unwrap();
        other.load_state(&state).unwrap();
        for step in 3..6 {
            optimizer.step(&params, &grads(step), 0.01).unwrap();
            other.step(&resumed, &grads(step), 0.01).unwrap();
        }
        assert_eq!(bits(&params.snapshot().unwrap()), bits(&resumed.snapshot().unwrap()), "{config:?}");
        assert_eq!(bits(&optimizer.state().unwrap()), bits(&other.state().unwrap()), "{config:?}");
        assert_eq!(other.state().unwrap()["step"].to_scalar::<i64>().unwrap(), 6);
    }
}

#[test]
fn the_same_bits_at_any_number_of_threads() {
    for config in configs() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let params = model();
                let mut optimizer = config.build(&params).unwrap();
                for step in 0..3 {
                    let mut grads = grads(step);
                    clip_global_norm(&mut grads, 1.0).unwrap();
                    optimizer.step(&params, &grads, 0.01).unwrap();
                }
                bits(&params.snapshot().unwrap())
            })
        };
        assert_eq!(run(1), run(2), "{config:?}");
    }
}

#[test]
fn a_state_that_does_not_fit_changes_nothing() {
    let params = model();
    let mut optimizer = configs()[0].build(&params).unwrap();
    optimizer.step(&params, &grads(0), 0.01).unwrap();
    let good = optimizer.state().unwrap();
    let spoiled = |edit: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut state = good.clone();
        edit(&mut state);
        state
    };
    let one = Tensor::ones(1, DType::F32, &Device::Cpu).unwrap();
    let nan = Tensor::full(f32::NAN, 64, &Device::Cpu).unwrap();
    let mut load = |state| optimizer.load_state(&state).unwrap_err();
    assert!(matches!(load(spoiled(&|s| drop(s.remove("step")))), ParamError::Missing { name } if name == "step"));
    assert!(matches!(load(spoiled(&|s| drop(s.remove("exp_avg.a")))), ParamError::Missing { .. }));
    assert!(matches!(load(spoiled(&|s| drop(s.insert("x".into(), one.clone())))), ParamError::Unexpected { .. }));
    assert!(matches!(load(spoiled(&|s| drop(s.insert("exp_avg.b".into(), one.clone())))), ParamError::Shape { .. }));
    assert!(matches!(
        load(spoiled(&|s| drop(s.insert("exp_avg.b".into(), nan.clone())))),
        ParamError::NotFinite { .. }
    ));
    assert_eq!(bits(&optimizer.state().unwrap()), bits(&good));
}

#[test]
fn a_step_that_cannot_be_taken_changes_nothing() {
    let params = model();
    let mut optimizer = configs()[0].build(&params).unwrap();
    let before = bits(&params.snapshot().unwrap());
    assert!(optimizer.step(&params, &Gradients::default(), 0.01).is_err());
    let mut wrong = grads(0);
    wrong.insert("b", Tensor::ones(3, DType::F32, &Device::Cpu).unwrap());
    assert!(optimizer.step(&params, &wrong, 0.01).is_err());
    assert_eq!(bits(&params.snapshot().unwrap()), before);
    assert_eq!(optimizer.state().unwrap()["step"].to_scalar::<i64>().unwrap(), 0);
}

#[test]
fn parameters_of_other_shapes_are_refused() {
    let set = |elements: usize, dtype: DType| {
        let mut params = Parameters::new(&Device::Cpu);
        let mut grads = Gradients::default();
        params.insert("w", &Tensor::ones(elements, dtype, &Device::Cpu).unwrap()).unwrap();
        grads.insert("w", Tensor::ones(elements, dtype, &Device::Cpu).unwrap());
        (params, grads)
    };
    for config in configs() {
        let (own, _) = set(10, DType::F32);
        let mut optimizer = config.build(&own).unwrap();
        for (params, grads) in [set(20, DType::F32), set(10, DType::F64)] {
            let before = bits(&params.snapshot().unwrap());
            assert!(optimizer.step(&params, &grads, 0.01).is_err(), "{config:?}");
            assert_eq!(bits(&params.snapshot().unwrap()), before, "{config:?}");
            assert_eq!(optimizer.state().unwrap()["step"].to_scalar::<i64>().unwrap(), 0, "{config:?}");
        }
    }
}

#[test]
fn a_step_that_is_no_count_is_refused() {
    let params = model();
    let mut optimizer = configs()[0].build(&params).unwrap();
    optimizer.step(&params, &grads(0), 0.01).unwrap();
    let good = optimizer.state().unwrap();
    let steps =
        [Tensor::new(-1i64, &Device::Cpu), Tensor::new(2.5f32, &Device::Cpu), Tensor::new(f32::NAN, &Device::Cpu)];
    for step in steps {
        let mut state = good.clone();
        state.insert("step".to_owned(), step.unwrap());
        let error = optimizer.load_state(&state).unwrap_err();
        assert!(error.to_string().contains("step"), "{error}");
        assert_eq!(bits(&optimizer.state().unwrap()), bits(&good));
    }
}

#[test]
fn clipping_scales_all_gradients_alike() {
    let mut grads = Gradients::default();
    grads.insert("a", Tensor::new(&[3f32, 0.0], &Device::Cpu).unwrap());
    grads.insert("b", Tensor::new(&[4f32], &Device::Cpu).unwrap());
    assert!((clip_global_norm(&mut grads, 10.0).unwrap() - 5.0).abs() < 1e-6);
    assert_eq!(grads.get("b").unwrap().to_vec1::<f32>().unwrap(), [4.0]);
    assert!((clip_global_norm(&mut grads, 1.0).unwrap() - 5.0).abs() < 1e-6);
    assert!((grads.get("a").unwrap().to_vec1::<f32>().unwrap()[0] - 0.6).abs() < 1e-6);
    assert!((grads.get("b").unwrap().to_vec1::<f32>().unwrap()[0] - 0.8).abs() < 1e-6);
    assert!(clip_global_norm(&mut grads, 0.0).is_err() && clip_global_norm(&mut grads, f64::NAN).is_err());
}

#[test]
fn hyper_parameters_are_checked() {
    let name = |config: OptimizerConfig| match config.validate() {
        Err(OptimError::OutOfRange { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(name(OptimizerConfig::AdamW(AdamWConfig::default().with_betas(1.0, 0.9))), "beta1");
    assert_eq!(name(OptimizerConfig::AdamW(AdamWConfig::default().with_eps(0.0))), "eps");
    assert_eq!(name(OptimizerConfig::Adagrad(AdagradConfig::default().with_lr_decay(-1.0))), "lr_decay");
    assert_eq!(name(OptimizerConfig::Adafactor(AdafactorConfig::default().with_decay_rate(0.8))), "decay_rate");
    assert_eq!(name(OptimizerConfig::Adafactor(AdafactorConfig::default().with_beta1(Some(1.0)))), "beta1");
    for config in configs() {
        config.validate().unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<OptimizerConfig>(&text).unwrap(), config);
    }
    assert!(serde_json::from_str::<OptimizerConfig>(r#"{ "type": "adagrad", "lr": 1.0 }"#).is_err());
}

/// Steps of all parameters at once beside those of one after another on the CPU.
#[test]
fn steps_in_kernels_are_those_of_the_host() {
    let shapes: [&[usize]; 5] = [&[300, 128], &[1024], &[7, 33], &[1, 1], &[65, 1024]];
    let run = |device: &Device, config: &OptimizerConfig| {
        let mut params = Parameters::new(device);
        let rng = crate::CounterRng::new(4);
        for (i, dims) in shapes.iter().enumerate() {
            let value = crate::init::normal(&rng.stream(i as u64), *dims, 0.1, device).unwrap();
            params.insert(format!("p{i}"), &value).unwrap();
        }
        let mut optimizer = config.build(&params).unwrap();
        for step in 0..5 {
            let mut grads = Gradients::default();
            for (i, dims) in shapes.iter().enumerate() {
                let rng = rng.named("gradients").stream(step).stream(i as u64);
                grads.insert(format!("p{i}"), crate::init::normal(&rng, *dims, 0.3, device).unwrap());
            }
            let norm = grads.global_norm().unwrap();
            assert!((norm - 97.8).abs() < 1.0, "{norm}");
            optimizer.step(&params, &grads, 0.01).unwrap();
        }
        // The moments too, each in memory of its own: a checkpoint holds them one by one.
        let state = optimizer.state().unwrap();
        for tensor in state.values() {
            let (storage, layout) = tensor.storage_and_layout();
            let host = match &*storage {
                candle_core::Storage::Cpu(candle_core::CpuStorage::F32(values)) => Some(values.len()),
                _ => None,
            };
            assert!(layout.start_offset() == 0 && host.is_none_or(|count| count == tensor.elem_count()));
        }
        let mut resumed = config.build(&params).unwrap();
        resumed.load_state(&state).unwrap();
        let values =
            |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        params.iter().map(|(_, p)| values(p)).chain(resumed.state().unwrap().values().map(values)).collect::<Vec<_>>()
    };
    let adafactor = AdafactorConfig { weight_decay: 0.01, ..AdafactorConfig::default() };
    let gpu = Device::new_cuda(0).ok();
    if gpu.is_none() {
        eprintln!("NOT RUN: optimisers on a GPU (no GPU, or built without the feature `cuda`)");
    }
    for config in [OptimizerConfig::AdamW(AdamWConfig::default()), OptimizerConfig::Adafactor(adafactor)] {
        let want = run(&Device::Cpu, &config);
        let on_gpu = gpu.as_ref().map(|gpu| run(gpu, &config));
        let emulated = crate::cuda::emulated::with(|| run(&Device::Cpu, &config));
        for (p, (got, want)) in on_gpu.iter().chain(&emulated).flat_map(|got| got.iter().zip(&want)).enumerate() {
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() < 2e-5 * (1.0 + want.abs()), "{config:?}, parameter {p}: {got}, not {want}");
            }
        }
    }
}
