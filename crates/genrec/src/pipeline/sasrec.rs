//! SASRec through the same split, trainer and evaluation: the baseline that a table of TIGER's is to be read beside.

use std::{ops::ControlFlow, path::Path};

use candle_core::Device;
use genrec_data::{Dataset, LeaveOneOut};
use genrec_kernels::{
    CounterRng,
    optim::{AdamWConfig, OptimizerConfig, Schedule},
};
use genrec_model::{
    RaggedBatch,
    sasrec::{SasRec, SasRecConfig},
};
use genrec_train::{
    BatchSource, BoxError, Callback, DirectoryLock, Every, StepReport, TrainConfig, TrainReport, Trainer,
    ValidationReport,
};
use serde::{Deserialize, Serialize};

use super::{Event, Observer, fingerprint, first_difference};
use crate::{
    Error, Result,
    artifacts::{self, FORMAT_VERSION},
    evaluate::{self, OwnItems, Part, questions},
};

/// How SASRec is trained: everything that decides the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SasRecTraining {
    /// Every random choice derives from it.
    pub seed: u64,
    /// The model; its number of items is set by the catalogue.
    pub model: SasRecConfig,
    /// Users a step. 256.
    pub batch_size: usize,
    /// Optimiser, schedule, length, early stop. AdamW at 0.001, a validation every second epoch, ten of them without improvement end the
    /// run, after 200 epochs at most: on Beauty validation is best near the twentieth.
    pub train: TrainConfig,
}

impl Default for SasRecTraining {
    fn default() -> Self {
        let train = TrainConfig::default()
            .with_optimizer(OptimizerConfig::AdamW(AdamWConfig::default()))
            .with_learning_rate(1e-3)
            .with_schedule(Schedule::Constant)
            .with_max_steps(None)
            .with_epochs(Some(200))
            .with_validate_every(Every::Epochs(2))
            .with_patience(Some(10));
        Self { seed: 42, model: SasRecConfig::new(1), batch_size: 256, train }
    }
}

impl SasRecTraining {
    /// Another seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Another model.
    #[must_use]
    pub fn with_model(mut self, model: SasRecConfig) -> Self {
        self.model = model;
        self
    }

    /// Another training.
    #[must_use]
    pub fn with_train(mut self, train: TrainConfig) -> Self {
        self.train = train;
        self
    }

    /// The settings that a data set is trained with: its number of items in the model, one seed throughout.
    #[must_use]
    pub fn resolved(&self, dataset: &Dataset) -> Self {
        let mut resolved = self.clone();
        resolved.model.items = dataset.catalogue.len();
        resolved.train.seed = self.seed;
        resolved
    }

    /// Checks every bound, of model and trainer too.
    ///
    /// # Errors
    /// The error of the first setting outside its bounds names it: [`Error::Config`] or that of the part.
    pub fn validate(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::Config { field: "batch_size", value: "0".to_owned(), expected: "at least 1" });
        }
        self.model.validate()?;
        Ok(self.train.validate()?)
    }

    /// Trains on the training parts of all users, keeps the weights of best NDCG@10 on the validation items, and leaves the
    /// model in `dir/model`, its checkpoints in `dir/train`, settings and a fingerprint of the data in `dir/run.json`. With
    /// `resume` a directory that holds a run of the same settings and data is continued.
    ///
    /// # Errors
    /// [`Error::NoTargets`] when no user has a validation item, [`Error::ConfigChanged`] when the directory holds a run of other
    /// settings or data, `TrainError::Locked` when another run writes to it, and the errors of
    /// [`validate`](Self::validate), model and trainer.
    pub fn run(
        &self,
        dataset: &Dataset,
        dir: &Path,
        device: &Device,
        resume: bool,
        observer: &mut dyn Observer,
    ) -> Result<(SasRec, TrainReport)> {
        let resolved = self.resolved(dataset);
        resolved.validate()?;
        let validation = questions(&dataset.sequences, Part::Validation)?;
        let _lock = DirectoryLock::take(dir)?;
        resolved.claim(dataset, &dir.join("run.json"))?;
        let model = SasRec::new(resolved.model.clone(), self.seed, device)?;
        let users = TrainingParts::new(dataset, self.batch_size, self.seed);
        let mut validate = |model: &SasRec| -> std::result::Result<f64, BoxError> {
            let suite = evaluate::evaluate_scorer(model, &validation, OwnItems::Ranked)?;
            Ok(suite.value("ndcg@10").unwrap_or(0.0))
        };
        let trainer = Trainer::new(resolved.train)?.with_resume(resume);
        let report = trainer.fit(&model, &users, &mut validate, &mut Told(observer), Some(&dir.join("train")))?;
        model.save(dir.join("model"))?;
        Ok((model, report))
    }

    /// Makes a directory this run's own, or checks that it is.
    fn claim(&self, dataset: &Dataset, path: &Path) -> Result<()> {
        let malformed = |source| Error::Json { path: path.to_path_buf(), source };
        let mut settings = serde_json::to_value(self).map_err(malformed)?;
        // How long it may go on decides nothing of what was done.
        if let Some(train) = settings.get_mut("train").and_then(serde_json::Value::as_object_mut) {
            train.remove("max_duration");
        }
        let manifest = serde_json::json!({
            "format_version": FORMAT_VERSION, "config": settings, "data_crc32": fingerprint(dataset)?,
        });
        if !artifacts::exists(path)? {
            return artifacts::write_json(path, &manifest);
        }
        match first_difference("", &artifacts::read_versioned(path)?, &manifest) {
            Some((field, was, now)) => Err(Error::ConfigChanged { field, was, now }),
            None => Ok(()),
        }
    }
}

/// Passes training's reports on.
struct Told<'a>(&'a mut dyn Observer);

impl Callback for Told<'_> {
    fn on_step(&mut self, step: &StepReport) -> ControlFlow<()> {
        self.0.on_event(&Event::TrainStep(step));
        ControlFlow::Continue(())
    }

    fn on_validation(&mut self, validation: &ValidationReport) -> ControlFlow<()> {
        self.0.on_event(&Event::Validation(validation));
        ControlFlow::Continue(())
    }
}

/// The training part of each user that has at least two items, whole: every item after the first is predicted from those before
/// it.
#[derive(Debug)]
struct TrainingParts<'a> {
    split: LeaveOneOut<'a>,
    users: Vec<usize>,
    batch_size: usize,
    seed: u64,
}

impl<'a> TrainingParts<'a> {
    fn new(dataset: &'a Dataset, batch_size: usize, seed: u64) -> Self {
        let split = LeaveOneOut::new(&dataset.sequences);
        let users = (0..split.len()).filter(|&user| split.train(user).len() > 1).collect();
        Self { split, users, batch_size, seed }
    }
}

impl BatchSource for TrainingParts<'_> {
    type Batch = RaggedBatch;

    fn num_batches(&self, _epoch: u32) -> usize {
        self.users.len().div_ceil(self.batch_size)
    }

    fn batch(&self, epoch: u32, index: usize) -> std::result::Result<RaggedBatch, BoxError> {
        let rng = CounterRng::new(self.seed).named("users").stream(u64::from(epoch));
        let order = rng.permutation(self.users.len() as u32);
        let mut batch = RaggedBatch::new();
        for &at in order.chunks(self.batch_size).nth(index).unwrap_or_default() {
            let items: Vec<u32> = self.split.train(self.users[at as usize]).iter().map(|item| item.0).collect();
            batch.push(&items, &[])?;
        }
        Ok(batch)
    }

    fn num_examples(&self) -> usize {
        self.users.len()
    }
}

#[cfg(test)]
mod tests {
    use genrec_data::SyntheticConfig;
    use genrec_model::baseline::Popularity;

    use super::*;

    #[test]
    fn an_epoch_holds_every_user_once() -> Result<()> {
        let shop = SyntheticConfig::default().with_users(70).generate()?;
        let parts = TrainingParts::new(&shop.dataset, 16, 3);
        let epoch = |epoch| -> Vec<Vec<u32>> {
            let batches = (0..parts.num_batches(epoch)).map(|index| parts.batch(epoch, index).unwrap());
            batches.flat_map(|batch| batch.sequences().map(<[u32]>::to_vec).collect::<Vec<_>>()).collect()
        };
        let (mut first, mut second) = (epoch(0), epoch(1));
        assert_ne!(first, second);
        first.sort();
        second.sort();
        assert_eq!(first, second);
        assert_eq!(first.len(), parts.num_examples());
        Ok(())
    }

    #[test]
    fn it_learns_more_than_popularity_and_resumes() -> Result<()> {
        let shop = SyntheticConfig::default().with_users(300).with_seed(4).generate()?;
        let (dataset, dir) = (&shop.dataset, tempfile::tempdir().unwrap());
        let mut training = SasRecTraining::default().with_model(SasRecConfig::new(1).with_d_model(32));
        training.batch_size = 32;
        training.train = training.train.with_epochs(Some(12)).with_learning_rate(3e-3);
        let run = |resume| training.run(dataset, dir.path(), &Device::Cpu, resume, &mut |_: &Event<'_>| {});
        let (model, report) = run(false)?;
        let questions = questions(&dataset.sequences, Part::Test)?;
        let ndcg = evaluate::evaluate_scorer(&model, &questions, OwnItems::Ranked)?.value("ndcg@10");
        let counts = LeaveOneOut::new(&dataset.sequences).train_counts(dataset.catalogue.len());
        let popular =
            evaluate::evaluate_scorer(&Popularity::fit(counts)?, &questions, OwnItems::Ranked)?.value("ndcg@10");
        assert!(ndcg > popular, "{ndcg:?} {popular:?}");

        assert!(run(false).is_err(), "its checkpoints are there");
        let other = training.clone().with_model(SasRecConfig::new(1).with_d_model(32).with_dropout_rate(0.1));
        let refused = other.run(dataset, dir.path(), &Device::Cpu, true, &mut |_: &Event<'_>| {});
        assert!(matches!(&refused, Err(Error::ConfigChanged { field, .. }) if field == "config.model.dropout_rate"));
        let (again, resumed) = run(true)?;
        assert_eq!(resumed.best_metric, report.best_metric);
        assert_eq!(evaluate::evaluate_scorer(&again, &questions, OwnItems::Ranked)?.value("ndcg@10"), ndcg);
        Ok(())
    }

    #[test]
    fn a_batch_of_nobody_is_refused() {
        let shop = SyntheticConfig::default().with_users(10).generate().unwrap();
        let training = SasRecTraining { batch_size: 0, ..SasRecTraining::default() };
        let dir = tempfile::tempdir().unwrap();
        let refused = training.run(&shop.dataset, dir.path(), &Device::Cpu, false, &mut |_: &Event<'_>| {});
        assert!(matches!(refused, Err(Error::Config { field: "batch_size", .. })));
    }
}
