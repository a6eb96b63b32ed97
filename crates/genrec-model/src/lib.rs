//! Sequence-to-sequence models over Semantic-ID tokens: a trainable T5 on candle, and the contract to bring your own.
//!
//! Depend on this crate rather than on `genrec` to train or serve the model alone, to decode with a model of your own
//! (implement [`Seq2Seq`]), or to score whole catalogues ([`ItemScorer`]). It knows token ids only: how items become
//! tokens is `sid-index`'s work, how logits become ranked items is `genrec-decode`'s, and optimisers are
//! `genrec-train`'s.
//!
//! The types that matter: [`t5::T5`], the model of TIGER; [`sasrec::SasRec`], which ranks items without Semantic IDs and is
//! what generative models are compared with; [`RaggedBatch`], what every model reads; [`Seq2Seq`] and
//! [`Trainable`], the two contracts.
//!
//! # Example
//!
//! One step of training, then greedy decoding with the cache in the caller's hands:
//!
//! ```
//! use candle_core::{D, Device, Tensor};
//! use genrec_model::{RaggedBatch, Seq2Seq, Trainable, t5::{T5, T5Config}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = T5::new(T5Config::cpu(64).with_dropout_rate(0.1), 42, &Device::Cpu)?;
//!
//! let mut batch = RaggedBatch::new();
//! batch.push(&[2, 10, 20, 30], &[11, 21, 31])?;
//! batch.push(&[3, 12, 22, 32, 13, 23, 33], &[10, 20, 30])?;
//! let (_loss, gradients) = model.loss_and_grads(&batch, 1)?;
//! for (name, weight) in model.parameters().iter() {
//!     let gradient = gradients.get(name).ok_or("every parameter has a gradient")?;
//!     model.parameters().set(name, &(weight - (gradient * 0.01)?)?)?;
//! }
//!
//! let mut state = model.start(&batch)?;
//! let mut tokens = Tensor::full(model.decoder_start_token(), 2, model.device())?;
//! for _ in 0..3 {
//!     tokens = model.step(&tokens, &mut state)?.argmax(D::Minus1)?;
//! }
//! assert_eq!(tokens.dims(), [2]);
//! # Ok(())
//! # }
//! ```
//!
//! # Alternatives
//!
//! `candle_transformers::models::t5` serves T5 checkpoints on candle. It keeps its caches inside the layers, so beams
//! cannot be reordered; it takes no padding mask, has no dropout and cuts gradients, so it cannot be trained.
//!
//! # Features
//!
//! `cuda`, `cudnn`, `nccl`, `metal`, `accelerate` and `mkl` pass through to candle and change no behaviour; none is on
//! by default.
//!
//! # References
//!
//! - S. Rajput et al., *Recommender Systems with Generative Retrieval*, NeurIPS 2023,
//!   [arXiv:2305.05065](https://arxiv.org/abs/2305.05065).
//! - W.-C. Kang and J. McAuley, *Self-Attentive Sequential Recommendation*, ICDM 2018,
//!   [arXiv:1808.09781](https://arxiv.org/abs/1808.09781).
//! - C. Raffel et al., *Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer*, JMLR 2020,
//!   [arXiv:1910.10683](https://arxiv.org/abs/1910.10683).

pub mod baseline;
pub mod batch;
mod dropout;
mod engine;
mod error;
mod io;
pub mod sasrec;
pub mod seq2seq;
mod share;
pub mod t5;

pub use batch::{BatchError, RaggedBatch};
pub use error::{InputError, ModelError};
pub use genrec_kernels::{Gradients, Parameters};
pub use seq2seq::{DecodeState, ItemScorer, Seq2Seq, Trainable};
pub use share::{BatchShare, ShareError};

/// The examples of the README, run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
