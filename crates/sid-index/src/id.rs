//! Item numbers and Semantic IDs.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// A dense row of the catalogue, counted from zero. Never a token, never a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemId(pub u32);

impl ItemId {
    /// The row as an index into arrays.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl std::fmt::Display for ItemId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The codes of one item from coarse to fine, then its collision suffix where the layout has one. Up to eight codes are
/// held without an allocation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SemanticId(SmallVec<[u32; 8]>);

impl SemanticId {
    /// Codes in order.
    pub fn codes(&self) -> &[u32] {
        &self.0
    }
}

impl From<Vec<u32>> for SemanticId {
    fn from(codes: Vec<u32>) -> Self {
        Self(SmallVec::from_vec(codes))
    }
}

impl From<&[u32]> for SemanticId {
    fn from(codes: &[u32]) -> Self {
        Self(SmallVec::from_slice(codes))
    }
}

impl FromIterator<u32> for SemanticId {
    #[inline]
    fn from_iter<T: IntoIterator<Item = u32>>(codes: T) -> Self {
        Self(codes.into_iter().collect())
    }
}

impl std::ops::Deref for SemanticId {
    type Target = [u32];

    #[inline]
    fn deref(&self) -> &[u32] {
        &self.0
    }
}

impl std::fmt::Display for SemanticId {
    /// Writes `(12, 24, 52, 0)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(")?;
        for (i, code) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{code}")?;
        }
        f.write_str(")")
    }
}

/// Which trained codebook the codes of an index come from: a hash of everything that turns an embedding into codes.
///
/// An index that records one refuses codes of another ([`SidIndex::check_codebook`](crate::SidIndex::check_codebook)):
/// codes of two quantisers look alike and mean different things. Prints and is stored as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CodebookId(pub [u8; 16]);

impl std::fmt::Display for CodebookId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<CodebookId> for String {
    fn from(id: CodebookId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for CodebookId {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let digits = Some(&text).filter(|text| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()));
        let id = digits.and_then(|text| u128::from_str_radix(text, 16).ok());
        id.map(|id| Self(id.to_be_bytes()))
            .ok_or_else(|| format!("a codebook id is 32 hexadecimal digits, not {text:?}"))
    }
}
