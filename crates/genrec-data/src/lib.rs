//! From interaction logs to training windows: readers, filters, splits, batches, and synthetic data with its own oracle.
//!
//! Depend on this crate rather than on the facade `genrec` to feed a model of your own: it knows no tensor and no
//! Semantic ID, only items by row ([`ItemId`]) and users in time.
//!
//! The types that matter: [`Dataset`], a [`Catalogue`] with [`Sequences`] over it; [`LeaveOneOut`], which holds each
//! user's last two items out; and [`Windows`], every prefix of the training part as an example, in seeded batches.
//!
//! ```
//! use genrec_data::{BatchConfig, LeaveOneOut, SyntheticConfig, WindowConfig, Windows};
//!
//! let synthetic = SyntheticConfig::default().with_users(100).generate()?;
//! let split = LeaveOneOut::new(&synthetic.dataset.sequences);
//! let windows = Windows::new(&split, WindowConfig::default())?;
//! for batch in windows.batches(BatchConfig::default().with_batch_size(32), 0) {
//!     for window in batch.iter().filter_map(|&i| windows.get(i as usize)) {
//!         assert!(!window.history.is_empty() && window.history.len() <= 20);
//!     }
//! }
//! # Ok::<(), genrec_data::DataError>(())
//! ```
//!
//! # From files
//! The [`readers`] take the neutral form of the published Amazon sets, the raw Amazon files of three editions,
//! MovieLens, RecBole's atomic files, and tables with columns of any name. What they read is a log; [`Prepare`] makes a
//! [`Dataset`] of it by stated rules for ratings, repeats, ties in time, and the k-core. A malformed line is an error
//! with file, line, column and what was expected, or, by [`OnBadLine::Skip`], left out and counted.
//!
//! # Ties in time
//! Where the source has days only, the order within a day is the reader's, and a sequence model can learn it. Results
//! should name the rule ([`Ties`]); the published Amazon files keep catalogue order, which leaks a little of the target.
//!
//! # Alternatives
//! [`LeaveOneOut`] is the protocol of the published figures; it lets training see items that others met later. A split at
//! one point in time needs nothing of this crate but [`Sequences`].
//!
//! # Features
//! - `parquet`: [`readers::tabular`] reads Parquet through Arrow.
//!
//! # References
//! - Rajput et al., *Recommender Systems with Generative Retrieval* (TIGER), 2023,
//!   [arXiv 2305.05065](https://arxiv.org/abs/2305.05065): data, split and statistics (section 4, table 6).
//! - Kang and McAuley, *Self-Attentive Sequential Recommendation*, 2018, [arXiv 1808.09781](https://arxiv.org/abs/1808.09781):
//!   the leave-one-out protocol.

mod catalogue;
mod dataset;
mod error;
mod hold_out;
mod interactions;
mod lines;
mod prepare;
mod python_literal;
pub mod readers;
mod rng;
mod sequences;
mod split;
mod synthetic;
mod windows;

pub use catalogue::{Catalogue, Item};
pub use dataset::{Dataset, Statistics};
pub use error::{BadLine, DataError, Result};
pub use hold_out::{HeldOut, hold_out};
pub use interactions::{Interaction, InteractionLog};
pub use lines::{OnBadLine, ReadOptions, ReadReport};
pub use prepare::{Duplicates, Prepare, Ties};
pub use sequences::Sequences;
pub use sid_index::ItemId;
pub use split::{LeaveOneOut, Target};
pub use synthetic::{Synthetic, SyntheticConfig, distinct_codes};
pub use windows::{BatchConfig, Window, WindowConfig, Windows};

/// The examples of the README, run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
