//! Where a run stands: all of its state but weights and moments.

use genrec_kernels::CounterRng;
use serde::{Deserialize, Serialize};

use crate::config::{Every, TrainConfig};
use crate::report::{StopReason, TrainReport, ValidationReport};

/// The best validation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Best {
    /// Steps completed.
    pub step: u64,
    /// The epoch under way or just completed, from 1.
    pub epoch: u32,
    /// What the validation returned.
    pub metric: f64,
}

/// A sum of losses and the number of its terms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LossSum {
    sum: f64,
    steps: u64,
}

impl LossSum {
    fn add(&mut self, loss: f32) {
        self.sum += f64::from(loss);
        self.steps += 1;
    }

    fn take(&mut self) -> f64 {
        let Self { sum, steps } = std::mem::take(self);
        if steps == 0 { 0.0 } else { sum / steps as f64 }
    }
}

/// Where a run stands, as a checkpoint's `state.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Progress {
    /// Steps completed.
    pub step: u64,
    /// Epochs completed.
    pub epoch: u32,
    /// Batches of the epoch under way that have been trained on.
    pub batch: usize,
    /// Examples read in completed epochs.
    pub examples: u64,
    /// The best validation so far.
    pub best: Option<Best>,
    /// Every validation so far.
    pub history: Vec<ValidationReport>,
    /// Why the run ended, once it has; a run stopped by time or by a callback has not.
    pub finished: Option<StopReason>,
    /// Wall-clock seconds so far.
    pub seconds: f64,
    pub(crate) epoch_loss: LossSum,
    pub(crate) loss_since_validation: LossSum,
    pub(crate) last_epoch_loss: Option<f64>,
    /// The metric that last reset the patience, and the validations since.
    pub(crate) patience_metric: Option<f64>,
    pub(crate) patience_used: u32,
    /// Steps completed when the patience ran out and the cooldown began. Not written until then: a checksum is that of the fields
    /// written, and files of before have it not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cooling_since: Option<u64>,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self {
            step: 0,
            epoch: 0,
            batch: 0,
            examples: 0,
            best: None,
            history: Vec::new(),
            finished: None,
            seconds: 0.0,
            epoch_loss: LossSum::default(),
            loss_since_validation: LossSum::default(),
            last_epoch_loss: None,
            patience_metric: None,
            patience_used: 0,
            cooling_since: None,
        }
    }

    /// What no run can have come to, if it says such a thing: of a file that was never written by one.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let steps = |count: u64| count <= self.step;
        // Counts that a run adds to, with room for all that it may add.
        if self.step.max(self.examples) > 1 << 62 {
            return Some("it counts more steps or examples than a run can take");
        }
        if !steps(self.batch as u64) || !steps(u64::from(self.epoch)) {
            return Some("it counts more batches or epochs than steps");
        }
        if !steps(self.epoch_loss.steps) || !steps(self.loss_since_validation.steps) {
            return Some("it counts more losses than steps");
        }
        let validated = self.history.iter().map(|validation| validation.step);
        if !validated.clone().is_sorted() || !validated.chain(self.best.map(|best| best.step)).all(steps) {
            return Some("it was validated after more steps than it has taken");
        }
        if !self.cooling_since.is_none_or(steps) {
            return Some("its cooldown began after more steps than it has taken");
        }
        None
    }

    /// The epoch under way or just completed, from 1.
    pub(crate) fn current_epoch(&self) -> u32 {
        if self.batch > 0 || self.epoch == 0 { self.epoch.saturating_add(1) } else { self.epoch }
    }

    /// Counts a step of the given loss.
    pub(crate) fn complete_step(&mut self, loss: f32) {
        self.step += 1;
        self.batch += 1;
        self.epoch_loss.add(loss);
        self.loss_since_validation.add(loss);
    }

    /// Counts an epoch and returns its mean loss.
    pub(crate) fn complete_epoch(&mut self, examples: u64) -> f64 {
        self.epoch = self.epoch.saturating_add(1);
        self.batch = 0;
        self.examples += examples;
        let loss = self.epoch_loss.take();
        self.last_epoch_loss = Some(loss);
        loss
    }

    /// Examples read so far, pro rata in the epoch under way.
    pub(crate) fn examples_seen(&self, per_epoch: u64, batches: usize) -> u64 {
        let part = u128::from(per_epoch) * self.batch as u128 / (batches.max(1) as u128);
        self.examples + u64::try_from(part).unwrap_or(per_epoch)
    }

    /// Why the configuration ends the run after this step, if it does.
    pub(crate) fn limit(&self, config: &TrainConfig) -> Option<StopReason> {
        if config.epochs.is_some_and(|epochs| self.epoch >= epochs) {
            Some(StopReason::Epochs)
        } else if config.max_steps.is_some_and(|steps| self.step >= steps) {
            Some(StopReason::MaxSteps)
        } else {
            None
        }
    }

    /// Whether the step just completed is to be validated.
    pub(crate) fn validation_due(&self, config: &TrainConfig) -> bool {
        let scheduled = match config.validate_every {
            Every::Epochs(n) => self.batch == 0 && self.epoch.is_multiple_of(n.max(1)),
            Every::Steps(n) => self.step.is_multiple_of(n.max(1)),
        };
        scheduled || self.limit(config).is_some() || self.cooled_down(config)
    }

    /// Takes a validation's metric into account and returns its report.
    pub(crate) fn complete_validation(&mut self, metric: f64, config: &TrainConfig) -> ValidationReport {
        let best = self.best.is_none_or(|best| metric > best.metric);
        let (step, epoch) = (self.step, self.current_epoch());
        if best {
            self.best = Some(Best { step, epoch, metric });
        }
        if self.patience_metric.is_none_or(|reference| metric > reference + config.min_delta) {
            self.patience_metric = Some(metric);
            self.patience_used = 0;
        } else {
            self.patience_used = self.patience_used.saturating_add(1);
        }
        if self.cooling_since.is_none() && self.impatient(config) && config.steps_cooling_since(step).is_some() {
            self.cooling_since = Some(step);
        }
        let train_loss = self.loss_since_validation.take();
        let report = ValidationReport { step, epoch, metric, best, train_loss, seconds: self.seconds };
        self.history.push(report.clone());
        report
    }

    fn impatient(&self, config: &TrainConfig) -> bool {
        config.patience.is_some_and(|patience| self.patience_used >= patience)
    }

    /// Steps after which the run ends because its patience has run out, once it has and there is a cooldown.
    pub(crate) fn cooling_until(&self, config: &TrainConfig) -> Option<u64> {
        config.steps_cooling_since(self.cooling_since?)
    }

    fn cooled_down(&self, config: &TrainConfig) -> bool {
        self.cooling_until(config).is_some_and(|end| self.step >= end)
    }

    /// Whether the patience has run out, and the cooldown after it, if there is one, is over.
    pub(crate) fn out_of_patience(&self, config: &TrainConfig) -> bool {
        if self.cooling_since.is_some() { self.cooled_down(config) } else { self.impatient(config) }
    }

    /// The seed of everything random in the step after this one.
    pub(crate) fn dropout_seed(&self, seed: u64) -> u64 {
        CounterRng::new(seed).named("dropout").u64_at(self.step)
    }

    pub(crate) fn report(&self, stopped: StopReason, per_epoch: u64, batches: usize) -> TrainReport {
        TrainReport {
            examples: per_epoch,
            examples_seen: self.examples_seen(per_epoch, batches),
            steps: self.step,
            epochs: self.epoch,
            best_epoch: self.best.map(|best| best.epoch),
            best_step: self.best.map(|best| best.step),
            best_metric: self.best.map(|best| best.metric),
            last_epoch_loss: self.last_epoch_loss,
            seconds: self.seconds,
            stopped,
            history: self.history.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Lie = fn(&mut Progress);

    #[test]
    fn what_no_run_can_come_to_is_named() {
        let honest = || {
            let mut progress = Progress::start();
            (progress.step, progress.batch, progress.epoch) = (7, 1, 2);
            progress.complete_validation(0.5, &TrainConfig::default());
            progress
        };
        assert_eq!(honest().contradiction(), None);
        let lies: [(Lie, &str); 8] = [
            (|progress| progress.step = u64::MAX, "more steps or examples than a run"),
            (|progress| progress.examples = 1 << 63, "more steps or examples than a run"),
            (|progress| progress.batch = 8, "more batches or epochs than steps"),
            (|progress| progress.epoch = 8, "more batches or epochs than steps"),
            (|progress| progress.epoch_loss.steps = 8, "more losses than steps"),
            (|progress| progress.step = 6, "validated after more steps"),
            (
                |progress| progress.history.insert(0, ValidationReport { step: 9, ..progress.history[0].clone() }),
                "validated",
            ),
            (|progress| progress.cooling_since = Some(8), "cooldown began after more steps"),
        ];
        for (lie, expected) in lies {
            let mut progress = honest();
            lie(&mut progress);
            assert!(progress.contradiction().is_some_and(|found| found.contains(expected)), "{expected}");
        }
    }
}
