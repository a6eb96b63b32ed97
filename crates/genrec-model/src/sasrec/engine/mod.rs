//! Training and scoring on the CPU without a graph: sequences end to end, packed weights, one thread a share of the batch.

mod attention;
mod chunk;
mod feed_forward;
mod layers;
mod network;

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use candle_core::{Device, Error, Result, Tensor};
use genrec_kernels::gemm::GemmError;
use genrec_kernels::matmul::Target;
use genrec_kernels::{CounterRng, Gradients, Parameters, in_pool};
use rayon::prelude::*;

use self::{
    chunk::{Chunk, Objective, Pass, Workspace},
    network::Network,
};
use super::{
    config::{SasRecConfig, SasRecLoss},
    input::{Example, Negatives},
};
use crate::{
    engine::{
        grads::{Grads, ranges, sum},
        layers::{Rows, fit},
        lock,
        pass::Dropout,
        shares::{SHARES, balance},
    },
    share::BatchShare,
};

/// Histories that one task scores.
const HISTORIES: usize = 16;

/// The engine of one model: packed weights and every buffer that a step needs, kept for the next.
///
/// No lock is held while work runs in parallel: a thread that waits for others may pick up another call of this engine,
/// and would wait for itself. What is in use elsewhere is made anew.
#[derive(Debug)]
pub(super) struct Engine {
    config: SasRecConfig,
    params: Parameters,
    packed: Mutex<Option<Packed>>,
    training: Mutex<Option<Training>>,
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
    /// Leaves of the tree that sums them; the first are the worker's.
    shares: Vec<Share>,
    used: usize,
}

/// The gradients and buffers of one share of the batch.
#[derive(Debug, Default)]
struct Share {
    grads: Option<Grads>,
    workspace: Workspace,
    loss: f64,
}

impl Engine {
    pub(super) fn new(config: &SasRecConfig, params: &Parameters) -> Self {
        let (config, params) = (config.clone(), params.clone());
        Self { config, params, packed: Mutex::new(None), training: Mutex::new(None) }
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
        // The memory is used again unless somebody still scores with the earlier values.
        let mut network = match taken.and_then(|packed| Arc::into_inner(packed.network)) {
            Some(network) => network,
            None => Network::new(&self.config, &self.params)?,
        };
        network.load(&self.params, training)?;
        let network = Arc::new(network);
        *lock(&self.packed) = Some(Packed { network: Arc::clone(&network), version, both_ways: training });
        Ok(network)
    }

    fn objective(&self, negatives: Option<&Negatives>) -> Objective {
        match (negatives, &self.config.loss) {
            (Some(negatives), _) => Objective::Candidates { per_position: negatives.per_position() },
            (None, SasRecLoss::FullCrossEntropy { label_smoothing }) => {
                Objective::Items { smoothing: *label_smoothing as f32 }
            }
            (None, _) => Objective::Items { smoothing: 0.0 },
        }
    }

    /// A worker's share of the mean loss over the positions and of its gradients.
    pub(super) fn loss_and_grads(
        &self,
        examples: &[Example<'_>],
        share: BatchShare,
        negatives: Option<Negatives>,
        seed: u64,
    ) -> Result<(f32, Gradients)> {
        let rng = CounterRng::new(seed).named("dropout");
        let rate = self.config.dropout_rate;
        let dropout = (rate > 0.0).then_some(Dropout { rate, rng });
        in_pool(|| self.run(examples, share, negatives, dropout.as_ref(), true))
    }

    /// The mean loss over the positions without dropout.
    pub(super) fn loss(&self, examples: &[Example<'_>], negatives: Option<Negatives>) -> Result<f32> {
        Ok(in_pool(|| self.run(examples, BatchShare::WHOLE, negatives, None, false))?.0)
    }

    /// The mean loss and, if `backward`, its gradients.
    fn run(
        &self,
        examples: &[Example<'_>],
        share: BatchShare,
        negatives: Option<Negatives>,
        dropout: Option<&Dropout>,
        backward: bool,
    ) -> Result<(f32, Gradients)> {
        let network = self.network(backward)?;
        let count = super::input::positions(examples);
        let objective = self.objective(negatives.as_ref());
        let pass = Pass { network: &network, dropout, objective, factor: 1.0 / count as f32 };
        let shares = balance(chunks(examples, negatives.as_ref()), share, SHARES, |chunk| chunk.items.len());
        let taken = lock(&self.training).take();
        let mut training = taken.unwrap_or_else(|| Training::new(&network, &self.params));
        let total = training.run(pass, &shares, backward);
        let gradients = if total.is_ok() && backward { training.sum(&self.params) } else { Ok(Gradients::default()) };
        *lock(&self.training) = Some(training);
        Ok(((total? / count as f64) as f32, gradients?))
    }

    /// Scores of all items, `(histories, items)`; 0 where there is no history.
    pub(super) fn scores(&self, histories: &[&[u32]]) -> Result<Tensor> {
        let network = self.network(false)?;
        let (items, width) = (network.items, network.d_model);
        let objective = Objective::Items { smoothing: 0.0 };
        let pass = Pass { network: &network, dropout: None, objective, factor: 1.0 };
        let mut scores = vec![0f32; histories.len() * items];
        scores
            .par_chunks_mut(HISTORIES * items)
            .zip(histories.par_chunks(HISTORIES))
            .try_for_each_init(
                || (Workspace::default(), Vec::new()),
                |(workspace, last), (scores, histories)| -> std::result::Result<(), GemmError> {
                    let last = fit(last, histories.len() * width);
                    last.fill(0.0);
                    let mut chunk = Chunk::default();
                    for (row, history) in histories.iter().enumerate() {
                        if !history.is_empty() {
                            chunk.push(row, history);
                        }
                    }
                    if chunk.spans.is_empty() {
                        return Ok(());
                    }
                    let states = pass.states(&chunk, workspace)?;
                    for span in &chunk.spans {
                        let end = (span.start + span.len) * width;
                        last[span.row * width..][..width].copy_from_slice(&states[end - width..end]);
                    }
                    network.head.forward(Rows::new(last, width), histories.len(), Target::set(scores, items))
                },
            )
            .map_err(Error::wrap)?;
        Tensor::from_vec(scores, (histories.len(), items), &Device::Cpu)
    }
}

/// The examples laid end to end, in chunks.
fn chunks(examples: &[Example<'_>], negatives: Option<&Negatives>) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for example in examples {
        if !chunks.last().is_some_and(|chunk| chunk.has_room(example.inputs.len())) {
            chunks.push(Chunk::default());
        }
        let Some(chunk) = chunks.last_mut() else { continue };
        chunk.push(example.row, example.inputs);
        chunk.labels.extend_from_slice(example.labels);
        if let Some(negatives) = negatives {
            negatives.append(example, &mut chunk.candidates);
        }
    }
    chunks
}

impl Training {
    fn new(network: &Network, params: &Parameters) -> Self {
        let shares = std::iter::repeat_with(Share::default).take(SHARES).collect();
        Self { ranges: ranges(params), added: network.added().to_vec(), shares, used: 0 }
    }

    /// The sum of the losses; if `backward`, every share is left with its gradients.
    fn run(&mut self, pass: Pass<'_>, shares: &[Vec<Chunk>], backward: bool) -> Result<f64> {
        let (ranges, added) = (&self.ranges, &self.added);
        self.shares
            .par_iter_mut()
            .zip(shares)
            .try_for_each(|(share, chunks)| -> std::result::Result<(), GemmError> {
                let Share { grads, workspace, loss } = share;
                *loss = 0.0;
                if chunks.is_empty() {
                    *grads = None;
                    return Ok(());
                }
                if !backward {
                    return chunks.iter().try_for_each(|chunk| {
                        *loss += pass.run(chunk, workspace, None)?;
                        Ok(())
                    });
                }
                let grads = grads.get_or_insert_with(|| Grads::new(Arc::clone(ranges)));
                grads.reset(added);
                for chunk in chunks {
                    *loss += pass.run(chunk, workspace, Some(&mut *grads))?;
                    grads.keep();
                }
                Ok(())
            })
            .map_err(Error::wrap)?;
        self.used = shares.len();
        Ok(self.shares[..self.used].iter().map(|share| share.loss).sum())
    }

    /// The gradients of all shares together.
    fn sum(&self, params: &Parameters) -> Result<Gradients> {
        let leaves: Vec<Option<&[f32]>> =
            self.shares[..self.used].iter().map(|share| share.grads.as_ref().map(Grads::values)).collect();
        sum(&leaves, &self.ranges, params)
    }
}
