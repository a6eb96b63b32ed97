//! Shared by the cross-crate tests.

pub mod manifest;

use genrec::{
    data::{Synthetic, SyntheticConfig},
    pipeline::TigerConfig,
    quantize::{QuantizerConfig, RqVaeConfig},
};

/// A synthetic shop with few users.
///
/// # Panics
/// When the generator refuses its own defaults.
#[allow(clippy::expect_used, reason = "a test that cannot make its data has failed")]
pub fn small_shop() -> Synthetic {
    SyntheticConfig::default().with_users(150).with_seed(11).generate().expect("the defaults are valid")
}

/// The preset `cpu` made small: every stage in seconds, with an RQ-VAE in the place of its k-means, dropout and user tokens.
pub fn small_config() -> TigerConfig {
    let rq_vae = RqVaeConfig::default()
        .with_hidden([32])
        .with_latent_dim(8)
        .with_codebook_sizes([32, 32, 32])
        .with_batch_size(256)
        .with_epochs(6);
    let mut config = TigerConfig::cpu().with_seed(5).with_quantizer(QuantizerConfig::RqVae(rq_vae));
    config.model = config.model.with_layers(1, 1).with_d_model(16).with_heads(2, 8).with_d_ff(32);
    config.train.epochs = Some(2);
    config.train.checkpoint_every_steps = 3;
    config.validation_users = Some(40);
    config.invalid_rate_users = 20;
    config
}

/// The example of the repository's README, compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
