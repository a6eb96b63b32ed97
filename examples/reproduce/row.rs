//! One finished row of a table: what was run, where, and what came out. Rows are files, so that a table grows over many sittings.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use genrec::{
    eval::{
        Suite,
        bootstrap::{BootstrapConfig, Interval},
    },
    index::ItemId,
    pipeline::{Metrics, SidReport, TrainSummary},
    quantize::usage::PurityReport,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use support::{BoxError, cold::Measured, create_dir, write_file};

use crate::ranks::Ranks;

/// Version of a row's file.
const FORMAT_VERSION: u32 = 1;

/// Where a row came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// What was typed, with the places of data and models left out.
    pub(crate) command: String,
    /// Of the workspace.
    pub(crate) version: String,
    /// Of the checkout that the program ran in, if it was one.
    pub(crate) commit: Option<String>,
    /// Every setting of the run.
    pub(crate) settings: Value,
    /// CRC-32 over items and sequences.
    pub(crate) data_crc32: u32,
    /// CRC-32 of the file of content embeddings, of rows that have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) embeddings_crc32: Option<u32>,
    /// The processor's name, or the device's.
    pub(crate) machine: String,
    /// Threads that computed.
    pub(crate) threads: usize,
    /// Wall-clock minutes from embeddings to figures.
    pub(crate) minutes: f64,
}

/// Figures of one model on one data set with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) format_version: u32,
    pub(crate) name: String,
    pub(crate) set: String,
    pub(crate) seed: u64,
    pub(crate) manifest: Manifest,
    /// How training went, of what was trained.
    pub(crate) train: Option<TrainSummary>,
    /// Of what has Semantic IDs.
    pub(crate) sid: Option<SidReport>,
    /// Of the users that validation asked.
    pub(crate) valid: Option<Metrics>,
    /// Over the test users, all but where lists are sampled, with the items that a user has taken already in the ranking, as the paper has it for all that is
    /// known.
    pub(crate) test: Tested,
    /// The same without those items.
    pub(crate) without_own: Tested,
    /// Share of freely generated sequences that are no item, by how many were generated.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) invalid: BTreeMap<usize, f64>,
    /// Entropy (bits) of the categories of a list, by its length.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) entropy: BTreeMap<usize, f64>,
    /// What the codes say of the items' categories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) purity: Option<PurityReport>,
    /// How well items are found that training has not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cold: Option<Measured>,
}

/// Figures over all test users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tested {
    pub(crate) metrics: Metrics,
    /// 95 % bootstrap over users.
    pub(crate) intervals: BTreeMap<String, Interval>,
    /// Where each user's item stood among the ten first.
    pub(crate) ranks: Ranks,
}

impl Tested {
    /// Figures of a suite that has `mrr@10`.
    ///
    /// # Errors
    /// When it has not.
    pub(crate) fn of(suite: &Suite<ItemId>, seed: u64) -> Result<Self, BoxError> {
        let reciprocal = suite.values("mrr@10").ok_or("the test has no reciprocal ranks")?;
        Ok(Self {
            metrics: suite.report(),
            intervals: suite.intervals(BootstrapConfig::default().with_seed(seed))?,
            ranks: Ranks::from_reciprocal(reciprocal),
        })
    }

    /// A metric, 0 where there is none.
    pub(crate) fn value(&self, metric: &str) -> f64 {
        self.metrics.get(metric).copied().unwrap_or(0.0)
    }
}

impl Row {
    pub(crate) fn new(name: &str, set: &str, seed: u64, manifest: Manifest, [test, without_own]: [Tested; 2]) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            name: name.to_owned(),
            set: set.to_owned(),
            seed,
            manifest,
            train: None,
            sid: None,
            valid: None,
            test,
            without_own,
            invalid: BTreeMap::new(),
            entropy: BTreeMap::new(),
            purity: None,
            cold: None,
        }
    }

    /// Reads a row from its place.
    ///
    /// # Errors
    /// When the file is there but is not that row; it is named.
    pub(crate) fn read(results: &Path, set: &str, name: &str, seed: u64) -> Result<Option<Self>, BoxError> {
        let path = &path(results, set, name, seed);
        if !path.exists() {
            return Ok(None);
        }
        let row: Self = serde_json::from_value(support::read_json(path)?)
            .map_err(|error| format!("`{}` is no row: {error}; delete it and it is run anew", path.display()))?;
        if row.format_version != FORMAT_VERSION {
            let found = row.format_version;
            return Err(format!("`{}` has version {found}, not {FORMAT_VERSION}; run it anew", path.display()).into());
        }
        if (row.set.as_str(), row.name.as_str(), row.seed) != (set, name, seed) {
            let (set, name, seed, file) = (&row.set, &row.name, row.seed, path.display());
            return Err(format!("`{file}` is the row `{name}` of {set}, seed {seed}: give it its name back").into());
        }
        Ok(Some(row))
    }

    /// Writes the row to its place.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, results: &Path) -> Result<(), BoxError> {
        let path = path(results, &self.set, &self.name, self.seed);
        path.parent().map_or(Ok(()), create_dir)?;
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        write_file(&path, &bytes)
    }
}

/// Where a row lies.
pub(crate) fn path(results: &Path, set: &str, name: &str, seed: u64) -> PathBuf {
    results.join(set).join(format!("{name}-s{seed}.json"))
}
