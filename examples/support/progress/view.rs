//! A pipeline before one's eyes.

use std::time::{Duration, Instant};

use genrec::{
    pipeline::{Event, Observer, Stage},
    train::{StepReport, TrainConfig},
};

use super::Progress;

/// Of a run's time what training may have: the rest is kept for the test.
const TRAINING: f64 = 0.9;

/// Shows a pipeline stage by stage, and a line for each validation.
#[derive(Debug)]
pub struct ProgressView {
    progress: Option<Progress>,
    length: Length,
    loss: f64,
}

/// What ends training, as far as it is known before.
#[derive(Debug)]
struct Length {
    epochs: Option<u32>,
    steps: Option<u64>,
    seconds: Option<f64>,
    /// From the start of the run on.
    budget: Option<(Instant, Duration)>,
}

impl Length {
    /// How much of training is done, by whichever limit comes first. Where a patience ends it, it is done before.
    fn share(&self, step: &StepReport) -> Option<f64> {
        let of = |done: f64, total: f64| (total > 0.0).then_some(done / total);
        [
            self.epochs.and_then(|epochs| of(step.step as f64, f64::from(epochs) * step.epoch_steps as f64)),
            self.steps.and_then(|steps| of(step.step as f64, steps as f64)),
            self.seconds.and_then(|seconds| of(step.seconds, seconds)),
            self.budget.and_then(|(start, total)| of(start.elapsed().as_secs_f64(), TRAINING * total.as_secs_f64())),
        ]
        .into_iter()
        .flatten()
        .reduce(f64::max)
    }
}

impl ProgressView {
    /// Of training with these settings, in a run that may take the time `budget` from now on, if there is one.
    pub fn new(train: &TrainConfig, budget: Option<Duration>) -> Self {
        let length = Length {
            epochs: train.epochs,
            steps: train.max_steps.filter(|&steps| steps < u64::MAX),
            seconds: train.max_duration.map(|time| time.as_secs_f64()),
            budget: budget.map(|total| (Instant::now(), total)),
        };
        Self { progress: None, length, loss: f64::NAN }
    }

    fn step(&mut self, step: &StepReport) {
        // A moving average over about fifty steps: single losses jump too much to be read.
        let loss = f64::from(step.loss);
        self.loss = if self.loss.is_nan() { loss } else { 0.98 * self.loss + 0.02 * loss };
        let Some(progress) = &self.progress else { return };
        if let Some(share) = self.length.share(step) {
            progress.share(share);
        }
        let of = self.length.epochs.map_or_else(String::new, |epochs| format!(" of {epochs}"));
        progress.message(format!("epoch {}{of}, step {}, loss {:.3}", step.epoch, step.step, self.loss));
    }
}

impl Observer for ProgressView {
    fn on_event(&mut self, event: &Event<'_>) {
        if let Event::Started { stage } = event {
            // The last one goes first, or two would be drawn.
            self.progress = None;
            self.progress = Some(Progress::new(stage.name()));
        }
        if let Event::TrainStep(step) = event {
            self.step(step);
        }
        let Some(progress) = &self.progress else { return };
        match event {
            Event::Finished { stage, seconds, resumed } => {
                let how = if *resumed { "found" } else { "done" };
                progress.say(&format!("{:>9}: {how} in {seconds:.1} s", stage.name()));
                self.progress = None;
            }
            Event::Progress { stage: Stage::Train, done, total } => {
                progress.message(format!("validating, {done} of {total} users"));
            }
            Event::Progress { done, total, .. } => progress.set(*done, *total),
            Event::QuantizerEpoch(epoch) => {
                progress.set(epoch.epoch, epoch.epochs);
                progress.message(format!("loss {:.4}", epoch.loss));
            }
            Event::Validation(validation) => progress.say(&format!(
                "{:>9}: step {}, epoch {}, mean loss since the last {:.4}, NDCG@10 {:.4}{}",
                "validate",
                validation.step,
                validation.epoch,
                validation.train_loss,
                validation.metric,
                if validation.best { " (best)" } else { "" },
            )),
            _ => {}
        }
    }
}
