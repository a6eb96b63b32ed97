//! The crate's error type.

use std::path::PathBuf;

/// The result of an operation of this crate.
pub type Result<T, E = EmbedError> = std::result::Result<T, E>;

/// Why texts could not be embedded, or an embedder or an array could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// A file or directory could not be read, written, synced or renamed.
    #[error("cannot {action} {}: {source}{}", path.display(), genrec_files::remedy(source))]
    Io {
        /// What was attempted: `read`, `write`, ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A model directory lacks a file that the embedder needs.
    #[error("{} has no {file}; {remedy}", dir.display())]
    MissingFile {
        /// The model directory.
        dir: PathBuf,
        /// The file looked for.
        file: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A JSON file does not hold what is expected.
    #[error("{} is not the expected JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and expectation.
        #[source]
        source: serde_json::Error,
    },
    /// A file was written by a newer version of this crate.
    #[error("{} has format version {got}, this version reads up to {supported}; update genrec-embed or write it anew", path.display())]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        got: u32,
        /// Newest version that can be read.
        supported: u32,
    },
    /// An array file is damaged or holds another kind of array than asked for.
    #[error("{} is not a usable array file: {problem}", path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: ArrayProblem,
    },
    /// The files of a model are not those an embedder was saved with.
    #[error(
        "the model in {} has SHA-256 {got}, the saved embedder was made with {expected}; restore the original files, or embed the catalogue anew",
        path.display()
    )]
    HashMismatch {
        /// The model directory or file.
        path: PathBuf,
        /// Hash recorded when the embedder was saved, in hexadecimal.
        expected: String,
        /// Hash of the files as they are, in hexadecimal.
        got: String,
    },
    /// A configuration value is out of its range.
    #[error("{field} is {value}, it must be {bound}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: String,
        /// The values allowed.
        bound: &'static str,
    },
    /// A sequence has an item that is not among those to embed.
    #[error("a sequence has item {item}, there are {items}; sequences and catalogue must be of one data set")]
    UnknownItem {
        /// The item.
        item: u32,
        /// Number of items.
        items: usize,
    },
    /// TF-IDF was asked to fit texts that leave no vocabulary.
    #[error(
        "{texts} texts leave no term that occurs in at least {min_df} of them and in at most a share of {max_df}; lower `min_df`, raise `max_df` or give more texts"
    )]
    EmptyVocabulary {
        /// Number of texts.
        texts: usize,
        /// The bound from below, in texts.
        min_df: usize,
        /// The bound from above, as a share of the texts.
        max_df: f64,
    },
    /// TF-IDF has no weights until it has seen the catalogue's texts.
    #[error("a TF-IDF embedder must be fitted on the catalogue's texts; use `AnyEmbedder::fit` or `Tfidf::fit`")]
    NotFitted,
    /// The model in a directory is of a family or a variant that is not supported.
    #[error("{} asks for {property} `{value}`; supported: {supported}", path.display())]
    Unsupported {
        /// The configuration file.
        path: PathBuf,
        /// The property in question, such as `model_type`.
        property: &'static str,
        /// Its value.
        value: String,
        /// The values that are supported.
        supported: &'static str,
    },
    /// `tokenizer.json` could not be read or a text could not be encoded.
    #[error("tokenizer of {}: {source}", path.display())]
    Tokenizer {
        /// The tokenizer file.
        path: PathBuf,
        /// The tokenizer's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tokenizer yields an id that the model's embedding table does not have.
    #[error(
        "the tokenizer of {} yields id {id}, the model has {vocab_size} words; use the tokenizer.json that belongs to the weights",
        path.display()
    )]
    TokenOutOfRange {
        /// The model directory.
        path: PathBuf,
        /// The token id.
        id: u32,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
    /// A model returned NaN or an infinity.
    #[error(
        "the embedding of text {row} holds a value that is not finite; the weights of {model} are damaged, or overflow in their data type"
    )]
    NotFinite {
        /// Position of the text in the input.
        row: usize,
        /// The embedder's fingerprint.
        model: String,
    },
    /// An embedder returned an array of another shape than it promised.
    #[error(
        "the embedder returned an array of shape {got:?}, {expected:?} was expected; its `dim` and `embed_with` disagree"
    )]
    Shape {
        /// `(texts, dim)` as promised.
        expected: (usize, usize),
        /// The shape of the array.
        got: (usize, usize),
    },
    /// A download from the Hugging Face Hub failed.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] Box<crate::hub::HubError>),
    /// A tensor operation failed, or a weight is missing or of another shape.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

#[cfg(feature = "hub")]
impl From<crate::hub::HubError> for EmbedError {
    fn from(error: crate::hub::HubError) -> Self {
        Self::Hub(Box::new(error))
    }
}

/// What is wrong with an array file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArrayProblem {
    /// The header of an `.npy` file is missing, cut off, too long or nested.
    #[error("its .npy header is missing, cut off or malformed")]
    NpyHeader,
    /// The `.npy` payload does not fit its header, or has another type than f32 or f64 in the machine's byte order.
    #[error("{0}; two axes of f32 or f64 in the machine's byte order are expected")]
    Npy(#[source] ndarray_npy::ViewNpyError),
    /// The safetensors container is damaged.
    #[error("{0}")]
    Safetensors(#[source] safetensors::SafeTensorError),
    /// The array could not be serialised.
    #[error("it cannot be serialised: {0}")]
    NpyWrite(#[source] ndarray_npy::WriteNpyError),
    /// No tensor of the expected name.
    #[error("it holds no tensor named `{name}`")]
    MissingTensor {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor is not of the expected type and rank.
    #[error("its tensor `{name}` is {dtype} of shape {shape:?}; {expected} is expected")]
    WrongTensor {
        /// Name of the tensor.
        name: String,
        /// Its element type.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Type and rank expected.
        expected: &'static str,
    },
    /// A value is NaN or infinite (or was, after narrowing to f32).
    #[error("row {row}, column {column} is not finite as f32")]
    NotFinite {
        /// Row of the first such value.
        row: usize,
        /// Column of the first such value.
        column: usize,
    },
    /// The content does not match the checksum in the file.
    #[error("its content does not match its checksum; delete it and embed the texts again")]
    Checksum,
}
