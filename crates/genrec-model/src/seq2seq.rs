//! The contracts between models and what uses them: decoding, training, scoring.

use candle_core::{Device, Result, Tensor};
use genrec_kernels::{Gradients, Parameters};

use crate::{batch::RaggedBatch, share::BatchShare};

/// What a model keeps between two decoding steps, owned by whoever decodes.
pub trait DecodeState {
    /// Number of hypotheses that the state holds.
    fn rows(&self) -> usize;

    /// Keeps the given rows, in the given order, repeated where an index repeats: widens users to beams, permutes beams,
    /// drops finished ones.
    ///
    /// # Shapes
    /// `rows`: `(new rows,)`, `u32`, each below [`rows`](Self::rows).
    ///
    /// # Errors
    /// When an index is out of range or a tensor operation fails.
    fn select_rows(&mut self, rows: &Tensor) -> Result<()>;

    /// [`select_rows`](Self::select_rows) where row `i` goes on from a row of the same sequence and there are as many rows
    /// as before, as in the later steps of a beam search. The indices may be on the model's device and need not be looked
    /// at, so that nothing waits for them.
    ///
    /// # Shapes
    /// `rows`: `(rows,)`, `u32`, each below [`rows`](Self::rows).
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn reorder(&mut self, rows: &Tensor) -> Result<()> {
        self.select_rows(rows)
    }
}

/// A model that reads one token sequence and writes another, one token at a time.
///
/// The model is never mutated by decoding; every cache lives in the [`State`](Self::State), so that one model serves any
/// number of threads.
pub trait Seq2Seq: Sync {
    /// Caches of one decoding run.
    type State: DecodeState;

    /// Number of tokens that the model distinguishes.
    fn vocab_size(&self) -> usize;

    /// Where the model's weights are.
    fn device(&self) -> &Device;

    /// The token fed at the first step.
    fn decoder_start_token(&self) -> u32;

    /// The most sequences that are worth decoding in one run, or `None` where more at once are always better, as on a
    /// GPU. Decoders cut larger batches into runs of at most that size and do them side by side on the host's threads.
    /// Only a model whose rows do not depend on one another to the last bit may return `Some`: how a batch is cut depends
    /// on the number of threads.
    fn run_size(&self) -> Option<usize> {
        None
    }

    /// Encodes every sequence once; the state has one row a sequence.
    ///
    /// # Errors
    /// When the batch is empty, a token is outside the vocabulary, or a tensor operation fails.
    fn start(&self, batch: &RaggedBatch) -> Result<Self::State>;

    /// Feeds one token a row and returns the log-probabilities (nats) of the next, over the whole vocabulary.
    ///
    /// # Shapes
    /// `tokens`: `(rows,)`, `u32`. Returns `(rows, vocabulary)`, `f32`.
    ///
    /// # Errors
    /// When the number of tokens is not the number of rows, a token on the CPU is outside the vocabulary, or a tensor
    /// operation fails.
    fn step(&self, tokens: &Tensor, state: &mut Self::State) -> Result<Tensor>;
}

/// A model that can be trained: the one door between the training loop and any engine that computes gradients.
pub trait Trainable {
    /// What one step of training reads.
    type Batch;

    /// The trainable variables.
    fn parameters(&self) -> &Parameters;

    /// Mean loss over the batch and its gradient for every parameter.
    ///
    /// Everything random in the step (dropout) is drawn from `dropout_seed`, so that the same arguments give the same
    /// gradients.
    ///
    /// # Errors
    /// When the batch does not fit the model or a tensor operation fails.
    fn loss_and_grads(&self, batch: &Self::Batch, dropout_seed: u64) -> Result<(f32, Gradients)>;

    /// The share of [`loss_and_grads`](Self::loss_and_grads) that falls to one of several workers, who all have the whole batch:
    /// what all of them return adds up to the mean loss over the whole batch and its gradients. A worker to whom nothing falls
    /// returns a loss of 0, and zeros or no gradients.
    ///
    /// A model that does not implement it is trained by one worker.
    ///
    /// # Errors
    /// As for [`loss_and_grads`](Self::loss_and_grads), and when there are several workers for a model that has no shares.
    fn share_loss_and_grads(
        &self,
        batch: &Self::Batch,
        share: BatchShare,
        dropout_seed: u64,
    ) -> Result<(f32, Gradients)> {
        if share.is_whole() {
            return self.loss_and_grads(batch, dropout_seed);
        }
        candle_core::bail!(
            "this model computes batches whole and is trained by one worker, not by {}; a model shares its batches out where it \
             implements `Trainable::share_loss_and_grads`",
            share.ranks()
        )
    }

    /// Mean loss over the batch without dropout.
    ///
    /// # Errors
    /// When the batch does not fit the model or a tensor operation fails.
    fn loss(&self, batch: &Self::Batch) -> Result<f32>;
}

/// A model that scores every item of the catalogue at once: popularity, Semantic-KNN, SASRec.
pub trait ItemScorer {
    /// Scores of all items for each history, higher is better. The histories hold item rows, oldest first, not
    /// Semantic-ID tokens.
    ///
    /// # Shapes
    /// Returns `(histories, items)`, `f32`.
    ///
    /// # Errors
    /// When an item is outside the catalogue or a tensor operation fails.
    fn scores(&self, histories: &RaggedBatch) -> Result<Tensor>;
}
