//! Metrics of ranked recommendations, from Recall and NDCG to coverage and invalid ids, with bootstrap intervals over
//! users, paired tests of two systems, and means over seeds.
//!
//! Depend on this crate alone when some other system makes the rankings: it knows items as anything that can be
//! compared and hashed, has no tensors and no files, and needs `thiserror` only. The facade `genrec` evaluates its own
//! recommenders with it.
//!
//! Three types matter. [`Suite`] measures several metrics on the same users and keeps every user's value; [`Metric`]
//! is what accumulates a single number, in pieces that merge; [`Interval`](bootstrap::Interval) is a mean with its
//! confidence interval, for one system or for the paired difference of two.
//!
//! | to know | use |
//! |---|---|
//! | whether the target is found, and how far up | [`Recall`], [`Ndcg`], [`Mrr`], [`HitRate`] |
//! | the same of unseen and of seen items, of head and tail | [`TargetGroups`], a suite for each group of targets |
//! | at which level of the Semantic ID search goes astray | [`LevelAccuracy`] |
//! | how much of what is generated is no item | [`InvalidRate`], by cut-off |
//! | how varied a list is | [`Entropy`] of categories |
//! | what becomes of the catalogue | [`Coverage`], [`Gini`], [`Popularity`] by count, logarithm or novelty |
//! | how far a figure would move with other users | [`bootstrap`], [`Suite::intervals`], [`Suite::compare`] |
//! | whether two systems differ at all | [`significance`], [`Suite::test`] |
//! | how far it would move with another training run | [`seeds`] |
//!
//! ```
//! use genrec_eval::{Suite, bootstrap::BootstrapConfig};
//! # fn main() -> Result<(), genrec_eval::EvalError> {
//! let mut suite = Suite::standard();
//! suite.update(&["soap", "comb", "brush"], &["comb"]); // one user: ranked best first, then what was right
//! suite.update(&["razor", "soap"], &["brush"]);
//! assert_eq!(suite.report()["recall@10"], 0.5);
//! assert_eq!(suite.values("mrr@10"), Some([0.5, 0.0].as_slice()));
//! let interval = suite.intervals(BootstrapConfig::default())?["recall@10"];
//! assert!(interval.contains(0.5));
//! # Ok(())
//! # }
//! ```
//!
//! # Rules
//! Libraries differ in the corner cases; here, with ranks from 1:
//!
//! | case | rule |
//! |---|---|
//! | an item is ranked twice | it counts at its first rank; the repeat takes up a rank and earns nothing |
//! | a relevant item is named twice | it counts once |
//! | the list is shorter than the cut-off | missing ranks are misses |
//! | nothing is relevant for a user | the user is left out of the mean |
//! | more items are relevant than the cut-off | recall divides by all of them, NDCG's ideal by the cut-off |
//! | no user counted | there is no value (`None`), rather than 0 |
//!
//! On lists without repeats, the values agree with `ranx` and scikit-learn to 1e-12, what is not in these with SciPy
//! and NumPy (recorded values, checked by this crate's tests).
//!
//! # Alternatives
//! In Python, `ranx` and `pytrec_eval` cover many more metrics of information retrieval.
//!
//! # Features
//! `serde`: intervals, tests, means over seeds and their configurations can be written and read.
//!
//! # References
//! Rajput et al., *Recommender systems with generative retrieval*, NeurIPS 2023 (arXiv 2305.05065): Recall and NDCG at
//! 5 and 10 over the full catalogue, the share of invalid ids, and entropy. Krichene and Rendle, *On sampled metrics
//! for item recommendation*, KDD 2020: why the ranking should be over the full catalogue.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc(test(attr(deny(warnings))))]

pub mod bootstrap;
mod coverage;
mod entropy;
mod error;
mod exposure;
mod gini;
mod groups;
mod levels;
mod metric;
mod popularity;
mod rank;
mod rng;
pub mod seeds;
pub mod significance;
mod student;
mod suite;
mod validity;

pub use coverage::Coverage;
pub use entropy::Entropy;
pub use error::{EvalError, Result};
pub use gini::Gini;
pub use groups::TargetGroups;
pub use levels::LevelAccuracy;
pub use metric::{ListMetric, Metric};
pub use popularity::{ItemCounts, Popularity, PopularityScale};
pub use rank::{HitRate, Mrr, Ndcg, Recall};
pub use suite::Suite;
pub use validity::InvalidRate;

/// The examples of the README, run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
