//! A small network with dropout, data for it, and a run of both.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use genrec_kernels::optim::{AdamWConfig, OptimizerConfig, Schedule};
use genrec_kernels::{CounterRng, Gradients, Parameters};
use genrec_model::{BatchShare, Trainable};

use crate::*;

pub(super) const HIDDEN: usize = 6;

/// y = dropout(tanh(x A + b)) C, by least squares.
pub(super) struct Toy(pub(super) Parameters);

impl Toy {
    pub(super) fn new() -> Self {
        Self::with_hidden(HIDDEN)
    }

    pub(super) fn with_hidden(hidden: usize) -> Self {
        let mut params = Parameters::new(&Device::Cpu);
        for (name, rows, cols) in [("a", 3, hidden), ("b", 1, hidden), ("c", hidden, 1)] {
            let mut values = vec![0f32; rows * cols];
            CounterRng::new(1).named(name).fill_normal(&mut values);
            params.insert(name, &Tensor::from_vec(values, (rows, cols), &Device::Cpu).unwrap()).unwrap();
        }
        Self(params)
    }

    /// Weights that nobody is to train from.
    pub(super) fn with_zeros() -> Self {
        let toy = Self::new();
        let zeros = toy.0.iter().map(|(name, weight)| (name.to_owned(), weight.zeros_like().unwrap())).collect();
        toy.0.restore(&zeros).unwrap();
        toy
    }

    /// `(rows, 1)`.
    fn squares(&self, (x, y): &(Tensor, Tensor), dropout_seed: Option<u64>) -> candle_core::Result<Tensor> {
        let var = |name: &str| self.0.get(name).unwrap();
        let mut h = x.matmul(var("a"))?.broadcast_add(var("b"))?.tanh()?;
        if let Some(seed) = dropout_seed {
            let rng = CounterRng::new(seed);
            let mask: Vec<f32> =
                (0..h.elem_count() as u64).map(|i| if rng.f32_at(i) < 0.1 { 0.0 } else { 1.0 / 0.9 }).collect();
            h = (h.clone() * Tensor::from_vec(mask, h.dims(), &Device::Cpu)?)?;
        }
        (h.matmul(var("c"))? - y)?.sqr()
    }
}

impl Trainable for Toy {
    type Batch = (Tensor, Tensor);

    fn parameters(&self) -> &Parameters {
        &self.0
    }

    fn loss_and_grads(&self, batch: &Self::Batch, dropout_seed: u64) -> candle_core::Result<(f32, Gradients)> {
        let loss = self.squares(batch, Some(dropout_seed))?.mean_all()?;
        Ok((loss.to_scalar()?, Gradients::from_store(&self.0, &loss.backward()?)?))
    }

    fn share_loss_and_grads(
        &self,
        batch: &Self::Batch,
        share: BatchShare,
        dropout_seed: u64,
    ) -> candle_core::Result<(f32, Gradients)> {
        let rows = batch.0.dim(0)?;
        let own: Vec<f32> = (0..rows).map(|row| if row % share.ranks() == share.rank() { 1.0 } else { 0.0 }).collect();
        let own = Tensor::from_vec(own, (rows, 1), &Device::Cpu)?;
        let loss = (self.squares(batch, Some(dropout_seed))? * own)?.sum_all()?.affine(1.0 / rows as f64, 0.0)?;
        Ok((loss.to_scalar()?, Gradients::from_store(&self.0, &loss.backward()?)?))
    }

    fn loss(&self, batch: &Self::Batch) -> candle_core::Result<f32> {
        self.squares(batch, None)?.mean_all()?.to_scalar()
    }
}

/// Batches of eight points; epochs have four and three batches in turn.
pub(super) struct Points {
    /// Multiplies the targets of one `(epoch, batch)`.
    pub(super) spoil: Option<(u32, usize, f32)>,
    /// An `(epoch, batch)` that cannot be made.
    pub(super) missing: Option<(u32, usize)>,
}

impl BatchSource for Points {
    type Batch = (Tensor, Tensor);

    fn num_batches(&self, epoch: u32) -> usize {
        4 - epoch as usize % 2
    }

    fn batch(&self, epoch: u32, index: usize) -> std::result::Result<Self::Batch, BoxError> {
        if self.missing == Some((epoch, index)) {
            return Err("there is no such batch".into());
        }
        let mut x = vec![0f32; 24];
        CounterRng::new(7).stream(u64::from(epoch)).stream(index as u64).fill_normal(&mut x);
        let factor = match self.spoil {
            Some((e, i, factor)) if (e, i) == (epoch, index) => factor,
            _ => 1.0,
        };
        let y: Vec<f32> = x.chunks(3).map(|x| factor * (x[0] - 0.5 * x[1]).tanh()).collect();
        Ok((Tensor::from_vec(x, (8, 3), &Device::Cpu)?, Tensor::from_vec(y, (8, 1), &Device::Cpu)?))
    }

    fn num_examples(&self) -> usize {
        32
    }
}

pub(super) const DATA: Points = Points { spoil: None, missing: None };

/// Five epochs: 4 + 3 + 4 + 3 + 4 = 18 steps.
pub(super) fn config() -> TrainConfig {
    TrainConfig::default()
        .with_optimizer(OptimizerConfig::AdamW(AdamWConfig::default()))
        .with_learning_rate(0.03)
        .with_schedule(Schedule::Warmup { warmup_steps: 5 })
        .with_clip_norm(Some(1.0))
        .with_max_steps(None)
        .with_epochs(Some(5))
        .with_checkpoint_every_steps(3)
        .with_seed(11)
}

pub(super) fn judge(model: &Toy) -> std::result::Result<f64, BoxError> {
    Ok(-f64::from(model.loss(&DATA.batch(1000, 0)?)?))
}

pub(super) fn fit(
    config: TrainConfig,
    dir: Option<&Path>,
    resume: bool,
    callback: &mut dyn Callback,
) -> Result<(Toy, TrainReport)> {
    let model = Toy::new();
    let report = Trainer::new(config)?.with_resume(resume).fit(&model, &DATA, &mut judge, callback, dir)?;
    Ok((model, report))
}

/// Everything that must not depend on interruptions: weights and moments of both checkpoints, and the report without
/// its times.
pub(super) fn outcome(dir: &Path, report: &TrainReport) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for part in ["last", "best"] {
        for file in ["model.safetensors", "optimizer.safetensors"] {
            all.insert(format!("{part}/{file}"), std::fs::read(dir.join(part).join(file)).unwrap());
        }
        let mut progress = Checkpoint::read(dir.join(part)).unwrap().progress;
        progress.seconds = 0.0;
        progress.history.iter_mut().for_each(|report| report.seconds = 0.0);
        all.insert(format!("{part}/progress"), serde_json::to_vec(&progress).unwrap());
    }
    let mut report = report.clone();
    report.seconds = 0.0;
    report.history.iter_mut().for_each(|report| report.seconds = 0.0);
    all.insert("report".to_owned(), serde_json::to_vec(&report).unwrap());
    all
}

pub(super) fn weights(model: &Toy) -> Vec<Vec<f32>> {
    model.0.iter().map(|(_, var)| var.flatten_all().unwrap().to_vec1().unwrap()).collect()
}
