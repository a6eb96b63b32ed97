//! Fitting a quantiser, as a stage of a run.

use std::{io::ErrorKind, path::Path};

use candle_core::Device;
use genrec::{
    Error, Recommender,
    artifacts::RunDir,
    pipeline::{self, Event, Stage, TigerConfig},
    quantize::{AnyQuantizer, QuantizeError, QuantizerConfig, RqVaeConfig},
};

use super::{kill, report};
use crate::tiny;

/// About half of the time goes into the fit.
fn config() -> TigerConfig {
    let rq_vae =
        RqVaeConfig::default().with_hidden([64]).with_latent_dim(8).with_codebook_sizes([16, 16]).with_epochs(3_000);
    tiny::config().with_quantizer(QuantizerConfig::RqVae(rq_vae))
}

pub(super) fn work(root: &Path) {
    let mut observer = |event: &Event<'_>| {
        if let Event::Finished { stage: Stage::Quantize, .. } = event {
            report("the quantiser");
        }
    };
    pipeline::run(&tiny::shop(), &config(), root, &Device::Cpu, None, true, &mut observer).unwrap();
}

#[test]
fn a_quantizer_is_there_or_fitted_again() {
    let found = |dir: &Path, done: &[String]| {
        let run = RunDir::new(dir);
        let read = AnyQuantizer::load(run.quantizer(), &Device::Cpu);
        if let Err(error) = &read {
            let missing = |path: &Path| path.starts_with(run.quantizer()) && !path.exists();
            assert!(
                matches!(error, QuantizeError::Io { path, source } if source.kind() == ErrorKind::NotFound && missing(path)),
                "{error}"
            );
            assert_eq!(done, [""; 0], "a quantiser that was reported is gone");
        }
        match Recommender::load(dir, &Device::Cpu) {
            Ok(_) => assert!(read.is_ok()),
            Err(error) => assert!(matches!(&error, Error::MissingArtifact { path } if !path.exists()), "{error}"),
        }
        if read.is_ok() { "a quantiser".to_owned() } else { "none yet".to_owned() }
    };
    kill("fit", |_| (), found);
}
