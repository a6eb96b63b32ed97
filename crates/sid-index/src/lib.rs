//! Semantic-ID look-up: codes to items and back, collision suffixes, prefix trie and token vocabulary.

pub mod id;

pub use id::{ItemId, SemanticId};
