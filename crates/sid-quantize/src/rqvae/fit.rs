//! Training of an RQ-VAE.

use candle_core::{Device, Result as TensorResult, Tensor};
use genrec_kernels::CounterRng;
use genrec_kernels::optim::Optimizer;
use ndarray::Array2;

use super::estimator::Quantized;
use super::loss::evaluate;
use super::model::Network;
use super::{RqVae, RqVaeConfig};
use crate::codebook::to_tensor;
use crate::kmeans::{KMeansInit, Lloyd, gather, sample_rows};
use crate::standardize::Standardizer;
use crate::usage::scan;
use crate::{ArrayRows, EpochReport, Error, Fit, FitControl, Result, RowSource};

impl Fit for RqVaeConfig {
    type Model = RqVae;

    fn fit_on(&self, xs: &mut dyn RowSource, device: &Device, ctl: &mut dyn FitControl) -> Result<RqVae> {
        self.validate()?;
        let (rows, dim) = (xs.len(), xs.dim());
        let largest = self.codebook_sizes.iter().copied().max().unwrap_or(0) as usize;
        if rows < largest {
            return Err(Error::TooFewRows { rows, codes: largest });
        }
        if dim == 0 {
            return Err(Error::DimMismatch { expected: 1, got: 0 });
        }
        let count = u32::try_from(rows).map_err(|_| Error::TooManyRows { rows })?;
        let standardizer = if self.standardize {
            Some(Standardizer::fit(xs, device)?)
        } else {
            scan(dim, xs, |_, _| Ok(()))?;
            None
        };
        let rng = CounterRng::new(self.seed).named("rq-vae");
        let network = Network::random(self, dim, rng.named("weights"), device)?;
        let mut data = Data { rows: xs, standardizer: standardizer.as_ref(), device };

        let picked = sample_rows(rng.named("init"), rows, self.init_rows.max(largest))?;
        init_codebooks(self, &network, &data.batch(&picked)?, rng.named("k-means"))?;
        let mut optimizer = self.optimizer.build(&network.params)?;
        let mut idle = IdleCodes::new(self, rng.named("restart"));
        let (mut step, mut lowest, mut waited) = (0_u64, f64::INFINITY, 0);
        for epoch in 1..=self.epochs {
            let order = rng.named("order").stream(epoch as u64).permutation(count);
            let mut totals = Totals::new(self);
            for (at, batch) in order.chunks(self.batch_size).enumerate() {
                // In ascending order a file is read forwards; the order inside a batch does not matter.
                let mut batch: Vec<usize> = batch.iter().map(|&row| row as usize).collect();
                batch.sort_unstable();
                let evaluation = evaluate(&network, self, &data.batch(&batch)?)?;
                if !evaluation.loss.is_finite() {
                    return Err(Error::LossNotFinite { epoch, step: at + 1, loss: evaluation.loss });
                }
                step += 1;
                let rate = self.learning_rate * self.schedule.factor(step);
                optimizer.step(&network.params, &evaluation.gradients, rate)?;
                totals.add(batch.len(), evaluation.loss, evaluation.reconstruction);
                let codes = evaluation.quantized.codes.iter().map(Tensor::to_vec1).collect::<TensorResult<Vec<_>>>()?;
                totals.mark(&codes);
                totals.restarted += idle.restart(&network, &evaluation.quantized, &codes, step)?;
            }
            let report = totals.report(epoch, self.epochs);
            tracing::debug!(epoch, loss = report.loss, used = ?report.used, restarted = report.restarted, "RQ-VAE epoch");
            waited = if report.loss < lowest * (1.0 - self.min_improvement) { 0 } else { waited + 1 };
            lowest = lowest.min(report.loss);
            if ctl.on_epoch(&report).is_break() || self.patience.is_some_and(|patience| waited >= patience) {
                break;
            }
        }
        Ok(RqVae { config: self.clone(), dim, network, standardizer })
    }
}

/// Rows by index, standardised, on the device.
struct Data<'a> {
    rows: &'a mut dyn RowSource,
    standardizer: Option<&'a Standardizer>,
    device: &'a Device,
}

impl Data<'_> {
    fn batch(&mut self, which: &[usize]) -> Result<Tensor> {
        let xs = to_tensor(gather(self.rows, which)?.view(), self.device)?;
        Ok(match self.standardizer {
            Some(standardizer) => standardizer.apply(&xs)?,
            None => xs,
        })
    }
}

/// Sets each codebook to the centroids of its level's residuals over `xs`.
fn init_codebooks(config: &RqVaeConfig, network: &Network, xs: &Tensor, rng: CounterRng) -> Result<()> {
    let z = network.encoder.forward(xs)?.to_vec2::<f32>()?;
    let (rows, dim) = (z.len(), config.latent_dim);
    let mut residual = Array2::from_shape_fn((rows, dim), |(row, column)| z[row][column]);
    for (level, codebook) in network.codebook_vars().iter().enumerate() {
        let lloyd = Lloyd {
            codes: config.codebook_sizes[level] as usize,
            iterations: config.init_iterations,
            tolerance: 0.0,
            init: KMeansInit::PlusPlus,
            init_rows: rows,
            rng: rng.stream(level as u64),
        };
        let clusters = lloyd
            .run(&mut ArrayRows::from(residual.view()), &Device::Cpu, &mut |_| std::ops::ControlFlow::Continue(()))?;
        codebook.set(&to_tensor(clusters.centroids.view(), codebook.device())?)?;
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
            let codebook = &network.codebook_vars()[level];
            let mut rows = codebook.to_vec2::<f32>()?;
            let rng = self.rng.stream(step).stream(level as u64);
            // A batch never has more than u32::MAX rows: they come from a u32 permutation.
            let order = rng.permutation(used.len() as u32);
            for (&code, from) in dead.iter().zip(order) {
                rows[code].clone_from(&residual[from as usize]);
                steps[code] = 0;
                restarted += 1;
            }
            codebook.set(&Tensor::new(rows, codebook.device())?)?;
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
