//! Turns item embeddings into Semantic-ID codes: RQ-VAE, residual, product and hierarchical k-means, SimHash and a random
//! control on candle.
//!
//! Depend on this crate alone if you have embeddings and want codes; the `genrec` facade adds the index that makes codes
//! into unique Semantic IDs, the sequence model and decoding. Codes leave it as a plain `(items, levels)` array of
//! `u32`.
//!
//! - [`Quantizer`] maps embeddings to codes, [`Reconstruct`] maps codes back, [`Fit`] learns one: three abilities, three
//!   traits. A quantiser of your own needs only the first.
//! - [`RqVaeConfig`], [`ResidualKMeansConfig`], [`ProductKMeansConfig`], [`HierarchicalKMeansConfig`], [`SimHashLshConfig`]
//!   and [`RandomIdsConfig`] fit the built-in quantisers; [`QuantizerConfig`] and [`AnyQuantizer`] hold any of them, for
//!   configuration files and saved models.
//! - [`usage`] measures codes: how evenly they are used, how many items share theirs, whether near items share a prefix
//!   and whether prefixes tell categories apart.
//! - [`RowSource`] feeds a fit from memory ([`ArrayRows`]) or from files larger than memory ([`FileRows`]).
//!
//! ```
//! use ndarray::Array2;
//! use sid_quantize::usage::CodeReport;
//! use sid_quantize::{AnyQuantizer, ArrayRows, Fit, Quantizer, QuantizerConfig, ResidualKMeansConfig};
//!
//! // 200 items of 8 features; real ones come from a text encoder.
//! let embeddings = Array2::from_shape_fn((200, 8), |(i, j)| ((i * (j + 3)) % 17) as f32);
//!
//! let config = QuantizerConfig::from(ResidualKMeansConfig::default().with_codebook_sizes([16, 16, 16]));
//! let quantizer: AnyQuantizer = config.fit(&mut ArrayRows::from(embeddings.view()))?;
//! let codes = quantizer.encode_array(embeddings.view(), 1024)?;
//! assert_eq!(codes.dim(), (200, 3));
//!
//! let report = CodeReport::of(codes.view(), quantizer.codebook_sizes())?;
//! assert!(report.collision_rate < 1.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which quantiser
//!
//! [`RqVaeConfig`] is TIGER's own: an autoencoder whose 32 latent features are quantised by nearness, level by level. It
//! trains for minutes and can learn which directions of an embedding matter. [`ResidualKMeansConfig`] works on the
//! embeddings as they are, in seconds; it is the one to start with and a strong baseline. [`ProductKMeansConfig`] codes
//! parts of the features, each by itself, so that its levels are independent of each other and none is coarser than another;
//! with [`RotationConfig`] it is optimised product quantisation. [`HierarchicalKMeansConfig`] clusters the rows of each
//! cluster again: a code then means what the codes before it say, and the items that share a prefix are one cluster.
//!
//! Two more are there to compare with. [`SimHashLshConfig`] learns no codebooks: its codes are the sides of random
//! hyperplanes on which an embedding lies. The codes of [`RandomIdsConfig`] say nothing about content at all; a
//! recommender over them shows what Semantic IDs are worth.
//!
//! # Reproducibility
//!
//! Every random choice comes from a `seed` in the configuration. One seed gives one model, byte for byte, at any number of
//! threads on one kind of CPU; other kinds of CPU, and GPUs, round differently.
//!
//! # Features
//!
//! `parquet` reads embeddings from Parquet files.
//!
//! `cuda`, `cudnn`, `nccl`, `metal`, `accelerate` and `mkl` are passed through to candle; none is on by default and none
//! changes behaviour. The device is a value: [`Fit::fit_on`] fits on it, [`AnyQuantizer::load`] loads onto it.
//!
//! # References
//!
//! - Rajput et al., *Recommender Systems with Generative Retrieval*, NeurIPS 2023, arXiv 2305.05065.
//! - Zeghidour et al., *SoundStream: An End-to-End Neural Audio Codec*, 2021, arXiv 2107.03312.
//! - van den Oord et al., *Neural Discrete Representation Learning*, NeurIPS 2017, arXiv 1711.00937.
//! - Nister and Stewenius, *Scalable Recognition with a Vocabulary Tree*, CVPR 2006.
//! - Jegou et al., *Product Quantization for Nearest Neighbor Search*, TPAMI 2011.
//! - Ge et al., *Optimized Product Quantization for Approximate Nearest Neighbor Search*, CVPR 2013.
//! - Charikar, *Similarity Estimation Techniques from Rounding Algorithms*, STOC 2002.
//! - Lv et al., *Multi-Probe LSH: Efficient Indexing for High-Dimensional Similarity Search*, VLDB 2007.
//! - Singh et al., *Better Generalization with Semantic IDs*, 2023, arXiv 2306.08121.
//! - Arthur and Vassilvitskii, *k-means++: The Advantages of Careful Seeding*, SODA 2007.

#![doc(test(attr(deny(warnings))))]
#![allow(clippy::needless_pass_by_value, reason = "an array view is passed by value, as a slice would be")]

mod any;
mod autoencoder;
mod beam;
mod coder;
mod coding;
mod encoder;
pub mod error;
mod fsq;
#[cfg(test)]
mod golden;
mod input;
mod kmeans;
mod lsh;
mod preprocess;
mod product;
mod random;
mod residual;
pub mod rows;
mod rqvae;
mod saved;
mod traits;
mod tree;
pub mod usage;

pub use any::{AnyQuantizer, QuantizerConfig};
pub use autoencoder::Monitor;
pub use coding::{Composition, Distance};
pub use error::{QuantizeError, Result};
pub use fsq::{Fsq, FsqConfig};
pub use kmeans::KMeansInit;
pub use lsh::{SimHashLsh, SimHashLshConfig};
pub use product::{ProductKMeans, ProductKMeansConfig, RotationConfig};
pub use random::{RandomIds, RandomIdsConfig};
pub use residual::{ResidualKMeans, ResidualKMeansConfig};
#[cfg(feature = "parquet")]
pub use rows::ParquetRows;
pub use rows::{ArrayRows, FileRows, RowSource};
pub use rqvae::{Alignment, CodebookLearning, Diversity, Ema, Estimator, GumbelSoftmax, RqVae, RqVaeConfig, Sinkhorn};
pub use saved::FORMAT_VERSION;
pub use traits::{EpochReport, Fit, FitControl, Quantizer, RankCodes, Reconstruct};
pub use tree::{HierarchicalKMeans, HierarchicalKMeansConfig};

/// The examples of the README, run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
