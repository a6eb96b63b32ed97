//! What becomes of items whose codes are equal.

use serde::{Deserialize, Serialize};

/// What becomes of items whose codes are equal.
///
/// A third way is to have fewer of them: [`Reassign`](crate::Reassign) gives items other codes before the index is made.
/// Where it leaves no two items equal, both policies tell all items apart, and [`Share`](Self::Share) needs no suffix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CollisionPolicy {
    /// A last code, the suffix, numbers them in item order: (12, 24, 52, 0), (12, 24, 52, 1). Items that collide with
    /// none have suffix 0 (TIGER, arXiv 2305.05065, section 3.1). The default: every item can be told apart.
    #[default]
    Suffix,
    /// They keep one Semantic ID together; generating it retrieves them all.
    Share,
}
