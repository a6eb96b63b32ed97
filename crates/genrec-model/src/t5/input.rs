//! Ragged host batches to padded tensors, checked on the way.

use candle_core::{Device, Result, Tensor};

use crate::{batch::RaggedBatch, error::InputError};

/// Sequences padded to the longest of them.
#[derive(Debug)]
pub(crate) struct Padded {
    /// `(rows, positions)`, `u32`.
    pub(crate) ids: Tensor,
    /// Real positions of each row.
    pub(crate) lengths: Vec<u32>,
}

impl Padded {
    /// Lays out the given rows of a batch, in the given order.
    pub(crate) fn new(batch: &RaggedBatch, rows: &[usize], pad: u32, device: &Device) -> Result<Self> {
        let sequences: Vec<&[u32]> = rows.iter().filter_map(|row| batch.sequence(*row)).collect();
        let longest = sequences.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(sequences.len() * longest);
        for tokens in &sequences {
            ids.extend_from_slice(tokens);
            ids.resize(ids.len() + longest - tokens.len(), pad);
        }
        let lengths =
            sequences.iter().map(|tokens| u32::try_from(tokens.len())).collect::<std::result::Result<_, _>>()?;
        Ok(Self { ids: Tensor::from_vec(ids, (sequences.len(), longest), device)?, lengths })
    }
}

/// Checks that every sequence holds a token and every token is in the vocabulary.
pub(crate) fn check_sources(batch: &RaggedBatch, vocab_size: usize) -> std::result::Result<(), InputError> {
    if batch.is_empty() {
        return Err(InputError::EmptyBatch);
    }
    for (row, tokens) in batch.sequences().enumerate() {
        if tokens.is_empty() {
            return Err(InputError::EmptySequence { row });
        }
        if let Some(position) = tokens.iter().position(|token| *token as usize >= vocab_size) {
            return Err(InputError::Token { row, position, token: tokens[position], vocab_size });
        }
    }
    Ok(())
}

/// Checks that there are targets and every target token is in the vocabulary.
pub(crate) fn check_labels(batch: &RaggedBatch, vocab_size: usize) -> std::result::Result<(), InputError> {
    let targets = batch.target_len();
    if targets == 0 {
        return Err(InputError::NoLabels);
    }
    match batch.labels().iter().position(|token| *token as usize >= vocab_size) {
        Some(i) => {
            Err(InputError::Label { row: i / targets, position: i % targets, token: batch.labels()[i], vocab_size })
        }
        None => Ok(()),
    }
}
