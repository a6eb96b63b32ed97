//! What can go wrong between a file of interactions and a batch of training windows.

use std::path::PathBuf;

/// The crate's result.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// A place in an input file that is not what its format asks for.
///
/// `line` and `column` count from one; the column counts bytes, as editors and `serde_json` do for ASCII. In a Parquet
/// file, which has no lines, `line` is the row and `column` the position of the column in the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}:{column}: expected {expected}, found {found}", file.display())]
pub struct BadLine {
    /// The file as it was named by the caller.
    pub file: PathBuf,
    /// Line, counted from one.
    pub line: u64,
    /// Byte in the line, counted from one.
    pub column: u64,
    /// What the format asks for at that place.
    pub expected: String,
    /// The first characters of what stands there.
    pub found: String,
}

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file could not be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Reading stopped in the middle: a disk error or a damaged gzip stream.
    #[error("reading {} failed after line {line}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Lines read before the failure.
        line: u64,
        /// The operating system's or the decompressor's answer.
        #[source]
        source: std::io::Error,
    },
    /// A line is malformed and [`OnBadLine::Fail`](crate::OnBadLine::Fail) is in force.
    #[error(transparent)]
    BadLine(#[from] BadLine),
    /// A file lacks a column that was asked for.
    #[error("{} has no column `{column}`; it has {}", path.display(), available.join(", "))]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// The columns that are there.
        available: Vec<String>,
    },
    /// A columnar file could not be decoded; a panic of the decoder, which damage can cause, is caught and told here too.
    #[cfg(feature = "parquet")]
    #[error("cannot decode {} as Parquet: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The decoder's answer.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A column of a columnar file is of a type that is no text.
    #[cfg(feature = "parquet")]
    #[error("column `{column}` of {} is of type {found}; text, numbers, times, and lists of these or of such lists are read", path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type, as Arrow writes it.
        found: String,
    },
    /// Two items carry the same outside id.
    #[error("item id {id:?} is given to rows {first} and {second}; outside ids must be unique")]
    DuplicateItem {
        /// The id.
        id: String,
        /// Row that has it already.
        first: u32,
        /// Row that would get it again.
        second: u32,
    },
    /// An item has an empty outside id.
    #[error("item {row} has an empty id; every item needs an outside id to be told apart")]
    EmptyItemId {
        /// Row of the catalogue.
        row: usize,
    },
    /// A price is not a number.
    #[error("item {id:?} has the price {price}; a price is a finite number, or `None` when unknown")]
    InvalidPrice {
        /// The item.
        id: String,
        /// The price given.
        price: f64,
    },
    /// A sequence names a row the catalogue does not have.
    #[error("user {user:?} has item {item} in the sequence, but the catalogue holds only {items} items")]
    ItemOutOfRange {
        /// The user.
        user: String,
        /// The row named.
        item: u32,
        /// Items of the catalogue.
        items: usize,
    },
    /// Two sequences belong to the same user.
    #[error("user {user:?} has two sequences; merge them, or give the users different ids")]
    DuplicateUser {
        /// The user.
        user: String,
    },
    /// A count does not fit its 32-bit number.
    #[error("{count} {what} do not fit 32-bit numbers; split the data set")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        count: u64,
    },
    /// A configuration field is out of bounds.
    #[error("{field} is {value}, but {bound}")]
    Config {
        /// The field, with its type: `WindowConfig::max_history`.
        field: &'static str,
        /// The value given.
        value: String,
        /// The bound and the remedy.
        bound: &'static str,
    },
    /// Nothing is left after filtering.
    #[error("no interaction is left of {read}: {filters}; lower the thresholds")]
    NothingLeft {
        /// Interactions before filtering.
        read: usize,
        /// The filters in force.
        filters: String,
    },
}

impl DataError {
    pub(crate) fn config(field: &'static str, value: impl ToString + Copy, bound: &'static str) -> Self {
        Self::Config { field, value: value.to_string(), bound }
    }
}
