//! When a run validates, stops and keeps weights.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use genrec_kernels::optim::{AdagradConfig, OptimizerConfig, Schedule};
use genrec_model::Trainable;

use super::toy::*;
use crate::*;

/// Keeps every report.
#[derive(Default)]
struct Recorder {
    steps: Vec<StepReport>,
    epochs: Vec<EpochReport>,
    validations: Vec<ValidationReport>,
    checkpoints: Vec<CheckpointReport>,
}

impl Callback for Recorder {
    fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
        self.steps.push(report.clone());
        ControlFlow::Continue(())
    }
    fn on_epoch(&mut self, report: &EpochReport) -> ControlFlow<()> {
        self.epochs.push(report.clone());
        ControlFlow::Continue(())
    }
    fn on_validation(&mut self, report: &ValidationReport) -> ControlFlow<()> {
        self.validations.push(report.clone());
        ControlFlow::Continue(())
    }
    fn on_checkpoint(&mut self, report: &CheckpointReport) -> ControlFlow<()> {
        self.checkpoints.push(report.clone());
        ControlFlow::Continue(())
    }
}

/// Runs with the given metrics, one a validation, and returns the weights at each of them besides.
fn scripted(config: TrainConfig, metrics: &[f64]) -> (Toy, TrainReport, Vec<Vec<Vec<f32>>>) {
    let model = Toy::new();
    let mut seen = Vec::new();
    let mut judge = |model: &Toy| {
        seen.push(weights(model));
        Ok(metrics[seen.len() - 1])
    };
    let report = Trainer::new(config).unwrap().fit(&model, &DATA, &mut judge, &mut (), None).unwrap();
    (model, report, seen)
}

#[test]
fn training_converges() {
    let config = config().with_epochs(Some(60)).with_validate_every(Every::Epochs(10));
    let (model, report) = fit(config, None, false, &mut ()).unwrap();
    let first = Toy::new().loss(&DATA.batch(1000, 0).unwrap()).unwrap();
    let last = model.loss(&DATA.batch(1000, 0).unwrap()).unwrap();
    assert!(last < 0.2 * first, "{last} against {first}");
    assert_eq!(report.best_metric, Some(-f64::from(last)));
    assert_eq!(report.history.len(), 6);
    assert_eq!((report.examples, report.examples_seen), (32, 60 * 32));
}

#[test]
fn patience_counts_validations_without_improvement_and_the_best_weights_stay() {
    let metrics = [0.1, 0.5, 0.3, 0.5, 0.4, 0.9];
    let (model, report, seen) = scripted(config().with_epochs(Some(50)).with_patience(Some(3)), &metrics);
    assert_eq!((report.stopped, report.epochs), (StopReason::Patience, 5));
    assert_eq!((report.best_epoch, report.best_step, report.best_metric), (Some(2), Some(7), Some(0.5)));
    assert_eq!(weights(&model), seen[1]);
    assert_ne!(weights(&model), seen[4]);
    assert_eq!(report.history.iter().map(|v| v.best).collect::<Vec<_>>(), [true, true, false, false, false]);
}

#[test]
fn a_run_out_of_patience_cools_down_before_it_ends() {
    #[derive(Default)]
    struct Rates {
        seen: Vec<f64>,
        stop_at: u64,
    }
    impl Callback for Rates {
        fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
            self.seen.push(report.lr);
            if report.step == self.stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    // Epochs of 4, 3, 4, 3 .. batches: the patience runs out after 14 steps, the cooldown takes 5 more.
    let metrics = [0.1, 0.5, 0.3, 0.4, 0.2, 0.6];
    let config = config().with_schedule(Schedule::Constant).with_learning_rate(0.5).with_cooldown(0.25);
    let config = config.with_epochs(Some(50)).with_patience(Some(2));
    let run = |config: &TrainConfig, dir: Option<&Path>, stops: &[u64]| {
        let (mut rates, mut reports, mut asked) = (Rates::default(), Vec::new(), 0);
        let model = Toy::new();
        for (part, &stop_at) in stops.iter().enumerate() {
            rates.stop_at = stop_at;
            let mut judge = |_: &Toy| {
                asked += 1;
                Ok(metrics[asked - 1])
            };
            let trainer = Trainer::new(config.clone()).unwrap().with_resume(part > 0);
            reports.push(trainer.fit(&model, &DATA, &mut judge, &mut rates, dir).unwrap());
        }
        (rates.seen, reports.pop().unwrap(), weights(&model))
    };
    let (rates, report, whole) = run(&config, None, &[0]);
    assert_eq!((report.stopped, report.steps, report.best_metric), (StopReason::Patience, 19, Some(0.6)));
    assert_eq!(report.history.iter().map(|v| v.step).collect::<Vec<_>>(), [4, 7, 11, 14, 18, 19]);
    let expected: Vec<f64> = (0..19).map(|done| 0.5 * (f64::from(19 - done) / (0.25 * 19.0)).min(1.0)).collect();
    assert_eq!(rates, expected);
    // Stopped within the cooldown and resumed it is the same run.
    let dir = tempfile::tempdir().unwrap();
    let (again, report, resumed) = run(&config, Some(dir.path()), &[16, 0]);
    assert_eq!((again, report.stopped, resumed), (rates, StopReason::Patience, whole));
    // What else ends the run comes first, with a cooldown of its own.
    let (rates, report, _) = run(&config.with_max_steps(Some(16)), None, &[0]);
    assert_eq!((report.stopped, report.steps), (StopReason::MaxSteps, 16));
    let expected: Vec<f64> = (0..16).map(|done| 0.5 * (f64::from(16 - done) / 4.0).min(1.0)).collect();
    assert_eq!(rates, expected);
}

#[test]
fn small_gains_keep_weights_but_do_not_reset_the_patience() {
    let metrics = [0.50, 0.52, 0.54, 0.61, 0.62, 0.63];
    let config = config().with_epochs(Some(6)).with_patience(Some(3)).with_min_delta(0.1);
    let (model, report, seen) = scripted(config.clone(), &metrics);
    assert_eq!((report.stopped, report.epochs, report.best_metric), (StopReason::Epochs, 6, Some(0.63)));
    assert_eq!(weights(&model), seen[5]);
    let (_, report, _) = scripted(config.with_patience(Some(2)), &metrics);
    assert_eq!((report.stopped, report.epochs, report.best_metric), (StopReason::Patience, 3, Some(0.54)));
}

#[test]
fn validations_come_when_asked_and_at_the_end() {
    let steps = |config: TrainConfig| -> Vec<u64> {
        let (_, report) = fit(config, None, false, &mut ()).unwrap();
        report.history.iter().map(|report| report.step).collect()
    };
    assert_eq!(steps(config()), [4, 7, 11, 14, 18]);
    assert_eq!(steps(config().with_validate_every(Every::Epochs(2))), [7, 14, 18]);
    assert_eq!(steps(config().with_validate_every(Every::Steps(5))), [5, 10, 15, 18]);
    assert_eq!(steps(config().with_max_steps(Some(10))), [4, 7, 10]);
}

#[test]
fn reports_follow_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = Recorder::default();
    let (_, report) = fit(config(), Some(dir.path()), false, &mut seen).unwrap();
    let position: Vec<_> = seen.steps.iter().map(|s| (s.step, s.epoch, s.epoch_step, s.epoch_steps)).collect();
    assert_eq!(position[2..6], [(3, 1, 3, 4), (4, 1, 4, 4), (5, 2, 1, 3), (6, 2, 2, 3)]);
    assert_eq!(seen.steps.iter().map(|s| s.examples).take(5).collect::<Vec<_>>(), [8, 16, 24, 32, 42]);
    let rates: Vec<f64> = seen.steps.iter().map(|s| s.lr).take(6).collect();
    let expected: Vec<f64> = (1..=6).map(|s| 0.03 * Schedule::Warmup { warmup_steps: 5 }.factor(s)).collect();
    assert_eq!(rates, expected);
    assert_eq!(seen.epochs.len(), 5);
    let mean = seen.steps[..4].iter().map(|s| f64::from(s.loss)).sum::<f64>() / 4.0;
    assert_eq!((seen.epochs[0].mean_loss, seen.validations[0].train_loss), (mean, mean));
    assert_eq!(seen.validations, report.history);
    let last: Vec<u64> = seen.checkpoints.iter().filter(|c| !c.best).map(|c| c.step).collect();
    assert_eq!(last, [3, 4, 6, 7, 9, 11, 12, 14, 15, 18]);
    let best: Vec<u64> = seen.checkpoints.iter().filter(|c| c.best).map(|c| c.step).collect();
    assert_eq!(best, report.history.iter().filter(|v| v.best).map(|v| v.step).collect::<Vec<_>>());
    assert!(seen.steps.windows(2).all(|pair| pair[0].seconds <= pair[1].seconds));
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<TrainReport>(&json).unwrap(), report);
}

#[test]
fn clipping_bounds_what_the_optimiser_sees() {
    let sums_of_squares = |clip: Option<f64>| {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Recorder::default();
        let config = config()
            .with_optimizer(OptimizerConfig::Adagrad(AdagradConfig::default()))
            .with_clip_norm(clip)
            .with_max_steps(Some(1));
        fit(config, Some(dir.path()), false, &mut seen).unwrap();
        let state = Checkpoint::read(dir.path().join("last")).unwrap().optimizer;
        let moments = state.iter().filter(|(name, _)| *name != "step");
        let sum: f32 = moments.map(|(_, t)| t.sum_all().unwrap().to_scalar::<f32>().unwrap()).sum();
        (seen.steps[0].grad_norm, f64::from(sum).sqrt())
    };
    let (norm, free) = sums_of_squares(None);
    assert!((norm - free).abs() < 1e-4 * norm, "{norm} against {free}");
    let (reported, clipped) = sums_of_squares(Some(norm / 4.0));
    assert!((reported - norm).abs() < 1e-6, "the norm is reported before clipping");
    assert!((clipped - norm / 4.0).abs() < 1e-4 * norm, "{clipped} against {}", norm / 4.0);
}

#[test]
fn time_ends_a_run_that_can_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let short = config().with_max_duration(Some(Duration::ZERO));
    let (_, report) = fit(short, Some(dir.path()), false, &mut ()).unwrap();
    assert_eq!((report.stopped, report.steps, report.best_step), (StopReason::MaxDuration, 1, Some(1)));
    let long = config().with_max_duration(Some(Duration::from_secs(3600)));
    let (resumed, report) = fit(long, Some(dir.path()), true, &mut ()).unwrap();
    assert_eq!((report.stopped, report.steps), (StopReason::Epochs, 18));
    let (whole, _) = fit(config(), None, false, &mut ()).unwrap();
    assert_eq!(weights(&resumed), weights(&whole));
}

/// An hour to go, until step 5 finds that time is up.
#[derive(Default)]
struct Hurry {
    rates: Vec<f64>,
    deadline: Option<Instant>,
}

impl Callback for Hurry {
    fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
        self.rates.push(report.lr);
        if report.step == 5 {
            self.deadline = Some(Instant::now());
        }
        ControlFlow::Continue(())
    }
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

struct StopAt(u64);

impl Callback for StopAt {
    fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
        if report.step == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn a_deadline_cools_down_and_ends_with_a_validation() {
    let dir = tempfile::tempdir().unwrap();
    // So long a run that its steps alone would lower nothing.
    let config = config().with_schedule(Schedule::Constant).with_cooldown(1.0).with_epochs(None).with_max_steps(None);
    let config = config.with_max_duration(Some(Duration::from_secs(3600)));
    let mut hurry = Hurry { deadline: Instant::now().checked_add(Duration::from_secs(3600)), ..Hurry::default() };
    let (_, report) = fit(config.clone(), Some(dir.path()), false, &mut hurry).unwrap();
    assert_eq!((report.stopped, report.steps), (StopReason::MaxDuration, 5));
    assert_eq!(report.history.last().map(|last| last.step), Some(5));
    assert!(hurry.rates.windows(2).all(|pair| pair[1] < pair[0]), "{:?}", hurry.rates);
    // Without any time nothing more is done; with time the run goes on.
    let (_, idle) = fit(config.clone(), Some(dir.path()), true, &mut hurry).unwrap();
    assert_eq!((idle.stopped, idle.steps, idle.history), (StopReason::MaxDuration, 5, report.history));
    let (_, more) = fit(config, Some(dir.path()), true, &mut StopAt(9)).unwrap();
    assert_eq!((more.stopped, more.steps), (StopReason::Callback, 9));
}

#[test]
fn the_last_steps_cool_down() {
    struct Rates(Vec<f64>);
    impl Callback for Rates {
        fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
            self.0.push(report.lr);
            if report.step == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    // Five epochs of 4, 3, 4, 3, 4 batches.
    let config = config().with_schedule(Schedule::Constant).with_learning_rate(0.5).with_cooldown(0.5);
    let mut rates = Rates(Vec::new());
    fit(config.clone(), Some(dir.path()), false, &mut rates).unwrap();
    fit(config, Some(dir.path()), true, &mut rates).unwrap();
    let expected: Vec<f64> = (0..18).map(|done| 0.5 * (f64::from(18 - done) / 9.0).min(1.0)).collect();
    assert_eq!(rates.0, expected);
}
