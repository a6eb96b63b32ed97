//! Shared by the cross-crate tests.

pub mod manifest;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use genrec::{
    data::{Synthetic, SyntheticConfig},
    pipeline::TigerConfig,
    quantize::{QuantizerConfig, RqVaeConfig},
};

/// A number that the environment sets, or the one of the short form.
///
/// # Panics
/// When it is set and no number.
#[allow(clippy::panic, reason = "the short form in the place of a mistyped long one would pass for it")]
pub fn setting(variable: &str, short: u64) -> u64 {
    match std::env::var(variable) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{variable} is {value:?}, but must be a number")),
        Err(_) => short,
    }
}

/// Says that something is not tried here, and why.
///
/// # Panics
/// Where `GENREC_ALL` asks that nothing be left out.
#[allow(clippy::print_stderr, reason = "a test that does not run says so")]
pub fn not_run(what: &str, why: &str) {
    assert!(std::env::var_os("GENREC_ALL").is_none(), "{what}: {why}");
    eprintln!("NOT RUN: {what}: {why}");
}

/// An error as programs print it: what it says, and what those below it say.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        text += &format!(": {error}");
        below = error.source();
    }
    text
}

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

/// Every file of a directory and of those in it by its path, with the times taken out of the JSON: all that two runs of the same
/// settings may differ in.
///
/// # Panics
/// When a file cannot be read.
#[allow(clippy::unwrap_used, reason = "a test that cannot read what it made has failed")]
pub fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let mut bytes = fs::read(&path).unwrap();
            if path.extension().is_some_and(|extension| extension == "json") {
                let mut value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                drop_times(&mut value);
                bytes = serde_json::to_vec(&value).unwrap();
            }
            files.insert(path.strip_prefix(dir).unwrap().to_path_buf(), bytes);
        }
    }
    files
}

fn drop_times(value: &mut serde_json::Value) {
    if let Some(object) = value.as_object_mut() {
        // The report's entry in the checksums: its times are longer or shorter.
        object.remove("report.json");
        object.retain(|key, _| key != "timing" && !key.contains("seconds") && !key.contains("crc32"));
        // Of a checkpoint: the checksum of what holds the seconds. Weights and optimiser keep theirs.
        if let Some(checksums) = object.get_mut("checksums").and_then(serde_json::Value::as_object_mut) {
            checksums.remove("state");
        }
        object.values_mut().for_each(drop_times);
    } else if let Some(array) = value.as_array_mut() {
        array.iter_mut().for_each(drop_times);
    }
}

/// Panics where two directories, as [`contents`] read them, are not the same.
///
/// # Panics
/// It names the first file that differs.
pub fn assert_same(a: &BTreeMap<PathBuf, Vec<u8>>, b: &BTreeMap<PathBuf, Vec<u8>>) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (path, bytes) in a {
        assert!(bytes == &b[path], "{} differs", path.display());
    }
}

/// The example of the repository's README, compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The example of the tutorial, run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/tutorial.md")]
struct Tutorial;
