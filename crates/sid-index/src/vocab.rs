//! Codes to tokens and back.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{
    error::{IndexError, Result},
    id::SemanticId,
    layout::SidLayout,
};

/// The token numbers of a sequence model over Semantic IDs.
///
/// | tokens | meaning |
/// |---|---|
/// | 0 | [`PAD`](Self::PAD), also what decoding starts from |
/// | 1 | [`EOS`](Self::EOS) |
/// | 2 .. | the values of position 0, then those of position 1, and so on; the suffix has its own range |
/// | the last ones | user tokens |
///
/// Every position has a range of its own, so a token says by itself where in a Semantic ID it stands. Codes and tokens
/// are both `u32`; this type is the only place where one becomes the other.
///
/// A user's key is hashed onto one of the user tokens (TIGER, arXiv 2305.05065, has 2,000), so that any
/// user has a token, at the price that some share one.
///
/// ```
/// use sid_index::{SidLayout, SidVocab};
///
/// let vocab = SidVocab::new(&SidLayout::new(vec![256, 256, 256])?, 2000)?;
/// assert_eq!(vocab.size(), 2 + 4 * 256 + 2000);
/// assert_eq!(vocab.token(1, 24), Some(2 + 256 + 24));
/// assert_eq!(vocab.code(2 + 256 + 24), Some((1, 24)));
/// assert_eq!(vocab.user("A1YJEY40YUW4SE"), Some(2889));
///
/// let mut tokens = Vec::from_iter(vocab.user("A1YJEY40YUW4SE"));
/// vocab.encode_sid(&[12, 24, 52, 0], &mut tokens)?;
/// assert_eq!(tokens[1..], [14, 282, 566, 770]);
/// assert_eq!(vocab.decode_tokens(&tokens[1..]).as_deref(), Some(&[12, 24, 52, 0][..]));
/// # Ok::<(), sid_index::IndexError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Parts", try_from = "Parts")]
pub struct SidVocab {
    layout: SidLayout,
    /// First token of each position, then the first user token.
    starts: Vec<u32>,
    user_tokens: u32,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    layout: SidLayout,
    user_tokens: u32,
}

impl SidVocab {
    /// Fills the end of short sequences; decoding starts from it.
    pub const PAD: u32 = 0;

    /// Ends a sequence.
    pub const EOS: u32 = 1;

    /// User tokens in the paper (arXiv 2305.05065, implementation details of the sequence model).
    pub const PAPER_USER_TOKENS: u32 = 2000;

    const SPECIALS: u32 = 2;

    /// The vocabulary of a layout with `user_tokens` user tokens (the paper: 2,000; 0 for a model without them).
    ///
    /// # Errors
    /// When the layout is not valid or the vocabulary does not fit in `u32`.
    pub fn new(layout: &SidLayout, user_tokens: u32) -> Result<Self> {
        layout.validate()?;
        let codes: u64 = layout.sizes().iter().map(|&size| u64::from(size)).sum();
        let total = codes + u64::from(Self::SPECIALS) + u64::from(user_tokens);
        if total > u64::from(u32::MAX) {
            return Err(IndexError::LayoutTooLarge { total, max: u64::from(u32::MAX) });
        }
        let mut starts = Vec::with_capacity(layout.positions() + 1);
        let mut next = Self::SPECIALS;
        starts.push(next);
        for size in layout.sizes() {
            next += size;
            starts.push(next);
        }
        Ok(Self { layout: layout.clone(), starts, user_tokens })
    }

    /// The layout whose codes the vocabulary numbers.
    pub fn layout(&self) -> &SidLayout {
        &self.layout
    }

    /// Number of tokens.
    pub fn size(&self) -> usize {
        self.user_range().end as usize
    }

    /// The token of a code, or `None` past the last position or outside its size.
    pub fn token(&self, position: usize, code: u32) -> Option<u32> {
        let size = *self.layout.sizes().get(position)?;
        (code < size).then(|| self.starts[position] + code)
    }

    /// The position and code that a token stands for, or `None` for special and user tokens.
    pub fn code(&self, token: u32) -> Option<(usize, u32)> {
        if token < Self::SPECIALS || token >= self.user_range().start {
            return None;
        }
        let position = self.starts.partition_point(|&start| start <= token) - 1;
        Some((position, token - self.starts[position]))
    }

    /// The tokens of a position; empty past the last one.
    pub fn position_range(&self, position: usize) -> Range<u32> {
        match self.starts.get(position..position.saturating_add(2)) {
            Some(&[start, end]) => start..end,
            _ => 0..0,
        }
    }

    /// Number of user tokens.
    pub fn user_tokens(&self) -> u32 {
        self.user_tokens
    }

    /// The user tokens.
    pub fn user_range(&self) -> Range<u32> {
        let start = self.starts[self.layout.positions()];
        start..start + self.user_tokens
    }

    /// The token of a user: the first user token plus FNV-1a (64 bits) of the key's UTF-8 bytes modulo
    /// [`user_tokens`](Self::user_tokens), or `None` when there are none.
    ///
    /// The hash is part of the file format: a trained model depends on it, so it never changes. Of 2,000 tokens the key
    /// `"42"` has number 691, `"A1YJEY40YUW4SE"` number 1,863.
    pub fn user(&self, key: &str) -> Option<u32> {
        let number = fnv1a(key.as_bytes()).checked_rem(u64::from(self.user_tokens))?;
        // Below `user_tokens`, hence within u32.
        Some(self.starts[self.layout.positions()] + number as u32)
    }

    /// Appends the tokens of a Semantic ID.
    ///
    /// # Errors
    /// When it has another length than the layout or a code is outside its size; then nothing is appended.
    pub fn encode_sid(&self, sid: &[u32], tokens: &mut Vec<u32>) -> Result<()> {
        if sid.len() != self.layout.positions() {
            return Err(IndexError::Positions { expected: self.layout.positions(), got: sid.len() });
        }
        if let Some((position, code, size)) = self.layout.first_out_of_range(sid) {
            return Err(IndexError::NoSuchCode { position, code, size });
        }
        tokens.extend(sid.iter().zip(&self.starts).map(|(code, start)| start + code));
        Ok(())
    }

    /// The Semantic ID that the tokens spell, or `None` when they are not one token of every position in order.
    ///
    /// Whether an item has that Semantic ID is the [`SidIndex`](crate::SidIndex)'s to say.
    pub fn decode_tokens(&self, tokens: &[u32]) -> Option<SemanticId> {
        if tokens.len() != self.layout.positions() {
            return None;
        }
        let codes: Option<Vec<u32>> = tokens
            .iter()
            .enumerate()
            .map(|(position, &token)| {
                let range = self.position_range(position);
                range.contains(&token).then(|| token - range.start)
            })
            .collect();
        codes.map(SemanticId::from)
    }
}

impl From<SidVocab> for Parts {
    fn from(vocab: SidVocab) -> Self {
        Self { layout: vocab.layout, user_tokens: vocab.user_tokens }
    }
}

impl TryFrom<Parts> for SidVocab {
    type Error = IndexError;

    fn try_from(parts: Parts) -> Result<Self> {
        Self::new(&parts.layout, parts.user_tokens)
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests;
