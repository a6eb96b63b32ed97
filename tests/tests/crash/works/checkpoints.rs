//! A small model is trained, with a checkpoint at every step.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use genrec::{
    kernels::{
        Gradients, Parameters,
        optim::{AdamWConfig, OptimizerConfig},
    },
    model::Trainable,
    train::{BatchSource, Checkpoint, Every, TrainConfig, Trainer},
};

use super::{BoxError, Work};

pub(crate) const CHECKPOINTS: Work = Work {
    is_timed: |file| file.ends_with("state.json"),
    ..Work::new("checkpoints", |root| fit(Some(root)).map(drop), is_done)
};

/// y = w x, by least squares.
struct Line(Parameters);

impl Line {
    fn new() -> candle_core::Result<Self> {
        let mut parameters = Parameters::new(&Device::Cpu);
        parameters.insert("w", &Tensor::zeros(3, DType::F32, &Device::Cpu)?).map_err(candle_core::Error::wrap)?;
        Ok(Self(parameters))
    }

    fn weights(&self) -> Vec<f32> {
        self.0.get("w").unwrap().to_vec1().unwrap()
    }
}

impl Trainable for Line {
    type Batch = (Tensor, Tensor);
    fn parameters(&self) -> &Parameters {
        &self.0
    }
    fn loss_and_grads(&self, (x, y): &Self::Batch, _seed: u64) -> candle_core::Result<(f32, Gradients)> {
        let w = self.0.get("w").ok_or_else(|| candle_core::Error::msg("no weight"))?;
        let loss = (x.broadcast_mul(w)? - y)?.sqr()?.mean_all()?;
        Ok((loss.to_scalar()?, Gradients::from_store(&self.0, &loss.backward()?)?))
    }
    fn loss(&self, batch: &Self::Batch) -> candle_core::Result<f32> {
        Ok(self.loss_and_grads(batch, 0)?.0)
    }
}

struct Points;

impl BatchSource for Points {
    type Batch = (Tensor, Tensor);
    fn num_batches(&self, _epoch: u32) -> usize {
        3
    }
    fn batch(&self, epoch: u32, index: usize) -> Result<Self::Batch, BoxError> {
        let x = Tensor::arange(1f32, 4.0, &Device::Cpu)?.affine(0.1, f64::from(epoch) + 0.01 * index as f64)?;
        let y = (&x * 3.0)?;
        Ok((x, y))
    }
    fn num_examples(&self) -> usize {
        9
    }
}

/// The weights in the end.
pub(crate) fn fit(dir: Option<&Path>) -> Result<Vec<f32>, BoxError> {
    let config = TrainConfig::default()
        .with_optimizer(OptimizerConfig::AdamW(AdamWConfig::default()))
        .with_learning_rate(0.1)
        .with_epochs(Some(3))
        .with_validate_every(Every::Steps(2))
        .with_checkpoint_every_steps(1);
    let model = Line::new()?;
    let mut metric = |model: &Line| -> Result<f64, BoxError> { Ok(-f64::from(model.loss(&Points.batch(0, 0)?)?)) };
    Trainer::new(config)?.with_resume(true).fit(&model, &Points, &mut metric, &mut (), dir)?;
    Ok(model.weights())
}

/// Whatever checkpoint is there is whole, and the last one is that of the last step once training is done.
fn is_done(root: &Path) -> bool {
    let [last, _] = ["last", "best"].map(|name| {
        let is_there = ["", ".new", ".old"].iter().any(|stage| root.join(format!("{name}{stage}")).is_dir());
        is_there.then(|| Checkpoint::read(root.join(name)).unwrap().progress.step)
    });
    last == Some(9)
}
