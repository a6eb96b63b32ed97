//! Item text to content embeddings: BERT family, Sentence-T5, decoder LLMs and a weight-free TF-IDF default.

mod embedder;
mod error;
mod hash;
mod text;

pub mod io;
pub mod tfidf;

pub use embedder::Embedder;
pub use error::{ArrayProblem, EmbedError, Result};
pub use text::{TextLine, TextTemplate};
pub use tfidf::{Tfidf, TfidfConfig};
