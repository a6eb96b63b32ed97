//! Training of an RQ-VAE.

use candle_core::{DType, Device, Result as TensorResult, Tensor};
use genrec_kernels::CounterRng;
use genrec_kernels::optim::{AnyOptimizer, Optimizer, Schedule};
use ndarray::{Array2, Axis};

use super::estimator::Quantized;
use super::loss::{evaluate, evaluate_autoencoder};
use super::model::Network;
use super::{RqVae, RqVaeConfig};
use crate::input::to_tensor;
use crate::kmeans::{KMeansInit, Lloyd, Rule, gather, sample_rows};
use crate::preprocess::{Prepared, Preprocess};
use crate::saved::check_rows;
use crate::{ArrayRows, EpochReport, Fit, FitControl, QuantizeError, Result, RowSource};

/// Rows encoded together for the initialisation of the codebooks.
const INIT_BATCH: usize = 1024;

impl Fit for RqVaeConfig {
    type Model = RqVae;

    fn fit_on(&self, xs: &mut dyn RowSource, device: &Device, ctl: &mut dyn FitControl) -> Result<RqVae> {
        self.validate()?;
        check_rows(xs, &self.codebook_sizes)?;
        let (count, dim) = (xs.len() as u32, xs.dim());
        let preprocess = Preprocess::fit(self.steps(), xs, device)?;
        let rows = preprocess.rows(xs);
        let rng = CounterRng::new(self.seed).named("rq-vae");
        let network = Network::random(self, rows.dim(), rng.named("weights"), device)?;
        let mut training = Training::new(self, Data { rows, device }, network, count, rng)?;
        training.run(ctl)?;
        check_weights(&training.network)?;
        let network = training.network;
        Ok(RqVae::new(self.clone(), dim, network, preprocess))
    }
}

/// Fails on the first weight that is not finite: the loss of a step shows what the steps before it did, not the last.
fn check_weights(network: &Network) -> Result<()> {
    for (name, var) in network.autoencoder.iter().chain(network.codes.iter()) {
        // A sum is not finite as soon as one term is not.
        if !var.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?.is_finite() {
            return Err(QuantizeError::WeightNotFinite { name: name.to_owned() });
        }
    }
    Ok(())
}

/// A fit under way: first the autoencoder alone, then all of it.
struct Training<'a> {
    config: &'a RqVaeConfig,
    data: Data<'a>,
    network: Network,
    /// Rows there are.
    count: u32,
    epochs: usize,
    rng: CounterRng,
    /// Codebooks have an optimiser of their own: its steps count from when there are codes.
    optimizers: [AnyOptimizer; 2],
    schedule: Schedule,
    idle: IdleCodes,
    /// Steps taken.
    step: u64,
    quantizing: bool,
}

impl<'a> Training<'a> {
    fn new(config: &'a RqVaeConfig, data: Data<'a>, network: Network, count: u32, rng: CounterRng) -> Result<Self> {
        let optimizers = [config.optimizer.build(&network.autoencoder)?, config.optimizer.build(&network.codes)?];
        let idle = IdleCodes::new(config, rng.named("restart"));
        let epochs = config.epochs_for(count as usize);
        let total_steps = (epochs as u64).saturating_mul(config.epoch_steps(count as usize) as u64);
        let whole_fit = Schedule::Cosine { warmup_steps: 0, total_steps, final_factor: 0.0 };
        let schedule = config.schedule.clone().unwrap_or(whole_fit);
        Ok(Self { config, data, network, count, epochs, rng, optimizers, schedule, idle, step: 0, quantizing: false })
    }

    fn run(&mut self, ctl: &mut dyn FitControl) -> Result<()> {
        let config = self.config;
        let alone = config.autoencoder_epochs(self.epochs);
        let (mut lowest, mut waited) = (f64::INFINITY, 0);
        for epoch in 1..=self.epochs {
            if epoch == alone + 1 {
                self.start_quantizing()?;
                (lowest, waited) = (f64::INFINITY, 0);
            }
            let report = self.epoch(epoch)?;
            tracing::debug!(epoch, loss = report.loss, used = ?report.used, restarted = report.restarted, "RQ-VAE epoch");
            waited = if report.loss < lowest * (1.0 - config.min_improvement) { 0 } else { waited + 1 };
            lowest = lowest.min(report.loss);
            let stale = self.quantizing && config.patience.is_some_and(|patience| waited >= patience);
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

    /// Sets the codebooks by residual k-means on the latent vectors.
    fn start_quantizing(&mut self) -> Result<()> {
        self.quantizing = true;
        let largest = self.config.codebook_sizes.iter().copied().max().unwrap_or(0) as usize;
        let wanted = self.config.init_rows.max(largest);
        let picked = sample_rows(self.rng.named("init"), self.count as usize, wanted)?;
        let mut latent = Array2::zeros((picked.len(), self.config.latent_dim));
        for (rows, mut out) in picked.chunks(INIT_BATCH).zip(latent.axis_chunks_iter_mut(Axis(0), INIT_BATCH)) {
            let z = self.network.encoder.forward(&self.data.batch(rows)?)?.flatten_all()?.to_vec1::<f32>()?;
            out.iter_mut().zip(z).for_each(|(slot, z)| *slot = z);
        }
        init_codebooks(self.config, &self.network, latent, self.rng.named("k-means"))
    }

    fn epoch(&mut self, epoch: usize) -> Result<EpochReport> {
        let config = self.config;
        let order = self.rng.named("order").stream(epoch as u64).permutation(self.count);
        let mut totals = Totals::new(config);
        for (at, batch) in order.chunks(config.batch_size).enumerate() {
            // In ascending order a file is read forwards; the order inside a batch does not matter.
            let mut batch: Vec<usize> = batch.iter().map(|&row| row as usize).collect();
            batch.sort_unstable();
            let xs = self.data.batch(&batch)?;
            let evaluation = match self.quantizing {
                true => evaluate(&self.network, config, &xs)?,
                false => evaluate_autoencoder(&self.network, &xs)?,
            };
            if !evaluation.loss.is_finite() {
                return Err(QuantizeError::LossNotFinite { epoch, step: at + 1, loss: evaluation.loss });
            }
            self.step += 1;
            let rate = config.learning_rate * self.schedule.factor(self.step);
            self.optimizers[0].step(&self.network.autoencoder, &evaluation.gradients, rate)?;
            totals.add(batch.len(), evaluation.loss, evaluation.reconstruction);
            if let Some(found) = &evaluation.quantized {
                self.optimizers[1].step(&self.network.codes, &evaluation.gradients, rate)?;
                let codes = found.codes.iter().map(Tensor::to_vec1).collect::<TensorResult<Vec<_>>>()?;
                totals.mark(&codes);
                totals.restarted += self.idle.restart(&self.network, found, &codes, self.step)?;
            }
        }
        Ok(totals.report(epoch, self.epochs))
    }
}

/// Preprocessed rows by index, on the device.
struct Data<'a> {
    rows: Prepared<'a>,
    device: &'a Device,
}

impl Data<'_> {
    fn batch(&mut self, which: &[usize]) -> Result<Tensor> {
        let xs = gather(&mut self.rows, which)?;
        let shape = xs.dim();
        Ok(Tensor::from_vec(xs.into_raw_vec_and_offset().0, shape, self.device)?)
    }
}

/// Sets each codebook to the centroids of its level's residuals over the latent vectors.
fn init_codebooks(config: &RqVaeConfig, network: &Network, mut residual: Array2<f32>, rng: CounterRng) -> Result<()> {
    let rows = residual.nrows();
    for (level, codebook) in network.codebooks().into_iter().enumerate() {
        let lloyd = Lloyd {
            codes: config.codebook_sizes[level] as usize,
            iterations: config.init_iterations,
            tolerance: 0.0,
            batch: None,
            rule: Rule::default(),
            init: KMeansInit::PlusPlus,
            init_rows: rows,
            rng: rng.stream(level as u64),
        };
        let clusters = lloyd
            .run(&mut ArrayRows::from(residual.view()), &Device::Cpu, &mut |_| std::ops::ControlFlow::Continue(()))?;
        network.set_codebook(level, &to_tensor(clusters.centroids.view(), codebook.device())?)?;
        for (mut row, &code) in residual.outer_iter_mut().zip(&clusters.codes) {
            row -= &clusters.centroids.row(code as usize);
        }
    }
    Ok(())
}

/// Steps since each code was last used.
struct IdleCodes {
    after: Option<usize>,
    steps: Vec<Vec<usize>>,
    rng: CounterRng,
}

impl IdleCodes {
    fn new(config: &RqVaeConfig, rng: CounterRng) -> Self {
        let steps = config.codebook_sizes.iter().map(|&size| vec![0; size as usize]).collect();
        Self { after: config.restart_after, steps, rng }
    }

    /// Moves every code that was idle for too long onto the residual of a row of this batch, no row twice a level.
    fn restart(&mut self, network: &Network, found: &Quantized, codes: &[Vec<u32>], step: u64) -> Result<u32> {
        let Some(after) = self.after else {
            return Ok(0);
        };
        let mut restarted = 0;
        for (level, (steps, used)) in self.steps.iter_mut().zip(codes).enumerate() {
            steps.iter_mut().for_each(|idle| *idle += 1);
            for &code in used {
                steps[code as usize] = 0;
            }
            let dead: Vec<usize> = (0..steps.len()).filter(|&code| steps[code] >= after).collect();
            if dead.is_empty() {
                continue;
            }
            let residual = found.residuals[level].to_vec2::<f32>()?;
            let codebook = network.codebooks()[level];
            let mut rows = codebook.to_vec2::<f32>()?;
            let rng = self.rng.stream(step).stream(level as u64);
            // A batch never has more than u32::MAX rows: they come from a u32 permutation.
            let order = rng.permutation(used.len() as u32);
            for (&code, from) in dead.iter().zip(order) {
                rows[code].clone_from(&residual[from as usize]);
                steps[code] = 0;
                restarted += 1;
            }
            network.set_codebook(level, &Tensor::new(rows, codebook.device())?)?;
        }
        Ok(restarted)
    }
}

/// Sums over one epoch.
struct Totals {
    rows: usize,
    loss: f64,
    reconstruction: f64,
    used: Vec<Vec<bool>>,
    restarted: u32,
}

impl Totals {
    fn new(config: &RqVaeConfig) -> Self {
        let used = config.codebook_sizes.iter().map(|&size| vec![false; size as usize]).collect();
        Self { rows: 0, loss: 0.0, reconstruction: 0.0, used, restarted: 0 }
    }

    fn add(&mut self, rows: usize, loss: f64, reconstruction: f64) {
        self.rows += rows;
        self.loss += loss * rows as f64;
        self.reconstruction += reconstruction * rows as f64;
    }

    fn mark(&mut self, codes: &[Vec<u32>]) {
        for (used, codes) in self.used.iter_mut().zip(codes) {
            for &code in codes {
                used[code as usize] = true;
            }
        }
    }

    fn report(&self, epoch: usize, epochs: usize) -> EpochReport {
        let rows = self.rows.max(1) as f64;
        EpochReport {
            epoch,
            epochs,
            level: None,
            loss: self.loss / rows,
            reconstruction: self.reconstruction / rows,
            used: self.used.iter().map(|level| level.iter().filter(|&&used| used).count() as u32).collect(),
            restarted: self.restarted,
        }
    }
}
