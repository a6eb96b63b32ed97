//! Item numbers and Semantic IDs.

use serde::{Deserialize, Serialize};

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

/// The codes of one item from coarse to fine, then its collision suffix where the layout has one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SemanticId(Box<[u32]>);

impl SemanticId {
    /// Codes in order.
    pub fn codes(&self) -> &[u32] {
        &self.0
    }
}

impl From<Vec<u32>> for SemanticId {
    fn from(codes: Vec<u32>) -> Self {
        Self(codes.into_boxed_slice())
    }
}

impl From<&[u32]> for SemanticId {
    fn from(codes: &[u32]) -> Self {
        Self(codes.into())
    }
}

impl std::ops::Deref for SemanticId {
    type Target = [u32];

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
