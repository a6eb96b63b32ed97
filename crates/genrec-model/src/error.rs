//! What can go wrong with a model's configuration, files and inputs.

use std::path::PathBuf;

use genrec_kernels::ParamError;

/// Failure to build, save or load a model or a scorer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A field of the configuration is out of its bounds.
    #[error("`{field}` is {value}, but it must be {bound}")]
    Config {
        /// Name of the field, as in `config.json`.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it has to be.
        bound: String,
    },
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}{}", path.display(), genrec_files::remedy(source))]
    Io {
        /// What was tried: `read`, `write`, `sync`, `rename`, `create`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// `config.json` is not the configuration of the model.
    #[error("{} is not the configuration of a model of type `{expected}`", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The `model_type` that was to be read.
        expected: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// `config.json` belongs to another architecture.
    #[error("{} describes a model of type `{found}`; only `{expected}` can be loaded here", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The `model_type` that was to be read.
        expected: &'static str,
        /// The `model_type` found there.
        found: String,
    },
    /// The directory was written in a later format.
    #[error(
        "{} has format version {found}, this version reads up to {supported}; upgrade genrec-model or write the directory anew",
        path.display()
    )]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u64,
        /// The highest version that can be read.
        supported: u64,
    },
    /// The weights file is cut short or damaged.
    #[error("{} is not a readable safetensors file; restore it from a copy", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// The tensors in a file are not those that the configuration asks for.
    #[error("{} does not hold the weights of its configuration", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// The first tensor that does not fit.
        #[source]
        source: ParamError,
    },
    /// A file is not the record of co-occurrences that it should be.
    #[error("{} is not a record of co-occurrences: {reason}; fit it anew from the sequences", path.display())]
    CoOccurrence {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The numbers given to a baseline cannot be used.
    #[error("{what}: {found}, but {bound}")]
    Scorer {
        /// The quantity.
        what: &'static str,
        /// Its value.
        found: String,
        /// What it has to be, and the remedy.
        bound: &'static str,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// What is wrong with the inputs of a model or scorer.
///
/// The tensor-level functions return it wrapped in [`candle_core::Error`], whose text it becomes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// There is no row to work on.
    #[error("the batch holds no sequence; skip empty batches")]
    EmptyBatch,
    /// A sequence has no token to attend to.
    #[error("sequence {row} is empty; every sequence needs at least one token, such as the user token")]
    EmptySequence {
        /// Row of the batch.
        row: usize,
    },
    /// A source token is outside the vocabulary.
    #[error("token {token} at position {position} of sequence {row} is outside the vocabulary of {vocab_size}")]
    Token {
        /// Row of the batch.
        row: usize,
        /// Position in the sequence.
        position: usize,
        /// The token.
        token: u32,
        /// Number of tokens that the model distinguishes.
        vocab_size: usize,
    },
    /// A target token is outside the vocabulary.
    #[error("label {token} at position {position} of sequence {row} is outside the vocabulary of {vocab_size}")]
    Label {
        /// Row of the batch.
        row: usize,
        /// Position in the target.
        position: usize,
        /// The token.
        token: u32,
        /// Number of tokens that the model distinguishes.
        vocab_size: usize,
    },
    /// Training needs targets.
    #[error("the batch has no labels; give every sequence its target to compute a loss")]
    NoLabels,
    /// One token a row is fed at each step.
    #[error("{tokens} tokens were given for {rows} rows; a step takes one token a row")]
    StepTokens {
        /// Tokens given.
        tokens: usize,
        /// Rows of the state.
        rows: usize,
    },
    /// A row index is past the end of the state.
    #[error("row {row} was selected, but the state has {rows} rows")]
    Row {
        /// The index.
        row: u32,
        /// Rows of the state.
        rows: usize,
    },
    /// A history names an item that the scorer does not know.
    #[error("history {row} names item {item}, but the catalogue has {items} items")]
    Item {
        /// Row of the batch.
        row: usize,
        /// The item.
        item: u32,
        /// Number of items.
        items: usize,
    },
    /// A batch of whole sequences, whose items are the targets of those before them, has targets besides.
    #[error("the batch has {labels} labels, but each item of a sequence is the target of those before it; give none")]
    Labels {
        /// Number of labels given.
        labels: usize,
    },
    /// No sequence has an item that follows another.
    #[error("no sequence of the batch has two items, so that there is nothing to predict; skip shorter ones")]
    NothingToPredict,
}

impl From<InputError> for candle_core::Error {
    fn from(error: InputError) -> Self {
        Self::wrap(error)
    }
}
