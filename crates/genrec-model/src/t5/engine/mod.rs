//! Training and decoding on the CPU without a graph: ragged sequences, packed weights, one thread a share of the batch.

mod attention;
mod chunk;
mod decode;
mod encode;
mod feed_forward;
mod network;
mod shares;

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use candle_core::{Device, Error, Result, Tensor};
use genrec_kernels::gemm::GemmError;
use genrec_kernels::{CounterRng, Gradients, Parameters, in_pool};
use rayon::prelude::*;

pub(super) use self::decode::Caches;
use self::{
    chunk::{Biases, Pass, Spread, Workspace},
    decode::Pool,
    network::Network,
    shares::shares,
};
use super::config::T5Config;
use crate::batch::RaggedBatch;
use crate::engine::{
    grads::{Grads, ranges, sum},
    lock,
    pass::Dropout,
};
use crate::share::BatchShare;

/// The engine of one model: packed weights and every buffer that a step needs, kept for the next.
///
/// No lock is held while work runs in parallel: a thread that waits for others may pick up another call of this engine,
/// and would wait for itself. What is in use elsewhere is made anew.
#[derive(Debug)]
pub(super) struct Engine {
    config: T5Config,
    params: Parameters,
    packed: Mutex<Option<Packed>>,
    training: Mutex<Option<Training>>,
    decoding: Pool,
    /// Of a batch, whose gradients are summed apart.
    shares: usize,
    /// Tells the caches of this engine from others'.
    identity: Arc<()>,
}

/// The weights as of some version.
#[derive(Debug)]
struct Packed {
    network: Arc<Network>,
    version: u64,
    /// Whether the backward pass can be computed too.
    both_ways: bool,
}

#[derive(Debug)]
struct Training {
    ranges: Arc<[Range<usize>]>,
    /// Parameters whose gradients are always added to.
    added: Vec<usize>,
    /// Of a whole batch.
    count: usize,
    /// Leaves of the tree that sums them; the first are the worker's.
    shares: Vec<Share>,
    used: usize,
}

/// The gradients and buffers of one share of the batch.
#[derive(Debug)]
struct Share {
    grads: Option<Grads>,
    workspace: Workspace,
    loss: f64,
}

impl Training {
    fn new(network: &Network, params: &Parameters, count: usize) -> Self {
        let share = || Share { grads: None, workspace: Workspace::default(), loss: 0.0 };
        Self {
            ranges: ranges(params),
            added: network.added(),
            count,
            shares: std::iter::repeat_with(share).take(count).collect(),
            used: 0,
        }
    }
}

impl Engine {
    pub(super) fn new(config: &T5Config, params: &Parameters, shares: usize) -> Self {
        Self {
            config: config.clone(),
            params: params.clone(),
            packed: Mutex::new(None),
            training: Mutex::new(None),
            decoding: Pool::default(),
            shares,
            identity: Arc::new(()),
        }
    }

    /// The layers over the weights' current values.
    fn network(&self, training: bool) -> Result<Arc<Network>> {
        let version = self.params.version();
        let taken = {
            let mut packed = lock(&self.packed);
            match &*packed {
                Some(packed) if packed.version == version && (packed.both_ways || !training) => {
                    return Ok(Arc::clone(&packed.network));
                }
                _ => packed.take(),
            }
        };
        // The memory is used again unless somebody still decodes with the earlier values.
        let mut network = match taken.and_then(|packed| Arc::into_inner(packed.network)) {
            Some(network) => network,
            None => Network::new(&self.config, &self.params)?,
        };
        network.load(&self.params, training)?;
        let network = Arc::new(network);
        *lock(&self.packed) = Some(Packed { network: Arc::clone(&network), version, both_ways: training });
        Ok(network)
    }

    /// Calls `work` with the buffers of training and the layers.
    fn with_training<T>(&self, backward: bool, work: impl FnOnce(&mut Training, &Network) -> Result<T>) -> Result<T> {
        let network = self.network(backward)?;
        let taken = lock(&self.training).take();
        let mut training = taken.unwrap_or_else(|| Training::new(&network, &self.params, self.shares));
        let done = work(&mut training, &network);
        *lock(&self.training) = Some(training);
        done
    }

    /// A worker's share of the mean loss over the batch and of its gradients.
    pub(super) fn loss_and_grads(
        &self,
        batch: &RaggedBatch,
        worker: BatchShare,
        seed: u64,
    ) -> Result<(f32, Gradients)> {
        let rng = CounterRng::new(seed).named("dropout");
        let rate = self.config.dropout_rate;
        let dropout = (rate > 0.0).then_some(Dropout { rate, rng });
        in_pool(|| {
            self.with_training(true, |training, network| {
                let work = Work { batch, worker, dropout: dropout.as_ref(), backward: true };
                let loss = training.run(network, &self.config, work)?;
                Ok((loss, training.sum(&self.params)?))
            })
        })
    }

    /// The mean loss over the batch without dropout.
    pub(super) fn loss(&self, batch: &RaggedBatch) -> Result<f32> {
        in_pool(|| {
            let work = Work { batch, worker: BatchShare::WHOLE, dropout: None, backward: false };
            self.with_training(false, |training, network| training.run(network, &self.config, work))
        })
    }

    /// Encodes the batch for decoding.
    pub(super) fn start(&self, batch: &RaggedBatch) -> Result<Caches> {
        decode::start(&self.network(false)?, batch, &self.decoding, &self.identity).map_err(Error::wrap)
    }

    /// The log-probabilities of the next token of every row, `(rows, vocabulary)`.
    pub(super) fn step(&self, caches: &mut Caches, users: &[u32], tokens: &[u32]) -> Result<Tensor> {
        if !caches.belong_to(&self.identity) {
            candle_core::bail!("the state was started by another model; start one with this model")
        }
        let values = decode::step(caches, users, tokens, &self.decoding).map_err(Error::wrap)?;
        Tensor::from_vec(values, (tokens.len(), self.config.vocab_size), &Device::Cpu)
    }
}

/// What is computed of a batch.
#[derive(Clone, Copy)]
struct Work<'a> {
    batch: &'a RaggedBatch,
    worker: BatchShare,
    dropout: Option<&'a Dropout>,
    backward: bool,
}

impl Training {
    /// Computes the loss of every share and, if wanted, its gradients.
    fn run(&mut self, network: &Network, config: &T5Config, work: Work<'_>) -> Result<f32> {
        let Work { batch, worker, dropout, backward } = work;
        let biases = Biases {
            encoder: Spread::new(&network.encoder, network.heads, batch.max_len()),
            decoder: Spread::new(&network.decoder, network.heads, batch.target_len()),
        };
        let factor = 1.0 / batch.labels().len() as f32;
        let pass = Pass { network, biases: &biases, dropout, factor };
        let shares = shares(batch, worker, self.count, config);
        self.used = shares.len();
        let (ranges, added) = (&self.ranges, &self.added);
        self.shares
            .par_iter_mut()
            .zip(&shares)
            .try_for_each(|(share, chunks)| -> std::result::Result<(), GemmError> {
                let Share { grads, workspace, loss } = share;
                *loss = 0.0;
                if chunks.is_empty() {
                    *grads = None;
                    return Ok(());
                }
                if !backward {
                    return chunks.iter().try_for_each(|chunk| {
                        *loss += pass.loss(chunk, workspace)?;
                        Ok(())
                    });
                }
                pass.begin(workspace);
                let grads = grads.get_or_insert_with(|| Grads::new(Arc::clone(ranges)));
                grads.reset(added);
                for chunk in chunks {
                    *loss += pass.loss(chunk, workspace)?;
                    pass.backward(chunk, workspace, grads)?;
                    grads.keep();
                }
                pass.end(workspace, grads);
                Ok(())
            })
            .map_err(Error::wrap)?;
        let total: f64 = self.shares[..self.used].iter().map(|share| share.loss).sum();
        Ok((total / batch.labels().len() as f64) as f32)
    }

    /// The gradients of all shares together.
    fn sum(&self, params: &Parameters) -> Result<Gradients> {
        let leaves: Vec<Option<&[f32]>> =
            self.shares[..self.used].iter().map(|share| share.grads.as_ref().map(Grads::values)).collect();
        sum(&leaves, &self.ranges, params)
    }
}
