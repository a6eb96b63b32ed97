//! Texts to token ids by `tokenizer.json`.

use std::path::{Path, PathBuf};

use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

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

    /// Fails unless the special tokens leave room for one of the text.
    pub(crate) fn set_max_length(&mut self, max_length: usize) -> Result<()> {
        let special = self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if max_length <= special {
            let bound = "above the number of special tokens that the tokenizer adds, and at least 1";
            return Err(EmbedError::Config { field: "max_length", value: max_length.to_string(), bound });
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(dir: &Path, post_processor: &str) {
        let json = format!(
            r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
                "pre_tokenizer": {{"type": "Whitespace"}}, "post_processor": {post_processor}, "decoder": null,
                "model": {{"type": "WordLevel", "vocab": {{"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}}, "unk_token": "[UNK]"}}}}"#
        );
        std::fs::write(dir.join("tokenizer.json"), json).unwrap();
    }

    #[test]
    fn a_length_needs_room_beside_the_special_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let bert = r#"{"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}"#;
        for (post_processor, special) in [("null", 0), (bert, 2)] {
            tokenizer(dir.path(), post_processor);
            let mut tokens = Tokens::open(dir.path(), 8).unwrap();
            for length in 0..=special {
                let value = length.to_string();
                for error in
                    [tokens.set_max_length(length).unwrap_err(), Tokens::open(dir.path(), length).err().unwrap()]
                {
                    assert!(matches!(error, EmbedError::Config { field: "max_length", value: v, .. } if v == value));
                }
            }
            assert_eq!(tokens.max_length(), 8, "what is refused changes nothing");
            tokens.set_max_length(special + 1).unwrap();
            assert_eq!(tokens.encode(&["a a a a".to_owned()]).unwrap()[0].len(), special + 1);
        }
    }
}
