//! Texts to token ids by `tokenizer.json`.

use std::path::{Path, PathBuf};

use tokenizers::{Tokenizer, TruncationParams};

use super::files::require;
use crate::{
    error::{EmbedError, Result},
    io::read_file,
};

/// Texts tokenised at once: bounds the memory that offsets and strings take besides the ids.
const CHUNK: usize = 4096;

/// A tokenizer that truncates and never pads.
pub(crate) struct Tokens {
    path: PathBuf,
    tokenizer: Tokenizer,
    max_length: usize,
}

impl Tokens {
    pub(crate) fn open(dir: &Path, max_length: usize) -> Result<Self> {
        let path = require(dir, "tokenizer.json", "save the model's fast tokenizer there")?;
        let tokenizer = Tokenizer::from_bytes(read_file(&path)?).map_err(tokenizer_error(&path))?;
        let mut tokens = Self { path, tokenizer, max_length };
        tokens.tokenizer.with_padding(None);
        tokens.set_max_length(max_length)?;
        Ok(tokens)
    }

    pub(crate) fn set_max_length(&mut self, max_length: usize) -> Result<()> {
        let truncation = TruncationParams { max_length, ..TruncationParams::default() };
        self.tokenizer.with_truncation(Some(truncation)).map_err(tokenizer_error(&self.path))?;
        self.max_length = max_length;
        Ok(())
    }

    pub(crate) fn max_length(&self) -> usize {
        self.max_length
    }

    /// Ids of each text, special tokens included, at most `max_length`.
    pub(crate) fn encode(&self, texts: &[String]) -> Result<Vec<Vec<u32>>> {
        let mut ids = Vec::with_capacity(texts.len());
        for chunk in texts.chunks(CHUNK) {
            let inputs = chunk.iter().map(String::as_str).collect();
            let encodings = self.tokenizer.encode_batch_fast(inputs, true).map_err(tokenizer_error(&self.path))?;
            ids.extend(encodings.iter().map(|encoding| encoding.get_ids().to_vec()));
        }
        Ok(ids)
    }
}

fn tokenizer_error(path: &Path) -> impl FnOnce(tokenizers::Error) -> EmbedError {
    let path = path.to_owned();
    move |source| EmbedError::Tokenizer { path, source }
}
