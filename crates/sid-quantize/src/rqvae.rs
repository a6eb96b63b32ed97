//! RQ-VAE: an autoencoder whose latent vector is quantised residually, level by level.

mod bottleneck;
mod builder;
mod codebooks;
mod config;
mod estimator;
mod fit;
mod init;
mod letter;
mod model;
mod sinkhorn;

pub use codebooks::{CodebookLearning, Ema};
pub use config::RqVaeConfig;
pub use estimator::{Estimator, GumbelSoftmax};
pub use letter::{Alignment, Diversity};
pub use model::RqVae;
pub use sinkhorn::Sinkhorn;

#[cfg(test)]
mod tests;
