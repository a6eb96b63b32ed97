//! The training loop: first the autoencoder alone, then all of it.

use candle_core::{Device, Result as TensorResult, Tensor};
use genrec_kernels::CounterRng;
use genrec_kernels::optim::{AnyOptimizer, Optimizer, Schedule};
use ndarray::{Array2, Axis};

use super::{Bottleneck, Found, Monitor, Network, Plan, Step, evaluate, evaluate_autoencoder};
use crate::kmeans::{gather, sample_rows};
use crate::preprocess::Prepared;
use crate::usage::CodeReport;
use crate::{EpochReport, FitControl, QuantizeError, Result};

/// Rows encoded together for the start of the bottleneck.
const INIT_BATCH: usize = 1024;

/// A bottleneck that is trained with the autoencoder around it.
pub(crate) trait Learn: Bottleneck {
    /// Codes of each level.
    fn codebook_sizes(&self) -> &[u32];

    /// Begins, with the latent vectors of some rows, `(n, latent)`, once the autoencoder has been trained alone.
    fn start(&mut self, latent: Array2<f32>) -> Result<()>;

    /// Called before each epoch in which it is trained.
    fn begin_epoch(&mut self, epoch: usize) -> Result<()> {
        let _ = epoch;
        Ok(())
    }

    /// Takes a step with the gradients of its parameters; returns how many codes were re-seeded.
    fn learn(
        &mut self,
        gradients: &genrec_kernels::Gradients,
        found: &Self::Found,
        codes: &[Vec<u32>],
        rate: f64,
        step: Step<'_>,
    ) -> Result<u32>;
}

/// A fit under way.
pub(crate) struct Training<'a, B> {
    plan: Plan,
    rows: Prepared<'a>,
    device: &'a Device,
    pub(crate) network: Network,
    pub(crate) bottleneck: B,
    /// Rows there are.
    count: u32,
    epochs: usize,
    rng: CounterRng,
    optimizer: AnyOptimizer,
    schedule: Schedule,
    /// Steps taken.
    step: u64,
    /// Steps that had been taken when the bottleneck came in.
    alone: u64,
    quantizing: bool,
}

impl<'a, B: Learn> Training<'a, B> {
    pub(crate) fn new(
        plan: Plan,
        rows: Prepared<'a>,
        network: Network,
        bottleneck: B,
        rng: CounterRng,
        device: &'a Device,
    ) -> Result<Self> {
        use crate::RowSource;
        let rows_there_are = rows.len();
        let count = u32::try_from(rows_there_are).map_err(|_| QuantizeError::TooManyRows { rows: rows_there_are })?;
        let optimizer = plan.optimizer.build(&network.params)?;
        let epochs = plan.epochs_for(count as usize);
        let total_steps = (epochs as u64).saturating_mul(plan.epoch_steps(count as usize) as u64);
        let whole_fit = Schedule::Cosine { warmup_steps: 0, total_steps, final_factor: 0.0 };
        let schedule = plan.schedule.clone().unwrap_or(whole_fit);
        let (step, alone, quantizing) = (0, 0, false);
        Ok(Self {
            plan,
            rows,
            device,
            network,
            bottleneck,
            count,
            epochs,
            rng,
            optimizer,
            schedule,
            step,
            alone,
            quantizing,
        })
    }

    /// Trains until the plan, patience or the watcher ends it.
    pub(crate) fn run(&mut self, ctl: &mut dyn FitControl) -> Result<()> {
        let alone = self.plan.autoencoder_epochs(self.epochs);
        let (mut lowest, mut waited) = (f64::INFINITY, 0);
        for epoch in 1..=self.epochs {
            if epoch == alone + 1 {
                self.start_quantizing()?;
                (lowest, waited) = (f64::INFINITY, 0);
            }
            if self.quantizing {
                self.bottleneck.begin_epoch(epoch)?;
            }
            let report = self.epoch(epoch)?;
            tracing::debug!(epoch, loss = report.loss, used = ?report.used, restarted = report.restarted, "epoch");
            let watched = match self.plan.monitor {
                Monitor::Loss => report.loss,
                Monitor::Reconstruction => report.reconstruction,
                Monitor::CollisionRate => report.collision_rate.unwrap_or(1.0),
            };
            waited = if watched < lowest * (1.0 - self.plan.min_improvement) { 0 } else { waited + 1 };
            lowest = lowest.min(watched);
            let stale = self.quantizing && self.plan.patience.is_some_and(|patience| waited >= patience);
            if ctl.on_epoch(&report).is_break() || stale {
                break;
            }
        }
        if !self.quantizing {
            // Ended while the autoencoder trained alone: the codes are those of the latent vectors as they are.
            self.start_quantizing()?;
        }
        Ok(())
    }

    fn start_quantizing(&mut self) -> Result<()> {
        self.quantizing = true;
        self.alone = self.step;
        let picked = sample_rows(self.rng.named("init"), self.count as usize, self.plan.init_rows)?;
        let mut latent: Option<Array2<f32>> = None;
        for (at, rows) in picked.chunks(INIT_BATCH).enumerate() {
            let batch = self.batch(rows)?;
            let z = self.network.encoder.forward(&batch)?;
            let width = z.dim(1)?;
            let all = latent.get_or_insert_with(|| Array2::zeros((picked.len(), width)));
            let values = z.flatten_all()?.to_vec1::<f32>()?;
            if let Some(mut out) = all.axis_chunks_iter_mut(Axis(0), INIT_BATCH).nth(at) {
                out.iter_mut().zip(values).for_each(|(slot, z)| *slot = z);
            }
        }
        self.bottleneck.start(latent.unwrap_or_default())
    }

    fn batch(&mut self, which: &[usize]) -> Result<Tensor> {
        let xs = gather(&mut self.rows, which)?;
        let shape = xs.dim();
        Ok(Tensor::from_vec(xs.into_raw_vec_and_offset().0, shape, self.device)?)
    }

    fn epoch(&mut self, epoch: usize) -> Result<EpochReport> {
        let order = self.rng.named("order").stream(epoch as u64).permutation(self.count);
        let mut totals = Totals::default();
        let steps = (self.epochs as u64).saturating_mul(self.plan.epoch_steps(self.count as usize) as u64).max(1);
        for (at, batch) in order.chunks(self.plan.batch_size).enumerate() {
            // In ascending order a file is read forwards; the order inside a batch does not matter.
            let mut batch: Vec<usize> = batch.iter().map(|&row| row as usize).collect();
            batch.sort_unstable();
            let xs = self.batch(&batch)?;
            let progress = (self.step - self.alone) as f64 / (steps - self.alone).max(1) as f64;
            let step = Step { number: self.step, progress, rows: &batch };
            let evaluation = match self.quantizing {
                true => evaluate(&self.network, &self.bottleneck, &xs, step)?,
                false => evaluate_autoencoder(&self.network, &xs)?,
            };
            if !evaluation.loss.is_finite() {
                return Err(QuantizeError::LossNotFinite { epoch, step: at + 1, loss: evaluation.loss });
            }
            self.step += 1;
            let rate = self.plan.learning_rate * self.schedule.factor(self.step);
            self.optimizer.step(&self.network.params, &evaluation.gradients, rate)?;
            totals.add(batch.len(), evaluation.loss, evaluation.reconstruction);
            if let Some(found) = &evaluation.found {
                let codes = found.codes().iter().map(Tensor::to_vec1).collect::<TensorResult<Vec<_>>>()?;
                let step = Step { number: self.step, ..step };
                totals.restarted += self.bottleneck.learn(&evaluation.gradients, found, &codes, rate, step)?;
                totals.keep(&codes);
            }
        }
        totals.report(epoch, self.epochs, self.bottleneck.codebook_sizes())
    }
}

/// Sums over one epoch.
#[derive(Default)]
struct Totals {
    rows: usize,
    loss: f64,
    reconstruction: f64,
    /// `(rows, levels)`, row after row.
    codes: Vec<u32>,
    restarted: u32,
}

impl Totals {
    fn add(&mut self, rows: usize, loss: f64, reconstruction: f64) {
        self.rows += rows;
        self.loss += loss * rows as f64;
        self.reconstruction += reconstruction * rows as f64;
    }

    fn keep(&mut self, codes: &[Vec<u32>]) {
        let rows = codes.first().map_or(0, Vec::len);
        self.codes.extend((0..rows).flat_map(|row| codes.iter().map(move |level| level[row])));
    }

    fn report(self, epoch: usize, epochs: usize, sizes: &[u32]) -> Result<EpochReport> {
        let rows = self.rows.max(1) as f64;
        let mut report = EpochReport {
            epoch,
            epochs,
            level: None,
            loss: self.loss / rows,
            reconstruction: self.reconstruction / rows,
            used: vec![0; sizes.len()],
            restarted: self.restarted,
            collision_rate: None,
        };
        let shape = (self.codes.len() / sizes.len().max(1), sizes.len());
        if let Some(codes) = Array2::from_shape_vec(shape, self.codes).ok().filter(|codes| codes.nrows() > 0) {
            let found = CodeReport::of(codes.view(), sizes)?;
            report.used = found.levels.iter().map(|level| level.used).collect();
            report.collision_rate = Some(found.collision_rate);
        }
        Ok(report)
    }
}
