//! Agreement with `transformers`: see `tests/golden/t5/README.md`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use candle_core::Device;
use genrec_kernels::optim::{AdamWConfig, Optimizer, OptimizerConfig};
use genrec_model::{
    RaggedBatch, Seq2Seq, Trainable,
    t5::{T5, T5Config},
};
use serde::{Deserialize, Serialize};

use super::{ids, largest_difference};

const NAMES: [&str; 4] = ["relu_tied", "gated_tied", "relu_untied", "gated_untied"];
const TOLERANCE: f32 = 1e-4;

fn folder(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/t5")).join(name)
}

#[derive(Deserialize)]
struct Cases {
    sources: Vec<Vec<u32>>,
    labels: Vec<Vec<u32>>,
    loss: f32,
}

impl Cases {
    fn read(name: &str) -> Self {
        serde_json::from_slice(&fs::read(folder(name).join("cases.json")).unwrap()).unwrap()
    }

    fn batch(&self) -> RaggedBatch {
        let mut batch = RaggedBatch::new();
        for (source, target) in self.sources.iter().zip(&self.labels) {
            batch.push(source, target).unwrap();
        }
        batch
    }
}

#[test]
fn logits_and_loss_agree() {
    for name in NAMES {
        let (model, cases) = (T5::load(folder(name), &Device::Cpu).unwrap(), Cases::read(name));
        assert_eq!(model.config().tie_word_embeddings, name.ends_with("_tied"));
        let recorded = candle_core::safetensors::load(folder(name).join("logits.safetensors"), &Device::Cpu).unwrap();
        let difference = largest_difference(&model.logits(&cases.batch()).unwrap(), &recorded["logits"]);
        assert!(difference <= TOLERANCE, "{name}: {difference}");
        assert!((model.loss(&cases.batch()).unwrap() - cases.loss).abs() <= TOLERANCE, "{name}");
    }
}

#[test]
fn step_by_step_decoding_agrees() {
    for name in NAMES {
        let (model, cases) = (T5::load(folder(name), &Device::Cpu).unwrap(), Cases::read(name));
        let recorded = candle_core::safetensors::load(folder(name).join("logits.safetensors"), &Device::Cpu).unwrap();
        let expected = genrec_kernels::graph::log_softmax(&recorded["logits"]).unwrap();
        let mut state = model.start(&cases.batch()).unwrap();
        let mut tokens = vec![model.decoder_start_token(); cases.sources.len()];
        for position in 0..4 {
            let found = model.step(&ids(&tokens), &mut state).unwrap();
            let difference = largest_difference(&found, &expected.narrow(1, position, 1).unwrap().squeeze(1).unwrap());
            assert!(difference <= TOLERANCE, "{name} at {position}: {difference}");
            tokens = cases.labels.iter().map(|target| target[position]).collect();
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Export {
    sources: Vec<Vec<u32>>,
    labels: Vec<Vec<u32>>,
    logits: Vec<Vec<Vec<f32>>>,
}

/// A few steps of AdamW, so that no weight is where it began.
fn train(model: &T5, batch: &RaggedBatch) {
    let mut optimizer = OptimizerConfig::AdamW(AdamWConfig::default()).build(model.parameters()).unwrap();
    for step in 0..3 {
        let (_, gradients) = model.loss_and_grads(batch, step).unwrap();
        optimizer.step(model.parameters(), &gradients, 0.01).unwrap();
    }
}

/// Trains models and writes them for `tests/golden/scripts/_load_t5.py`, into the directory `GENREC_T5_EXPORT` where it is set.
#[test]
fn export() {
    let temporary = tempfile::tempdir().unwrap();
    let root = std::env::var_os("GENREC_T5_EXPORT").map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let cases = Cases::read(NAMES[0]);
    let mut configs = super::variants(45);
    configs.retain(|config| !config.causal_encoder);
    configs.push(T5Config::cpu(45));
    for (i, config) in configs.into_iter().enumerate() {
        let model = T5::new(config, i as u64, &Device::Cpu).unwrap();
        train(&model, &cases.batch());
        let dir = root.join(i.to_string());
        model.save(&dir).unwrap();
        let logits = model.logits(&cases.batch()).unwrap();
        let loaded = T5::load(&dir, &Device::Cpu).unwrap();
        assert_eq!(largest_difference(&logits, &loaded.logits(&cases.batch()).unwrap()), 0.0);
        let export =
            Export { sources: cases.sources.clone(), labels: cases.labels.clone(), logits: logits.to_vec3().unwrap() };
        fs::write(dir.join("logits.json"), serde_json::to_vec(&export).unwrap()).unwrap();
    }
}

/// Loads what `save_pretrained` of `transformers` wrote, by `tests/golden/scripts/_save_t5.py`, from the directory `GENREC_T5_IMPORT`.
#[test]
fn import() {
    let Some(root) = std::env::var_os("GENREC_T5_IMPORT") else {
        eprintln!("NOT RUN: models saved by transformers; `python3 tests/golden/make.py --check t5` does that");
        return;
    };
    let folders: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!folders.is_empty());
    for folder in folders {
        let case: Export = serde_json::from_slice(&fs::read(folder.join("logits.json")).unwrap()).unwrap();
        let mut batch = RaggedBatch::new();
        for (source, target) in case.sources.iter().zip(&case.labels) {
            batch.push(source, target).unwrap();
        }
        let found = T5::load(&folder, &Device::Cpu).unwrap().logits(&batch).unwrap().to_vec3::<f32>().unwrap();
        let (found, expected) = (found.into_iter().flatten().flatten(), case.logits.into_iter().flatten().flatten());
        let (difference, largest) = found.zip(expected).fold((0.0_f32, 0.0_f32), |(difference, largest), (a, b)| {
            (difference.max((a - b).abs()), largest.max(b.abs()))
        });
        eprintln!("{}: largest difference {difference:.2e} of logits up to {largest:.2}", folder.display());
        assert!(difference <= 1e-5 * largest.max(1.0), "{}: {difference}", folder.display());
    }
}
