//! A run that is interrupted anywhere and resumed ends like one that is not.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use proptest::prelude::*;

use super::toy::*;
use crate::*;

/// Counts everything that happens; at the event `at` it unwinds, or asks to stop.
struct Interrupt {
    at: usize,
    seen: usize,
    unwind: bool,
}

impl Interrupt {
    fn event(&mut self) -> ControlFlow<()> {
        self.seen += 1;
        if self.seen != self.at {
            return ControlFlow::Continue(());
        }
        if self.unwind {
            resume_unwind(Box::new("interrupted"));
        }
        ControlFlow::Break(())
    }
}

impl Callback for Interrupt {
    fn on_step(&mut self, _: &StepReport) -> ControlFlow<()> {
        self.event()
    }
    fn on_epoch(&mut self, _: &EpochReport) -> ControlFlow<()> {
        self.event()
    }
    fn on_validation(&mut self, _: &ValidationReport) -> ControlFlow<()> {
        self.event()
    }
    fn on_checkpoint(&mut self, _: &CheckpointReport) -> ControlFlow<()> {
        self.event()
    }
}

/// Validates inside epochs too, so that losses are summed across interruptions.
fn settings() -> TrainConfig {
    config().with_validate_every(Every::Steps(4))
}

fn interrupted_everywhere(unwind: bool) {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let mut events = Interrupt { at: 0, seen: 0, unwind };
    let (model, report) = fit(settings(), Some(&whole), false, &mut events).unwrap();
    let expected = outcome(&whole, &report);
    assert_eq!((report.steps, report.epochs, report.stopped), (18, 5, StopReason::Epochs));
    assert!(events.seen > 30);
    for at in 1..=events.seen {
        let part = dir.path().join(format!("at{at}"));
        let mut interrupt = Interrupt { at, seen: 0, unwind };
        let first = catch_unwind(AssertUnwindSafe(|| fit(settings(), Some(&part), false, &mut interrupt)));
        assert_eq!(first.is_err(), unwind, "event {at}");
        // Where the later checkpoints fall is free.
        let free = settings().with_checkpoint_every_steps(at as u64 % 4);
        let (resumed, report) = fit(free, Some(&part), true, &mut ()).unwrap();
        assert_eq!(weights(&resumed), weights(&model), "event {at}");
        for (name, bytes) in outcome(&part, &report) {
            assert!(bytes == expected[&name], "{name} differs after an interruption at event {at}");
        }
    }
}

#[test]
fn unwinding_at_any_event_changes_nothing() {
    interrupted_everywhere(true);
}

#[test]
fn stopping_at_any_event_changes_nothing() {
    interrupted_everywhere(false);
}

#[test]
fn checkpoints_change_nothing() {
    let (with, dir) = (config(), tempfile::tempdir().unwrap());
    let (a, _) = fit(with.clone(), Some(dir.path()), false, &mut ()).unwrap();
    let (b, _) = fit(with, None, false, &mut ()).unwrap();
    assert_eq!(weights(&a), weights(&b));
    let (other, _) = fit(config().with_seed(12), None, false, &mut ()).unwrap();
    assert_ne!(weights(&a), weights(&other), "dropout must depend on the seed");
}

#[test]
fn a_finished_run_returns_at_once_with_the_best_weights() {
    let dir = tempfile::tempdir().unwrap();
    let (model, report) = fit(config(), Some(dir.path()), false, &mut ()).unwrap();
    let mut nothing = Interrupt { at: 1, seen: 0, unwind: true };
    let (again, same) = fit(config(), Some(dir.path()), true, &mut nothing).unwrap();
    assert_eq!(weights(&model), weights(&again));
    assert_eq!((same.history, same.best_step), (report.history, report.best_step));
}

#[test]
fn resuming_from_best_alone_continues_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let (_, report) = fit(config(), Some(&whole), false, &mut ()).unwrap();
    let expected = outcome(&whole, &report);
    let _ = fit(config(), Some(&parts), false, &mut Interrupt { at: 30, seen: 0, unwind: false }).unwrap();
    std::fs::remove_dir_all(parts.join("last")).unwrap();
    let (_, report) = fit(config(), Some(&parts), true, &mut ()).unwrap();
    assert!(outcome(&parts, &report) == expected);
}

/// What a kill between the two checkpoints of the final step leaves.
#[test]
fn a_last_checkpoint_that_is_owed_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let ever_better = |resume| {
        let (model, mut calls) = (Toy::new(), 0.0);
        let mut judge = |_: &Toy| {
            calls += 1.0;
            Ok(calls)
        };
        let trainer = Trainer::new(config()).unwrap().with_resume(resume);
        trainer.fit(&model, &DATA, &mut judge, &mut (), Some(dir.path())).unwrap()
    };
    let report = ever_better(false);
    assert_eq!(report.best_step, Some(report.steps));
    let expected = outcome(dir.path(), &report);
    std::fs::remove_dir_all(dir.path().join("last")).unwrap();
    let report = ever_better(true);
    assert!(outcome(dir.path(), &report) == expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn any_number_of_interruptions_changes_nothing(
        interruptions in prop::collection::vec((1usize..20, any::<bool>(), 0u64..5), 0..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
        let (_, report) = fit(settings(), Some(&whole), false, &mut ()).unwrap();
        let expected = outcome(&whole, &report);
        for (at, unwind, every) in interruptions {
            let config = settings().with_checkpoint_every_steps(every);
            let mut interrupt = Interrupt { at, seen: 0, unwind };
            let _ = catch_unwind(AssertUnwindSafe(|| fit(config, Some(&parts), true, &mut interrupt)));
        }
        let (_, report) = fit(settings(), Some(&parts), true, &mut ()).unwrap();
        prop_assert!(outcome(&parts, &report) == expected);
    }
}

/// Lasts long enough to be killed in the middle.
struct Slow;

impl Callback for Slow {
    fn on_step(&mut self, _: &StepReport) -> ControlFlow<()> {
        std::thread::sleep(Duration::from_millis(3));
        ControlFlow::Continue(())
    }
}

const CHILD: &str = "GENREC_TRAIN_TEST_CHILD";

/// The process that `killed_by_signal` kills; does nothing when run by itself.
#[test]
#[ignore = "run by killed_by_signal in a process of its own"]
fn child() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let config = settings().with_checkpoint_every_steps(1);
        fit(config, Some(Path::new(&dir)), true, &mut Slow).unwrap();
    }
}

#[test]
fn killed_by_signal() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let (_, report) = fit(settings(), Some(&whole), false, &mut ()).unwrap();
    let expected = outcome(&whole, &report);
    let state = killed.join("last").join("state.json");
    let mut kills = 0;
    for attempt in 0..40u64 {
        let before = std::fs::read(&state).ok();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "trainer::tests::resume::child"])
            .env(CHILD, &killed)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Let it write at least one checkpoint, then kill it somewhere in the next steps.
        let status = loop {
            if let Some(status) = process.try_wait().unwrap() {
                break Some(status);
            }
            if attempt < 12 && std::fs::read(&state).ok() != before {
                std::thread::sleep(Duration::from_micros(attempt * 1700 % 9000));
                process.kill().unwrap();
                break process.wait().ok().filter(std::process::ExitStatus::success);
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        match status {
            Some(status) => {
                assert!(status.success());
                break;
            }
            None => kills += 1,
        }
    }
    assert!(kills > 0, "no process was killed before it had finished");
    let (_, report) = fit(settings(), Some(&killed), true, &mut ()).unwrap();
    for (name, bytes) in outcome(&killed, &report) {
        assert!(bytes == expected[&name], "{name} differs after {kills} kills");
    }
}
