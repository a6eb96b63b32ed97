//! SASRec, a causal transformer over items ([Kang and McAuley 2018](https://arxiv.org/abs/1808.09781)), trainable, which
//! scores the whole catalogue at once.

mod config;
mod engine;
mod files;
mod input;
mod network;
mod score;
mod train;
mod weights;

use std::sync::Arc;

use candle_core::Device;
use genrec_kernels::Parameters;

pub use self::config::{NormPlacement, SasRecConfig, SasRecLoss};
use self::engine::Engine;
use crate::error::ModelError;

/// Self-attentive sequential recommendation ([Kang and McAuley 2018](https://arxiv.org/abs/1808.09781)): blocks of causal
/// self-attention over the items of a history, whose last state is compared with the embeddings of all items.
///
/// With the item table $M$ and learnt positions $P$ the stream starts as $\sqrt d\, M_s + P$; the last item of a sequence has
/// the last position, as in the authors' program, which pads at the front. Each block is attention without an output
/// projection, then a position-wise network $W_2 \mathrm{relu}(W_1 x + b_1) + b_2$, each with a layer norm before it that
/// stands as [`NormPlacement`] says. Scores are $M\,\mathrm{norm}(x)$ by the same table. Queries and values have biases; keys
/// need none. Sequences of a batch do not influence one another.
///
/// It trains through [`Trainable`](crate::Trainable) on a [`RaggedBatch`](crate::RaggedBatch) of whole sequences without
/// labels, and ranks through [`ItemScorer`](crate::ItemScorer). On the CPU a fused engine does both without padding or a
/// graph; other devices run candle's graph. Cloning shares the weights.
///
/// ```
/// use candle_core::Device;
/// use genrec_kernels::optim::{AdamWConfig, Optimizer, OptimizerConfig};
/// use genrec_model::{ItemScorer, RaggedBatch, Trainable, sasrec::{SasRec, SasRecConfig}};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = SasRecConfig::new(5).with_d_model(16).with_max_len(8).with_dropout_rate(0.0);
/// let model = SasRec::new(config, 1, &Device::Cpu)?;
///
/// let mut batch = RaggedBatch::new();
/// batch.push(&[0, 1, 2, 3, 4, 0, 1], &[])?;
/// batch.push(&[3, 4, 0], &[])?;
/// let mut optimizer = OptimizerConfig::AdamW(AdamWConfig::default()).build(model.parameters())?;
/// for step in 0..60 {
///     let (_loss, gradients) = model.loss_and_grads(&batch, step)?;
///     optimizer.step(model.parameters(), &gradients, 0.01)?;
/// }
///
/// let mut histories = RaggedBatch::new();
/// histories.push(&[1, 2], &[])?;
/// let scores = model.scores(&histories)?;
/// assert_eq!(scores.dims(), [1, 5]);
/// assert_eq!(scores.argmax(1)?.to_vec1::<u32>()?, [3]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SasRec {
    config: SasRecConfig,
    params: Parameters,
    /// Trains and scores on the CPU; `None` elsewhere and where candle's graph does.
    engine: Option<Arc<Engine>>,
}

impl SasRec {
    /// A model with random weights: Xavier's normal values in every matrix and both tables, biases of 0, norms of 1. A seed
    /// gives the same weights on every device.
    ///
    /// # Errors
    /// [`ModelError::Config`] when the configuration is out of its bounds, [`ModelError::Tensor`] when the device has no
    /// room.
    pub fn new(config: SasRecConfig, seed: u64, device: &Device) -> Result<Self, ModelError> {
        config.validate()?;
        let params = weights::initialise(&config, seed, device)?;
        Ok(Self::from_parameters(config, params))
    }

    fn from_parameters(config: SasRecConfig, params: Parameters) -> Self {
        let engine = params.device().is_cpu().then(|| Arc::new(Engine::new(&config, &params)));
        Self { config, params, engine }
    }

    /// Trains and scores by candle's graph: the oracle of the fused engine.
    ///
    /// On the CPU it takes a sequence at a time, and dropout has the same masks either way.
    #[must_use]
    pub fn with_autograd(mut self) -> Self {
        self.engine = None;
        self
    }

    /// The shape of the model.
    pub fn config(&self) -> &SasRecConfig {
        &self.config
    }

    /// Number of items that [`scores`](crate::ItemScorer::scores) ranks.
    pub fn items(&self) -> usize {
        self.config.items
    }

    /// Number of trainable scalars.
    pub fn num_parameters(&self) -> usize {
        self.params.num_elements()
    }
}
