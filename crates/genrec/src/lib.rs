//! Generative recommendation with Semantic IDs, end to end: TIGER from item text to ranked items.
//!
//! This is the facade: it joins the crates of the workspace into one pipeline and one [`Recommender`]. Depend on it to
//! train, evaluate and serve; depend on a single crate ([`index`], [`quantize`], [`model`], [`decode`], [`eval`], ...) when
//! you bring the rest yourself, each is usable alone.
//!
//! - [`pipeline::run`] takes a [`data::Dataset`] and a [`pipeline::TigerConfig`] and leaves a run directory: embeddings,
//!   quantiser, index, model, report. A run that is interrupted anywhere goes on where it stopped and, without a
//!   budget, ends with the same bytes.
//! - [`Recommender`] opens such a directory, recommends to [`History`]s, and takes items that training never saw.
//! - [`Export`] makes of it a directory for the Hugging Face Hub, with a model card; with the feature `hub`
//!   `Recommender::from_hub` opens one from there.
//! - [`evaluate`] puts leave-one-out questions to a recommender or to any item scorer.
//!
//! # Example
//!
//! Train on synthetic data, recommend, and add an item that nobody has bought yet:
//!
//! ```
//! use candle_core::Device;
//! use genrec::{History, data::SyntheticConfig, index::ItemId, pipeline::{self, TigerConfig}};
//! use genrec::quantize::{QuantizerConfig, ResidualKMeansConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let shop = SyntheticConfig::default().with_users(60).generate()?;
//! let mut config = TigerConfig::quickstart()
//!     .with_quantizer(QuantizerConfig::ResidualKMeans(ResidualKMeansConfig::default().with_codebook_sizes([16, 16, 16])));
//! config.train.epochs = Some(1); // a demonstration, not a model
//! let dir = tempfile::tempdir()?;
//! let quiet = &mut |_: &pipeline::Event<'_>| {};
//! let outcome = pipeline::run(&shop.dataset, &config, dir.path(), &Device::Cpu, None, false, quiet)?;
//!
//! let mut recommender = outcome.recommender;
//! let history = History { user: None, items: &[ItemId(3), ItemId(14)] };
//! let lists = recommender.recommend(&[history], 5)?;
//! assert_eq!(lists[0].len(), 5);
//!
//! let mut item = genrec::data::Item::default();
//! item.id = "new".into();
//! item.title = Some("something new".into());
//! let new = recommender.add_item(item)?;
//! assert_eq!(recommender.seen(new), Some(false));
//! # Ok(())
//! # }
//! ```
//!
//! # Alternatives
//!
//! Python has GRID, RecBole and TorchEasyRec for training at a cluster's scale; none of them trains, indexes, decodes and
//! evaluates in one library, and none runs without Python.
//!
//! # Features
//!
//! `hub` downloads runs and embedders from the Hugging Face Hub; `parquet` lets [`data::readers::tabular`] read Parquet; `tensorboard` writes a run's curves; `cuda`, `cudnn`, `nccl`, `metal`,
//! `accelerate` and `mkl` are passed on to candle. None is on by default and none changes the model; another device or
//! BLAS rounds differently, and a GPU draws dropout itself.
//!
//! # References
//!
//! S. Rajput et al., *Recommender Systems with Generative Retrieval*, NeurIPS 2023, arXiv:2305.05065.

pub mod artifacts;
mod catalogue;
mod encoder;
mod ensemble;
mod error;
pub mod evaluate;
mod export;
#[cfg(feature = "hub")]
mod hub;
pub mod pipeline;
mod recommender;
mod repair;
mod search;
mod tokens;

pub use encoder::{ItemBlend, ItemEmbedder, ItemEncoder};
pub use ensemble::Ensemble;
pub use error::{Damage, Error, Result};
pub use export::Export;
pub use recommender::{Recommendation, Recommender};
pub use repair::QuantizerCosts;
pub use search::{DecodeConfig, Ranked, Rerank, Searcher, Wanted};
pub use tokens::{History, SequenceTokenizer, WindowBatches};

pub use genrec_data as data;
pub use genrec_decode as decode;
pub use genrec_embed as embed;
pub use genrec_eval as eval;
pub use genrec_kernels as kernels;
pub use genrec_model as model;
pub use genrec_train as train;
pub use sid_index as index;
pub use sid_quantize as quantize;

/// The examples of the README, run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The example of every model card, compiled with the documentation tests.
#[cfg(all(doctest, feature = "hub"))]
#[doc = include_str!("export/usage.md")]
struct Usage;
