//! Progress bars.

#![allow(clippy::print_stdout, reason = "where there is no terminal to draw bars on, their lines are printed")]

use std::time::Duration;

use genrec::pipeline::{Event, Observer, Stage};
use indicatif::{ProgressBar, ProgressStyle};

/// Of what has a known length.
const KNOWN: &str = "{prefix:>9} [{elapsed_precise}] {wide_bar} {pos}/{len} {msg} (ETA {eta})";
/// Of what ends when it ends.
const ENDLESS: &str = "{prefix:>9} [{elapsed_precise}] {spinner} step {pos} {msg}";

/// A bar that shows the time, and how much is done once its length is set.
pub fn bar(name: &str) -> ProgressBar {
    styled(name, KNOWN)
}

fn styled(name: &str, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_prefix(name.to_owned());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// Shows a pipeline as progress bars, one a stage, and a line for each validation.
#[derive(Debug)]
pub struct ProgressView {
    bar: ProgressBar,
    epochs: Option<u32>,
    loss: f64,
}

impl ProgressView {
    /// `epochs`: how long training is to be, where that is known.
    pub fn new(epochs: Option<u32>) -> Self {
        Self { bar: ProgressBar::hidden(), epochs, loss: f64::NAN }
    }

    fn start(&mut self, stage: Stage) {
        let template = match stage {
            Stage::Train if self.epochs.is_none() => ENDLESS,
            _ => KNOWN,
        };
        self.bar = styled(stage.name(), template);
    }

    fn say(&self, line: &str) {
        if self.bar.is_hidden() { println!("{line}") } else { self.bar.println(line) }
    }
}

impl Observer for ProgressView {
    fn on_event(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { stage } => self.start(*stage),
            Event::Finished { stage, seconds, resumed } => {
                let how = if *resumed { "found" } else { "done" };
                self.say(&format!("{:>9}: {how} in {seconds:.1} s", stage.name()));
                self.bar.finish_and_clear();
            }
            Event::Progress { done, total, .. } => {
                self.bar.set_length(*total as u64);
                self.bar.set_position(*done as u64);
            }
            Event::QuantizerEpoch(epoch) => {
                self.bar.set_length(epoch.epochs as u64);
                self.bar.set_position(epoch.epoch as u64);
                self.bar.set_message(format!("loss {:.4}", epoch.loss));
            }
            Event::TrainStep(step) => {
                // A moving average over about fifty steps: single losses jump too much to be read.
                let loss = f64::from(step.loss);
                self.loss = if self.loss.is_nan() { loss } else { 0.98 * self.loss + 0.02 * loss };
                if let Some(epochs) = self.epochs {
                    self.bar.set_length(u64::from(epochs) * step.epoch_steps as u64);
                }
                self.bar.set_position(step.step);
                self.bar.set_message(format!("epoch {} loss {:.3}", step.epoch, self.loss));
            }
            Event::Validation(validation) => self.say(&format!(
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
