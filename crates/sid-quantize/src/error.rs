//! What can go wrong while a quantiser is fitted, saved, loaded or measured.

use std::path::PathBuf;

/// A result whose error is [`enum@QuantizeError`].
pub type Result<T, E = QuantizeError> = std::result::Result<T, E>;

/// Everything that can go wrong outside a single tensor operation.
///
/// Tensor-level functions ([`Quantizer::encode`](crate::Quantizer::encode) and its kin) return candle's own error
/// instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// A row holds NaN or an infinity.
    #[error(
        "row {row} holds a value that is not finite in column {column}; drop the row or repair the embedder that wrote it"
    )]
    RowNotFinite {
        /// Row of the source, from 0.
        row: usize,
        /// First offending column, from 0.
        column: usize,
    },
    /// A row is so large that what its codes would cost it is no number.
    #[error(
        "row {row} is so far from the rows that the quantiser was fitted on that its distances are no numbers; look for values that are far too large"
    )]
    RowTooLarge {
        /// Row of the batch, from 0.
        row: usize,
    },
    /// There are fewer rows than codes in one codebook.
    #[error(
        "{rows} rows cannot fill a codebook of {codes} codes; give at least {codes} rows or lower the codebook size to {rows} or less"
    )]
    TooFewRows {
        /// Rows the source has.
        rows: usize,
        /// Codes in the largest codebook.
        codes: usize,
    },
    /// Rows have fewer columns than there are levels to share them.
    #[error(
        "{columns} columns cannot be cut into {levels} parts; use {columns} levels or fewer, or a quantiser whose levels code whole rows"
    )]
    TooFewColumns {
        /// Columns of a row, after whitening if there is any.
        columns: usize,
        /// Levels, one for each part.
        levels: usize,
    },
    /// There are more rows than 32-bit indices.
    #[error("{rows} rows are more than the {} that can be indexed; fit on a sample", u32::MAX)]
    TooManyRows {
        /// Rows the source has.
        rows: usize,
    },
    /// Rows have another width than the receiver expects.
    #[error(
        "rows have {got} columns where {expected} are expected; embed the items with the model the quantiser was fitted on"
    )]
    DimMismatch {
        /// Columns expected.
        expected: usize,
        /// Columns found.
        got: usize,
    },
    /// A read runs past the last row.
    #[error("rows {start}..{end} were asked of a source of {len} rows")]
    RowsOutOfRange {
        /// First row asked for.
        start: usize,
        /// One past the last row asked for.
        end: usize,
        /// Rows there are.
        len: usize,
    },
    /// A field of a configuration is out of its bounds.
    #[error("`{field}` is {value}; {expected}")]
    InvalidConfig {
        /// Name of the field.
        field: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// The loss became NaN or infinite.
    #[error("the loss became {loss} in epoch {epoch}, step {step}; lower the learning rate or standardise the inputs")]
    LossNotFinite {
        /// Epoch, from 1.
        epoch: usize,
        /// Step inside the epoch, from 1.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// A weight is NaN or infinite at the end of a fit.
    #[error("the weight `{name}` is not finite after the last step; lower the learning rate or standardise the inputs")]
    WeightNotFinite {
        /// Name of the weight.
        name: String,
    },
    /// The configuration aligns with behaviour, and none was given.
    #[error(
        "`alignment` is set, but no behaviour is given; fit with `RqVaeConfig::fit_aligned`, or leave `alignment` out"
    )]
    BehaviourMissing,
    /// There are not as many behaviour embeddings as rows.
    #[error(
        "{behaviour} behaviour embeddings do not go with {rows} rows; give one a row, zeros where nothing is known"
    )]
    BehaviourRows {
        /// Rows to quantise.
        rows: usize,
        /// Behaviour embeddings.
        behaviour: usize,
    },
    /// Behaviour embeddings are not as wide as the latent vector.
    #[error(
        "behaviour embeddings of {behaviour} columns cannot be compared with latent vectors of {latent_dim}; embed behaviour in {latent_dim} columns or set `latent_dim` to {behaviour}"
    )]
    BehaviourColumns {
        /// Columns of the latent vector.
        latent_dim: usize,
        /// Columns of the behaviour embeddings.
        behaviour: usize,
    },
    /// A matrix could not be decomposed.
    #[error("the {what} of the rows has no decomposition: {fact}; look for rows that are far too large or too small")]
    Decomposition {
        /// The matrix.
        what: &'static str,
        /// What the algorithm said.
        fact: String,
    },
    /// A code is not in its codebook.
    #[error("item {item} has code {code} at level {level}, whose codebook has {size} codes")]
    CodeOutOfRange {
        /// Row of the codes.
        item: usize,
        /// Level, from 0.
        level: usize,
        /// The code.
        code: u32,
        /// Codes in that level's codebook.
        size: u32,
    },
    /// Codes have another number of levels than there are codebooks.
    #[error("codes have {got} levels where {expected} are expected")]
    LevelMismatch {
        /// Levels expected.
        expected: usize,
        /// Levels found.
        got: usize,
    },
    /// What there should be one of for each item is there in another number.
    #[error("there are {got} {what} for the codes of {expected} items; give one for each item, in the same order")]
    ItemMismatch {
        /// What was counted.
        what: &'static str,
        /// Items with codes.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// A file or directory cannot be read or written.
    #[error("cannot access {}{}", path.display(), genrec_files::remedy(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{} is not a quantiser's configuration", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where the reader stopped.
        #[source]
        source: serde_json::Error,
    },
    /// A file is not well-formed safetensors.
    #[error("{} is not a safetensors file", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A file was written in a format this version does not read.
    #[error("{} has format version {found}, this version reads {supported}; write it again or use the version that wrote it", path.display())]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u64,
        /// Version this crate reads.
        supported: u32,
    },
    /// A file is larger than anything its description allows.
    #[error("{} has {size} bytes, at most {limit} are expected", path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The largest size allowed, in bytes.
        limit: u64,
    },
    /// The weights are not those the configuration was saved with.
    #[error(
        "{} does not match the checksum in its config.json ({found:08x} instead of {expected:08x}); the two come from different saves or the file is damaged", path.display()
    )]
    Checksum {
        /// The weights' file.
        path: PathBuf,
        /// CRC-32 in the configuration.
        expected: u32,
        /// CRC-32 of the file.
        found: u32,
    },
    /// A file of rows has a header this crate cannot read.
    #[error("{}: {fact}", path.display())]
    RowFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        fact: RowFileFault,
    },
    /// A file of rows cannot be decoded as Parquet; a panic of the decoder, which damage can cause, is caught and told here too.
    #[cfg(feature = "parquet")]
    #[error("cannot decode {} as Parquet: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The decoder's answer.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// Saved tensors are not those of the model.
    #[error(transparent)]
    Parameters(#[from] genrec_kernels::ParamError),
    /// A saved tensor has another element type than its model's.
    #[error("the tensor `{name}` holds {got} where {expected} is expected")]
    TensorType {
        /// Name of the tensor.
        name: String,
        /// Its element type.
        got: String,
        /// The element type wanted.
        expected: &'static str,
    },
    /// The nodes of a saved tree are not shared out among their parents.
    #[error(
        "the children of parent {parent} are the nodes {start}..{end} of the {nodes} of level {level}; each parent has 1 to {most}, and together they have all in order; the file was written by another program or is damaged"
    )]
    TreeChildren {
        /// Level of the children, from 0.
        level: usize,
        /// The parent, among the nodes of the level above.
        parent: usize,
        /// Its first child, among the nodes of the level.
        start: u32,
        /// One past its last child.
        end: u32,
        /// Nodes of the level.
        nodes: usize,
        /// Most children of a parent.
        most: u32,
    },
    /// The optimiser cannot be built, or a field of its configuration or of the schedule is out of its bounds.
    #[error(transparent)]
    Optimizer(#[from] genrec_kernels::optim::OptimError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// What is wrong with a file of embedding rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowFileFault {
    /// The first bytes are not those of a `.npy` file.
    #[error("it does not start with the bytes of a .npy file")]
    Magic,
    /// The header cannot be parsed.
    #[error("its header cannot be read")]
    Header,
    /// The elements are neither 32-bit nor 64-bit little-endian floats.
    #[error("its elements are `{0}`; save them as 32-bit or 64-bit little-endian floats")]
    ElementType(String),
    /// The matrix is stored column by column.
    #[error("it is stored column by column; save it in C order")]
    FortranOrder,
    /// The array does not have two dimensions.
    #[error("it has {0} dimensions; rows need two, (items, features)")]
    Rank(usize),
    /// Its rows are empty.
    #[error("its {0} rows have no columns")]
    NoColumns(usize),
    /// The file is shorter or longer than its header says.
    #[error("its header promises {expected} bytes of data, the file holds {got}")]
    Length {
        /// Bytes the shape and element type need.
        expected: u64,
        /// Bytes there are.
        got: u64,
    },
    /// There is no such column, or none was named and not exactly one holds lists of floats.
    #[error("it has no one column {} among {columns}; name a column that holds a list of floats in each row", wanted.as_deref().map_or("of lists of floats".to_owned(), |name| format!("`{name}`")))]
    NoColumn {
        /// The name asked for.
        wanted: Option<String>,
        /// The columns there are.
        columns: String,
    },
    /// A row, or an element of it, is null.
    #[error("row {row} is null or holds a null; leave such rows out")]
    Null {
        /// The row.
        row: usize,
    },
    /// A row is longer or shorter than the first.
    #[error("row {row} has {got} values, the rows before it {expected}; all embeddings need one length")]
    Ragged {
        /// The row.
        row: usize,
        /// Values of the first row.
        expected: usize,
        /// Values of this one.
        got: usize,
    },
    /// There is no tensor of the name asked for.
    #[error("it holds no tensor named `{0}`")]
    NoTensor(String),
    /// The header is longer than any sensible one.
    #[error("its header claims {0} bytes")]
    HeaderLength(u64),
}

impl QuantizeError {
    pub(crate) fn config(field: &'static str, value: impl std::fmt::Display, expected: &'static str) -> Self {
        Self::InvalidConfig { field, value: value.to_string(), expected }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
