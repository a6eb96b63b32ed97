//! Fits a quantiser before a progress bar, encodes every row, and keeps the codes.

use std::{collections::BTreeMap, fs::File, io::BufWriter, io::Write, ops::ControlFlow, path::Path, time::Instant};

use candle_core::Device;
use genrec::quantize::{
    self, AnyQuantizer, ArrayRows, EpochReport, Fit, FitControl, QuantizerConfig, RowSource, usage,
};
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use ndarray_npy::{ReadNpyExt, WriteNpyExt};
use serde::{Deserialize, Serialize};

use crate::{BoxError, Progress};

/// Rows that a device encodes together.
const ENCODE_ROWS: usize = 4096;

/// How long it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Effort {
    /// Seconds of the fit.
    pub seconds: f64,
    /// Passes over the rows that the fit reported: epochs, Lloyd iterations; 0 where nothing is learned step by step.
    pub epochs: usize,
    /// Rows encoded a second, reading included.
    pub encode_rows_per_second: f64,
    /// By how much of it the reconstruction error of training still fell in the last tenth of the passes, at the level where it
    /// fell most; `None` where nothing is learned step by step. Below 0.01 longer training would gain little.
    #[serde(default)]
    pub last_tenth_gain: Option<f64>,
}

/// A quantiser and what it made of the rows it was fitted on.
#[derive(Debug)]
pub struct Fitted {
    /// The quantiser.
    pub quantizer: AnyQuantizer,
    /// `(rows, levels)`.
    pub codes: Array2<u32>,
    /// What it took.
    pub effort: Effort,
}

struct FitBar {
    progress: Progress,
    epochs: usize,
    /// Reconstruction errors pass by pass, of each level that is fitted by itself.
    errors: BTreeMap<Option<usize>, Vec<f64>>,
}

impl FitBar {
    fn last_tenth_gain(&self) -> Option<f64> {
        let gain = |errors: &Vec<f64>| {
            let (last, before) = (errors.last()?, errors.get((errors.len() * 9 / 10).checked_sub(1)?)?);
            (*before > 0.0).then_some((before - last) / before)
        };
        self.errors.values().filter_map(gain).reduce(f64::max)
    }
}

impl FitControl for FitBar {
    fn on_epoch(&mut self, epoch: &EpochReport) -> ControlFlow<()> {
        self.epochs = epoch.epoch;
        self.errors.entry(epoch.level).or_default().push(epoch.reconstruction);
        self.progress.set(epoch.epoch, epoch.epochs);
        let level = epoch.level.map_or_else(String::new, |level| format!("level {} ", level + 1));
        self.progress.message(format!("{level}loss {:.4}", epoch.loss));
        ControlFlow::Continue(())
    }
}

/// Fits and encodes; the rows are read in blocks where they are not in memory. `behaviour` is for settings that align codes with
/// it; others leave it alone.
///
/// # Errors
/// When the fit fails or the rows cannot be read.
pub fn fit(
    name: &str,
    config: &QuantizerConfig,
    rows: &mut dyn RowSource,
    behaviour: Option<ArrayView2<'_, f32>>,
    device: &Device,
) -> Result<Fitted, BoxError> {
    let mut watch = FitBar { progress: Progress::new(name), epochs: 0, errors: BTreeMap::new() };
    let start = Instant::now();
    let quantizer = match (config, behaviour) {
        (QuantizerConfig::RqVae(config), Some(behaviour)) if config.alignment.is_some() => {
            config.fit_aligned(rows, &mut ArrayRows::from(behaviour), device, &mut watch)?.into()
        }
        _ => config.fit_on(rows, device, &mut watch)?,
    };
    let seconds = start.elapsed().as_secs_f64();
    let (epochs, last_tenth_gain) = (watch.epochs, watch.last_tenth_gain());
    drop(watch);
    let start = Instant::now();
    let codes = usage::encode_rows(&quantizer, &mut Counted::new(rows, "encode"), ENCODE_ROWS)?;
    let rate = codes.nrows() as f64 / start.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
    let effort = Effort { seconds, epochs, encode_rows_per_second: rate, last_tenth_gain };
    Ok(Fitted { quantizer, codes, effort })
}

/// Rows whose reading from start to end is shown.
pub(crate) struct Counted<'a> {
    rows: &'a mut dyn RowSource,
    progress: Progress,
}

impl<'a> Counted<'a> {
    pub(crate) fn new(rows: &'a mut dyn RowSource, name: &str) -> Self {
        Self { rows, progress: Progress::new(name) }
    }
}

impl RowSource for Counted<'_> {
    fn dim(&self) -> usize {
        self.rows.dim()
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn read(&mut self, start: usize, out: ArrayViewMut2<'_, f32>) -> Result<(), quantize::QuantizeError> {
        self.progress.set(start, self.rows.len());
        self.rows.read(start, out)
    }

    fn slice(&self, start: usize, count: usize) -> Option<&[f32]> {
        self.progress.set(start, self.rows.len());
        self.rows.slice(start, count)
    }

    fn gather(&mut self, rows: &[usize], out: ArrayViewMut2<'_, f32>) -> Result<(), quantize::QuantizeError> {
        self.rows.gather(rows, out)
    }
}

/// Writes codes as a `.npy` array of shape `(items, levels)`, `u32`.
///
/// # Errors
/// When the file cannot be written; it is named.
pub fn write_codes(path: &Path, codes: ArrayView2<'_, u32>) -> Result<(), BoxError> {
    let temporary = path.with_added_extension("tmp");
    let write = || -> Result<(), BoxError> {
        let mut file = BufWriter::new(File::create(&temporary)?);
        codes.as_standard_layout().write_npy(&mut file)?;
        file.flush()?;
        drop(file);
        Ok(std::fs::rename(&temporary, path)?)
    };
    write().map_err(|error| format!("cannot write `{}`: {error}", path.display()).into())
}

/// Reads what [`write_codes`] wrote.
///
/// # Errors
/// When the file cannot be read or is no such array; it is named.
pub fn read_codes(path: &Path) -> Result<Array2<u32>, BoxError> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    let codes = Array2::read_npy(bytes.as_slice());
    codes.map_err(|error| format!("`{}` holds no codes: {error}; delete it", path.display()).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use genrec::quantize::ResidualKMeansConfig;

    use super::*;

    #[test]
    fn codes_are_written_and_read() {
        let embeddings = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
        let config = ResidualKMeansConfig::default().with_codebook_sizes([8, 4]).into();
        let fitted = fit("test", &config, &mut ArrayRows::from(embeddings.view()), None, &Device::Cpu).unwrap();
        assert_eq!(fitted.codes.dim(), (64, 2));
        assert!(fitted.effort.epochs > 0 && fitted.effort.encode_rows_per_second > 0.0);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("codes.npy");
        write_codes(&path, fitted.codes.view()).unwrap();
        assert_eq!(read_codes(&path).unwrap(), fitted.codes);
        std::fs::write(&path, "no array").unwrap();
        assert!(read_codes(&path).unwrap_err().to_string().contains("codes.npy"));
    }
}
