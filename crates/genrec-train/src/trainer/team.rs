//! What the ranks of a run do together, and how an error of one ends them all.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use genrec_kernels::optim::{AnyOptimizer, Optimizer};
use genrec_kernels::{Gradients, Parameters};
use genrec_model::BatchShare;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::{Checkpoint, DataSize, Resumed, decode, encode};
use crate::collective::{Collective, CollectiveError};
use crate::config::first_difference;
use crate::error::{Result, TrainError};
use crate::progress::Progress;

/// The ranks, seen from one of them.
#[derive(Clone, Copy)]
pub(super) struct Team<'a>(pub(super) &'a dyn Collective);

/// A [`Resumed`] without its tensors.
#[derive(Serialize, Deserialize)]
struct State {
    progress: Progress,
    config: Value,
    data: DataSize,
    path: String,
    has_best: bool,
    ahead: bool,
}

fn lost(source: CollectiveError) -> TrainError {
    TrainError::Collective { source }
}

fn copied(source: candle_core::Error) -> TrainError {
    TrainError::State { source }
}

fn encoded(source: serde_json::Error) -> TrainError {
    copied(candle_core::Error::wrap(source))
}

/// An error and its causes in one line.
fn described(error: &TrainError) -> String {
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

impl Team<'_> {
    /// Whether this rank validates, reports and writes.
    pub(super) fn leads(self) -> bool {
        self.0.rank() == 0
    }

    /// What of each batch this rank computes.
    pub(super) fn share(self) -> Result<BatchShare> {
        let (rank, ranks) = (self.0.rank(), self.0.ranks());
        BatchShare::new(rank, ranks).map_err(|source| copied(candle_core::Error::wrap(source)))
    }

    fn is_alone(self) -> bool {
        self.0.ranks() == 1
    }

    /// What rank 0 makes, on all ranks. Its error is an error of all.
    pub(super) fn led<T: Serialize + DeserializeOwned>(self, make: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.is_alone() {
            return make();
        }
        if !self.leads() {
            let bytes = self.0.broadcast(Vec::new()).map_err(lost)?;
            let made: std::result::Result<T, String> = serde_json::from_slice(&bytes).map_err(encoded)?;
            return made.map_err(|reason| TrainError::Leader { reason });
        }
        let mut made = make();
        let bytes = serde_json::to_vec(&made.as_ref().map_err(described)).unwrap_or_else(|error| {
            let error = encoded(error);
            // A string always can be encoded.
            let bytes = serde_json::to_vec(&Err::<(), String>(described(&error))).unwrap_or_default();
            made = Err(error);
            bytes
        });
        let sent = self.0.broadcast(bytes).map_err(lost);
        // The first error is the one to report.
        let made = made?;
        sent.map(|_| made)
    }

    /// A number of rank 0 on all ranks, bit for bit.
    pub(super) fn led_number(self, make: impl FnOnce() -> Result<f64>) -> Result<f64> {
        self.led(|| make().map(f64::to_bits)).map(f64::from_bits)
    }

    /// Whether all ranks came this far without an error; if not, an error on all of them.
    pub(super) fn all(self, result: Result<()>) -> Result<()> {
        if self.is_alone() {
            return result;
        }
        let all = self.0.all(result.is_ok()).map_err(lost);
        result?;
        if all? { Ok(()) } else { Err(TrainError::OtherRank) }
    }

    /// Checks that all ranks have the same settings and data, and gives them the weights of rank 0.
    pub(super) fn align(self, fingerprint: &Value, data: DataSize, parameters: &Parameters) -> Result<()> {
        if self.is_alone() {
            return Ok(());
        }
        let (leading, size) = self.led(|| Ok((fingerprint.clone(), data)))?;
        let sizes = serde_json::json!({"data": [leading, size]});
        let own = serde_json::json!({"data": [fingerprint, data]});
        let difference = first_difference(&leading, fingerprint).or_else(|| first_difference(&sizes, &own));
        self.all(match difference {
            Some((field, leading, given)) => {
                Err(TrainError::RankMismatch { rank: self.0.rank(), field, leading, given })
            }
            None => Ok(()),
        })?;
        let weights = self.tensors(|| parameters.snapshot().map_err(copied))?;
        self.all(parameters.restore(&weights).map_err(|source| copied(candle_core::Error::wrap(source))))
    }

    /// Gives all ranks the weights and the optimiser's state of rank 0.
    ///
    /// On a GPU sums by atomic additions differ in their last bits, and so do the steps of ranks that were given the same gradients.
    pub(super) fn align_state(self, parameters: &Parameters, optimizer: &mut AnyOptimizer) -> Result<()> {
        if self.is_alone() {
            return Ok(());
        }
        let weights = self.tensors(|| parameters.snapshot().map_err(copied))?;
        let state = self.tensors(|| optimizer.state().map_err(copied))?;
        let restored = parameters.restore(&weights).and_then(|()| optimizer.load_state(&state));
        self.all(restored.map_err(|source| copied(candle_core::Error::wrap(source))))
    }

    /// Checks that this rank has as many batches in an epoch as rank 0.
    pub(super) fn same_batches(self, leading: usize, own: usize) -> Result<()> {
        if leading == own {
            return Ok(());
        }
        let (field, leading, given) = ("batches".to_owned(), leading.to_string(), own.to_string());
        Err(TrainError::RankMismatch { rank: self.0.rank(), field, leading, given })
    }

    /// What rank 0 resumes from, on all ranks.
    pub(super) fn resumed(self, found: Option<Resumed>) -> Result<Option<Resumed>> {
        if self.is_alone() {
            return Ok(found);
        }
        let state = self.led(|| {
            Ok(found.as_ref().map(|Resumed { checkpoint, best, path, ahead }| State {
                progress: checkpoint.progress.clone(),
                config: checkpoint.config.clone(),
                data: checkpoint.data,
                path: path.display().to_string(),
                has_best: best.is_some(),
                ahead: *ahead,
            }))
        })?;
        let Some(State { progress, config, data, path, has_best, ahead }) = state else { return Ok(None) };
        let (mut weights, mut optimizer, mut best) = Default::default();
        if let Some(found) = found {
            (weights, optimizer, best) = (found.checkpoint.weights, found.checkpoint.optimizer, found.best);
        }
        let weights = self.tensors(|| Ok(std::mem::take(&mut weights)))?;
        let optimizer = self.tensors(|| Ok(std::mem::take(&mut optimizer)))?;
        let best = match has_best {
            true => Some(self.tensors(|| Ok(best.take().unwrap_or_default()))?),
            false => None,
        };
        let checkpoint = Checkpoint { weights, optimizer, progress, config, data };
        Ok(Some(Resumed { checkpoint, best, path: path.into(), ahead }))
    }

    /// Tensors of rank 0, by name, on the CPU of all ranks.
    fn tensors(self, make: impl FnOnce() -> Result<BTreeMap<String, Tensor>>) -> Result<BTreeMap<String, Tensor>> {
        let made = if self.leads() { make().and_then(|tensors| encode(&tensors)) } else { Ok(Vec::new()) };
        let (made, status) = match made {
            Ok(bytes) => (bytes, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        self.all(status)?;
        let bytes = self.0.broadcast(made).map_err(lost)?;
        decode(&bytes).map_err(copied)
    }

    /// The sum of what all ranks computed: the loss, and the gradients in one piece.
    pub(super) fn sum(self, parameters: &Parameters, computed: Result<(f32, Gradients)>) -> Result<(f32, Gradients)> {
        if self.is_alone() {
            return computed;
        }
        let sum = flatten(parameters, computed.as_ref().ok())
            .map_err(copied)
            .and_then(|bucket| self.0.all_reduce(&bucket).map_err(lost));
        let (_, mut gradients) = computed?;
        let sum = sum?;
        let loss = unflatten(parameters, &sum, &mut gradients).map_err(copied)?;
        Ok((loss.ok_or(TrainError::OtherRank)?, gradients))
    }
}

/// Gradients in the order of the parameters, then the loss, then 1 where there was an error.
fn flatten(parameters: &Parameters, computed: Option<&(f32, Gradients)>) -> candle_core::Result<Tensor> {
    let device = parameters.device();
    let mut pieces = Vec::with_capacity(parameters.len() + 1);
    for (name, weight) in parameters.iter() {
        pieces.push(match computed.and_then(|(_, gradients)| gradients.get(name)) {
            Some(gradient) => gradient.to_dtype(DType::F32)?.flatten_all()?,
            None => Tensor::zeros(weight.elem_count(), DType::F32, device)?,
        });
    }
    let loss = computed.map_or(0.0, |(loss, _)| *loss);
    let failed = f32::from(u8::from(computed.is_none()));
    pieces.push(Tensor::new(&[loss, failed], device)?);
    Tensor::cat(&pieces, 0)
}

/// The gradients out of their sum, and the loss; `None` where a rank had an error.
fn unflatten(parameters: &Parameters, sum: &Tensor, gradients: &mut Gradients) -> candle_core::Result<Option<f32>> {
    let mut start = 0;
    for (name, weight) in parameters.iter() {
        let dtype = gradients.get(name).map_or(weight.dtype(), Tensor::dtype);
        let gradient = sum.narrow(0, start, weight.elem_count())?.reshape(weight.shape())?.to_dtype(dtype)?;
        // Kernels read what fills its storage. `copy` would copy the whole sum each time.
        gradients.insert(name, gradient.force_contiguous()?);
        start += weight.elem_count();
    }
    let last = sum.narrow(0, start, 2)?.to_vec1::<f32>()?;
    Ok((last.get(1) == Some(&0.0)).then(|| last.first().copied().unwrap_or_default()))
}
