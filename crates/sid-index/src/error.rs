//! What can go wrong with an index.

use std::path::PathBuf;

use crate::id::{CodebookId, ItemId, SemanticId};

/// Result of an operation on an index, a layout or a vocabulary.
pub type Result<T> = std::result::Result<T, IndexError>;

/// Why a layout, an index, a vocabulary or a file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// A layout without any codebook.
    #[error("a Semantic ID needs at least one codebook; give one size per level")]
    NoLevels,
    /// A layout with more positions than an index handles.
    #[error("a Semantic ID of {positions} positions is longer than the {max} that an index handles; use fewer levels")]
    TooManyPositions {
        /// Positions asked for, the suffix included.
        positions: usize,
        /// Greatest number of positions.
        max: usize,
    },
    /// A position without any value.
    #[error("position {position} of the layout has size 0; every codebook and the suffix need at least one value")]
    EmptyPosition {
        /// Position in the Semantic ID, counted from zero.
        position: usize,
    },
    /// The sizes of all positions together leave no room for them in a vocabulary of `u32` tokens.
    #[error("the positions' sizes add up to {total}, above the limit of {max}; use smaller codebooks or fewer levels")]
    LayoutTooLarge {
        /// Sum of the sizes, or of sizes, special and user tokens.
        total: u64,
        /// Greatest sum.
        max: u64,
    },
    /// [`CollisionPolicy::Suffix`](crate::CollisionPolicy::Suffix) with a layout that has no suffix.
    #[error("the collision policy `suffix` needs a layout with a suffix; add one with `SidLayout::with_suffix`")]
    NoSuffix,
    /// [`CollisionPolicy::Share`](crate::CollisionPolicy::Share) with a layout that has a suffix.
    #[error(
        "the collision policy `share` gives no suffixes but the layout has one; drop it with `SidLayout::without_suffix`"
    )]
    UnusedSuffix,
    /// Rows of codes whose length is not the layout's number of levels.
    #[error("the rows hold {got} codes but the layout has {expected} levels; pass the codes without any suffix")]
    Levels {
        /// Levels of the layout.
        expected: usize,
        /// Codes in a row.
        got: usize,
    },
    /// A Semantic ID or token sequence of another length than the layout's.
    #[error("the Semantic ID has {got} positions but the layout has {expected}")]
    Positions {
        /// Positions of the layout, the suffix included.
        expected: usize,
        /// Positions given.
        got: usize,
    },
    /// A code outside its codebook.
    #[error("code {code} of item {item} at position {position} is outside the {size} values of that position")]
    CodeOutOfRange {
        /// The item whose row holds the code.
        item: ItemId,
        /// Position in the Semantic ID, counted from zero.
        position: usize,
        /// The code.
        code: u32,
        /// Number of values at that position.
        size: u32,
    },
    /// A code outside its codebook, in a Semantic ID that belongs to no item yet.
    #[error("code {code} at position {position} is outside the {size} values of that position")]
    NoSuchCode {
        /// Position in the Semantic ID, counted from zero.
        position: usize,
        /// The code.
        code: u32,
        /// Number of values at that position; zero past the last one.
        size: u32,
    },
    /// More items share their codes than the suffix can tell apart.
    #[error(
        "{items} items share the codes {codes:?} but the suffix has only {suffix_size} values; enlarge it with \
         `SidLayout::with_suffix` or add a level"
    )]
    SuffixOverflow {
        /// How many items share the codes.
        items: usize,
        /// The codes that they share.
        codes: Vec<u32>,
        /// Number of suffix values.
        suffix_size: u32,
    },
    /// More items than an [`ItemId`] can count.
    #[error("{items} items of {positions} positions are more than the 4,294,967,294 of one index; split the catalogue")]
    TooManyItems {
        /// Number of items.
        items: usize,
        /// Positions of a Semantic ID.
        positions: usize,
    },
    /// Two items of a file have one Semantic ID although the policy gives each its own.
    #[error("items {first} and {second} both have the Semantic ID {sid}; the file is damaged, rebuild the index")]
    DuplicateSid {
        /// The lower item.
        first: ItemId,
        /// The higher item.
        second: ItemId,
        /// The Semantic ID that they share.
        sid: SemanticId,
    },
    /// A repair that lets a code tuple hold no item.
    #[error("a code tuple must be able to hold an item but `capacity` is 0; set it to 1, or to the size of the suffix")]
    NoCapacity,
    /// A strength of the entropy with which there is no transport plan.
    #[error("`epsilon` is {epsilon} but must be finite and above 0; the published value is 0.003")]
    Epsilon {
        /// The value given.
        epsilon: f64,
    },
    /// A transport plan without any round of scaling.
    #[error("`iterations` is 0 but a transport plan needs at least 1 round; the published value is 50")]
    NoIterations,
    /// Whatever says what codes cost has failed.
    #[error("the costs of the codes after {prefix:?} could not be computed for {items} items")]
    Costs {
        /// Codes before the level asked for.
        prefix: Vec<u32>,
        /// How many items were asked for.
        items: usize,
        /// Its own reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A matrix of costs of the wrong shape.
    #[error(
        "the costs of the codes after {prefix:?} have shape {got:?} where {expected:?} was asked for; return a row for \
         each item and a column for each code of that level"
    )]
    CostShape {
        /// Codes before the level asked for.
        prefix: Vec<u32>,
        /// Shape asked for: `(items, codes of the level)`.
        expected: (usize, usize),
        /// Shape returned.
        got: (usize, usize),
    },
    /// A cost that no other can be compared with.
    #[error(
        "code {code} after {prefix:?} costs item {item} {cost}; costs are finite, or positive infinity where an item may \
         not take a code"
    )]
    Cost {
        /// The item.
        item: ItemId,
        /// Codes before it.
        prefix: Vec<u32>,
        /// The code.
        code: u32,
        /// Not a number, or negative infinity.
        cost: f32,
    },
    /// An item that the index does not hold.
    #[error("item {item} is not among the {items} items of the index")]
    UnknownItem {
        /// The item.
        item: ItemId,
        /// Number of items in the index.
        items: usize,
    },
    /// Reading or writing failed.
    #[error("cannot {action} {}{}", path.display(), genrec_files::remedy(source))]
    Io {
        /// What was tried: "read", "write", "rename".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// `index.json` is not what it should be.
    #[error("{} is not the description of an index", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Where and why parsing stopped.
        #[source]
        source: serde_json::Error,
    },
    /// A format version that this release does not read.
    #[error(
        "{} has format version {got}, this release reads versions 1 to {supported}; rebuild the index or use a newer \
         release",
        path.display()
    )]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// Version found.
        got: u32,
        /// Newest version that this release reads.
        supported: u32,
    },
    /// A file whose length differs from what was recorded, or exceeds the limit.
    #[error("{} has {got} bytes where {expected} were expected; the file is truncated or damaged", path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Bytes recorded, or the greatest number accepted.
        expected: u64,
        /// Bytes found.
        got: u64,
    },
    /// Contents that do not match their recorded CRC-32.
    #[error(
        "{} has checksum {got:08x} where {expected:08x} was recorded; the file is damaged, restore or rebuild it",
        path.display()
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// CRC-32 recorded.
        expected: u32,
        /// CRC-32 of what was read.
        got: u32,
    },
    /// `index.safetensors` is not a safetensors file of the tensors expected.
    #[error("{} is not the payload of an index", path.display())]
    Payload {
        /// The file.
        path: PathBuf,
        /// What the safetensors reader or writer says.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A tensor has another type or shape than recorded.
    #[error(
        "the tensor `{name}` of {} is {found} where the description asks for {expected}; rebuild the index",
        path.display()
    )]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Type and shape recorded.
        expected: String,
        /// Type and shape found.
        found: String,
    },
    /// A file whose parts do not belong together although their checksums are right.
    #[error("{} contradicts itself: {what}; rebuild the index", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// An array that does not follow from the Semantic IDs, although its checksum is right.
    #[error("the array `{name}` of {} is not the one of its Semantic IDs; rebuild the index", path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// Name of the array.
        name: String,
    },
    /// Codes of another codebook than the index's.
    #[error(
        "the index belongs to codebook {expected}, not to {got}: the same codes mean other items; encode the items again and \
         rebuild the index, or use the quantiser that it was made with"
    )]
    Codebook {
        /// The index's.
        expected: CodebookId,
        /// The one that asks.
        got: CodebookId,
    },
    /// A filter of another index, or of this one before it was compacted.
    #[error("the filter was made from another index, or before this one was compacted; make it anew")]
    StaleFilter,
}

impl IndexError {
    /// Whether a file is there and could not be read, so that nothing is known of what it holds.
    pub(crate) fn is_unread(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() != std::io::ErrorKind::NotFound)
    }
}
