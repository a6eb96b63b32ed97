//! A model that ranks whole catalogues is trained by the loop like any other: early stop, checkpoints, exact resume.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use genrec_kernels::CounterRng;
use genrec_model::sasrec::{SasRec, SasRecConfig, SasRecLoss};
use genrec_model::{ItemScorer, RaggedBatch};
use genrec_train::{BatchSource, BoxError, Checkpoint, TrainConfig, Trainer};

const ITEMS: u32 = 30;

/// Walks around the items; batches of ten of them.
struct Walks;

fn walk(user: u32, items: u32) -> Vec<u32> {
    (0..items).map(|i| (user * 7 + i * (1 + user % 2)) % ITEMS).collect()
}

impl BatchSource for Walks {
    type Batch = RaggedBatch;

    fn num_batches(&self, _epoch: u32) -> usize {
        4
    }

    fn batch(&self, epoch: u32, index: usize) -> Result<RaggedBatch, BoxError> {
        let order = CounterRng::new(1).stream(u64::from(epoch)).permutation(40);
        let mut batch = RaggedBatch::new();
        for user in &order[index * 10..(index + 1) * 10] {
            batch.push(&walk(*user, 4 + user % 5), &[])?;
        }
        Ok(batch)
    }

    fn num_examples(&self) -> usize {
        40
    }
}

/// The share of users whose next item comes first.
fn hits(model: &SasRec) -> Result<f64, BoxError> {
    let mut histories = RaggedBatch::new();
    for user in 0..40 {
        histories.push(&walk(user, 4 + user % 5), &[])?;
    }
    let best = model.scores(&histories)?.argmax(1)?.to_vec1::<u32>()?;
    let hits = (0..40u32).filter(|user| walk(*user, 5 + user % 5).last() == best.get(*user as usize)).count();
    Ok(hits as f64 / 40.0)
}

/// Trains, and returns the best share of hits; a failure at that validation, if it comes so far, ends the run without.
fn fit(loss: &SasRecLoss, dir: &Path, resume: bool, fail_at: usize) -> Option<f64> {
    let config = SasRecConfig::new(ITEMS as usize)
        .with_d_model(16)
        .with_max_len(10)
        .with_dropout_rate(0.1)
        .with_loss(loss.clone());
    let model = SasRec::new(config, 3, &Device::Cpu).unwrap();
    let config = TrainConfig::default()
        .with_learning_rate(5e-3)
        .with_max_steps(None)
        .with_epochs(Some(60))
        .with_checkpoint_every_steps(7);
    let mut validations = 0;
    let mut validate = |model: &SasRec| {
        validations += 1;
        if validations == fail_at { Err("a failure".into()) } else { hits(model) }
    };
    let trainer = Trainer::new(config).unwrap().with_resume(resume);
    let report = trainer.fit(&model, &Walks, &mut validate, &mut (), Some(dir)).ok()?;
    report.best_metric
}

fn weights(dir: &Path) -> BTreeMap<String, Vec<u32>> {
    let values = |(name, weight): (String, Tensor)| {
        let values = weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (name, values.into_iter().map(f32::to_bits).collect())
    };
    Checkpoint::read(dir.join("last")).unwrap().weights.into_iter().map(values).collect()
}

#[test]
fn it_learns_and_is_resumed_to_the_same_bytes() {
    for loss in [SasRecLoss::full_cross_entropy(), SasRecLoss::bce(4)] {
        let dir = tempfile::tempdir().unwrap();
        let [whole, parts] = ["whole", "parts"].map(|name| dir.path().join(name));
        let best = fit(&loss, &whole, false, usize::MAX).unwrap();
        if loss == SasRecLoss::full_cross_entropy() {
            // By chance it would be 1 of 30.
            assert!(best > 0.5, "{best}");
        }
        assert_eq!(fit(&loss, &parts, false, 20), None);
        assert_eq!(fit(&loss, &parts, true, usize::MAX), Some(best));
        assert_eq!(weights(&whole), weights(&parts));
    }
}
