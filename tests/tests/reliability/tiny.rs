//! The smallest run that has every part, and the smallest training.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use genrec::{
    Recommender, Rerank,
    data::{Dataset, SyntheticConfig},
    embed::{EmbedderSpec, TfidfConfig},
    kernels::{Gradients, Parameters},
    model::Trainable,
    pipeline::{self, EmbeddingSource, Event, TigerConfig},
    quantize::{QuantizerConfig, ResidualKMeansConfig},
    train::{BatchSource, BoxError, TrainConfig, TrainError, TrainReport, Trainer},
};

/// Forty items and thirty users.
pub(crate) fn shop() -> Dataset {
    let shop = SyntheticConfig::default().with_items(40).with_users(30).with_seed(3).with_tree(2, 2, 2);
    shop.with_lengths(4, 2.0, 8).generate().unwrap().dataset
}

/// Some thousand weights in all, trained for an epoch.
pub(crate) fn config() -> TigerConfig {
    let k_means = ResidualKMeansConfig::default().with_codebook_sizes([8, 4]).with_iterations(5);
    let mut config = TigerConfig::cpu().with_seed(7).with_quantizer(QuantizerConfig::ResidualKMeans(k_means));
    config.embedder = EmbeddingSource::Text { embedder: EmbedderSpec::Tfidf(TfidfConfig::default().with_dim(4)) };
    config.model = config.model.with_layers(1, 1).with_d_model(4).with_heads(1, 4).with_d_ff(4);
    (config.suffix_size, config.batch_size, config.invalid_rate_users) = (8, 32, 4);
    config.train.epochs = Some(1);
    config.decode = config.decode.with_user_tokens(2).with_beams(6).with_rerank(Some(Rerank::default()));
    config
}

/// Makes the run, or makes it go on.
pub(crate) fn run(dir: &Path) -> Recommender {
    let mut quiet = |_: &Event<'_>| {};
    pipeline::run(&shop(), &config(), dir, &Device::Cpu, None, true, &mut quiet).unwrap().recommender
}

/// A weight for each column, which are to become zeros.
struct Weights(Parameters);

impl Trainable for Weights {
    type Batch = Tensor;

    fn parameters(&self) -> &Parameters {
        &self.0
    }

    fn loss_and_grads(&self, x: &Tensor, _seed: u64) -> candle_core::Result<(f32, Gradients)> {
        let w = self.0.get("w").ok_or_else(|| candle_core::Error::msg("no weight"))?;
        let loss = (x * w)?.sqr()?.mean_all()?;
        Ok((loss.to_scalar()?, Gradients::from_store(&self.0, &loss.backward()?)?))
    }

    fn loss(&self, x: &Tensor) -> candle_core::Result<f32> {
        Ok(self.loss_and_grads(x, 0)?.0)
    }
}

/// Batches of ones.
struct Ones {
    columns: usize,
    batches: usize,
}

impl BatchSource for Ones {
    type Batch = Tensor;

    fn num_batches(&self, _epoch: u32) -> usize {
        self.batches
    }

    fn batch(&self, _epoch: u32, _index: usize) -> Result<Tensor, BoxError> {
        Ok(Tensor::ones(self.columns, DType::F32, &Device::Cpu)?)
    }

    fn num_examples(&self) -> usize {
        self.batches
    }
}

/// Trains a few weights on as many columns, or goes on where a directory's checkpoints stand.
#[allow(clippy::result_large_err, reason = "as the trainer's own")]
pub(crate) fn train(
    config: TrainConfig,
    columns: usize,
    batches: usize,
    dir: Option<&Path>,
) -> Result<TrainReport, TrainError> {
    let mut parameters = Parameters::new(&Device::Cpu);
    parameters.insert("w", &Tensor::ones(columns, DType::F32, &Device::Cpu).unwrap()).unwrap();
    let (model, data) = (Weights(parameters), Ones { columns, batches });
    Trainer::new(config)?.with_resume(true).fit(&model, &data, &mut |_| Ok(0.5), &mut (), dir)
}
