//! The contract of everything that turns a model's probabilities into sequences.

use genrec_model::{RaggedBatch, Seq2Seq};

use crate::{constraint::Constraint, error::Result};

/// A generated sequence and how probable the model holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// The tokens, without the one that decoding starts from.
    pub tokens: Vec<u32>,
    /// Sum of the tokens' log-probabilities in nats, each under the softmax over the whole vocabulary: never
    /// renormalised over what a constraint allows, never divided by the length. Never NaN.
    pub log_prob: f32,
}

/// Turns a model's next-token probabilities into sequences.
pub trait Decoder {
    /// Sequences for every row of the batch, the most probable first; equal ones in the order of their tokens. A sampler returns
    /// them in the order of drawing.
    ///
    /// `constraints` holds one constraint for all rows or one for each. A row gets fewer sequences than the decoder was
    /// asked for, or none, when its constraint allows no more.
    ///
    /// # Errors
    /// When the batch is empty, the number of constraints is neither one nor that of the rows, a constraint and the
    /// model disagree about the vocabulary, the model returns something that is no log-probability, or a tensor
    /// operation fails.
    fn decode<M: Seq2Seq, C: Constraint>(
        &self,
        model: &M,
        batch: &RaggedBatch,
        constraints: &[C],
    ) -> Result<Vec<Vec<Hypothesis>>>;
}
