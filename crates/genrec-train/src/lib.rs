//! The training loop of any [`Trainable`](genrec_model::Trainable) model: optimiser and schedule, early stopping on a
//! validation metric, and checkpoints from which a killed run continues byte for byte.
//!
//! Depend on this crate rather than on `genrec` to train a model of your own, or to train a built-in one on batches and
//! with a validation of your own. It neither reads data nor decodes nor prints: batches come from a [`BatchSource`],
//! the metric from a closure, and what happens goes to a [`Callback`].
//!
//! Three types matter: [`TrainConfig`], the settings; [`Trainer`], whose [`fit`](Trainer::fit) does the work;
//! [`BatchSource`], a pure function from epoch and index to a batch.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use genrec_kernels::optim::{AdamWConfig, OptimizerConfig, Schedule};
//! use genrec_kernels::{Gradients, Parameters};
//! use genrec_model::Trainable;
//! use genrec_train::{BatchSource, BoxError, TrainConfig, Trainer};
//!
//! /// y = w x, by least squares.
//! struct Line(Parameters);
//!
//! impl Trainable for Line {
//!     type Batch = (Tensor, Tensor);
//!     fn parameters(&self) -> &Parameters {
//!         &self.0
//!     }
//!     fn loss_and_grads(&self, (x, y): &Self::Batch, _seed: u64) -> candle_core::Result<(f32, Gradients)> {
//!         let w = self.0.get("w").ok_or_else(|| candle_core::Error::msg("no weight"))?;
//!         let loss = (x.broadcast_mul(w)? - y)?.sqr()?.mean_all()?;
//!         Ok((loss.to_scalar()?, Gradients::from_store(&self.0, &loss.backward()?)?))
//!     }
//!     fn loss(&self, batch: &Self::Batch) -> candle_core::Result<f32> {
//!         Ok(self.loss_and_grads(batch, 0)?.0)
//!     }
//! }
//!
//! /// Ten batches of four points on y = 3 x.
//! struct Points;
//!
//! impl BatchSource for Points {
//!     type Batch = (Tensor, Tensor);
//!     fn num_batches(&self, _epoch: u32) -> usize {
//!         10
//!     }
//!     fn batch(&self, epoch: u32, index: usize) -> Result<Self::Batch, BoxError> {
//!         let x = Tensor::arange(1f32, 5.0, &Device::Cpu)?.affine(0.1, (epoch as usize + index) as f64 * 0.01)?;
//!         let y = (&x * 3.0)?;
//!         Ok((x, y))
//!     }
//!     fn num_examples(&self) -> usize {
//!         40
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut parameters = Parameters::new(&Device::Cpu);
//! parameters.insert("w", &Tensor::zeros(1, candle_core::DType::F32, &Device::Cpu)?)?;
//! let model = Line(parameters);
//!
//! let config = TrainConfig::default()
//!     .with_optimizer(OptimizerConfig::AdamW(AdamWConfig::default()))
//!     .with_schedule(Schedule::Constant)
//!     .with_learning_rate(0.1)
//!     .with_epochs(Some(20))
//!     .with_patience(Some(5));
//! let mut metric = |model: &Line| -> Result<f64, BoxError> { Ok(-f64::from(model.loss(&Points.batch(0, 0)?)?)) };
//! let report = Trainer::new(config)?.fit(&model, &Points, &mut metric, &mut (), None)?;
//! assert!(report.best_metric > Some(-0.01));
//! # Ok(())
//! # }
//! ```
//!
//! # Checkpoints
//! With a directory, [`fit`](Trainer::fit) keeps two checkpoints in it, `last` and `best`, each of
//! `model.safetensors` (the weights, which a model loads as any other file of its own), `optimizer.safetensors` and
//! `state.json`. They are replaced such that a process killed at any instant leaves whole ones; checksums find files
//! that were damaged later. A second run in the directory of one under way is refused ([`DirectoryLock`]). A run that is
//! resumed must have the same configuration and data; whatever differs is named in the error. [`Checkpoint::read`] reads
//! one without training.
//!
//! # Several ranks
//! [`Trainer::fit_with`] trains on several [ranks](Collective) at once: threads, processes under `mpirun`, GPUs. The batches, the
//! steps and the checkpoints are those of one.
//!
//! # Alternatives
//! `burn-train` has a richer loop (dashboards, many metrics) for models on burn. In Python, PyTorch Lightning and the
//! trainer of `transformers` do this work; neither promises a resumed run equal to an uninterrupted one.
//!
//! # Features
//! `tensorboard`: event files, and a callback that writes a run's curves. `mpi`: ranks that `mpirun` starts. `nccl`: sums over ranks by
//! NCCL. `cuda`, `cudnn`, `nccl`, `metal`, `accelerate`, `mkl`: passed on
//! to candle; the code is the same.
//!
//! # References
//! Rajput et al., *Recommender systems with generative retrieval*, NeurIPS 2023 (arXiv 2305.05065), section 4, for the
//! defaults. Prechelt, *Early stopping - but when?*, 1998, for stopping after a number of validations without
//! improvement.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc(test(attr(deny(warnings))))]

mod checkpoint;
pub mod collective;
mod config;
mod error;
mod lock;
mod progress;
mod report;
mod source;
#[cfg(feature = "tensorboard")]
pub mod tensorboard;
mod trainer;

pub use checkpoint::{Checkpoint, FORMAT_VERSION};
#[cfg(feature = "mpi")]
pub use collective::Mpi;
pub use collective::{Alone, Collective, CollectiveError, Nccl, Threads};
pub use config::{Every, TrainConfig};
pub use error::{BoxError, Quantity, Result, TrainError};
pub use lock::DirectoryLock;
pub use progress::{Best, Progress};
pub use report::{Callback, CheckpointReport, EpochReport, StepReport, StopReason, TrainReport, ValidationReport};
pub use source::BatchSource;
pub use trainer::Trainer;

/// The examples of the README, run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
