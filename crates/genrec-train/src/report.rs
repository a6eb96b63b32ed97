//! What a run tells while it goes on and when it ends.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// One training step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StepReport {
    /// Steps completed, this one included.
    pub step: u64,
    /// The epoch that the step belongs to, from 1.
    pub epoch: u32,
    /// Steps completed in this epoch.
    pub epoch_step: usize,
    /// Steps that this epoch has.
    pub epoch_steps: usize,
    /// Mean loss of the batch, in the model's own unit (nats for cross-entropy).
    pub loss: f32,
    /// Learning rate of the step, schedule and cooldown included.
    pub lr: f64,
    /// Euclidean norm of all gradients before clipping.
    pub grad_norm: f64,
    /// Examples read so far in all epochs; within an epoch they are counted in proportion to its steps.
    pub examples: u64,
    /// Wall-clock seconds of the run so far, over all its parts.
    pub seconds: f64,
}

/// A completed epoch.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EpochReport {
    /// Epochs completed.
    pub epoch: u32,
    /// Steps completed.
    pub step: u64,
    /// Mean loss over the epoch's steps.
    pub mean_loss: f64,
    /// Wall-clock seconds of the run so far, over all its parts.
    pub seconds: f64,
}

/// A validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ValidationReport {
    /// Steps completed.
    pub step: u64,
    /// The epoch under way or just completed, from 1.
    pub epoch: u32,
    /// What the validation returned; higher is better.
    pub metric: f64,
    /// Whether it is the highest so far.
    pub best: bool,
    /// Mean training loss since the validation before.
    pub train_loss: f64,
    /// Wall-clock seconds of the run so far, over all its parts.
    pub seconds: f64,
}

/// A checkpoint written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// Its directory.
    pub path: PathBuf,
    /// Steps completed.
    pub step: u64,
    /// Whether it is the best one rather than the last.
    pub best: bool,
}

/// Watches a run, and may end it: after [`ControlFlow::Break`] the trainer completes the step under way with all that
/// belongs to it, writes a checkpoint and returns with [`StopReason::Callback`].
///
/// `()` watches nothing.
pub trait Callback {
    /// After every step.
    fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
        let _ = report;
        ControlFlow::Continue(())
    }

    /// After every epoch, before its validation.
    fn on_epoch(&mut self, report: &EpochReport) -> ControlFlow<()> {
        let _ = report;
        ControlFlow::Continue(())
    }

    /// After every validation.
    fn on_validation(&mut self, report: &ValidationReport) -> ControlFlow<()> {
        let _ = report;
        ControlFlow::Continue(())
    }

    /// After every checkpoint, once it is whole on disk.
    fn on_checkpoint(&mut self, report: &CheckpointReport) -> ControlFlow<()> {
        let _ = report;
        ControlFlow::Continue(())
    }

    /// When the run is to end, if it has not ended by then; none by default. Asked at every step, since what must be done
    /// after training may turn out to take longer than foretold.
    ///
    /// Ends a run as [`max_duration`](crate::TrainConfig::max_duration) does, whichever comes first: with the cooldown before
    /// it, a last validation and [`StopReason::MaxDuration`].
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

impl Callback for () {}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// The number of epochs was reached.
    Epochs,
    /// The number of steps was reached.
    MaxSteps,
    /// The validation metric did not improve for as long as the patience allows, and the cooldown after it, if there is one, is over.
    Patience,
    /// The wall-clock limit or the callback's deadline was reached. The run can be resumed with a later one.
    MaxDuration,
    /// A callback asked for it. The run can be resumed.
    Callback,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TrainReport {
    /// Training examples in an epoch.
    pub examples: u64,
    /// Examples read in all epochs; in an unfinished epoch they are counted in proportion to its steps.
    pub examples_seen: u64,
    /// Steps completed.
    pub steps: u64,
    /// Epochs completed.
    pub epochs: u32,
    /// Epoch of the best validation, from 1; none without a validation.
    pub best_epoch: Option<u32>,
    /// Steps completed at the best validation.
    pub best_step: Option<u64>,
    /// The best validation's metric.
    pub best_metric: Option<f64>,
    /// Mean loss of the last completed epoch.
    pub last_epoch_loss: Option<f64>,
    /// Wall-clock seconds over all parts of the run, validations included.
    pub seconds: f64,
    /// Why the run ended.
    pub stopped: StopReason,
    /// Every validation, in order.
    pub history: Vec<ValidationReport>,
}
