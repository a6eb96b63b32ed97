//! Training in TensorBoard: event files, and a callback that writes a run's.
//!
//! ```sh
//! tensorboard --logdir DIR
//! ```

mod event;
mod writer;

use std::{ops::ControlFlow, path::Path};

pub use self::writer::EventWriter;
use crate::{Callback, CheckpointReport, EpochReport, Result, StepReport, TrainError, ValidationReport};

/// Writes a run's curves as it goes on: `train/loss` (the mean since the point before), `train/learning_rate`, `train/gradient_norm`,
/// `train/epoch`, `train/examples_per_second`; `epoch/loss`; `validation/metric`, or another name.
///
/// A run is not worth losing for its curves: the first error of the file is logged, ends the writing, and is what
/// [`finish`](Self::finish) returns.
///
/// ```no_run
/// # #[allow(dead_code)]
/// # fn fit<M: genrec_model::Trainable>(
/// #     trainer: &genrec_train::Trainer, model: &M, data: &dyn genrec_train::BatchSource<Batch = M::Batch>,
/// #     validate: &mut dyn FnMut(&M) -> Result<f64, genrec_train::BoxError>,
/// # ) -> genrec_train::Result<()> {
/// let mut curves = genrec_train::tensorboard::TensorBoard::create("runs/one/events")?.with_metric("ndcg@10");
/// trainer.fit(model, data, validate, &mut curves, None)?;
/// curves.finish()
/// # }
/// ```
#[derive(Debug)]
pub struct TensorBoard {
    writer: EventWriter,
    every: u64,
    metric: String,
    begun: bool,
    since: Since,
    failed: Option<TrainError>,
}

/// What steps added since the last point of their curves.
#[derive(Debug, Default)]
struct Since {
    losses: f64,
    steps: u64,
    examples: u64,
    seconds: f64,
}

impl TensorBoard {
    /// Starts a new event file in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the directory or the file cannot be made.
    pub fn create(dir: impl AsRef<Path>) -> Result<Self> {
        let writer = EventWriter::create(dir)?;
        let (metric, since) = ("validation/metric".to_owned(), Since::default());
        Ok(Self { writer, every: 10, metric, begun: false, since, failed: None })
    }

    /// Sets how many steps make a point of the curves; none counts as one. 10.
    #[must_use]
    pub fn with_every(mut self, steps: u64) -> Self {
        self.every = steps.max(1);
        self
    }

    /// Sets the metric's name, which follows `validation/`.
    #[must_use]
    pub fn with_metric(mut self, name: &str) -> Self {
        self.metric = format!("validation/{name}");
        self
    }

    /// Adds to the same file what [`EventWriter::start_at`] does.
    pub fn start_at(&mut self, step: u64) {
        if self.failed.is_none() {
            let written = self.writer.start_at(step);
            self.keep(written);
        }
    }

    /// Adds to the same file what [`EventWriter::scalars`] does.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) {
        if self.failed.is_none() {
            let written = self.writer.scalars(step, values);
            self.keep(written);
        }
    }

    /// Adds to the same file what [`EventWriter::counts`] does.
    pub fn counts(&mut self, tag: &str, step: u64, counts: &[u64]) {
        if self.failed.is_none() {
            let written = self.writer.counts(tag, step, counts);
            self.keep(written);
        }
    }

    /// Adds to the same file what [`EventWriter::text`] does.
    pub fn text(&mut self, tag: &str, step: u64, markdown: &str) {
        if self.failed.is_none() {
            let written = self.writer.text(tag, step, markdown);
            self.keep(written);
        }
    }

    /// Hands all that was written to the operating system, so that TensorBoard sees it.
    pub fn flush(&mut self) {
        if self.failed.is_none() {
            let written = self.writer.flush();
            self.keep(written);
        }
    }

    fn keep(&mut self, written: Result<()>) {
        if let Err(error) = written {
            let path = self.writer.path().display();
            tracing::warn!(%path, error = &error as &dyn std::error::Error, "curves end here: the event file cannot be written");
            self.failed = Some(error);
        }
    }

    /// Hands all that was written to the operating system.
    ///
    /// # Errors
    /// The first error of the event file, [`TrainError::Io`].
    pub fn finish(mut self) -> Result<()> {
        self.flush();
        self.failed.map_or(Ok(()), Err)
    }

    /// What comes before the first event of a run: where it starts, or starts again.
    fn begin(&mut self, step: u64) {
        if !std::mem::replace(&mut self.begun, true) {
            self.start_at(step);
        }
    }
}

impl Callback for TensorBoard {
    fn on_step(&mut self, report: &StepReport) -> ControlFlow<()> {
        if !self.begun {
            // The clock of the speed starts here: what a resumed run did before is not this part's.
            self.since = Since { examples: report.examples, seconds: report.seconds, ..Since::default() };
            self.begin(report.step);
        }
        self.since.losses += f64::from(report.loss);
        self.since.steps += 1;
        if report.step.is_multiple_of(self.every) {
            let Since { losses, steps, examples, seconds } = std::mem::take(&mut self.since);
            let (read, took) = (report.examples.saturating_sub(examples) as f64, report.seconds - seconds);
            let mut values = vec![
                ("train/loss", losses / steps as f64),
                ("train/learning_rate", report.lr),
                ("train/gradient_norm", report.grad_norm),
                ("train/epoch", f64::from(report.epoch)),
            ];
            if took > 0.0 {
                values.push(("train/examples_per_second", read / took));
            }
            self.scalars(report.step, &values);
            self.since = Since { examples: report.examples, seconds: report.seconds, ..Since::default() };
        }
        ControlFlow::Continue(())
    }

    fn on_epoch(&mut self, report: &EpochReport) -> ControlFlow<()> {
        self.scalars(report.step, &[("epoch/loss", report.mean_loss)]);
        ControlFlow::Continue(())
    }

    fn on_validation(&mut self, report: &ValidationReport) -> ControlFlow<()> {
        self.begin(report.step);
        let metric = self.metric.clone();
        self.scalars(report.step, &[(&metric, report.metric)]);
        self.flush();
        ControlFlow::Continue(())
    }

    fn on_checkpoint(&mut self, _: &CheckpointReport) -> ControlFlow<()> {
        // What is on disk and what is drawn end at the same step.
        self.flush();
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests;
