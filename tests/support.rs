//! Shared by the cross-crate tests.

pub mod manifest;

use genrec::{
    data::{Synthetic, SyntheticConfig},
    pipeline::TigerConfig,
    quantize::{QuantizerConfig, ResidualKMeansConfig},
};

/// A synthetic shop with few users.
///
/// # Panics
/// When the generator refuses its own defaults.
#[allow(clippy::expect_used, reason = "a test that cannot make its data has failed")]
pub fn small_shop() -> Synthetic {
    SyntheticConfig::default().with_users(150).with_seed(11).generate().expect("the defaults are valid")
}

/// Settings that touch every stage and take seconds.
pub fn small_config() -> TigerConfig {
    let mut config = TigerConfig::quickstart().with_seed(5).with_quantizer(QuantizerConfig::ResidualKMeans(
        ResidualKMeansConfig::default().with_codebook_sizes([32, 32, 32]),
    ));
    config.model = config.model.with_d_model(16).with_d_ff(32);
    config.train.epochs = Some(2);
    config.train.checkpoint_every_steps = 3;
    config.validation_users = Some(40);
    config.invalid_rate_users = 20;
    config
}
