//! Semantic IDs and recommendations as SQL functions of DataFusion, on one machine or on a Ballista cluster.
//!
//! Depend on this crate if items or users lie in Parquet files, or in anything else that DataFusion reads, and are too many for
//! one array: a table of embeddings becomes a table of Semantic IDs by a query, one of histories a table of recommendations.
//!
//! - [`SemanticId`] is `semantic_id(embedding)`: the codes by a quantiser that `sid-quantize` has saved.
//! - [`Suffixes`] makes codes unique by a window over them, and numbers new items later without changing a Semantic ID that was
//!   given.
//! - [`Recommend`] is `recommend(history, k)`: the best items by a run that `genrec` has trained.
//!
//! ```
//! use candle_core::Device;
//! use datafusion::prelude::*;
//! use genrec_datafusion::{SemanticId, Suffixes};
//! # use ndarray::Array2;
//! # use sid_quantize::{AnyQuantizer, ArrayRows, Fit, ResidualKMeansConfig};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let rows = Array2::from_shape_fn((64, 2), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
//! # let config = ResidualKMeansConfig::default().with_codebook_sizes([8, 8]);
//! # AnyQuantizer::from(config.fit(&mut ArrayRows::from(rows))?).save(dir.path())?;
//! let mut ctx = SessionContext::new();
//! let semantic_id = SemanticId::open(dir.path(), &Device::Cpu)?;
//! semantic_id.register(&mut ctx)?;
//!
//! // Five items of two features; real ones come from `ctx.register_parquet`.
//! let items = "SELECT value AS id, make_array(CAST(value % 2 AS FLOAT), 1.0) AS embedding FROM range(5)";
//! let codes = ctx.sql(&format!("SELECT id, semantic_id(embedding) AS sid FROM ({items})")).await?;
//! let sids = Suffixes::default().of(codes)?;
//! assert_eq!(sids.select_columns(&["sid", "suffix"])?.distinct()?.count().await?, 5);
//! # Ok(())
//! # }
//! ```
//!
//! # On a cluster
//!
//! Ballista's plans carry a function by its name. The functions are registered in three places: in the client's session, in the
//! scheduler's and in every executor's, which alone computes. A process that only plans may use [`SemanticId::declared`] and
//! [`Recommend::declared`], which need no files; [`Recommend::declared_of`] reads a run's fingerprint, so that executors with another
//! refuse. The programs in `scale/programs` of the repository do so.
//!
//! # Features
//!
//! None. The crate asks DataFusion for none of its features, so that those of yours are those there are; SQL and Parquet are features of
//! `datafusion` itself.
//!
//! # References
//!
//! - Rajput et al., *Recommender Systems with Generative Retrieval*, NeurIPS 2023, arXiv 2305.05065.

#![doc(test(attr(deny(warnings))))]

mod embeddings;
mod error;
mod fingerprint;
mod histories;
mod recommend;
mod semantic_id;
mod suffix;

pub use error::{Error, Result};
pub use recommend::Recommend;
pub use semantic_id::SemanticId;
pub use suffix::Suffixes;

/// The examples of the README, run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
