//! What the neural embedders share: tokenise, sort by length, run padded batches, pool, project, normalise.

pub(crate) mod bert;
pub(crate) mod files;
pub(crate) mod head;
pub(crate) mod llama;
pub(crate) mod nn;
pub(crate) mod t5;
pub(crate) mod tokens;

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use ndarray::Array2;
use rayon::prelude::*;

use self::{head::Head, tokens::Tokens};
use crate::{
    embedder::check_finite,
    error::{EmbedError, Result},
};

/// Padded tokens of one batch: large enough to fill matrix products, small enough for a cache and for memory.
const BATCH_TOKENS: usize = 4096;

/// Texts of equal or similar length, padded on the right.
#[derive(Debug)]
pub(crate) struct Batch {
    /// `(texts, length)` u32; padding holds token 0.
    pub(crate) ids: Tensor,
    /// Tokens of each text, all at least 1.
    pub(crate) lengths: Vec<usize>,
    /// Padded length.
    pub(crate) length: usize,
}

impl Batch {
    /// 1 for a token, 0 for padding: `(texts, length)` f32.
    pub(crate) fn mask(&self) -> candle_core::Result<Tensor> {
        self.per_position(1.0, 0.0)
    }

    /// What attention adds to scores: 0 for a token, minus infinity for padding; `None` when nothing is
    /// padded. `(texts, 1, 1, length)` f32.
    pub(crate) fn attention_mask(&self) -> candle_core::Result<Option<Tensor>> {
        if self.lengths.iter().all(|length| *length == self.length) {
            return Ok(None);
        }
        Ok(Some(self.per_position(0.0, f32::NEG_INFINITY)?.unsqueeze(1)?.unsqueeze(1)?))
    }

    fn per_position(&self, token: f32, padding: f32) -> candle_core::Result<Tensor> {
        let values: Vec<f32> = self
            .lengths
            .iter()
            .flat_map(|length| (0..self.length).map(move |position| if position < *length { token } else { padding }))
            .collect();
        Tensor::from_vec(values, (self.lengths.len(), self.length), self.ids.device())
    }
}

/// A transformer from tokens to hidden states.
pub(crate) trait Backbone: Send + Sync {
    /// Rows of the embedding table.
    fn vocab_size(&self) -> usize;

    /// Width of a hidden state.
    fn hidden_size(&self) -> usize;

    /// Longest text in tokens, if positions are bounded.
    fn max_positions(&self) -> Option<usize>;

    /// Hidden states `(texts, length, hidden)` f32; those of padding are arbitrary but finite.
    fn forward(&self, batch: &Batch) -> candle_core::Result<Tensor>;
}

/// A transformer with its tokenizer and its head.
pub(crate) struct Encoder {
    family: &'static str,
    dir: PathBuf,
    sha256: String,
    device: Device,
    tokens: Tokens,
    backbone: Box<dyn Backbone>,
    head: Head,
    dim: usize,
    batch_tokens: usize,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("family", &self.family)
            .field("dir", &self.dir)
            .field("dim", &self.dim)
            .field("max_length", &self.tokens.max_length())
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

/// The parts of an [`Encoder`].
pub(crate) struct Parts {
    pub(crate) family: &'static str,
    pub(crate) dir: PathBuf,
    pub(crate) sha256: String,
    pub(crate) device: Device,
    pub(crate) max_length: usize,
    pub(crate) backbone: Box<dyn Backbone>,
    pub(crate) head: Head,
}

impl Encoder {
    pub(crate) fn new(parts: Parts) -> Result<Self> {
        let Parts { family, dir, sha256, device, max_length, backbone, head } = parts;
        let dim = head.dim(backbone.hidden_size());
        let max_length = max_length.min(backbone.max_positions().unwrap_or(usize::MAX));
        let tokens = Tokens::open(&dir, max_length)?;
        tracing::debug!(family, dim, max_length, "opened {}", dir.display());
        Ok(Self { family, dir, sha256, device, tokens, backbone, head, dim, batch_tokens: BATCH_TOKENS })
    }

    pub(crate) fn with_max_length(mut self, max_length: usize) -> Result<Self> {
        if max_length == 0 || self.backbone.max_positions().is_some_and(|most| max_length > most) {
            let bound = "at least 1 and at most the positions of the model";
            return Err(EmbedError::Config { field: "max_length", value: max_length.to_string(), bound });
        }
        self.tokens.set_max_length(max_length)?;
        Ok(self)
    }

    pub(crate) fn with_batch_tokens(mut self, batch_tokens: usize) -> Self {
        self.batch_tokens = batch_tokens.max(1);
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    pub(crate) fn max_length(&self) -> usize {
        self.tokens.max_length()
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn fingerprint(&self) -> String {
        format!("{}:{}:max_length={}", self.family, self.sha256, self.max_length())
    }

    pub(crate) fn embed_with(&self, texts: &[String], progress: &mut dyn FnMut(usize, usize)) -> Result<Array2<f32>> {
        let ids = self.tokens.encode(texts)?;
        let vocab_size = self.backbone.vocab_size();
        if let Some(id) = ids.iter().flatten().find(|id| usize::try_from(**id).is_ok_and(|id| id >= vocab_size)) {
            return Err(EmbedError::TokenOutOfRange { path: self.dir.clone(), id: *id, vocab_size });
        }
        let batches = batches(&ids, self.batch_tokens);
        // One batch a thread on the CPU: the operations between matrix products run on one thread each.
        let at_once = if self.device.is_cpu() { rayon::current_num_threads().max(1) } else { 1 };
        let mut rows = Array2::zeros((texts.len(), self.dim));
        let mut done = texts.len() - batches.iter().map(Vec::len).sum::<usize>();
        for group in batches.chunks(at_once) {
            let outputs: Vec<Vec<Vec<f32>>> =
                group.par_iter().map(|batch| self.forward(&ids, batch)).collect::<Result<_>>()?;
            for (batch, output) in group.iter().zip(outputs) {
                for (row, values) in batch.iter().zip(output) {
                    rows.row_mut(*row).assign(&ndarray::Array1::from(values));
                }
                done += batch.len();
            }
            progress(done, texts.len());
        }
        if batches.is_empty() {
            progress(done, texts.len());
        }
        check_finite(&rows, &|| self.fingerprint())?;
        Ok(rows)
    }

    fn forward(&self, ids: &[Vec<u32>], rows: &[usize]) -> Result<Vec<Vec<f32>>> {
        let lengths: Vec<usize> = rows.iter().map(|row| ids[*row].len()).collect();
        let length = lengths.iter().copied().max().unwrap_or(0);
        let padded: Vec<u32> =
            rows.iter().flat_map(|row| ids[*row].iter().copied().chain(std::iter::repeat(0)).take(length)).collect();
        let ids = Tensor::from_vec(padded, (rows.len(), length), &self.device)?;
        let batch = Batch { ids, lengths, length };
        let hidden = self.backbone.forward(&batch)?;
        Ok(self.head.forward(&hidden, &batch)?)
    }
}

/// Rows grouped by length, longest first, at most `tokens` padded tokens a group but at least one row.
/// Rows without a token are left out.
fn batches(ids: &[Vec<u32>], tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..ids.len()).filter(|row| !ids[*row].is_empty()).collect();
    order.sort_by_key(|row| std::cmp::Reverse(ids[*row].len()));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut longest = 0;
    for row in order {
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1) * longest <= tokens => batch.push(row),
            _ => {
                longest = ids[row].len();
                batches.push(vec![row]);
            }
        }
    }
    batches
}

/// The public face of an [`Encoder`] in a newtype.
macro_rules! embedder_over_encoder {
    ($name:ident) => {
        impl $name {
            /// The model directory.
            pub fn dir(&self) -> &std::path::Path {
                self.0.dir()
            }

            /// SHA-256 over the files that decide the embeddings, in hexadecimal.
            pub fn sha256(&self) -> &str {
                self.0.sha256()
            }

            /// Greatest number of tokens of a text, special tokens included; what is beyond is cut off.
            pub fn max_length(&self) -> usize {
                self.0.max_length()
            }

            /// Sets [`max_length`](Self::max_length).
            ///
            /// # Errors
            /// [`EmbedError::Config`](crate::EmbedError::Config) for no more than the tokenizer adds as special tokens, for 0,
            /// or more than the model has positions for.
            pub fn with_max_length(self, tokens: usize) -> $crate::Result<Self> {
                self.0.with_max_length(tokens).map(Self)
            }

            /// Sets the greatest number of padded tokens in a batch, by default 4096: more fills a GPU
            /// better and takes more memory. Embeddings do not depend on it beyond rounding.
            #[must_use]
            pub fn with_batch_tokens(self, tokens: usize) -> Self {
                Self(self.0.with_batch_tokens(tokens))
            }
        }

        impl $crate::Embedder for $name {
            fn dim(&self) -> usize {
                self.0.dim()
            }

            fn fingerprint(&self) -> String {
                self.0.fingerprint()
            }

            fn embed_with(
                &self,
                texts: &[String],
                progress: &mut dyn FnMut(usize, usize),
            ) -> $crate::Result<ndarray::Array2<f32>> {
                self.0.embed_with(texts, progress)
            }
        }
    };
}
pub(crate) use embedder_over_encoder;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_row_once_and_stay_in_their_budget() {
        let ids: Vec<Vec<u32>> = [3, 0, 9, 1, 3, 7, 2, 20].iter().map(|length| vec![1; *length]).collect();
        let batches = batches(&ids, 12);
        let mut rows: Vec<usize> = batches.concat();
        rows.sort_unstable();
        assert_eq!(rows, [0, 2, 3, 4, 5, 6, 7], "row 1 has no token");
        for batch in &batches {
            let longest = batch.iter().map(|row| ids[*row].len()).max().unwrap();
            assert!(batch.len() == 1 || batch.len() * longest <= 12);
        }
        assert_eq!(batches.len(), 4);
    }

    #[test]
    fn masks_follow_lengths() {
        let ids = Tensor::zeros((2, 3), candle_core::DType::U32, &Device::Cpu).unwrap();
        let batch = Batch { ids: ids.clone(), lengths: vec![3, 1], length: 3 };
        assert_eq!(batch.mask().unwrap().to_vec2::<f32>().unwrap(), [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]);
        let added = batch.attention_mask().unwrap().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(added[3..], [0.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
        assert!(Batch { ids, lengths: vec![3, 3], length: 3 }.attention_mask().unwrap().is_none());
    }
}
