//! Semantic-ID look-up: codes to items and back, collision suffixes, prefix trie and token vocabulary.
//!
//! A quantiser gives every item of a catalogue a tuple of codes; a sequence model generates such tuples token by token.
//! This crate is what lies between: it knows which item has which codes, tells apart items whose codes are equal, says
//! which codes may follow a prefix, and numbers the codes as tokens. Depend on it instead of the facade `genrec` when
//! codes come from elsewhere and a model of your own reads and writes them: it needs no tensor library.
//!
//! - [`SidIndex`] holds both look-up tables and the trie of prefixes, which a constrained decoder walks by [`Node`]; it
//!   takes new items, lets old ones go, and goes to disk and back, where it can be used without being read;
//! - [`ItemFilter`] says which items are allowed, and at once whether any of them lies below a node;
//! - [`LiveIndex`] replaces an index while it is read;
//! - [`Reassign`] gives items whose codes collide the next best codes, now or when they are added;
//! - [`SidVocab`] turns codes into tokens and users into tokens; nothing else does.
//!
//! # Example
//! ```
//! use ndarray::array;
//! use sid_index::{CollisionPolicy, ItemId, SidIndex, SidLayout, SidVocab};
//!
//! // Three levels of 256 codes; items 0 and 2 collide.
//! let layout = SidLayout::new(vec![256, 256, 256])?;
//! let codes = array![[12, 24, 52], [12, 24, 7], [12, 24, 52]];
//! let mut index = SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix)?;
//!
//! assert_eq!(index.sid(ItemId(2)).unwrap().to_string(), "(12, 24, 52, 1)");
//! assert_eq!(index.item(&[12, 24, 52, 0]), Some(ItemId(0)));
//! assert_eq!(index.items_with_prefix(&[12, 24]).collect::<Vec<_>>(), [ItemId(1), ItemId(0), ItemId(2)]);
//!
//! // An item that came later; the Semantic IDs given before stay.
//! assert_eq!(index.insert(&[12, 24, 52])?, ItemId(3));
//! assert_eq!(index.sid(ItemId(3)).unwrap().to_string(), "(12, 24, 52, 2)");
//!
//! let vocab = SidVocab::new(index.layout(), 2000)?;
//! let mut tokens = Vec::new();
//! vocab.encode_sid(&index.sid(ItemId(3)).unwrap(), &mut tokens)?;
//! assert_eq!(tokens, [14, 282, 566, 772]);
//! # Ok::<(), sid_index::IndexError>(())
//! ```
//!
//! # Three kinds of `u32`
//! Items are [`ItemId`]s. Codes are plain `u32`, each below the size of its position. Tokens are plain `u32` as well;
//! codes and tokens meet only in [`SidVocab`].
//!
//! # Alternatives
//! For a constrained decoder alone, the crate `constraint-decoding-trie` builds a trie of fixed-length token sequences;
//! for string keys, `fst`.
//!
//! # Features
//! None.
//!
//! # References
//! Rajput et al., *Recommender Systems with Generative Retrieval* (TIGER), NeurIPS 2023, arXiv 2305.05065: collisions
//! and look-up tables in section 3.1, user tokens in the implementation details of the sequence model.

mod base;
pub mod collision;
mod edit;
pub mod error;
pub mod filter;
pub mod id;
pub mod index;
mod io;
pub mod layout;
pub mod live;
pub mod node;
mod overlay;
mod packed;
pub mod reassign;
mod rows;
mod trie;
pub mod vocab;

pub use collision::CollisionPolicy;
pub use error::{IndexError, Result};
pub use filter::ItemFilter;
pub use id::{CodebookId, ItemId, SemanticId};
pub use index::{IndexBytes, SidIndex};
pub use layout::SidLayout;
pub use live::LiveIndex;
pub use node::{Children, Groups, Items, Node};
pub use reassign::{CodeCosts, Reassign, ReassignMethod, ReassignReport, Reassigned};
pub use vocab::SidVocab;

/// The examples of the README, run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
