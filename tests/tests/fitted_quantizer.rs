//! Runs over a quantiser that was fitted elsewhere.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path};

use candle_core::Device;
use genrec::{
    Error, Recommender,
    pipeline::{self, Event, TigerConfig},
    quantize::{AnyQuantizer, ArrayRows, Fit, QuantizerConfig, ResidualKMeansConfig},
};
use genrec_tests::{small_config, small_shop};
use ndarray::{Array2, Axis, concatenate};

fn run(dir: &Path, config: &TigerConfig, resume: bool) -> genrec::Result<pipeline::Outcome> {
    pipeline::run(&small_shop().dataset, config, dir, &Device::Cpu, None, resume, &mut |_: &Event<'_>| {})
}

/// Fits the settings of a run to its embeddings twice over, scaled: other rows than the run's own, of the same width.
fn fit(config: &TigerConfig, embeddings: &Path, dir: &Path) -> AnyQuantizer {
    let rows: Array2<f32> = genrec::embed::io::read_safetensors(embeddings).unwrap();
    let more = concatenate(Axis(0), &[rows.view(), rows.mapv(|value| 0.5 * value).view()]).unwrap();
    let settings = config.clone().seeded().quantizer;
    let fitted = settings.fit(&mut ArrayRows::from(more.view())).unwrap();
    fitted.save(dir).unwrap();
    fitted
}

#[test]
fn it_is_taken_as_it_is() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let [own, shared, again, saved] = ["own", "shared", "again", "saved"].map(|name| dir.path().join(name));
    let config = small_config();
    run(&own, &config, false)?;
    let fitted = fit(&config, &own.join("embeddings.safetensors"), &saved);

    let config = config.with_fitted_quantizer(&saved);
    run(&shared, &config, false)?;
    let index = Recommender::load(&shared, &Device::Cpu)?.index().codebook();
    assert_eq!(index.map(|id| id.0), Some(fitted.fingerprint()?));
    let read = |dir: &Path| fs::read(dir.join("index/index.safetensors")).unwrap();
    assert_ne!(read(&own), read(&shared));

    // Another seed of everything else.
    run(&again, &config.clone().with_seed(config.seed + 1), false)?;
    assert_eq!(Recommender::load(&again, &Device::Cpu)?.index().codebook(), index);

    // The run has its own copy.
    fs::remove_dir_all(&saved).unwrap();
    run(&shared, &config, true)?;
    Ok(())
}

#[test]
fn one_of_other_settings_is_refused_before_anything_is_written() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let [own, saved, new] = ["own", "saved", "new"].map(|name| dir.path().join(name));
    let config = small_config();
    run(&own, &config, false)?;
    fit(&config, &own.join("embeddings.safetensors"), &saved);

    let other = QuantizerConfig::ResidualKMeans(ResidualKMeansConfig::default().with_codebook_sizes([4, 4]));
    let other = config.clone().with_quantizer(other).with_fitted_quantizer(&saved);
    let error = run(&new, &other, false).unwrap_err();
    assert!(matches!(error, Error::Config { field: "fitted_quantizer", .. }), "{error}");
    assert!(error.to_string().contains("fitted with"), "{error}");
    let nowhere = config.with_fitted_quantizer(dir.path().join("nowhere"));
    assert!(matches!(run(&new, &nowhere, false), Err(Error::Quantize(_))));
    assert!(!new.exists(), "nothing was written");
    Ok(())
}
