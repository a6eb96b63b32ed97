//! Where batches come from.

use crate::error::BoxError;

/// Batches as a pure function of the epoch and the index in it.
///
/// A run that is killed and resumed asks for the same `(epoch, index)` again and must be given the same batch: shuffle
/// by a seed and the epoch, never by state kept between calls. The number of batches may differ between epochs.
pub trait BatchSource {
    /// What one training step reads.
    type Batch;

    /// Number of batches in an epoch, counted from 0. At least one.
    fn num_batches(&self, epoch: u32) -> usize;

    /// The batch of that index, below [`num_batches`](Self::num_batches), in that epoch.
    ///
    /// # Errors
    /// Whatever the source meets; training stops with it.
    fn batch(&self, epoch: u32, index: usize) -> Result<Self::Batch, BoxError>;

    /// Number of training examples in an epoch.
    fn num_examples(&self) -> usize;
}
