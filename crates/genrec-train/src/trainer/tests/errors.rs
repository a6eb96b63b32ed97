//! Every way in which a run can fail, and what it leaves behind.

use std::path::Path;

use candle_core::Tensor;
use genrec_kernels::optim::{AdamWConfig, OptimizerConfig};
use genrec_kernels::{Gradients, Parameters};
use genrec_model::Trainable;

use super::toy::*;
use crate::*;

fn failure(config: TrainConfig, data: &Points, dir: Option<&Path>) -> (Toy, TrainError) {
    let model = Toy::new();
    let error = Trainer::new(config).unwrap().fit(&model, data, &mut judge, &mut (), dir).unwrap_err();
    (model, error)
}

fn refused(config: TrainConfig, dir: &Path) -> TrainError {
    fit(config, Some(dir), true, &mut ()).map(|(_, report)| report).unwrap_err()
}

#[test]
fn a_loss_that_is_not_finite_spoils_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let poisoned = Points { spoil: Some((1, 2, f32::NAN)), ..DATA };
    let (model, error) = failure(config(), &poisoned, Some(dir.path()));
    let last = dir.path().join("last");
    match error {
        TrainError::NonFinite { what: Quantity::Loss, step: 7, epoch: 1, batch: 2, checkpoint, value } => {
            assert!(value.is_nan());
            assert_eq!(checkpoint.as_deref(), Some(last.as_path()));
        }
        other => panic!("{other:?}"),
    }
    assert!(weights(&model).iter().flatten().all(|w| w.is_finite()));
    let saved = Checkpoint::read(&last).unwrap();
    assert_eq!(saved.progress.step, 6);
    let six = saved.weights.values().map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    assert_eq!(six.collect::<Vec<_>>(), weights(&model));
    // With the batch mended the run goes on as if nothing had happened.
    let (resumed, _) = fit(config(), Some(dir.path()), true, &mut ()).unwrap();
    assert_eq!(weights(&resumed), weights(&fit(config(), None, false, &mut ()).unwrap().0));
}

/// All but the first epoch have one batch.
struct Shorter;

impl BatchSource for Shorter {
    type Batch = (Tensor, Tensor);
    fn num_batches(&self, epoch: u32) -> usize {
        if epoch == 0 { 4 } else { 1 }
    }
    fn batch(&self, epoch: u32, index: usize) -> std::result::Result<Self::Batch, BoxError> {
        DATA.batch(epoch, index)
    }
    fn num_examples(&self) -> usize {
        DATA.num_examples()
    }
}

/// Its loss is fine, its gradient is not.
struct BadGradient(Toy);

impl Trainable for BadGradient {
    type Batch = (Tensor, Tensor);
    fn parameters(&self) -> &Parameters {
        &self.0.0
    }
    fn loss_and_grads(&self, batch: &Self::Batch, seed: u64) -> candle_core::Result<(f32, Gradients)> {
        let (loss, mut gradients) = self.0.loss_and_grads(batch, seed)?;
        gradients.scale(f64::INFINITY)?;
        Ok((loss, gradients))
    }
    fn loss(&self, batch: &Self::Batch) -> candle_core::Result<f32> {
        self.0.loss(batch)
    }
}

#[test]
fn a_gradient_that_is_not_finite_moves_nothing() {
    for clip in [None, Some(1.0)] {
        let model = BadGradient(Toy::new());
        let trainer = Trainer::new(config().with_clip_norm(clip)).unwrap();
        let error = trainer.fit(&model, &DATA, &mut |_| Ok(0.0), &mut (), None).unwrap_err();
        let expected = matches!(
            error,
            TrainError::NonFinite { what: Quantity::GradientNorm, step: 1, batch: 0, checkpoint: None, .. }
        );
        assert!(expected, "{error:?}");
        assert_eq!(weights(&model.0), weights(&Toy::new()));
    }
}

#[test]
fn a_second_run_in_a_directory_is_refused_and_disturbs_nothing() {
    let (dir, alone) = (tempfile::tempdir().unwrap(), fit(config(), None, false, &mut ()).unwrap());
    let mut refusals = 0;
    let mut judge_beside_another = |model: &Toy| {
        let error = refused(config(), dir.path());
        assert!(matches!(&error, TrainError::Locked { dir: named } if named == dir.path()), "{error:?}");
        refusals += 1;
        judge(model)
    };
    let model = Toy::new();
    let trainer = Trainer::new(config()).unwrap();
    let report = trainer.fit(&model, &DATA, &mut judge_beside_another, &mut (), Some(dir.path())).unwrap();
    assert!(refusals > 1);
    assert_eq!(weights(&model), weights(&alone.0));
    assert_eq!(report.steps, alone.1.steps);
    // Nobody holds it now.
    fit(config(), Some(dir.path()), true, &mut ()).unwrap();
}

#[test]
fn weights_and_metrics_that_are_not_finite_are_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let huge = config().with_learning_rate(1e39).with_checkpoint_every_steps(1);
    let (_, error) = failure(huge, &DATA, Some(dir.path()));
    assert!(matches!(error, TrainError::NonFinite { what: Quantity::Weights, step: 1, .. }), "{error:?}");
    assert!(!dir.path().join("last").exists());
    let trainer = Trainer::new(config()).unwrap();
    let error = trainer.fit(&Toy::new(), &DATA, &mut |_| Ok(f64::NAN), &mut (), None).unwrap_err();
    assert!(matches!(error, TrainError::NonFinite { what: Quantity::Metric, step: 4, .. }), "{error:?}");
}

/// Fails in the way its number says.
struct Broken(u8);

impl BatchSource for Broken {
    type Batch = (Tensor, Tensor);
    fn num_batches(&self, epoch: u32) -> usize {
        if self.0 == 0 { usize::from(epoch == 0) } else { 2 }
    }
    fn batch(&self, epoch: u32, index: usize) -> std::result::Result<Self::Batch, BoxError> {
        match (self.0, index) {
            (1, 1) => Err("no such file".into()),
            (2, 1) => {
                let (x, y) = DATA.batch(epoch, index)?;
                Ok((x.t()?, y))
            }
            _ => DATA.batch(epoch, index),
        }
    }
    fn num_examples(&self) -> usize {
        16
    }
}

#[test]
fn sources_models_and_validations_are_blamed_by_name() {
    let run = |kind: u8| {
        let trainer = Trainer::new(config()).unwrap();
        trainer.fit(&Toy::new(), &Broken(kind), &mut judge, &mut (), None).unwrap_err()
    };
    assert!(matches!(run(0), TrainError::NoBatches { epoch: 1 }));
    assert!(matches!(run(1), TrainError::Batch { epoch: 0, batch: 1, .. }));
    assert!(matches!(run(2), TrainError::Step { step: 2, epoch: 0, batch: 1, .. }));
    let trainer = Trainer::new(config()).unwrap();
    let error = trainer.fit(&Toy::new(), &DATA, &mut |_| Err("out of users".into()), &mut (), None).unwrap_err();
    assert!(matches!(error, TrainError::Validation { step: 4, .. }));
    assert!(matches!(Trainer::new(config().with_epochs(None)), Err(TrainError::Unbounded)));
}

#[test]
fn another_runs_checkpoints_are_not_overwritten_and_not_continued() {
    let dir = tempfile::tempdir().unwrap();
    fit(config().with_max_steps(Some(6)), Some(dir.path()), false, &mut ()).unwrap();
    let (_, error) = failure(config().with_max_steps(Some(6)), &DATA, Some(dir.path()));
    assert!(matches!(error, TrainError::CheckpointExists { .. }));
    let base = config().with_max_steps(Some(6));
    let mismatch = |config: TrainConfig| match refused(config, dir.path()) {
        TrainError::ConfigMismatch { field, saved, given } => (field, saved, given),
        other => panic!("{other:?}"),
    };
    assert_eq!(mismatch(base.clone().with_learning_rate(0.5)), ("learning_rate".into(), "0.03".into(), "0.5".into()));
    assert_eq!(mismatch(base.clone().with_seed(3)).0, "seed");
    let decay = OptimizerConfig::AdamW(AdamWConfig::default().with_weight_decay(0.3));
    assert_eq!(mismatch(base.clone().with_optimizer(decay)).0, "optimizer.weight_decay");
    assert_eq!(mismatch(base.clone().with_max_steps(None)), ("max_steps".into(), "6".into(), "null".into()));
    let trainer = Trainer::new(base.clone()).unwrap().with_resume(true);
    let error = trainer.fit(&Toy::new(), &Broken(9), &mut judge, &mut (), Some(dir.path())).unwrap_err();
    assert!(matches!(error, TrainError::DataMismatch { what: "examples", saved: 32, given: 16 }), "{error:?}");
    let error = trainer.fit(&Toy::new(), &Shorter, &mut judge, &mut (), Some(dir.path())).unwrap_err();
    assert!(matches!(error, TrainError::DataMismatch { saved: 3, given: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("3 batches or more in the epoch under way"), "{error}");
    let wide = Toy::with_hidden(HIDDEN + 1);
    let error = trainer.fit(&wide, &DATA, &mut judge, &mut (), Some(dir.path())).unwrap_err();
    assert!(matches!(error, TrainError::Misfit { .. }), "{error:?}");
    assert_eq!(weights(&wide), weights(&Toy::with_hidden(HIDDEN + 1)));
    assert!(fit(base, Some(dir.path()), true, &mut ()).is_ok());
}

#[test]
fn a_file_in_the_directorys_place_is_an_io_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let (_, error) = failure(config(), &DATA, Some(&file));
    assert!(matches!(error, TrainError::Io { .. }), "{error:?}");
}

#[test]
fn a_best_checkpoint_that_is_gone_or_foreign_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (short, long) = (dir.path().join("short"), dir.path().join("long"));
    fit(config().with_max_steps(Some(4)), Some(&short), false, &mut ()).unwrap();
    fit(config(), Some(&long), false, &mut ()).unwrap();
    std::fs::rename(long.join("best"), dir.path().join("kept")).unwrap();
    assert!(matches!(refused(config(), &long), TrainError::Corrupt { .. }));
    std::fs::rename(short.join("best"), long.join("best")).unwrap();
    let error = refused(config(), &long);
    assert!(error.to_string().contains("that of step 4"), "{error}");
}
