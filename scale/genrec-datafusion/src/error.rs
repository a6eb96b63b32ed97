//! What can go wrong in the functions, and what to do about it.

use std::path::PathBuf;

use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;

/// A result whose error is [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in a function of this crate. Queries carry it as [`DataFusionError::External`].
///
/// Rows are counted within the batch that the function was handed, as a function sees no more of a table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A directory does not hold a quantiser that can be loaded.
    #[error("cannot load a quantiser from `{}`; name the directory that holds its config.json and model.safetensors", path.display())]
    Quantizer {
        /// The directory.
        path: PathBuf,
        /// What the reader said.
        #[source]
        source: Box<sid_quantize::QuantizeError>,
    },
    /// A directory does not hold a run that can be loaded.
    #[error("cannot load a run from `{}`; name the directory of a finished run", path.display())]
    Run {
        /// The directory.
        path: PathBuf,
        /// What the reader said.
        #[source]
        source: Box<genrec::Error>,
    },
    /// A run changed each time that it was loaded.
    #[error("items were added to the run in `{}` each time it was loaded; load it when it is at rest, or a copy", path.display())]
    Changed {
        /// The directory.
        path: PathBuf,
    },
    /// A quantiser could not be told from others.
    #[error("the quantiser's fingerprint cannot be computed")]
    Fingerprint {
        /// What the quantiser said.
        #[source]
        source: Box<sid_quantize::QuantizeError>,
    },
    /// A function was called with another number of arguments.
    #[error("{function} takes {expected}, and was given {got} arguments")]
    ArgumentCount {
        /// The function.
        function: &'static str,
        /// What it takes.
        expected: &'static str,
        /// Arguments given.
        got: usize,
    },
    /// An argument has a type that the function does not read.
    #[error("the {argument} of {function} is of type {got}; it must be {expected}: cast it, or name another column")]
    ArgumentType {
        /// The function.
        function: &'static str,
        /// Which argument.
        argument: &'static str,
        /// Its type.
        got: DataType,
        /// The types that are read.
        expected: &'static str,
    },
    /// An embedding has another width than the quantiser takes.
    #[error(
        "row {row} of the batch: the embedding has {got} values, the quantiser takes {expected}; embed the items with the model that the quantiser was fitted on"
    )]
    EmbeddingWidth {
        /// Row of the batch, from 0.
        row: usize,
        /// Its values.
        got: usize,
        /// Values the quantiser takes.
        expected: usize,
    },
    /// A value of an embedding is null.
    #[error(
        "row {row} of the batch: value {column} of the embedding is null; make the whole embedding null, or leave the row out"
    )]
    NullValue {
        /// Row of the batch, from 0.
        row: usize,
        /// Value of the embedding, from 0.
        column: usize,
    },
    /// A value of an embedding is NaN or an infinity.
    #[error(
        "row {row} of the batch: value {column} of the embedding is not finite; drop the row or repair the embedder that wrote it"
    )]
    NotFinite {
        /// Row of the batch, from 0.
        row: usize,
        /// Value of the embedding, from 0.
        column: usize,
    },
    /// The query was planned for another quantiser than the one that is loaded where it runs.
    #[error(
        "the query asks for the quantiser {asked}, here it is {here}; give every process of the cluster the same quantiser"
    )]
    OtherQuantizer {
        /// Fingerprint in the query.
        asked: String,
        /// Fingerprint of the quantiser that is loaded.
        here: String,
    },
    /// The query was planned for another run than the one that is loaded where it runs.
    #[error(
        "the query asks for the run {asked}, here it is {here}; give every process of the cluster the same run, and start those anew that loaded it before items were added"
    )]
    OtherRun {
        /// Fingerprint in the query.
        asked: String,
        /// Fingerprint of the run that is loaded.
        here: String,
    },
    /// A function that was only declared was called.
    #[error("{function} is only declared in this process, which plans and does not compute; {remedy}")]
    Declared {
        /// The function.
        function: &'static str,
        /// What to load.
        remedy: &'static str,
    },
    /// Encoding failed.
    #[error("the quantiser could not encode {rows} rows")]
    Encode {
        /// Rows of the batch.
        rows: usize,
        /// What failed.
        #[source]
        source: candle_core::Error,
    },
    /// A number of items is no number of items.
    #[error("row {row} of the batch: k is {k}; ask for 0 items or more")]
    NegativeK {
        /// Row of the batch, from 0.
        row: usize,
        /// What was asked for.
        k: i64,
    },
    /// An item of a history is null.
    #[error("row {row} of the batch: the history holds a null; leave nulls out of it")]
    NullItem {
        /// Row of the batch, from 0.
        row: usize,
    },
    /// A history holds an item that the catalogue does not have.
    #[error("row {row} of the batch: {source}; leave it out, or add it to the run")]
    History {
        /// Row of the batch, from 0.
        row: usize,
        /// Which item.
        #[source]
        source: Box<genrec::Error>,
    },
    /// Recommending failed, and there is a history without items.
    #[error(
        "row {row} of the batch: nothing could be recommended, and its history is empty ({source}); leave such rows out, or use a run with user tokens and give the user"
    )]
    EmptyHistory {
        /// The first row with an empty history, from 0.
        row: usize,
        /// What the run said.
        #[source]
        source: Box<genrec::Error>,
    },
    /// Recommending failed.
    #[error("no items could be recommended for {rows} rows: {source}")]
    Recommend {
        /// Rows of the batch.
        rows: usize,
        /// What failed.
        #[source]
        source: Box<genrec::Error>,
    },
    /// A result could not be put into an array.
    #[error("the result of {rows} rows does not fit an array; lower `datafusion.execution.batch_size`")]
    Array {
        /// Rows of the batch.
        rows: usize,
        /// What arrow said.
        #[source]
        source: ArrowError,
    },
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}
