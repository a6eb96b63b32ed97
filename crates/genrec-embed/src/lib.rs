//! Item text to content embeddings: BERT family, Sentence-T5, decoder LLMs and a weight-free TF-IDF default.

mod any;
mod bert;
mod causal_lm;
mod embedder;
mod encoder;
mod error;
mod hash;
mod sentence_t5;
mod text;

pub mod cache;
#[cfg(feature = "hub")]
pub mod hub;
pub mod io;
pub mod tfidf;

pub use any::{AnyEmbedder, EmbedderSpec};
pub use bert::Bert;
pub use cache::EmbeddingCache;
pub use causal_lm::CausalLm;
pub use embedder::Embedder;
pub use error::{ArrayProblem, EmbedError, Result};
pub use sentence_t5::SentenceT5;
pub use text::{TextLine, TextTemplate};
pub use tfidf::{Tfidf, TfidfConfig};
