//! What can go wrong between the crates.

use std::path::PathBuf;

/// In what a file differs from the one that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// It is shorter or longer.
    #[error("it has {now} bytes, and had {was}")]
    Size {
        /// Bytes when the run ended.
        was: u64,
        /// Bytes now.
        now: u64,
    },
    /// An index has fewer items.
    #[error("it has {now} items, and had {was}")]
    Items {
        /// Item numbers given when the run ended, or when items were last added.
        was: u32,
        /// Item numbers given now.
        now: u32,
    },
    /// It holds something else.
    #[error("its checksum is another")]
    Contents,
    /// It names a file that is not below the run's directory.
    #[error("it names a file outside of the run")]
    Outside,
}

/// An error of the whole pipeline: either its own, or one of the crates below with what was being done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A run directory lacks a part.
    #[error(
        "`{}` is missing: either there is no run, and the directory is mistyped, or it is unfinished, and the command that began it will end it if it resumes",
        path.display()
    )]
    MissingArtifact {
        /// The part that is not there.
        path: PathBuf,
    },
    /// A directory already holds a run and resuming was not asked for.
    #[error("`{}` already holds a run; resume it, delete it, or choose an empty directory", path.display())]
    RunExists {
        /// The directory.
        path: PathBuf,
    },
    /// A directory holds parts of a run but not the settings they were made with.
    #[error("`{}` is there, but no `run.json` says what made it; choose an empty directory", part.display())]
    Unclaimed {
        /// The part.
        part: PathBuf,
    },
    /// A run to be resumed holds items that were added after it.
    #[error(
        "the run in `{}` was finished and holds {indexed} items, the data set {items}: items were added to it; train anew in an empty directory",
        path.display()
    )]
    ItemsAdded {
        /// The run's directory.
        path: PathBuf,
        /// Items of the run.
        indexed: usize,
        /// Items of the data set.
        items: usize,
    },
    /// A run is to be resumed with other settings than it was started with.
    #[error(
        "the run was started with another `{field}` ({was}, now {now}); repeat the command that began it, or start a new directory"
    )]
    ConfigChanged {
        /// The first setting that differs.
        field: String,
        /// Its value in the directory.
        was: String,
        /// Its value now.
        now: String,
    },
    /// A file was written by another version of the format.
    #[error("`{}` has format version {found}, this version of genrec reads {supported}; write it anew or use the version that wrote it", path.display())]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Version that is understood.
        supported: u32,
    },
    /// Two parts of a run directory do not belong together.
    #[error("{left} has {left_value} {what}, {right} has {right_value}; the parts are of different runs")]
    Mismatch {
        /// What is counted.
        what: &'static str,
        /// One part.
        left: &'static str,
        /// Its count.
        left_value: usize,
        /// The other part.
        right: &'static str,
        /// Its count.
        right_value: usize,
    },
    /// A history names an item that the catalogue does not have.
    #[error("item `{item}` is not in the catalogue of {items} items")]
    UnknownItem {
        /// The item as given.
        item: String,
        /// Size of the catalogue.
        items: usize,
    },
    /// An embedding has another number of features than the quantiser reads.
    #[error("the embedding has {got} features, the quantiser reads {expected}")]
    EmbeddingDim {
        /// What the quantiser reads.
        expected: usize,
        /// What was given.
        got: usize,
    },
    /// The run was made from ready vectors, so that it has no embedder for new texts.
    #[error("this run was made from ready embeddings and cannot embed text; use `add_item_with_embedding`")]
    NoEmbedder,
    /// The model that the run's texts were embedded by is not where the run says.
    #[error(
        "the texts of this run were embedded by `{}`, which is not there; get that model, open it by `AnyEmbedder::load_relocated` with the run's `embedder` directory and hand it to `with_embedder`, or use `add_item_with_embedding`",
        model.display()
    )]
    EmbedderElsewhere {
        /// Its directory, or what it is called where it was published.
        model: PathBuf,
    },
    /// A directory that is to be filled holds something.
    #[error("`{}` is not empty; delete what is in it, or choose another directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// There is nobody to recommend to or to evaluate on.
    #[error("no user has a {what}: every sequence is too short; leave-one-out needs at least three items a user")]
    NoTargets {
        /// What is lacking.
        what: &'static str,
    },
    /// A setting is outside its bounds.
    #[error("`{field}` is {value}, but must be {expected}")]
    Config {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// A file of a finished run is not as it was when the run ended.
    #[error("`{}` is not as the run left it: {damage}; restore it from a copy, or train anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what it differs.
        damage: Damage,
    },
    /// A run on disk is not the one that items were added to.
    #[error(
        "`{}` holds another run by now, or items that somebody else has added: load it anew and add the items to that",
        path.display()
    )]
    Superseded {
        /// The run's directory.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("could not {action} `{}`{}", path.display(), genrec_files::remedy(source))]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A JSON file does not hold what it should.
    #[error("`{}` does not hold what it should", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A line of a run's catalogue is not an item.
    #[error("line {line} of `{}` is not an item with its `seen` flag", path.display())]
    CatalogueLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Reading or splitting data failed.
    #[error(transparent)]
    Data(#[from] genrec_data::DataError),
    /// Embedding texts failed.
    #[error(transparent)]
    Embed(Box<genrec_embed::EmbedError>),
    /// Fitting or using a quantiser failed.
    #[error(transparent)]
    Quantize(#[from] sid_quantize::QuantizeError),
    /// Building or opening an index failed.
    #[error(transparent)]
    Index(#[from] sid_index::IndexError),
    /// Building or opening a model failed.
    #[error(transparent)]
    Model(Box<genrec_model::ModelError>),
    /// A batch of tokens is malformed.
    #[error(transparent)]
    Batch(#[from] genrec_model::BatchError),
    /// Training failed.
    #[error(transparent)]
    Train(Box<genrec_train::TrainError>),
    /// Decoding failed.
    #[error(transparent)]
    Decode(#[from] genrec_decode::DecodeError),
    /// Computing metrics failed.
    #[error(transparent)]
    Eval(#[from] genrec_eval::EvalError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

// The largest errors are boxed, so that every result of this crate stays small.

impl From<genrec_embed::EmbedError> for Error {
    fn from(error: genrec_embed::EmbedError) -> Self {
        Self::Embed(Box::new(error))
    }
}

impl From<genrec_model::ModelError> for Error {
    fn from(error: genrec_model::ModelError) -> Self {
        Self::Model(Box::new(error))
    }
}

impl From<genrec_train::TrainError> for Error {
    fn from(error: genrec_train::TrainError) -> Self {
        Self::Train(Box::new(error))
    }
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
