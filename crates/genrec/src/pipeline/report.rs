//! `report.json`: what a run was, took and reached.

use std::collections::BTreeMap;

use genrec_eval::bootstrap::Interval;
use genrec_train::StopReason;
use serde::{Deserialize, Serialize};

/// Metric names (`recall@10`) to values.
pub type Metrics = BTreeMap<String, f64>;

/// What a run was, took and reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this file's format.
    pub format_version: u32,
    /// Counts of the data.
    pub dataset: DatasetReport,
    /// Quality of the Semantic IDs.
    pub sid: SidReport,
    /// How training went.
    pub train: TrainSummary,
    /// Wall-clock times; the one part that differs between two runs of the same settings.
    pub timing: TimingReport,
    /// Metrics of the chosen weights on the validation items, over the users that chose them.
    pub valid: Metrics,
    /// Metrics of the chosen weights on the test items, with `invalid_rate@10` by free generation.
    pub test: Metrics,
    /// 95 % bootstrap intervals over users of the test metrics.
    pub test_intervals: BTreeMap<String, Interval>,
    /// The same test users, asked of simpler models.
    pub baselines: BTreeMap<String, Metrics>,
    /// 95 % bootstrap intervals of test Recall@10 minus each baseline's, paired by user.
    pub recall_at_10_gain: BTreeMap<String, Interval>,
}

/// Counts of the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetReport {
    /// Its name.
    pub name: String,
    /// Users.
    pub users: usize,
    /// Items.
    pub items: usize,
    /// Interactions over all users.
    pub interactions: usize,
    /// Mean interactions a user.
    pub mean_length: f64,
    /// Median interactions a user.
    pub median_length: f64,
}

/// Quality of the Semantic IDs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SidReport {
    /// Codes an item, without the suffix.
    pub levels: usize,
    /// Size of each level's codebook.
    pub codebook_sizes: Vec<u32>,
    /// Codes that some item uses, by level.
    pub codes_used: Vec<u32>,
    /// Perplexity of the codes' distribution, by level: the codebook's size at best.
    pub perplexity: Vec<f64>,
    /// `1 - distinct code tuples / items`, before any suffix.
    pub collision_rate: f64,
    /// Items in the largest group that shares all codes.
    pub largest_group: usize,
    /// Squared error of the reconstructed embeddings over their variance: 0 is perfect, 1 no better than their mean. `None` for
    /// quantisers that reconstruct nothing.
    pub reconstruction_error: Option<f64>,
}

/// How training went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainSummary {
    /// Scalars that are trained.
    pub parameters: usize,
    /// Training windows, each seen once an epoch.
    pub examples_per_epoch: usize,
    /// Windows seen in all.
    pub examples: u64,
    /// Steps taken.
    pub steps: u64,
    /// Epochs completed.
    pub epochs: u32,
    /// The epoch of the chosen weights; none when training ended before its first validation.
    pub best_epoch: Option<u32>,
    /// Validation NDCG@10 of the chosen weights.
    pub best_ndcg_at_10: Option<f64>,
    /// Why it stopped.
    pub stopped: StopReason,
}

/// Wall-clock times, in seconds. Of a run that was resumed they are those of the process that finished it, but for the
/// training's, which count every part.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TimingReport {
    /// Item text to embeddings.
    pub embed_seconds: f64,
    /// Fitting the quantiser and encoding every item.
    pub quantize_seconds: f64,
    /// Training, validation included.
    pub train_seconds: f64,
    /// Examples a second of training, validation included.
    pub examples_per_second: f64,
    /// Test and baselines.
    pub evaluate_seconds: f64,
    /// Test users a second.
    pub users_per_second: f64,
    /// From start to report.
    pub total_seconds: f64,
}
