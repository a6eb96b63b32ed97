//! The whole of TIGER in one call: data in, a run directory and its report out.
//!
//! Every stage leaves its result in the directory before the next one starts, so that a run that was interrupted anywhere
//! goes on where it stopped and ends with the same bytes as one that was not.

mod config;
mod content;
mod observer;
mod report;
mod run;
mod sasrec;
#[cfg(feature = "tensorboard")]
mod tensorboard;
mod testing;
mod together;
mod training;

pub use config::{Budget, EmbeddingSource, Manifest, Precision, TigerConfig};
pub use observer::{Event, Observer, Stage};
pub use report::{DatasetReport, Metrics, Report, SidReport, TimingReport, TrainSummary};
pub use run::{Outcome, fingerprint, first_difference, run};
pub use sasrec::SasRecTraining;
#[cfg(feature = "tensorboard")]
pub use tensorboard::TensorBoard;
pub use together::run_together;
