//! T5, an encoder-decoder transformer ([Raffel et al. 2020](https://arxiv.org/abs/1910.10683)), trainable, with weights
//! and configuration in Hugging Face's form.

mod attention;
mod config;
mod engine;
mod feed_forward;
mod files;
mod input;
mod network;
mod packed;
mod position;
mod state;
mod train;
mod weights;

use std::{
    borrow::Cow,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{DType, Device};
use genrec_kernels::Parameters;

pub use self::{
    config::{FeedForwardKind, T5Config},
    state::T5State,
};
use self::{
    engine::Engine,
    network::{Network, Source},
};
use crate::{
    engine::shares::{MOST_SHARES, SHARES},
    error::ModelError,
};

/// Rows that the CPU computes at once in training by autograd, unless told otherwise.
const CPU_MICRO_BATCH: usize = 8;

/// The sequence-to-sequence model of TIGER ([Rajput et al. 2023](https://arxiv.org/abs/2305.05065), section 3.2): a T5
/// over Semantic-ID tokens.
///
/// Pre-norm blocks with RMSNorm, attention with a learnt relative position bias and no score scaling, no biases in
/// linear layers. Sequences of a batch do not influence one another: padding is masked everywhere.
///
/// It decodes through [`Seq2Seq`](crate::Seq2Seq) and trains through [`Trainable`](crate::Trainable). Decoding never
/// changes the model, so a shared reference serves any number of threads. Cloning shares the weights.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use genrec_model::{RaggedBatch, Seq2Seq, Trainable, t5::{T5, T5Config}};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let model = T5::new(T5Config::cpu(50), 7, &Device::Cpu)?;
/// let mut batch = RaggedBatch::new();
/// batch.push(&[9, 10, 11, 12], &[13, 14])?;
/// batch.push(&[9, 12], &[14, 13])?;
///
/// let (loss, gradients) = model.loss_and_grads(&batch, 0)?;
/// assert!(loss > 0.0 && gradients.len() == model.parameters().len());
///
/// let mut state = model.start(&batch)?;
/// let first = Tensor::full(model.decoder_start_token(), 2, model.device())?;
/// assert_eq!(model.step(&first, &mut state)?.dims(), [2, 50]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct T5 {
    config: T5Config,
    params: Parameters,
    /// Over weights that autograd follows, in `f32`.
    tracked: Network,
    /// Over the same weights, recording nothing, in `f32`.
    detached: Network,
    /// What the graph and the packed layers compute in.
    dtype: DType,
    micro_batch: Option<usize>,
    /// Of a batch, on the CPU.
    shares: usize,
    /// Whether the graph was asked for.
    autograd: bool,
    /// Trains and decodes on the CPU; `None` elsewhere and where candle's graph does.
    engine: Option<Arc<Engine>>,
    /// The packed layers, shared by clones that compute in the same type.
    layers: Arc<Mutex<Option<Versioned>>>,
}

/// Packed layers and the version of the parameters that they hold.
type Versioned = (u64, Arc<packed::Layers>);

impl T5 {
    /// A model with random weights, at the scales of `transformers`. A seed gives the same weights on every device.
    ///
    /// # Errors
    /// [`ModelError::Config`] when the configuration is out of its bounds, [`ModelError::Tensor`] when the device has no
    /// room.
    pub fn new(config: T5Config, seed: u64, device: &Device) -> Result<Self, ModelError> {
        config.validate()?;
        let params = weights::initialise(&config, seed, device)?;
        Ok(Self::from_parameters(config, params)?)
    }

    fn from_parameters(config: T5Config, params: Parameters) -> candle_core::Result<Self> {
        let dtype = DType::F32;
        let tracked = Network::new(&config, &Source { params: &params, tracked: true, dtype })?;
        let detached = Network::new(&config, &Source { params: &params, tracked: false, dtype })?;
        let on_cpu = matches!(params.device(), Device::Cpu);
        let micro_batch = on_cpu.then_some(CPU_MICRO_BATCH);
        let engine = on_cpu.then(|| Arc::new(Engine::new(&config, &params, SHARES)));
        Ok(Self {
            config,
            params,
            tracked,
            detached,
            dtype,
            micro_batch,
            shares: SHARES,
            autograd: false,
            engine,
            layers: Arc::default(),
        })
    }

    /// Sets how many rows of a training batch the graph, or a GPU, computes at once; `None` is the whole batch. The CPU's fused
    /// engine has no use for it.
    ///
    /// Rows are sorted by length first, so that small micro-batches hold little padding. They share out the CPU's
    /// threads, need less memory and stay in its caches; the gradient is that of the whole batch up to rounding. Its dropout
    /// masks depend on the size, the number of threads changes nothing. The default is 8 on the CPU and the whole batch
    /// on other devices. It is not part of the configuration and not saved.
    #[must_use]
    pub fn with_micro_batch(mut self, rows: Option<usize>) -> Self {
        self.micro_batch = rows;
        self
    }

    /// Sets how many shares of a training batch the CPU's fused engine sums apart: the most threads that a step uses, over all
    /// [workers](crate::BatchShare) together where their number divides it.
    ///
    /// Sums depend on it in their last bits, and not on the number of threads. Those of two workers are bit for bit those of one where
    /// the shares are even in number, and those of 4, 8, .. where the shares are a multiple and the workers' sums are added in pairs. The
    /// default is 8, and no more than 4,096 are made; each takes the memory of the weights. It is not part of the configuration
    /// and not saved.
    #[must_use]
    pub fn with_shares(mut self, shares: NonZeroUsize) -> Self {
        self.shares = shares.get().min(MOST_SHARES);
        if self.engine.is_some() {
            self.engine = Some(Arc::new(Engine::new(&self.config, &self.params, self.shares)));
        }
        self
    }

    /// Trains and decodes by candle's graph: the oracle of the fused kernels.
    ///
    /// On the CPU, with micro-batches of one row, dropout has the same masks either way.
    #[must_use]
    pub fn with_autograd(mut self) -> Self {
        self.autograd = true;
        self.engine = None;
        self
    }

    /// Computes in another floating type than the `f32` of the weights, forward and backward: `bf16` halves the memory of
    /// activations and takes a GPU's matrix units.
    ///
    /// Weights, gradients, the optimiser and what is saved stay `f32`; each step rounds the weights anew. Norms, softmax,
    /// the loss and its gradient are computed in `f32` all the same. It is not part of the configuration and not saved. On
    /// the CPU anything but `f32` turns the fused engine off and serves only to try the arithmetic. Losses are not scaled, so
    /// that small gradients vanish in `f16`; train in `bf16`.
    ///
    /// # Errors
    /// [`ModelError::Config`] unless the type is `F32`, `BF16` or `F16`; `BF16` needs a device that multiplies in it, which
    /// candle's CPU does not.
    pub fn with_compute_dtype(mut self, dtype: DType) -> Result<Self, ModelError> {
        let on_cpu = self.params.device().is_cpu();
        let bound = match dtype {
            DType::F32 | DType::F16 => None,
            DType::BF16 if !on_cpu => None,
            DType::BF16 => Some("f32 or f16 on the CPU; bf16 needs a GPU"),
            _ => Some("f32, bf16 or f16"),
        };
        if let Some(bound) = bound {
            let value = dtype.as_str().to_owned();
            return Err(ModelError::Config { field: "compute_dtype", value, bound: bound.to_owned() });
        }
        self.dtype = dtype;
        self.layers = Arc::default();
        let engine = || Arc::new(Engine::new(&self.config, &self.params, self.shares));
        self.engine = (on_cpu && dtype == DType::F32 && !self.autograd).then(engine);
        Ok(self)
    }

    /// Whether the packed layers compute this model: they do on a GPU, unless the graph was asked for.
    fn packed(&self) -> bool {
        !self.autograd && !self.params.device().is_cpu() && packed::supports(&self.config, &self.params, self.dtype)
    }

    /// The packed layers over the weights as they are now, made anew when those have changed.
    fn packed_layers(&self) -> candle_core::Result<Arc<packed::Layers>> {
        let version = self.params.version();
        // Nothing is left half done under the lock.
        let mut made = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, layers)) = &*made
            && *of == version
        {
            return Ok(Arc::clone(layers));
        }
        let layers = Arc::new(packed::Layers::new(&self.config, &self.params, self.dtype)?);
        *made = Some((version, Arc::clone(&layers)));
        Ok(layers)
    }

    /// The layers over the weights as they are now.
    fn network(&self, tracked: bool) -> candle_core::Result<Cow<'_, Network>> {
        if self.dtype == DType::F32 {
            return Ok(Cow::Borrowed(if tracked { &self.tracked } else { &self.detached }));
        }
        let source = Source { params: &self.params, tracked, dtype: self.dtype };
        Ok(Cow::Owned(Network::new(&self.config, &source)?))
    }

    /// The shape of the model.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// Number of trainable scalars.
    pub fn num_parameters(&self) -> usize {
        self.params.num_elements()
    }
}
