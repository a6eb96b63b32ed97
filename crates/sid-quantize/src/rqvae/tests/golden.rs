//! Gradients of vector-quantize-pytorch on recorded values (`tests/golden/scripts/quantize.py`).

use candle_core::{DType, Device, Tensor};
use genrec_kernels::{CounterRng, Gradients};
use serde::Deserialize;

use super::super::bottleneck::RqBottleneck;
use super::super::codebooks::{Codebooks, of_maps};
use super::super::estimator::rotate_back;
use super::super::*;
use super::small;
use crate::autoencoder::{Bottleneck, Step};
use crate::coder::codebook_name;
use crate::golden::recorded;

/// Of each precision, how far a value may be from the recorded one, in units of the tensor's largest where that is above 1.
const PRECISIONS: [(DType, f64); 2] = [(DType::F64, 1e-9), (DType::F32, 1e-5)];

type Matrix = Vec<Vec<f64>>;

fn tensor(values: &Matrix, dtype: DType) -> Tensor {
    Tensor::new(values.clone(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// Row by row, so that a row of large values excuses no other.
fn assert_near(what: &str, ours: &Tensor, theirs: &Matrix, tolerance: f64) {
    let ours = ours.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!(ours.len(), theirs.len(), "{what}");
        let scale = theirs.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
        let off = ours.iter().zip(theirs).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
        assert!(off <= tolerance * scale, "{what}, row {at}: {off:e} off of {scale}");
    }
}

#[derive(Deserialize)]
struct Rotation {
    src: Matrix,
    tgt: Matrix,
    upstream: Matrix,
    grad_src: Matrix,
}

#[test]
fn the_rotation_tricks_gradient_is_that_of_vector_quantize_pytorch() {
    let recorded: Rotation = recorded("rotation.json");
    assert_eq!(recorded.src.len(), 24);
    for (dtype, tolerance) in PRECISIONS {
        let [e, q, g] = [&recorded.src, &recorded.tgt, &recorded.upstream].map(|values| tensor(values, dtype));
        assert_near("grad", &rotate_back(&e, &q, &g).unwrap(), &recorded.grad_src, tolerance);
    }
}

#[derive(Deserialize)]
struct Recorded {
    commitment: f64,
    points: Matrix,
    weight: Matrix,
    x: Matrix,
    upstream: Matrix,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    rotation_trick: bool,
    loss: f64,
    indices: Vec<u32>,
    quantized: Matrix,
    grad_x: Matrix,
    grad_weight: Matrix,
}

#[test]
fn sim_vqs_loss_and_gradients_are_those_of_vector_quantize_pytorch() {
    let recorded: Recorded = recorded("sim_vq.json");
    assert_eq!(recorded.cases.len(), 2);
    for (case, (dtype, tolerance)) in recorded.cases.iter().flat_map(|case| PRECISIONS.map(|of| (case, of))) {
        let estimator = if case.rotation_trick { Estimator::RotationTrick } else { Estimator::StraightThrough };
        let config = small()
            .with_codebook(CodebookLearning::SimVq)
            .with_restart_after(None)
            .with_estimator(estimator)
            .with_commitment(recorded.commitment)
            .with_latent_dim(recorded.points[0].len())
            .with_codebook_sizes([recorded.points.len() as u32]);
        config.validate().unwrap();
        let points = tensor(&recorded.points, dtype);
        let words = points.matmul(&tensor(&recorded.weight, dtype).t().unwrap()).unwrap();
        let books = Codebooks::new(&[(codebook_name(0), words)].into(), &config, &Device::Cpu).unwrap();
        let bottleneck = RqBottleneck::new(&config, books, CounterRng::new(0));
        let step = Step { number: 0, progress: 0.0, rows: &[] };
        let (x, upstream) = (tensor(&recorded.x, dtype), tensor(&recorded.upstream, dtype));

        let found = bottleneck.quantize(&x, step).unwrap();
        let mut gradients = Gradients::default();
        let pull = bottleneck.backward(&x, &found, &upstream, step, &mut gradients).unwrap();
        let through = of_maps(&[points], &gradients).unwrap();

        assert_eq!(found.codes[0].to_vec1::<u32>().unwrap(), case.indices);
        assert_near("quantized", &found.latent, &case.quantized, tolerance);
        assert!((pull.loss - case.loss).abs() <= tolerance * case.loss, "{} {}", pull.loss, case.loss);
        assert_near("x", &pull.grad_z, &case.grad_x, tolerance);
        assert_near("map", through.get(&codebook_name(0)).unwrap(), &case.grad_weight, tolerance);
    }
}
