//! Constrained beam search over Semantic IDs: logits to ranked sequences to items.
//!
//! A sequence model gives probabilities of the next token; this crate searches for the most probable sequences among
//! those that a constraint allows, for many users at once, and says which items they are. Depend on it instead of the
//! facade `genrec` to decode from a model of your own: implement [`Seq2Seq`](genrec_model::Seq2Seq) and bring a
//! [`SidIndex`](sid_index::SidIndex).
//!
//! - [`BeamSearch`] is the usual [`Decoder`]; with one beam it is greedy. [`Sampling`] draws instead, by default without
//!   replacement, with temperature, top-k and top-p [per level](Shape); [`DiverseBeamSearch`] keeps groups of beams apart;
//!   [`ExactSearch`] finds the true best. [`AnySearch`] is one of them, as a file names it;
//! - [`DeviceBeamSearch`] is the same search for a GPU, which no step leaves, with [`DeviceCatalogue`] as its constraint;
//! - [`Catalogue`] is the [`Constraint`] that makes every sequence an item, of all items or of some; [`FixedLength`] is
//!   free generation, as in the paper;
//! - [`Resolve`] turns sequences into items and counts those that are none; [`ColdStart`] makes room in a list for items that
//!   training has never seen.
//!
//! # Example
//! ```
//! use candle_core::{DType, Device, Result, Tensor};
//! use genrec_decode::{BeamSearch, Catalogue, Decoder, Resolve};
//! use genrec_model::{DecodeState, RaggedBatch, Seq2Seq};
//! use ndarray::array;
//! use sid_index::{CollisionPolicy, ItemId, SidIndex, SidLayout, SidVocab};
//!
//! /// Prefers high tokens, whatever the history.
//! struct Toy(usize);
//! struct Rows(usize);
//!
//! impl DecodeState for Rows {
//!     fn rows(&self) -> usize {
//!         self.0
//!     }
//!     fn select_rows(&mut self, rows: &Tensor) -> Result<()> {
//!         self.0 = rows.dim(0)?;
//!         Ok(())
//!     }
//! }
//! impl Seq2Seq for Toy {
//!     type State = Rows;
//!     fn vocab_size(&self) -> usize {
//!         self.0
//!     }
//!     fn device(&self) -> &Device {
//!         &Device::Cpu
//!     }
//!     fn decoder_start_token(&self) -> u32 {
//!         SidVocab::PAD
//!     }
//!     fn start(&self, batch: &RaggedBatch) -> Result<Rows> {
//!         Ok(Rows(batch.len()))
//!     }
//!     fn step(&self, _tokens: &Tensor, state: &mut Rows) -> Result<Tensor> {
//!         let logits = Tensor::arange(0u32, self.0 as u32, &Device::Cpu)?.to_dtype(DType::F32)?;
//!         let log_probs = logits.broadcast_sub(&logits.exp()?.sum_all()?.log()?)?;
//!         log_probs.unsqueeze(0)?.repeat((state.0, 1))?.contiguous()
//!     }
//! }
//!
//! let layout = SidLayout::new(vec![4, 4])?.with_suffix(2);
//! let vocab = SidVocab::new(&layout, 1)?;
//! let index = SidIndex::from_codes(layout, array![[1, 0], [1, 2], [3, 3]].view(), CollisionPolicy::Suffix)?;
//!
//! let mut batch = RaggedBatch::new();
//! batch.push(&Vec::from_iter(vocab.user("ada")), &[])?;
//! let unseen = Catalogue::new(&index, &vocab)?.excluding([ItemId(2)])?;
//! let hypotheses = BeamSearch::new(10).decode(&Toy(vocab.size()), &batch, &[unseen])?;
//! let resolved = Resolve::Exact.resolve(&index, &vocab, &hypotheses[0], 10)?;
//! assert_eq!(resolved.items.iter().map(|best| best.item).collect::<Vec<_>>(), [ItemId(1), ItemId(0)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Alternatives
//! Hugging Face `transformers` (Python) searches with `prefix_allowed_tokens_fn`, a call back into Python for every
//! beam and step; NVIDIA's recsys-examples and STATIC keep the trie on the accelerator.
//!
//! # Features
//! `cuda`, `cudnn`, `nccl`, `metal`, `accelerate` and `mkl` turn on the same features of candle, in which the model computes
//! and [`DeviceBeamSearch`] searches; [`BeamSearch`] itself is on the host.
//!
//! # References
//! Rajput et al., *Recommender Systems with Generative Retrieval* (TIGER), NeurIPS 2023, arXiv 2305.05065.

pub mod any;
pub mod beam;
pub mod catalogue;
pub mod cold;
pub mod constraint;
pub mod decoder;
pub mod device;
pub mod diverse;
pub mod error;
pub mod exact;
pub mod resolve;
pub mod sample;
mod search;
pub mod shape;
mod top;
#[cfg(test)]
mod toy;

pub use any::AnySearch;
pub use beam::BeamSearch;
pub use catalogue::Catalogue;
pub use cold::ColdStart;
pub use constraint::{And, Constraint, FixedLength, ForbiddenTokens};
pub use decoder::{Decoder, Hypothesis};
pub use device::{DeviceBeamSearch, DeviceCatalogue};
pub use diverse::DiverseBeamSearch;
pub use error::{DecodeError, Result};
pub use exact::ExactSearch;
pub use resolve::{Resolve, Resolved, ScoredItem};
pub use sample::Sampling;
pub use shape::{PerLevel, Shape};

/// The examples of the README, run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
