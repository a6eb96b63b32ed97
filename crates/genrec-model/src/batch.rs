//! Token sequences of different lengths, without padding.

use std::ops::Range;

/// What is wrong with the parts of a [`RaggedBatch`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// `offsets` does not run from zero to the number of tokens without falling.
    #[error("offsets must start at 0, never fall and end at the {tokens} tokens, but offset {position} is {offset}")]
    Offsets {
        /// Index into `offsets`.
        position: usize,
        /// The value there.
        offset: u32,
        /// Number of tokens in the batch.
        tokens: usize,
    },
    /// The labels do not divide evenly over the rows.
    #[error(
        "{labels} labels cannot be split evenly over {rows} sequences; every sequence takes the same number of target tokens"
    )]
    Labels {
        /// Number of labels given.
        labels: usize,
        /// Number of sequences.
        rows: usize,
    },
}

/// A batch of token sequences laid end to end on the host, with one target each when training.
///
/// Sequence `i` is `tokens[offsets[i]..offsets[i + 1]]`. Models decide themselves how to lay it out on their device;
/// nothing here is padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaggedBatch {
    tokens: Vec<u32>,
    offsets: Vec<u32>,
    labels: Vec<u32>,
}

impl Default for RaggedBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl RaggedBatch {
    /// An empty batch, to be filled by [`push`](Self::push).
    pub fn new() -> Self {
        Self { tokens: Vec::new(), offsets: vec![0], labels: Vec::new() }
    }

    /// A batch from its parts: `offsets` has one entry more than there are sequences, `labels` is empty or row-major
    /// `(rows, target length)`.
    ///
    /// # Errors
    /// [`BatchError`] says which part does not fit.
    pub fn from_parts(tokens: Vec<u32>, offsets: Vec<u32>, labels: Vec<u32>) -> Result<Self, BatchError> {
        let bad = |position: usize, offset: u32| BatchError::Offsets { position, offset, tokens: tokens.len() };
        match offsets.first() {
            Some(0) => {}
            other => return Err(bad(0, other.copied().unwrap_or_default())),
        }
        if let Some(i) = offsets.windows(2).position(|w| w[0] > w[1]) {
            return Err(bad(i + 1, offsets[i + 1]));
        }
        let last = offsets.len() - 1;
        if offsets[last] as usize != tokens.len() {
            return Err(bad(last, offsets[last]));
        }
        let misfit = if last == 0 { !labels.is_empty() } else { !labels.len().is_multiple_of(last) };
        if misfit {
            return Err(BatchError::Labels { labels: labels.len(), rows: last });
        }
        Ok(Self { tokens, offsets, labels })
    }

    /// Adds one sequence and its target (empty when there is none). Every sequence of a batch takes a target of one
    /// length.
    ///
    /// # Errors
    /// [`BatchError::Labels`] when the target's length differs from the earlier ones.
    pub fn push(&mut self, tokens: &[u32], target: &[u32]) -> Result<(), BatchError> {
        if !self.is_empty() && target.len() != self.target_len() {
            return Err(BatchError::Labels { labels: self.labels.len() + target.len(), rows: self.len() + 1 });
        }
        self.tokens.extend_from_slice(tokens);
        self.offsets.push(self.tokens.len() as u32);
        self.labels.extend_from_slice(target);
        Ok(())
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All tokens, end to end.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Where each sequence starts in [`tokens`](Self::tokens), and the end of the last.
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// Targets, row-major `(rows, target length)`; empty when there are none.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Tokens in each target; 0 when there are none.
    pub fn target_len(&self) -> usize {
        if self.is_empty() { 0 } else { self.labels.len() / self.len() }
    }

    /// The tokens of sequence `i`, or `None` past the end.
    pub fn sequence(&self, i: usize) -> Option<&[u32]> {
        let (start, end) = (*self.offsets.get(i)?, *self.offsets.get(i + 1)?);
        self.tokens.get(start as usize..end as usize)
    }

    /// The tokens of every sequence, in order.
    pub fn sequences(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.offsets.windows(2).map(|w| &self.tokens[w[0] as usize..w[1] as usize])
    }

    /// The sequences of a range of rows and their targets, as a batch of its own; what lies past the end is left out.
    #[must_use]
    pub fn slice(&self, rows: Range<usize>) -> Self {
        let end = rows.end.min(self.len());
        let start = rows.start.min(end);
        let first = self.offsets[start];
        let targets = self.target_len();
        Self {
            tokens: self.tokens[first as usize..self.offsets[end] as usize].to_vec(),
            offsets: self.offsets[start..=end].iter().map(|offset| offset - first).collect(),
            labels: self.labels[start * targets..end * targets].to_vec(),
        }
    }

    /// Length of the longest sequence.
    pub fn max_len(&self) -> usize {
        self.sequences().map(<[u32]>::len).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_an_empty_batch() {
        let mut batch = RaggedBatch::default();
        assert_eq!(batch, RaggedBatch::new());
        batch.push(&[3, 4], &[5]).unwrap();
        assert_eq!((batch.len(), batch.sequence(0)), (1, Some(&[3, 4][..])));
    }

    #[test]
    fn a_slice_holds_its_rows() {
        let mut batch = RaggedBatch::new();
        for row in 0..5u32 {
            batch.push(&(0..row).collect::<Vec<_>>(), &[row, 9]).unwrap();
        }
        let part = batch.slice(2..4);
        assert_eq!(part.sequences().collect::<Vec<_>>(), [&[0, 1][..], &[0, 1, 2]]);
        assert_eq!((part.labels(), part.target_len()), (&[2, 9, 3, 9][..], 2));
        assert_eq!(batch.slice(0..9), batch);
        assert_eq!(batch.slice(4..4), RaggedBatch::new());
        assert_eq!(batch.slice(7..9), RaggedBatch::new());
    }
}
