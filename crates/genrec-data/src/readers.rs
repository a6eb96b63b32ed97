//! Readers of the formats in which interaction data is published.
//!
//! [`neutral`] gives a [`Dataset`](crate::Dataset) at once; the others an interaction log and
//! items, which a filter turns into one. Gzipped files are recognised by their first bytes. All are
//! streamed line by line; what is malformed is placed by file, line and column.

pub mod neutral;
mod text;
