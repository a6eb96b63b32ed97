//! Finite scalar quantisation: an autoencoder whose latent features are rounded to a few values each.

mod bottleneck;
mod builder;
mod config;
mod grid;
mod model;

pub use config::FsqConfig;
pub use model::Fsq;

#[cfg(test)]
mod tests;
