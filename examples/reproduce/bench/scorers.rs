//! Rows of models that score all items: SASRec, and baselines without training.

use std::time::Instant;

use genrec::{
    data::LeaveOneOut,
    embed::io::read_npy,
    evaluate::{OwnItems, Part, questions},
    model::{
        ItemScorer,
        baseline::{CoOccurrence, KnnHistory, Popularity, SemanticKnn, Transitions},
    },
    pipeline::{SasRecTraining, TrainSummary},
};
use serde_json::Value;
use support::{BoxError, ProgressView, asked};

use super::{Bench, changed};
use crate::row::Row;

impl Bench<'_> {
    pub(super) fn sasrec_training(&self, changes: &Value, seed: u64) -> Result<SasRecTraining, BoxError> {
        let mut training = SasRecTraining::default().with_seed(seed);
        training.train.max_duration = Some(self.settings.budget);
        changed(training, std::slice::from_ref(changes))
    }

    pub(super) fn sasrec(&self, name: &str, changes: &Value, seed: u64) -> Result<Row, BoxError> {
        let start = Instant::now();
        let training = self.sasrec_training(changes, seed)?;
        let dir = self.run_dir(name, seed);
        let mut view = ProgressView::new(&training.train, None);
        let device = self.settings.device.open()?;
        let (model, report) = training.run(&self.dataset, &dir, &device, dir.exists(), &mut view)?;

        let mut row = self.scored(name, seed, &model)?;
        let validation = questions(&self.dataset.sequences, Part::Validation)?;
        row.valid = Some(asked::evaluate_scorer(&model, &validation, OwnItems::Ranked)?.report());
        row.train = Some(TrainSummary {
            parameters: model.num_parameters(),
            examples_per_epoch: report.examples_seen.checked_div(u64::from(report.epochs)).unwrap_or(0) as usize,
            examples: report.examples_seen,
            steps: report.steps,
            epochs: report.epochs,
            best_epoch: report.best_epoch,
            best_ndcg_at_10: report.best_metric,
            stopped: report.stopped,
        });
        row.manifest.minutes = start.elapsed().as_secs_f64().max(report.seconds) / 60.0;
        Ok(row)
    }

    pub(super) fn scored<S: ItemScorer>(&self, name: &str, seed: u64, scorer: &S) -> Result<Row, BoxError> {
        let start = Instant::now();
        let questions = questions(&self.dataset.sequences, Part::Test)?;
        let asked = |own| asked::evaluate_scorer(scorer, &questions, own);
        let suites = [&asked(OwnItems::Ranked)?, &asked(OwnItems::LeftOut)?];
        let mut row = self.dress(name, seed, suites)?;
        row.manifest.minutes = start.elapsed().as_secs_f64() / 60.0;
        Ok(row)
    }

    pub(super) fn popularity(&self) -> Result<Popularity, BoxError> {
        let split = LeaveOneOut::new(&self.dataset.sequences);
        Ok(Popularity::fit(split.train_counts(self.dataset.catalogue.len()))?)
    }

    pub(super) fn transitions(&self) -> Result<Transitions, BoxError> {
        let split = LeaveOneOut::new(&self.dataset.sequences);
        Ok(Transitions::fit(split.train_rows(), self.dataset.catalogue.len())?)
    }

    pub(super) fn knn(&self) -> Result<SemanticKnn, BoxError> {
        Ok(SemanticKnn::new(read_npy(self.embedded()?)?.view(), KnnHistory::LastItem)?)
    }

    pub(super) fn co_occurrence(&self) -> Result<CoOccurrence, BoxError> {
        let split = LeaveOneOut::new(&self.dataset.sequences);
        Ok(CoOccurrence::fit(split.train_rows(), self.dataset.catalogue.len())?)
    }
}
