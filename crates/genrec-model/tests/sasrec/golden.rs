//! Agreement with an implementation in PyTorch: see `tests/golden/sasrec/README.md`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use candle_core::Device;
use genrec_model::{ItemScorer, Trainable, sasrec::SasRec};
use serde::Deserialize;

use super::{batch, largest_difference, values};

const NAMES: [&str; 4] = ["queries", "queries_heads", "branches", "smoothed"];

fn folder(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/sasrec")).join(name)
}

#[derive(Deserialize)]
struct Cases {
    sequences: Vec<Vec<u32>>,
    loss: f32,
}

#[test]
fn scores_loss_and_gradients_agree() {
    for name in NAMES {
        let engine = SasRec::load(folder(name), &Device::Cpu).unwrap();
        let cases: Cases = serde_json::from_slice(&fs::read(folder(name).join("cases.json")).unwrap()).unwrap();
        let recorded = candle_core::safetensors::load(folder(name).join("expected.safetensors"), &Device::Cpu).unwrap();
        let batch = batch(&cases.sequences);
        for model in [engine.clone(), engine.with_autograd()] {
            let difference = largest_difference(&model.scores(&batch).unwrap(), &recorded["scores"]);
            assert!(difference <= 1e-4, "{name}: {difference}");
            assert!((model.loss(&batch).unwrap() - cases.loss).abs() <= 1e-5, "{name}");
        }
        let model = without_dropout(name);
        for model in [model.clone(), model.with_autograd()] {
            let (_, gradients) = model.loss_and_grads(&batch, 0).unwrap();
            assert_eq!(gradients.len() + 1, recorded.len());
            for (weight, gradient) in gradients.iter() {
                let expected = &recorded[&format!("gradient.{weight}")];
                let top = values(expected).into_iter().fold(1e-3f32, |top, value| top.max(value.abs()));
                let difference = largest_difference(gradient, expected);
                assert!(difference <= 1e-4 * top, "{name}, {weight}: {difference} of {top}");
            }
        }
    }
}

/// The same weights in a model that drops nothing in training.
fn without_dropout(name: &str) -> SasRec {
    let loaded = SasRec::load(folder(name), &Device::Cpu).unwrap();
    let model = SasRec::new(loaded.config().clone().with_dropout_rate(0.0), 0, &Device::Cpu).unwrap();
    model.parameters().restore(&loaded.parameters().snapshot().unwrap()).unwrap();
    model
}
