//! What can go wrong while decoding.

use sid_index::{IndexError, SidIndex, SidVocab};

/// Result of decoding or resolving.
pub type Result<T> = std::result::Result<T, DecodeError>;

/// Why sequences could not be decoded or resolved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A batch without any sequence.
    #[error("the batch holds no sequence; pass at least one history")]
    EmptyBatch,
    /// Neither one constraint for all users nor one for each.
    #[error("{constraints} constraints for {users} users; pass one for all or one for each")]
    Constraints {
        /// Sequences in the batch.
        users: usize,
        /// Constraints given.
        constraints: usize,
    },
    /// A beam search without beams.
    #[error("a beam search needs at least one beam; one beam is greedy decoding")]
    NoBeams,
    /// A temperature or cut outside its bounds.
    #[error("`{field}` is {value} but must be {bound}")]
    Shape {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is accepted.
        bound: &'static str,
    },
    /// Groups that beams cannot be shared out among.
    #[error(
        "{groups} groups of {beams} beams with strength {strength}; give 1 to {beams} groups and a strength that is finite \
         and at least 0"
    )]
    Groups {
        /// Groups asked for.
        groups: usize,
        /// Beams of all groups.
        beams: usize,
        /// Cost of a token that was chosen before, in nats.
        strength: f32,
    },
    /// An exact search would have to keep too many prefixes.
    #[error(
        "more than {max_rows} prefixes of user {user} may lead to one of the best sequences at step {step}; raise \
         `max_rows`, ask for fewer, or use a beam search"
    )]
    TooWide {
        /// Row of the batch.
        user: usize,
        /// Decoding step, from zero.
        step: usize,
        /// The most prefixes that may be kept.
        max_rows: usize,
    },
    /// A share that is none.
    #[error("`epsilon` is {epsilon} but must be a share of the list, 0 to 1")]
    Epsilon {
        /// The value given.
        epsilon: f64,
    },
    /// Unseen items that need agree in nothing.
    #[error("`prefix` is 0 but unseen items must agree in one code at least")]
    ColdPrefix,
    /// A weight below 0, or no number.
    #[error("the weight of a score of unseen items is {weight} but it must be at least 0 and finite")]
    ColdWeight {
        /// The weight.
        weight: f32,
    },
    /// A list of no items was asked for.
    #[error("asked for the best 0 items; ask for at least one")]
    NoResults,
    /// A constraint of sequences of no token, or of more than a Semantic ID has.
    #[error("a sequence of {length} tokens was asked for but a Semantic ID has 1 to {positions}")]
    Length {
        /// Tokens asked for.
        length: usize,
        /// Positions of a Semantic ID, or the greatest length accepted.
        positions: usize,
    },
    /// The vocabulary was made for another layout than the index's.
    #[error(
        "the vocabulary numbers positions of sizes {vocab:?} but the index has {index:?}; make it from the index's layout"
    )]
    VocabMismatch {
        /// Sizes of the vocabulary's positions.
        vocab: Vec<u32>,
        /// Sizes of the index's positions.
        index: Vec<u32>,
    },
    /// The index is empty.
    #[error("the index holds no item; add some before decoding")]
    NoItems,
    /// An index that leads to more prefixes than it has.
    #[error("the index leads to more than its {prefixes} prefixes: its file is damaged; `SidIndex::verify` says where")]
    BrokenIndex {
        /// Prefixes of all lengths that it counts.
        prefixes: usize,
    },
    /// A filter leaves no item that may be generated.
    #[error(
        "the filter `{filter}` allows none of the {before} items that were allowed before it; loosen it or drop it"
    )]
    Emptied {
        /// Name of the filter.
        filter: String,
        /// Items that the catalogue and the filters before it allow.
        before: usize,
    },
    /// A sequence grew longer than the search allows.
    #[error("a sequence is not complete after {max_tokens} tokens; raise `max_tokens` or use a constraint that ends")]
    TooLong {
        /// Greatest number of tokens.
        max_tokens: usize,
    },
    /// A constraint allows a token that the model does not have.
    #[error("the constraint allows token {token} but the model has only {vocab_size}; use one vocabulary for both")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Tokens of the model.
        vocab_size: usize,
    },
    /// A constraint rejects a token that it had just allowed.
    #[error("the constraint listed token {token} as allowed and then did not accept it; make the two agree")]
    Inconsistent {
        /// The token.
        token: u32,
    },
    /// The model's output has another shape than its rows and vocabulary ask for.
    #[error("the model returned a tensor of shape {got:?} where {expected:?}, (rows, vocabulary), was expected")]
    OutputShape {
        /// `(rows, vocabulary)`.
        expected: [usize; 2],
        /// Shape of the tensor.
        got: Vec<usize>,
    },
    /// The model's state holds another number of rows than the batch has sequences.
    #[error("the model's state holds {got} rows for a batch of {expected} sequences")]
    StateRows {
        /// Sequences in the batch.
        expected: usize,
        /// Rows of the state.
        got: usize,
    },
    /// A log-probability is NaN or positive infinity.
    #[error(
        "the log-probability of token {token} for user {user}, beam {beam}, step {step} is {value}; check the model's \
         weights for values that are not finite"
    )]
    NotALogProb {
        /// Row of the batch.
        user: usize,
        /// Which of the user's beams, best first.
        beam: usize,
        /// Decoding step, from zero.
        step: usize,
        /// The token.
        token: u32,
        /// The value.
        value: f32,
    },
    /// Some log-probability of a step is NaN or positive infinity.
    #[error(
        "a log-probability of step {step} is not a number or is infinite; check the model's weights for values that are \
         not finite"
    )]
    NotLogProbs {
        /// Decoding step, from zero.
        step: usize,
    },
    /// More beams than can be sorted on a device.
    #[error("a search on the device has at most {most} beams, not {beams}; search with fewer, or on the host")]
    TooManyBeams {
        /// Beams asked for.
        beams: usize,
        /// The most there can be.
        most: usize,
    },
    /// The catalogue's tables are on another device than the model.
    #[error("the catalogue is on {catalogue} but the model on {model}; make the tables on the model's device")]
    CatalogueDevice {
        /// Where the catalogue is.
        catalogue: String,
        /// Where the model is.
        model: String,
    },
    /// An index operation failed, for instance an excluded item does not exist.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl DecodeError {
    /// Checks that a vocabulary was made for the index's layout.
    pub(crate) fn check_vocab(index: &SidIndex, vocab: &SidVocab) -> Result<()> {
        if index.layout() == vocab.layout() {
            return Ok(());
        }
        Err(Self::VocabMismatch { vocab: vocab.layout().sizes().to_vec(), index: index.layout().sizes().to_vec() })
    }
}
