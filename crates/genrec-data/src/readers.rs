//! Readers of the formats in which interaction data is published.
//!
//! [`neutral`] gives a [`Dataset`](crate::Dataset) at once; the others an [`InteractionLog`](crate::InteractionLog) and
//! items, which [`Prepare`](crate::Prepare) turns into one. Gzipped files are recognised by their first bytes. All are
//! streamed; what is malformed is placed by file, line and column.

pub mod amazon;
mod delimited;
pub mod movielens;
pub mod neutral;
pub mod recbole;
mod records;
pub mod tabular;
mod text;

#[cfg(test)]
mod tests;
