//! One run: the loop and everything that it changes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use genrec_kernels::optim::{AnyOptimizer, Optimizer, clip_global_norm};
use genrec_model::{BatchShare, Trainable};
use serde_json::Value;

use super::team::Team;
use crate::checkpoint::{Checkpoint, CheckpointStore, DataSize, Resumed};
use crate::config::{TrainConfig, first_difference};
use crate::error::{BoxError, Quantity, Result, TrainError};
use crate::progress::Progress;
use crate::report::{Callback, CheckpointReport, EpochReport, StepReport, StopReason, TrainReport};
use crate::source::BatchSource;

type Weights = BTreeMap<String, Tensor>;

pub(super) struct Run<'a, M: Trainable> {
    team: Team<'a>,
    /// What of each batch this rank computes.
    share: BatchShare,
    config: &'a TrainConfig,
    model: &'a M,
    data: &'a dyn BatchSource<Batch = M::Batch>,
    optimizer: AnyOptimizer,
    progress: Progress,
    /// Weights of the best validation, on the CPU.
    best: Option<Weights>,
    /// Of rank 0 alone.
    store: Option<CheckpointStore>,
    /// The checkpoint written last, or resumed from.
    good: Option<PathBuf>,
    fingerprint: Value,
    size: DataSize,
    /// Steps after which the configuration ends the run.
    steps: Option<f64>,
    /// Steps between checkpoints, of which rank 0 decides.
    interval: u64,
    started: Instant,
    /// Seconds of the run's earlier parts.
    earlier: f64,
    stop_asked: bool,
    /// A process was killed between the best checkpoint and the last of the same step, which is owed.
    last_owed: bool,
}

fn state(source: candle_core::Error) -> TrainError {
    TrainError::State { source }
}

impl<'a, M: Trainable> Run<'a, M> {
    /// A run at its start, or where its checkpoints say.
    pub(super) fn begin(
        team: Team<'a>,
        config: &'a TrainConfig,
        resume: bool,
        model: &'a M,
        data: &'a dyn BatchSource<Batch = M::Batch>,
        dir: Option<&Path>,
    ) -> Result<Self> {
        let started = Instant::now();
        let optimizer =
            config.optimizer.build(model.parameters()).map_err(|source| TrainError::Optimizer { source })?;
        let size = DataSize { examples: data.num_examples() as u64, batches: data.num_batches(0) as u64 };
        let mut run = Self {
            team,
            share: team.share()?,
            config,
            model,
            data,
            optimizer,
            progress: Progress::start(),
            best: None,
            store: None,
            good: None,
            fingerprint: config.fingerprint()?,
            size,
            steps: config.steps(|epoch| data.num_batches(epoch)).map(|steps| steps as f64),
            interval: config.checkpoint_every_steps,
            started,
            earlier: 0.0,
            stop_asked: false,
            last_owed: false,
        };
        team.align(&run.fingerprint, size, model.parameters())?;
        let mut found = None;
        team.led(|| {
            run.store = dir.map(CheckpointStore::open).transpose()?;
            if let Some(store) = &run.store {
                if resume {
                    found = store.newest()?;
                } else if store.contains(false)? || store.contains(true)? {
                    return Err(TrainError::CheckpointExists { dir: store.dir().to_owned() });
                }
            }
            Ok(())
        })?;
        if let Some(resumed) = team.resumed(found)? {
            let restored = run.restore(resumed);
            team.all(restored)?;
        }
        Ok(run)
    }

    fn restore(&mut self, resumed: Resumed) -> Result<()> {
        let Resumed { checkpoint, best, path, ahead } = resumed;
        let mut saved = checkpoint.config;
        if let (Some(saved), Some(given)) = (saved.as_object_mut(), self.fingerprint.as_object()) {
            // Checkpoints of before 0.1 did not name it.
            saved.entry("cooldown").or_insert_with(|| given.get("cooldown").cloned().unwrap_or_default());
        }
        if let Some((field, saved, given)) = first_difference(&saved, &self.fingerprint) {
            return Err(TrainError::ConfigMismatch { field, saved, given });
        }
        let sizes = [
            ("examples", checkpoint.data.examples, self.size.examples),
            ("batches", checkpoint.data.batches, self.size.batches),
        ];
        if let Some(&(what, saved, given)) = sizes.iter().find(|(_, saved, given)| saved != given) {
            return Err(TrainError::DataMismatch { what, saved, given });
        }
        let (done, batches) =
            (checkpoint.progress.batch as u64, self.data.num_batches(checkpoint.progress.epoch) as u64);
        if done > 0 && done >= batches {
            let what = "batches or more in the epoch under way";
            return Err(TrainError::DataMismatch { what, saved: done + 1, given: batches });
        }
        let misfit = |what| {
            let path = path.clone();
            move |source| TrainError::Misfit { path, what, source }
        };
        // The optimiser first: it is this run's own, so that an error leaves the caller's model as it was.
        self.optimizer.load_state(&checkpoint.optimizer).map_err(misfit("optimiser"))?;
        self.model.parameters().restore(&checkpoint.weights).map_err(misfit("model"))?;
        tracing::info!(step = checkpoint.progress.step, path = %path.display(), "training resumed");
        self.progress = checkpoint.progress;
        self.earlier = self.progress.seconds;
        self.best = best;
        self.last_owed = ahead;
        self.good = Some(path);
        Ok(())
    }

    /// Steps until something ends the run. Rank 0 alone validates and calls back.
    pub(super) fn train(
        &mut self,
        validate: &mut dyn FnMut(&M) -> std::result::Result<f64, BoxError>,
        callback: &mut dyn Callback,
    ) -> Result<StopReason> {
        let callback = if self.team.leads() { callback } else { &mut () };
        if std::mem::take(&mut self.last_owed) {
            self.write(false, callback)?;
        }
        if self.progress.finished.is_none() && self.progress.step > 0 && self.agree(callback)? {
            return Ok(StopReason::MaxDuration);
        }
        loop {
            if let Some(reason) = self.progress.finished {
                return Ok(reason);
            }
            let epoch = self.progress.epoch;
            let batches = self.data.num_batches(epoch);
            if batches == 0 {
                return Err(TrainError::NoBatches { epoch });
            }
            let report = self.step(batches, callback)?;
            self.heed(callback.on_step(&report));
            let epoch_ended = self.progress.batch >= batches;
            if epoch_ended {
                let mean_loss = self.progress.complete_epoch(self.size.examples);
                let (epoch, step, seconds) = (self.progress.epoch, self.progress.step, self.progress.seconds);
                tracing::debug!(epoch, step, mean_loss, "epoch completed");
                self.heed(callback.on_epoch(&EpochReport { epoch, step, mean_loss, seconds }));
            }
            let mut out_of_time = self.agree(callback)?;
            let validated = out_of_time || self.progress.validation_due(self.config);
            let improved = validated && self.validate(validate, callback)?;
            // The validation may have taken what was left: it then was the last one.
            out_of_time |= validated && self.agree(callback)?;
            self.progress.finished = self
                .progress
                .limit(self.config)
                .or_else(|| self.progress.out_of_patience(self.config).then_some(StopReason::Patience));
            let interval_ended = self.interval > 0 && self.progress.step.is_multiple_of(self.interval);
            if improved {
                self.write(true, callback)?;
                self.agree(callback)?;
            }
            let ends = self.progress.finished.is_some() || self.stop_asked || out_of_time;
            if validated || epoch_ended || interval_ended || ends {
                self.write(false, callback)?;
                self.agree(callback)?;
            }
            if self.progress.finished.is_none() {
                if self.stop_asked {
                    return Ok(StopReason::Callback);
                }
                if out_of_time {
                    return Ok(StopReason::MaxDuration);
                }
            }
        }
    }

    /// Leaves the best weights in the model and sums the run up.
    pub(super) fn finish(mut self, stopped: StopReason) -> Result<TrainReport> {
        if let Some(best) = &self.best {
            self.model.parameters().restore(best).map_err(|error| state(candle_core::Error::wrap(error)))?;
        }
        self.tick();
        let batches = self.data.num_batches(self.progress.epoch);
        Ok(self.progress.report(stopped, self.size.examples, batches))
    }

    /// One batch: gradients, their norm, the optimiser.
    fn step(&mut self, batches: usize, callback: &dyn Callback) -> Result<StepReport> {
        let (epoch, batch) = (self.progress.epoch, self.progress.batch);
        let step = self.progress.step + 1;
        let failed = |source| TrainError::Step { step, epoch, batch, source };
        let seed = self.progress.dropout_seed(self.config.seed);
        let (leading, interval, by_time) = self.team.led(|| {
            let factor = self.config.cooldown_factor(self.progress.seconds, self.limit(callback));
            Ok((batches, self.config.checkpoint_every_steps, factor.to_bits()))
        })?;
        self.interval = interval;
        let same = self.team.same_batches(leading, batches);
        let input = self.data.batch(epoch, batch).map_err(|source| TrainError::Batch { epoch, batch, source });
        let computed =
            same.and(input).and_then(|input| self.model.share_loss_and_grads(&input, self.share, seed).map_err(failed));
        let (loss, mut gradients) = self.team.sum(self.model.parameters(), computed)?;
        self.check(Quantity::Loss, f64::from(loss), step, batch)?;
        let grad_norm = match self.config.clip_norm {
            Some(bound) => clip_global_norm(&mut gradients, bound),
            None => gradients.global_norm(),
        }
        .map_err(failed)?;
        self.check(Quantity::GradientNorm, grad_norm, step, batch)?;
        let by_time = f64::from_bits(by_time);
        let by_patience = self.progress.cooling_until(self.config).map(|steps| steps as f64);
        let by_steps = [self.steps, by_patience].map(|limit| self.config.cooldown_factor((step - 1) as f64, limit));
        let cooldown = by_steps.into_iter().fold(by_time, f64::min);
        let lr = self.config.learning_rate * self.config.schedule.factor(step) * cooldown;
        self.optimizer.step(self.model.parameters(), &gradients, lr).map_err(failed)?;
        self.progress.complete_step(loss);
        self.tick();
        Ok(StepReport {
            step,
            epoch: epoch.saturating_add(1),
            epoch_step: self.progress.batch,
            epoch_steps: batches,
            loss,
            lr,
            grad_norm,
            examples: self.progress.examples_seen(self.size.examples, batches),
            seconds: self.progress.seconds,
        })
    }

    /// Judges the model; true when it is the best so far.
    fn validate(
        &mut self,
        validate: &mut dyn FnMut(&M) -> std::result::Result<f64, BoxError>,
        callback: &mut dyn Callback,
    ) -> Result<bool> {
        let step = self.progress.step;
        self.team.align_state(self.model.parameters(), &mut self.optimizer)?;
        let metric =
            self.team.led_number(|| validate(self.model).map_err(|source| TrainError::Validation { step, source }))?;
        self.check(Quantity::Metric, metric, step, self.progress.batch)?;
        self.tick();
        let report = self.progress.complete_validation(metric, self.config);
        tracing::info!(step, epoch = report.epoch, metric, best = report.best, "validated");
        if report.best {
            self.check_weights()?;
            self.best = Some(self.weights(true)?);
        }
        self.heed(callback.on_validation(&report));
        Ok(report.best)
    }

    fn write(&mut self, best: bool, callback: &mut dyn Callback) -> Result<()> {
        let team = self.team;
        let mut written = None;
        team.led(|| {
            written = self.write_checkpoint(best)?;
            Ok(())
        })?;
        if let Some(path) = written {
            let step = self.progress.step;
            tracing::debug!(step, path = %path.display(), "checkpoint written");
            self.good = Some(path.clone());
            self.heed(callback.on_checkpoint(&CheckpointReport { path, step, best }));
        }
        Ok(())
    }

    /// Writes a checkpoint where there is a directory for it, and says where.
    fn write_checkpoint(&self, best: bool) -> Result<Option<PathBuf>> {
        let Some(store) = &self.store else { return Ok(None) };
        self.check_weights()?;
        let checkpoint = Checkpoint {
            weights: self.weights(false)?,
            optimizer: self.optimizer.state().map_err(state)?,
            progress: self.progress.clone(),
            config: self.fingerprint.clone(),
            data: self.size,
        };
        store.write(best, &checkpoint.on_host()?).map(Some)
    }

    /// The weights by name on the CPU; copied when they are to outlive the next step.
    fn weights(&self, copied: bool) -> Result<Weights> {
        let get = |tensor: &Tensor| {
            let tensor = tensor.detach().to_device(&Device::Cpu)?;
            if copied { tensor.copy() } else { Ok(tensor) }
        };
        self.model
            .parameters()
            .iter()
            .map(|(name, var)| Ok((name.to_owned(), get(var)?)))
            .collect::<candle_core::Result<_>>()
            .map_err(state)
    }

    /// Weights that are not finite must not replace good ones.
    fn check_weights(&self) -> Result<()> {
        for (_, var) in self.model.parameters().iter() {
            // On the host: not every device has doubles.
            let sum = || var.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>();
            let sum = sum().map_err(state)?;
            self.check(Quantity::Weights, sum, self.progress.step, self.progress.batch)?;
        }
        Ok(())
    }

    fn check(&self, what: Quantity, value: f64, step: u64, batch: usize) -> Result<()> {
        if value.is_finite() {
            return Ok(());
        }
        let (epoch, checkpoint) = (self.progress.epoch, self.good.clone());
        Err(TrainError::NonFinite { what, value, step, epoch, batch, checkpoint })
    }

    fn tick(&mut self) {
        self.progress.seconds = self.earlier + self.started.elapsed().as_secs_f64();
    }

    /// Seconds of the run, over all its parts, after which it ends.
    fn limit(&self, callback: &dyn Callback) -> Option<f64> {
        let since = |deadline: Instant| self.earlier + deadline.saturating_duration_since(self.started).as_secs_f64();
        let limits = [self.config.max_duration.map(|limit| limit.as_secs_f64()), callback.deadline().map(since)];
        limits.into_iter().flatten().reduce(f64::min)
    }

    /// Whether time is up, by the clock of rank 0, and whether its callback has asked to stop.
    fn agree(&mut self, callback: &dyn Callback) -> Result<bool> {
        self.tick();
        let team = self.team;
        let (out_of_time, stop_asked) = team.led(|| {
            let out_of_time = self.limit(callback).is_some_and(|limit| self.progress.seconds >= limit);
            Ok((out_of_time, self.stop_asked))
        })?;
        self.stop_asked = stop_asked;
        Ok(out_of_time)
    }

    fn heed(&mut self, flow: ControlFlow<()>) {
        self.stop_asked |= flow.is_break();
    }
}
