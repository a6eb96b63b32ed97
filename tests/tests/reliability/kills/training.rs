//! Training with a checkpoint after every step.

use std::{ops::ControlFlow, path::Path};

use candle_core::Device;
use genrec::{
    kernels::CounterRng,
    model::{
        RaggedBatch, Trainable,
        t5::{T5, T5Config},
    },
    train::{BatchSource, BoxError, Callback, Checkpoint, CheckpointReport, Every, TrainConfig, TrainError, Trainer},
};

use super::{kill, report};

const VOCAB: u64 = 40;

/// Sequences that follow from the epoch and the batch.
struct Sequences;

impl BatchSource for Sequences {
    type Batch = RaggedBatch;

    fn num_batches(&self, _epoch: u32) -> usize {
        5
    }

    fn batch(&self, epoch: u32, index: usize) -> Result<RaggedBatch, BoxError> {
        let rng = CounterRng::new(u64::from(epoch)).stream(index as u64);
        let token = |at: u64| rng.below(at, VOCAB - 2) as u32 + 2;
        let mut batch = RaggedBatch::new();
        for row in 0..8 {
            batch.push(&[token(4 * row), token(4 * row + 1)], &[token(4 * row + 2), token(4 * row + 3)])?;
        }
        Ok(batch)
    }

    fn num_examples(&self) -> usize {
        40
    }
}

struct Told;

impl Callback for Told {
    fn on_checkpoint(&mut self, checkpoint: &CheckpointReport) -> ControlFlow<()> {
        report(checkpoint.step);
        ControlFlow::Continue(())
    }
}

pub(super) fn work(root: &Path) {
    let config = TrainConfig::default()
        .with_epochs(Some(6))
        .with_validate_every(Every::Steps(4))
        .with_checkpoint_every_steps(1)
        .with_seed(5);
    let shape = T5Config::cpu(VOCAB as usize).with_layers(1, 1).with_d_model(8).with_heads(2, 4).with_d_ff(16);
    let model = T5::new(shape, 5, &Device::Cpu).unwrap();
    let mut metric = |model: &T5| -> Result<f64, BoxError> { Ok(-f64::from(model.loss(&Sequences.batch(99, 0)?)?)) };
    let trainer = Trainer::new(config).unwrap().with_resume(true);
    trainer.fit(&model, &Sequences, &mut metric, &mut Told, Some(root)).unwrap();
}

#[test]
fn no_step_that_was_reported_is_lost() {
    let found = |dir: &Path, done: &[String]| {
        let step_of = |name: &str| match Checkpoint::read(dir.join(name)) {
            Ok(checkpoint) => Some(checkpoint.progress.step),
            Err(TrainError::Corrupt { path, .. }) if !path.exists() => None,
            Err(error) => panic!("{error}"),
        };
        // Where the run stands is the further of the two, as one is written before the other.
        let stands = step_of("last").max(step_of("best"));
        let reported = done.iter().map(|step| step.parse::<u64>().unwrap()).max();
        assert!(stands >= reported, "step {reported:?} was reported, step {stands:?} found");
        match stands {
            None => "nothing yet".to_owned(),
            Some(step) => format!("steps {:02} to {:02}", step / 10 * 10, step / 10 * 10 + 9),
        }
    };
    kill("training", |_| (), found);
}
