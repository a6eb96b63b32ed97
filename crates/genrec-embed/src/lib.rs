//! Item text to content embeddings: BERT family, Sentence-T5, decoder LLMs and a weight-free TF-IDF default.
//!
//! A generative recommender starts from what its items say: title, brand, categories become one text,
//! the text becomes a vector, and the vector is quantised into a Semantic ID. This crate does the
//! first two steps.
//!
//! # When to depend on it
//! The facade `genrec` embeds a catalogue, and later its new items, by itself. Depend on this crate to
//! embed texts on their own, to bring an [`Embedder`] of yours, or to exchange arrays with NumPy.
//!
//! # The types that matter
//! - [`Embedder`]: texts in, one row a text out; the contract to bring your own.
//! - [`AnyEmbedder`]: the built-in ones ([`Tfidf`], [`Bert`], [`SentenceT5`], [`CausalLm`]) by value of an
//!   [`EmbedderSpec`], saved into and loaded from a run directory.
//! - [`behaviour::Blend`]: content with who takes what, side by side; [`behaviour::embed`]: behaviour alone.
//! - [`EmbeddingCache`]: embeds only texts it has not seen, [`TextTemplate`]: fields to text.
//!
//! ```
//! use std::borrow::Cow;
//! use candle_core::Device;
//! use genrec_embed::{AnyEmbedder, Embedder, EmbedderSpec, TextTemplate, TfidfConfig};
//!
//! # fn main() -> Result<(), genrec_embed::EmbedError> {
//! let items = [("Nail Lacquer, Red", "OPI"), ("Nail Lacquer, Blue", "OPI"), ("Ionic Hair Dryer", "Conair")];
//! let template = TextTemplate::default();
//! let texts: Vec<String> = items
//!     .iter()
//!     .map(|(title, brand)| {
//!         template.render(|field| match field {
//!             "title" => Some(Cow::Borrowed(*title)),
//!             "brand" => Some(Cow::Borrowed(*brand)),
//!             _ => None,
//!         })
//!     })
//!     .collect();
//!
//! // With weights at hand: EmbedderSpec::Bert { dir: "models/all-MiniLM-L6-v2".into() }.
//! let spec = EmbedderSpec::Tfidf(TfidfConfig::default().with_dim(2).with_min_df(1));
//! let embedder = AnyEmbedder::fit(&spec, &texts, &Device::Cpu)?;
//! let rows = embedder.embed(&texts)?;
//! assert_eq!(rows.dim(), (3, embedder.dim()));
//! assert!(rows.row(0).dot(&rows.row(1)) > rows.row(0).dot(&rows.row(2)));
//! # Ok(())
//! # }
//! ```
//!
//! # Which embedder
//! | | weights | width | cost a text | good for |
//! |---|---|---|---|---|
//! | [`Tfidf`] | none | up to 256 | microseconds | quick starts, machines without a model |
//! | [`Bert`] | 90 MB (all-MiniLM-L6-v2) | 384 | milliseconds | the usual choice on a CPU |
//! | [`SentenceT5`] | 440 MB (base) | 768 | some ten milliseconds | what TIGER was published with |
//! | [`CausalLm`] | 27 GB (Llama-2-7b in f32) | 4096 | a GPU's work | the strongest text models |
//!
//! Neural models run on any candle device, from a local directory in Hugging Face's layout. On the CPU
//! one batch runs on each of rayon's threads. Same texts, same model, same device: the same bytes at any number of threads.
//!
//! # Alternatives
//! `fastembed` (ONNX Runtime) has more models ready; sentence-transformers is the reference in
//! Python, whose vectors enter by [`io::read_npy`] or [`io::read_safetensors`].
//!
//! # Features
//! - `hub`: the module `hub`, which downloads models from the Hugging Face Hub. Nothing else uses the network.
//! - `cuda`, `cudnn`, `nccl`, `metal`, `accelerate`, `mkl`: passed through to candle.
//!
//! # References
//! - Rajput et al., *Recommender Systems with Generative Retrieval* (TIGER), 2023, arXiv 2305.05065, section 4.1.
//! - Reimers and Gurevych, *Sentence-BERT*, 2019, arXiv 1908.10084.
//! - Ni et al., *Sentence-T5*, 2021, arXiv 2108.08877.
//! - Halko, Martinsson and Tropp, *Finding Structure with Randomness*, 2011, arXiv 0909.4061.

mod any;
mod bert;
mod causal_lm;
mod embedder;
mod encoder;
mod error;
mod hash;
mod sentence_t5;
mod sparse;
mod svd;
mod text;

pub mod behaviour;
pub mod cache;
#[cfg(feature = "hub")]
pub mod hub;
pub mod io;
pub mod tfidf;

pub use any::{AnyEmbedder, EmbedderSpec, OutsideModel};
pub use bert::Bert;
pub use cache::EmbeddingCache;
pub use causal_lm::CausalLm;
pub use embedder::Embedder;
pub use error::{ArrayProblem, EmbedError, Result};
pub use sentence_t5::SentenceT5;
pub use text::{TextLine, TextTemplate};
pub use tfidf::{Tfidf, TfidfConfig};

/// The examples of the README, compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
