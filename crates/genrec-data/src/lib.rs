//! Interaction logs to training sequences: readers, k-core, leave-one-out splits, windows and synthetic data.

mod catalogue;
mod dataset;
mod error;
mod lines;
pub mod readers;
mod rng;
mod sequences;
mod split;
mod synthetic;
mod windows;

pub use catalogue::{Catalogue, Item};
pub use dataset::{Dataset, Statistics};
pub use error::{BadLine, DataError, Result};
pub use lines::{OnBadLine, ReadOptions, ReadReport};
pub use sequences::Sequences;
pub use sid_index::ItemId;
pub use split::{LeaveOneOut, Target};
pub use synthetic::{Synthetic, SyntheticConfig};
pub use windows::{BatchConfig, Window, WindowConfig, Windows};
