//! RQ-VAE: an autoencoder whose latent vector is quantised residually, level by level.

mod config;
mod dense;
mod estimator;
mod fit;
mod loss;
mod model;

pub use config::RqVaeConfig;
pub use estimator::Estimator;
pub use model::RqVae;

#[cfg(test)]
mod tests;
