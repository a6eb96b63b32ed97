//! A quantiser is fitted and saved.

use std::path::Path;

use candle_core::Device;
use genrec::quantize::{AnyQuantizer, ArrayRows, Fit, QuantizerConfig, ResidualKMeansConfig};
use ndarray::Array2;

use super::{BoxError, Work};

pub(crate) const QUANTIZER: Work = Work::new("quantizer", fit, is_done);

/// One that was fitted on rows which differ by the seed.
pub(super) fn fitted(seed: usize) -> Result<AnyQuantizer, BoxError> {
    let config = ResidualKMeansConfig::default().with_codebook_sizes([8, 8]);
    let rows = Array2::from_shape_fn((80, 6), |(row, column)| ((row * (7 + seed) + column * 5) % 23) as f32 / 23.0);
    Ok(QuantizerConfig::ResidualKMeans(config).fit(&mut ArrayRows::from(rows.view()))?)
}

fn fit(root: &Path) -> Result<(), BoxError> {
    Ok(fitted(0)?.save(root.join("quantizer"))?)
}

fn is_done(root: &Path) -> bool {
    let read = AnyQuantizer::load(root.join("quantizer"), &Device::Cpu);
    assert!(read.as_ref().is_ok() == root.join("quantizer/config.json").exists());
    read.is_ok_and(|read| {
        assert_eq!(read.fingerprint().unwrap(), fitted(0).unwrap().fingerprint().unwrap());
        true
    })
}
