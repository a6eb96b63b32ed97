//! Everything that can stop a training run with an error.

use std::fmt;
use std::path::PathBuf;

use genrec_kernels::ParamError;
use genrec_kernels::optim::OptimError;

use crate::collective::CollectiveError;

/// The error of a batch source or a validation: any error type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, TrainError>;

/// The quantity of a training step that was NaN or infinite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quantity {
    /// The loss of a batch.
    Loss,
    /// The Euclidean norm of all gradients.
    GradientNorm,
    /// A weight, after the optimiser moved it.
    Weights,
    /// What the validation returned.
    Metric,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "the loss",
            Self::GradientNorm => "the norm of the gradients",
            Self::Weights => "a weight",
            Self::Metric => "the validation metric",
        })
    }
}

/// Where a run can be taken up after an error.
fn good_checkpoint(path: &Option<PathBuf>) -> String {
    match path {
        Some(path) => format!("the last good checkpoint is `{}`", path.display()),
        None => "no checkpoint was written".to_owned(),
    }
}

/// Why training could not start, continue or resume.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A field of the configuration is out of range.
    #[error("`{field}` is {value}, but must be {bound}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        bound: &'static str,
    },
    /// Nothing in the configuration ends the run.
    #[error("nothing ends this run; set `epochs`, `max_steps` or `max_duration`")]
    Unbounded,
    /// The optimiser's configuration is out of range, or its state could not be allocated.
    #[error("the optimiser cannot be built")]
    Optimizer {
        /// What is wrong.
        #[source]
        source: OptimError,
    },
    /// The source has no batches in an epoch.
    #[error("the data has no batches in epoch {epoch}; there must be at least one")]
    NoBatches {
        /// The epoch, from 0.
        epoch: u32,
    },
    /// The source failed to make a batch.
    #[error("batch {batch} of epoch {epoch} could not be made")]
    Batch {
        /// The epoch, from 0.
        epoch: u32,
        /// The batch's index in it.
        batch: usize,
        /// The source's own error.
        #[source]
        source: BoxError,
    },
    /// The model or the optimiser failed on a batch.
    #[error("step {step} failed on batch {batch} of epoch {epoch}")]
    Step {
        /// The step, from 1.
        step: u64,
        /// The epoch, from 0.
        epoch: u32,
        /// The batch's index in it.
        batch: usize,
        /// The tensor operation's error.
        #[source]
        source: candle_core::Error,
    },
    /// The validation failed.
    #[error("the validation after step {step} failed")]
    Validation {
        /// Steps completed.
        step: u64,
        /// The validation's own error.
        #[source]
        source: BoxError,
    },
    /// A quantity is NaN or infinite, and nothing was updated or written from it.
    #[error(
        "{what} is {value} at step {step} (batch {batch} of epoch {epoch}); {}; lower the learning rate, clip the \
         gradients or look at that batch",
        good_checkpoint(checkpoint)
    )]
    NonFinite {
        /// Which quantity.
        what: Quantity,
        /// Its value.
        value: f64,
        /// The step, from 1.
        step: u64,
        /// The epoch, from 0; for weights and metrics, where the run stands after the step.
        epoch: u32,
        /// The batch's index in it; for weights and metrics, that of the next batch.
        batch: usize,
        /// The directory of the last checkpoint written, whose weights are finite.
        checkpoint: Option<PathBuf>,
    },
    /// A new run would overwrite an earlier one's checkpoints.
    #[error("`{}` holds the checkpoints of an earlier run; resume it, or remove them to start anew", dir.display())]
    CheckpointExists {
        /// The directory.
        dir: PathBuf,
    },
    /// Another run writes to the directory.
    #[error(
        "another run writes to `{}`; wait for it or stop it, or choose another directory", dir.display()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The run to be resumed was started with another configuration.
    #[error(
        "the run was started with `{field}` = {saved}, but is resumed with {given}; resume with the same configuration \
         or start a new run in another directory"
    )]
    ConfigMismatch {
        /// Path of the first field that differs, such as `optimizer.weight_decay`.
        field: String,
        /// Its value when the run was started, as JSON.
        saved: String,
        /// Its value now, as JSON.
        given: String,
    },
    /// The run to be resumed read other data.
    #[error("the run was started on data with {saved} {what}, but is resumed on {given}; resume with the same data")]
    DataMismatch {
        /// What is counted: examples or batches.
        what: &'static str,
        /// The number when the checkpoint was written.
        saved: u64,
        /// The number now.
        given: u64,
    },
    /// A checkpoint's file is damaged.
    #[error(
        "`{}` is damaged: {reason}; restore it from a copy, or, where only `last` is damaged, remove that directory to \
         continue from `best`", path.display()
    )]
    Corrupt {
        /// The file, or the directory where a file is missing.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A checkpoint was written by another version of this crate.
    #[error(
        "`{}` has format version {found}, this crate reads {supported}; use the version that wrote it", path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Version of the file.
        found: u64,
        /// Version that is read.
        supported: u64,
    },
    /// A checkpoint does not fit the model or the optimiser.
    #[error("the checkpoint `{}` does not fit the {what}", path.display())]
    Misfit {
        /// Directory of the checkpoint.
        path: PathBuf,
        /// The model or the optimiser.
        what: &'static str,
        /// Which tensor does not fit.
        #[source]
        source: ParamError,
    },
    /// Reading or writing a checkpoint failed.
    #[error("cannot {action} `{}`{}", path.display(), genrec_files::remedy(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The ranks that train together could not exchange something.
    #[error("the ranks lost each other")]
    Collective {
        /// What happened.
        #[source]
        source: CollectiveError,
    },
    /// Rank 0, which validates and writes the checkpoints, ended with an error.
    #[error("rank 0 ended: {reason}")]
    Leader {
        /// Its error.
        reason: String,
    },
    /// Another rank ended with an error, which it returns itself.
    #[error("another rank ended with an error; see that, and resume from the last checkpoint")]
    OtherRank,
    /// The ranks that are to train together were given different settings or data.
    #[error(
        "rank {rank} has `{field}` = {given}, rank 0 has {leading}; give all ranks the same configuration and data"
    )]
    RankMismatch {
        /// Whose it is.
        rank: usize,
        /// Path of the first field that differs.
        field: String,
        /// Its value on rank 0, as JSON.
        leading: String,
        /// Its value on this rank, as JSON.
        given: String,
    },
    /// Weights or optimiser state could not be copied to or from the device, or encoded.
    #[error("the training state cannot be copied or encoded")]
    State {
        /// The tensor operation's error.
        #[source]
        source: candle_core::Error,
    },
}
