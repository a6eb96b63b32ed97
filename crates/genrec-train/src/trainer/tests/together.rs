//! Several ranks do what one does.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::toy::*;
use crate::collective::{Alone, Collective, CollectiveError, Threads};
use crate::*;

type Fitted = Result<(Vec<Vec<f32>>, TrainReport)>;

/// The losses that rank 0 saw; asks to stop after some.
#[derive(Default)]
struct Losses {
    seen: Vec<f32>,
    stop: Option<usize>,
}

impl Callback for Losses {
    fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
        self.seen.push(report.loss);
        if self.stop == Some(self.seen.len()) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// What one rank is given.
struct Rank<'a> {
    config: TrainConfig,
    data: Points,
    dir: Option<&'a Path>,
    stop: Option<usize>,
}

impl Default for Rank<'_> {
    fn default() -> Self {
        Self { config: config(), data: DATA, dir: None, stop: None }
    }
}

impl Rank<'_> {
    fn fit(self, collective: &dyn Collective) -> (Vec<f32>, Fitted) {
        // Rank 0's weights are the ones that count.
        let model = if collective.rank() == 0 { Toy::new() } else { Toy::with_zeros() };
        let mut losses = Losses { stop: self.stop, ..Losses::default() };
        let report = Trainer::new(self.config).unwrap().with_resume(true).fit_with(
            collective,
            &model,
            &self.data,
            &mut judge,
            &mut losses,
            self.dir,
        );
        (losses.seen, report.map(|report| (weights(&model), report)))
    }
}

/// All ranks at once, each on a thread.
fn together<'a>(ranks: usize, given: impl Fn(usize) -> Rank<'a> + Sync) -> Vec<(Vec<f32>, Fitted)> {
    let given = &given;
    std::thread::scope(|scope| {
        let spawn = |rank: Threads| scope.spawn(move || given(rank.rank()).fit(&rank));
        let threads: Vec<_> = Threads::new(ranks).unwrap().into_iter().map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn assert_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (step, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= 1e-5 * a.abs(), "step {step}: {a} {b}");
    }
}

#[test]
fn any_number_of_ranks_sees_the_losses_of_one() {
    let (expected, alone) = Rank::default().fit(&Alone);
    let (_, report) = alone.unwrap();
    // The last has no rows.
    for ranks in [1, 2, 3, 9] {
        let done = together(ranks, |_| Rank::default());
        assert_close(&done[0].0, &expected);
        let (weights, first) = done[0].1.as_ref().unwrap();
        assert_eq!((first.steps, first.stopped), (report.steps, report.stopped));
        for (losses, fitted) in &done[1..] {
            assert!(losses.is_empty(), "rank 0 alone calls back");
            let (other, report) = fitted.as_ref().unwrap();
            assert_eq!(other, weights);
            assert_eq!((report.best_metric, report.steps), (first.best_metric, first.steps));
        }
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let (expected, whole) = Rank::default().fit(&Alone);
    let (_, report) = whole.unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (first, second) in [(1, 2), (2, 1), (3, 2)] {
        let dir = dir.path().join(format!("{first}-{second}"));
        // The other ranks are not given the directory.
        let given = |stop| {
            let dir = dir.as_path();
            move |rank| Rank { dir: (rank == 0).then_some(dir), stop, ..Rank::default() }
        };
        let begun = together(first, given(Some(7)));
        assert!(begun.iter().all(|(_, fitted)| fitted.as_ref().unwrap().1.stopped == StopReason::Callback));
        let done = together(second, given(None));
        let losses: Vec<f32> = begun[0].0.iter().chain(&done[0].0).copied().collect();
        assert_close(&losses, &expected);
        let (weights, resumed) = done[0].1.as_ref().unwrap();
        assert!(done.iter().all(|(_, fitted)| &fitted.as_ref().unwrap().0 == weights));
        assert_eq!(resumed.steps, report.steps);
        assert!((resumed.best_metric.unwrap() - report.best_metric.unwrap()).abs() < 1e-5);
    }
}

#[test]
fn a_finished_run_is_finished_for_all_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let (_, alone) = Rank { dir: Some(dir.path()), ..Rank::default() }.fit(&Alone);
    let done = together(2, |rank| Rank { dir: (rank == 0).then_some(dir.path()), ..Rank::default() });
    for (losses, fitted) in done {
        assert!(losses.is_empty());
        assert_eq!(fitted.unwrap().0, alone.as_ref().unwrap().0);
    }
}

#[test]
fn a_rank_that_is_gone_ends_the_others() {
    for gone in [0, 1] {
        let mut ranks = Threads::new(3).unwrap();
        drop(ranks.remove(gone));
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                ranks.iter().map(|rank| scope.spawn(move || Rank::default().fit(rank).1.unwrap_err())).collect();
            for thread in threads {
                let error = thread.join().unwrap();
                let TrainError::Collective { source: CollectiveError::Lost { lost, .. } } = &error else {
                    panic!("{error}")
                };
                assert_eq!(*lost, gone);
            }
        });
    }
}

#[test]
fn a_rank_that_panics_ends_the_others() {
    let mut ranks = Threads::new(2).unwrap().into_iter();
    let (zero, one) = (ranks.next().unwrap(), ranks.next().unwrap());
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            let stop = |_: &Toy| -> std::result::Result<f64, BoxError> { Ok(0.0) };
            let _one = one;
            std::panic::resume_unwind(Box::new(stop(&Toy::new()).unwrap()));
        });
        let error = Rank::default().fit(&zero).1.unwrap_err();
        assert!(matches!(error, TrainError::Collective { source: CollectiveError::Lost { rank: 0, lost: 1 } }));
        assert!(other.join().is_err());
    });
}

#[test]
fn an_error_of_one_rank_is_an_error_of_all() {
    // One whose batch fails says so itself.
    for failing in [0, 1] {
        let missing = || Points { missing: Some((1, 1)), ..DATA };
        let done = together(2, |rank| Rank { data: if rank == failing { missing() } else { DATA }, ..Rank::default() });
        let [own, other] = [failing, 1 - failing].map(|rank| done[rank].1.as_ref().unwrap_err());
        assert!(matches!(own, TrainError::Batch { epoch: 1, batch: 1, .. }), "{own}");
        assert!(matches!(other, TrainError::OtherRank), "{other}");
    }
    // Rank 1's batch makes no numbers: the loss of all is none.
    let spoilt = || Points { spoil: Some((1, 1, f32::NAN)), ..DATA };
    let done = together(2, |rank| Rank { data: if rank == 1 { spoilt() } else { DATA }, ..Rank::default() });
    for (_, fitted) in done {
        let error = fitted.unwrap_err();
        assert!(matches!(error, TrainError::NonFinite { what: Quantity::Loss, step: 6, .. }), "{error}");
    }
    // Only rank 0 can be refused its directory.
    let file = tempfile::NamedTempFile::new().unwrap();
    let done = together(2, |rank| Rank { dir: (rank == 0).then_some(file.path()), ..Rank::default() });
    let [zero, one] = [0, 1].map(|rank| done[rank].1.as_ref().unwrap_err());
    assert!(!matches!(zero, TrainError::Leader { .. }), "{zero}");
    assert!(matches!(one, TrainError::Leader { reason } if reason.starts_with(&zero.to_string())), "{one}");
}

#[test]
fn how_often_checkpoints_are_written_is_a_matter_of_rank_0() {
    let dir = tempfile::tempdir().unwrap();
    let done = together(2, |rank| Rank {
        config: config().with_checkpoint_every_steps(if rank == 0 { 2 } else { 0 }),
        dir: (rank == 0).then_some(dir.path()),
        ..Rank::default()
    });
    assert!(done.iter().all(|(_, fitted)| fitted.as_ref().unwrap().1.steps == 18));
}

#[test]
fn time_that_is_up_for_rank_0_is_up_for_all() {
    let limited = |rank| {
        let minutes = if rank == 0 { 0 } else { 60 };
        Rank {
            config: config().with_max_duration(Some(Duration::from_secs(60 * minutes + 1) / 1000)),
            ..Rank::default()
        }
    };
    let done = together(2, limited);
    let reports: Vec<_> = done.iter().map(|(_, fitted)| &fitted.as_ref().unwrap().1).collect();
    assert_eq!(reports[0].stopped, StopReason::MaxDuration);
    assert_eq!((reports[1].stopped, reports[1].steps), (reports[0].stopped, reports[0].steps));
}

#[test]
fn ranks_with_other_settings_are_refused() {
    let done = together(3, |rank| Rank { config: config().with_seed(11 + rank as u64 / 2), ..Rank::default() });
    let errors: Vec<String> = done.into_iter().map(|(_, fitted)| fitted.unwrap_err().to_string()).collect();
    assert!(errors[2].contains("rank 2 has `seed` = 12, rank 0 has 11"), "{}", errors[2]);
    assert_eq!(errors[0], errors[1]);
    assert_eq!(errors[0], TrainError::OtherRank.to_string());
}
