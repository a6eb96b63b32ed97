//! The stage that tests: the chosen weights, free generation, and simpler models on the same users.

use std::{collections::BTreeMap, time::Instant};

use genrec_eval::{
    Suite,
    bootstrap::{self, BootstrapConfig, Interval},
};
use genrec_model::{
    baseline::{KnnHistory, Popularity, SemanticKnn},
    t5::T5,
};
use ndarray::Array2;
use sid_index::ItemId;

use super::{
    DatasetReport, Event, Metrics, Observer, Report, SidReport, Stage, TimingReport, TrainSummary, run::Context,
};
use crate::{
    Recommender, Result,
    artifacts::FORMAT_VERSION,
    evaluate::{self, OwnItems, Question},
};

/// Every figure of the test.
pub(super) struct Tested {
    pub(super) ours: Suite<ItemId>,
    pub(super) users_per_second: f64,
    valid: Suite<ItemId>,
    invalid_rate: f64,
    baselines: BTreeMap<String, Suite<ItemId>>,
}

/// Asks the chosen weights, and the baselines, for every test item.
pub(super) fn test(
    ctx: &Context<'_>,
    recommender: &Recommender<T5>,
    validation: &[Question<'_>],
    test: &[Question<'_>],
    embeddings: &Array2<f32>,
    observer: &mut dyn Observer,
) -> Result<Tested> {
    let (searcher, model) = (recommender.searcher(), recommender.model());
    let free = ctx.sample(test.to_vec(), Some(ctx.config.invalid_rate_users));
    let total = test.len() + validation.len() + free.len();
    let mut progress = |done| observer.on_event(&Event::Progress { stage: Stage::Evaluate, done, total });
    let start = Instant::now();
    let ours = evaluate::evaluate(&searcher, model, test, &mut |done, _| progress(done))?;
    let users_per_second = test.len() as f64 / start.elapsed().as_secs_f64().max(1e-9);
    let valid = evaluate::evaluate(&searcher, model, validation, &mut |done, _| progress(test.len() + done))?;
    let before = test.len() + validation.len();
    let mut free_progress = |done, _| progress(before + done);
    let invalid_rate = evaluate::invalid_rate(&searcher, model, &free, evaluate::DEPTH, &mut free_progress)?;

    let popularity = Popularity::fit(ctx.split.train_counts(embeddings.nrows()))?;
    let knn = SemanticKnn::new(embeddings.view(), KnnHistory::LastItem)?;
    let own = if ctx.config.decode.exclude_history { OwnItems::LeftOut } else { OwnItems::Ranked };
    let baselines = BTreeMap::from([
        ("popularity".to_owned(), evaluate::evaluate_scorer(&popularity, test, own)?),
        ("semantic_knn".to_owned(), evaluate::evaluate_scorer(&knn, test, own)?),
    ]);
    Ok(Tested { ours, users_per_second, valid, invalid_rate, baselines })
}

impl Tested {
    pub(super) fn report(
        &self,
        ctx: &Context<'_>,
        sid: SidReport,
        train: TrainSummary,
        timing: TimingReport,
    ) -> Result<Report> {
        let config = BootstrapConfig::default().with_seed(ctx.config.seed);
        let statistics = ctx.dataset.statistics();
        let mut test: Metrics = self.ours.report();
        test.insert(format!("invalid_rate@{}", evaluate::DEPTH), self.invalid_rate);
        let mut gain: BTreeMap<String, Interval> = BTreeMap::new();
        for (name, baseline) in &self.baselines {
            if let (Some(ours), Some(theirs)) = (self.ours.values("recall@10"), baseline.values("recall@10")) {
                gain.insert(name.clone(), bootstrap::paired_difference(ours, theirs, config)?);
            }
        }
        Ok(Report {
            format_version: FORMAT_VERSION,
            dataset: DatasetReport {
                name: ctx.dataset.name.clone(),
                users: statistics.users,
                items: statistics.items,
                interactions: statistics.interactions,
                mean_length: statistics.mean_length,
                median_length: statistics.median_length,
            },
            sid,
            train,
            timing,
            valid: self.valid.report(),
            test,
            test_intervals: self.ours.intervals(config)?,
            baselines: self.baselines.iter().map(|(name, suite)| (name.clone(), suite.report())).collect(),
            recall_at_10_gain: gain,
        })
    }
}
