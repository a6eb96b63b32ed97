//! A pipeline's curves in TensorBoard.

use std::path::Path;

use genrec_train::{Callback, tensorboard as train};
use ndarray::ArrayView2;
use sid_quantize::EpochReport;

use super::{Event, Observer, Report, TigerConfig};
use crate::{Error, Result};

/// Writes what a pipeline does for TensorBoard, as it goes on.
///
/// | tag | |
/// |---|---|
/// | `settings` | the run's settings, as JSON |
/// | `train/...`, `validation/ndcg@10` | as [`genrec_train::tensorboard::TensorBoard`] has them |
/// | `test/...` | the report's metrics, once it is written |
///
/// The quantiser is a run of its own, in the directory `quantizer` below, since its steps are passes over the items:
///
/// | tag | |
/// |---|---|
/// | `fit/loss`, `fit/reconstruction`, `fit/used level 1` ..., `fit/restarted`, `fit/collision_rate` | as in [`EpochReport`] |
/// | `codes/level 1` ... | histogram of how many items have each code |
///
/// A run that is resumed adds files to the directories; TensorBoard reads those of a directory as one. To watch with something else
/// besides make a pair of the two observers.
///
/// ```
/// use candle_core::Device;
/// use genrec::{data::SyntheticConfig, pipeline::{self, TensorBoard, TigerConfig}};
/// use genrec::quantize::{QuantizerConfig, ResidualKMeansConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let shop = SyntheticConfig::default().with_users(60).generate()?;
/// let mut config = TigerConfig::quickstart()
///     .with_quantizer(QuantizerConfig::ResidualKMeans(ResidualKMeansConfig::default().with_codebook_sizes([16, 16, 16])));
/// config.train.epochs = Some(1); // a demonstration, not a model
/// let dir = tempfile::tempdir()?;
/// let mut curves = TensorBoard::create(dir.path().join("events"), &config)?;
/// pipeline::run(&shop.dataset, &config, &dir.path().join("run"), &Device::Cpu, None, false, &mut curves)?;
/// curves.finish()?; // then `tensorboard --logdir DIR`
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TensorBoard {
    training: train::TensorBoard,
    fit: train::TensorBoard,
    passes: usize,
}

impl TensorBoard {
    /// Starts a new event file in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Train`] when the directory or the file cannot be made, [`Error::Json`] when the settings cannot be written as JSON.
    pub fn create(dir: impl AsRef<Path>, config: &TigerConfig) -> Result<Self> {
        let dir = dir.as_ref();
        let json =
            serde_json::to_string_pretty(config).map_err(|source| Error::Json { path: dir.to_path_buf(), source })?;
        let mut training = train::TensorBoard::create(dir)?.with_metric("ndcg@10");
        training.text("settings", 0, &format!("```json\n{json}\n```"));
        Ok(Self { training, fit: train::TensorBoard::create(dir.join("quantizer"))?, passes: 0 })
    }

    /// Hands all that was written to the operating system.
    ///
    /// # Errors
    /// [`Error::Train`]: the first error of an event file, after which nothing was written to it.
    pub fn finish(self) -> Result<()> {
        self.fit.finish()?;
        Ok(self.training.finish()?)
    }

    fn pass(&mut self, epoch: &EpochReport) {
        let step = epoch.epoch as u64;
        if self.passes == 0 {
            self.fit.start_at(step);
        }
        self.passes += 1;
        // Where levels are fitted one after another only the one under way is reported.
        let level = |at| epoch.level.unwrap_or(at) + 1;
        let used = epoch.used.iter().enumerate();
        let used = used.map(|(at, &used)| (format!("fit/used level {}", level(at)), f64::from(used)));
        let others = [
            ("loss", Some(epoch.loss)),
            ("reconstruction", Some(epoch.reconstruction)),
            ("restarted", Some(f64::from(epoch.restarted))),
            ("collision_rate", epoch.collision_rate),
        ];
        let others = others.into_iter().filter_map(|(name, value)| Some((format!("fit/{name}"), value?)));
        scalars(&mut self.fit, step, used.chain(others));
    }

    fn codes(&mut self, codes: &ArrayView2<'_, u32>, sizes: &[u32]) {
        for (level, (column, &size)) in (1..).zip(codes.columns().into_iter().zip(sizes)) {
            let mut counts = vec![0_u64; size as usize];
            for &code in column {
                if let Some(count) = counts.get_mut(code as usize) {
                    *count += 1;
                }
            }
            self.fit.counts(&format!("codes/level {level}"), self.passes as u64, &counts);
        }
        self.fit.flush();
    }

    fn test(&mut self, report: &Report) {
        let metrics = report.test.iter().map(|(name, &value)| (format!("test/{name}"), value));
        scalars(&mut self.training, report.train.steps, metrics);
    }
}

fn scalars(curves: &mut train::TensorBoard, step: u64, values: impl Iterator<Item = (String, f64)>) {
    let values: Vec<(String, f64)> = values.collect();
    let values: Vec<(&str, f64)> = values.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
    curves.scalars(step, &values);
}

impl Observer for TensorBoard {
    fn on_event(&mut self, event: &Event<'_>) {
        match event {
            Event::QuantizerEpoch(epoch) => self.pass(epoch),
            Event::Encoded { codes, codebook_sizes, resumed: false } => self.codes(codes, codebook_sizes),
            // A callback may end a run; this one never does.
            Event::TrainStep(step) => drop(self.training.on_step(step)),
            Event::Validation(validation) => drop(self.training.on_validation(validation)),
            Event::Reported(report) => self.test(report),
            _ => {}
        }
    }
}
