//! Sequence-to-sequence models over Semantic-ID tokens.

pub mod batch;
pub mod seq2seq;

pub use batch::{BatchError, RaggedBatch};
pub use genrec_kernels::{Gradients, Parameters};
pub use seq2seq::{DecodeState, ItemScorer, Seq2Seq, Trainable};
