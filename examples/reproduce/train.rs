//! Training and testing what makes a row.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use genrec::{
    Searcher,
    data::{Dataset, LeaveOneOut},
    decode::{AnySearch, PerLevel, Resolve, Sampling, Shape},
    embed::io::{read_npy, write_npy},
    eval::{InvalidRate, Suite},
    evaluate::{self, OwnItems, Part, questions},
    index::ItemId,
    model::{
        ItemScorer,
        baseline::{KnnHistory, Popularity, SemanticKnn, Transitions},
    },
    pipeline::{self, EmbeddingSource, Outcome, SasRecTraining, TigerConfig, TrainSummary},
    quantize::{QuantizerConfig, RqVaeConfig},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use support::{BoxError, DeviceArg, ProgressView, asked, categories::Categories, create_dir, embed::embed};

use crate::{
    plan::{Line, Set, Work},
    row::{self, Manifest, Row, Tested},
};

/// Depths at which invalid sequences are counted.
const INVALID_AT: [usize; 4] = [1, 5, 10, 20];
/// Users that are asked freely for it, evenly spaced.
const INVALID_USERS: usize = 2_000;

/// Lengths of the lists of table 3.
const ENTROPY_AT: [usize; 3] = [10, 20, 50];
/// Users that lists are drawn for, evenly spaced.
const SAMPLED_USERS: usize = 2_000;

/// What all rows of a command share.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) out: PathBuf,
    pub(crate) results: PathBuf,
    pub(crate) embedder: EmbeddingSource,
    pub(crate) budget: Duration,
    pub(crate) device: DeviceArg,
    /// What was typed, with the places of data and models left out.
    pub(crate) command: String,
    /// The checkout that the program was started in.
    pub(crate) commit: Option<String>,
}

/// TIGER as the rows change it: the preset `cpu` with the paper's RQ-VAE, trained for the budget.
fn base(budget: Duration, seed: u64) -> TigerConfig {
    let quantizer = QuantizerConfig::RqVae(RqVaeConfig::default());
    let mut config = TigerConfig::cpu().with_seed(seed).with_quantizer(quantizer);
    config.train.epochs = None;
    config.train.max_steps = Some(u64::MAX);
    config.train.max_duration = Some(budget);
    config
}

/// Settings with some changed.
fn changed<T: Serialize + DeserializeOwned>(settings: T, changes: &Value) -> Result<T, BoxError> {
    let mut settings = serde_json::to_value(settings)?;
    support::overlay(&mut settings, changes.clone());
    Ok(serde_json::from_value(settings)?)
}

/// A set's data, and what its rows have in common.
#[derive(Debug)]
pub(crate) struct Bench<'s> {
    settings: &'s Settings,
    set: Set,
    dataset: Dataset,
    /// Over items and sequences.
    crc: u32,
}

impl<'s> Bench<'s> {
    /// Reads a set.
    ///
    /// # Errors
    /// When a file is missing or malformed.
    pub(crate) fn open(settings: &'s Settings, set: Set) -> Result<Self, BoxError> {
        let dir = settings.data.join(set.name());
        if !dir.is_dir() {
            let have = settings.data.display();
            return Err(format!("`{have}` has no `{}`: `--data` is the directory of all sets", set.name()).into());
        }
        let dataset = asked::dataset(&dir)?;
        let crc = pipeline::fingerprint(&dataset)?;
        Ok(Self { settings, set, dataset, crc })
    }

    pub(crate) fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The row of a line, if it is finished.
    ///
    /// # Errors
    /// When the file is no row, or one of other data.
    pub(crate) fn finished(&self, line: &Line, seed: u64) -> Result<Option<Row>, BoxError> {
        let path = row::path(&self.settings.results, self.set.name(), line.name, seed);
        let row = Row::read(&path)?;
        match row.as_ref().filter(|row| row.manifest.data_crc32 != self.crc) {
            None => Ok(row),
            Some(_) => {
                Err(format!("`{}` is of other data: delete it, or give another `--results`", path.display()).into())
            }
        }
    }

    /// The row of a line: from its file, or made now and written.
    ///
    /// # Errors
    /// When the file is no row, or one of other settings or data, or the row cannot be made.
    pub(crate) fn row(&self, line: &Line, seed: u64) -> Result<Row, BoxError> {
        if let Some(row) = self.finished(line, seed)? {
            let now = without_places(self.wanted(line, seed)?);
            let Some((field, was, now)) = pipeline::first_difference("", &row.manifest.settings, &now) else {
                return Ok(row);
            };
            let path = row::path(&self.settings.results, self.set.name(), line.name, seed);
            let path = path.display();
            return Err(format!(
                "`{path}` was made with another `{field}` ({was}, now {now}): delete it, or give another `--results`"
            )
            .into());
        }
        let mut row = match &line.work {
            Work::Tiger(changes) => self.tiger(line.name, changes, seed)?,
            Work::Sampled(temperatures) => self.sampled(line.name, temperatures, seed)?,
            Work::SasRec(changes) => self.sasrec(line.name, changes, seed)?,
            Work::Popularity => self.scored(line.name, seed, &self.popularity()?)?,
            Work::Transitions => self.scored(line.name, seed, &self.transitions()?)?,
            Work::SemanticKnn => self.scored(line.name, seed, &self.knn()?)?,
        };
        row.manifest.settings = without_places(self.wanted(line, seed)?);
        row.write(&self.settings.results)?;
        Ok(row)
    }

    /// Every setting of a line.
    fn wanted(&self, line: &Line, seed: u64) -> Result<Value, BoxError> {
        Ok(match &line.work {
            Work::Tiger(changes) => serde_json::to_value(self.config(changes, seed)?)?,
            Work::Sampled(temperatures) => {
                let run = self.config(&json!({}), seed)?;
                json!({"run": run, "temperatures": temperatures, "users": SAMPLED_USERS})
            }
            Work::SasRec(changes) => {
                serde_json::to_value(self.sasrec_training(changes, seed)?.resolved(&self.dataset))?
            }
            Work::SemanticKnn => json!({"embedder": self.settings.embedder, "history": "last_item"}),
            Work::Popularity | Work::Transitions => json!({}),
        })
    }

    /// The settings of a run, with the embedder that its embeddings are made by.
    fn config(&self, changes: &Value, seed: u64) -> Result<TigerConfig, BoxError> {
        let config = changed(base(self.settings.budget, seed), changes)?;
        Ok(config.with_embedder(self.settings.embedder.clone()).seeded())
    }

    fn sasrec_training(&self, changes: &Value, seed: u64) -> Result<SasRecTraining, BoxError> {
        let mut training = SasRecTraining::default().with_seed(seed);
        training.train.max_duration = Some(self.settings.budget);
        changed(training, changes)
    }

    /// Where a run of TIGER is, or will be.
    fn run_dir(&self, name: &str, seed: u64) -> PathBuf {
        self.settings.out.join(self.set.name()).join(format!("{name}-s{seed}"))
    }

    /// Trains, or goes on with what was interrupted, or opens what is finished.
    fn trained(&self, name: &str, changes: &Value, seed: u64) -> Result<Outcome, BoxError> {
        let config = self.config(changes, seed)?.with_embedder(EmbeddingSource::Npy { path: self.embedded()? });
        let dir = self.run_dir(name, seed);
        let device = self.settings.device.open()?;
        let mut view = ProgressView::new(None);
        Ok(pipeline::run(&self.dataset, &config, &dir, &device, None, dir.exists(), &mut view)?)
    }

    fn tiger(&self, name: &str, changes: &Value, seed: u64) -> Result<Row, BoxError> {
        let start = Instant::now();
        let outcome = self.trained(name, changes, seed)?;
        let asked = questions(&self.dataset.sequences, Part::Test)?;
        let recommender = outcome.recommender;
        let without = recommender.config().clone().with_exclude_history(true);
        let searcher = Searcher::new(recommender.index(), recommender.vocab(), &without);
        let without_own = evaluate::evaluate(&searcher, recommender.model(), &asked, &mut |_, _| {})?;
        let mut row = self.dress(name, seed, [&outcome.test, &without_own])?;
        row.valid = Some(outcome.report.valid);
        row.sid = Some(outcome.report.sid);
        row.invalid = self.invalid(&recommender)?;
        let trained = Duration::from_secs_f64(outcome.report.timing.train_seconds.max(0.0));
        row.train = Some(outcome.report.train);
        // Earlier parts of a run that was interrupted count too.
        row.manifest.minutes = start.elapsed().max(trained).as_secs_f64() / 60.0;
        Ok(row)
    }

    /// Lists drawn by the run `tiger`, of a sample of users.
    fn sampled(&self, name: &str, temperatures: &[f32], seed: u64) -> Result<Row, BoxError> {
        let recommender = self.trained("tiger", &json!({}), seed)?.recommender;
        let start = Instant::now();
        let longest = ENTROPY_AT.into_iter().max().unwrap_or(1);
        let mut shape = Shape::default();
        shape.temperature = match temperatures {
            [one] => PerLevel::All(*one),
            each => PerLevel::Each(each.to_vec()),
        };
        let search = AnySearch::Sampling(Sampling::new(longest, seed).with_shape(shape));
        let config = asked::beam_search(recommender.config(), longest).with_search(search);
        let questions = asked::test_questions(&self.dataset, Some(SAMPLED_USERS))?;
        let answers = asked::ask(&recommender, &config, &questions, longest, name)?;
        let left_out = config.with_exclude_history(true);
        let without_own = asked::ask(&recommender, &left_out, &questions, longest, name)?.suite(&questions);
        let mut row = self.dress(name, seed, [&answers.suite(&questions), &without_own])?;
        let categories = Categories::of(&self.dataset.catalogue);
        for depth in ENTROPY_AT {
            row.entropy.insert(depth, categories.entropy(answers.items(depth), depth)?);
        }
        row.manifest.minutes = start.elapsed().as_secs_f64() / 60.0;
        Ok(row)
    }

    fn sasrec(&self, name: &str, changes: &Value, seed: u64) -> Result<Row, BoxError> {
        let start = Instant::now();
        let training = self.sasrec_training(changes, seed)?;
        let dir = self.run_dir(name, seed);
        let mut view = ProgressView::new(training.train.epochs);
        let device = self.settings.device.open()?;
        let (model, report) = training.run(&self.dataset, &dir, &device, dir.exists(), &mut view)?;

        let mut row = self.scored(name, seed, &model)?;
        let validation = questions(&self.dataset.sequences, Part::Validation)?;
        row.valid = Some(evaluate::evaluate_scorer(&model, &validation, OwnItems::Ranked)?.report());
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

    fn invalid(&self, recommender: &genrec::Recommender) -> Result<BTreeMap<usize, f64>, BoxError> {
        let deepest = INVALID_AT.into_iter().max().unwrap_or(1);
        let questions = asked::test_questions(&self.dataset, Some(INVALID_USERS))?;
        let free = asked::beam_search(recommender.config(), deepest).with_free(Resolve::Exact);
        let answers = asked::ask(recommender, &free, &questions, deepest, "invalid IDs")?;
        let mut rate = InvalidRate::new(deepest)?;
        for user in &answers.ranked {
            genrec::eval::Metric::<Option<ItemId>>::update(&mut rate, &user.generated, &[]);
        }
        Ok(INVALID_AT.into_iter().filter_map(|k| Some((k, rate.value_at(k)?))).collect())
    }

    fn scored<S: ItemScorer>(&self, name: &str, seed: u64, scorer: &S) -> Result<Row, BoxError> {
        let start = Instant::now();
        let questions = questions(&self.dataset.sequences, Part::Test)?;
        let asked = |own| evaluate::evaluate_scorer(scorer, &questions, own);
        let suites = [&asked(OwnItems::Ranked)?, &asked(OwnItems::LeftOut)?];
        let mut row = self.dress(name, seed, suites)?;
        row.manifest.minutes = start.elapsed().as_secs_f64() / 60.0;
        Ok(row)
    }

    fn dress(&self, name: &str, seed: u64, [test, without_own]: [&Suite<ItemId>; 2]) -> Result<Row, BoxError> {
        let manifest = Manifest {
            command: self.settings.command.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: self.settings.commit.clone(),
            settings: Value::Null,
            data_crc32: self.crc,
            machine: machine(self.settings.device),
            threads: rayon::current_num_threads(),
            minutes: 0.0,
        };
        let tested = [Tested::of(test, seed)?, Tested::of(without_own, seed)?];
        Ok(Row::new(name, self.set.name(), seed, manifest, tested))
    }

    fn popularity(&self) -> Result<Popularity, BoxError> {
        let split = LeaveOneOut::new(&self.dataset.sequences);
        Ok(Popularity::fit(split.train_counts(self.dataset.catalogue.len()))?)
    }

    fn transitions(&self) -> Result<Transitions, BoxError> {
        let split = LeaveOneOut::new(&self.dataset.sequences);
        Ok(Transitions::fit(split.train_rows(), self.dataset.catalogue.len())?)
    }

    fn knn(&self) -> Result<SemanticKnn, BoxError> {
        Ok(SemanticKnn::new(read_npy(self.embedded()?)?.view(), KnnHistory::LastItem)?)
    }

    /// The set's embeddings, made once for all rows.
    fn embedded(&self) -> Result<PathBuf, BoxError> {
        let source = serde_json::to_vec(&self.settings.embedder)?;
        let dir = self.settings.out.join(self.set.name());
        create_dir(&dir)?;
        let path = dir.join(format!("embeddings-{:08x}-{:08x}.npy", crc32fast::hash(&source), self.crc));
        if !path.exists() {
            let device = self.settings.device.open()?;
            let rows = embed(&self.dataset.catalogue, &self.settings.embedder, &device, &dir.join("texts"))?;
            let unfinished = path.with_extension("unfinished.npy");
            write_npy(&unfinished, rows.view())?;
            std::fs::rename(&unfinished, &path)?;
        }
        Ok(path)
    }
}

/// The checkout that the program is started in, with a word where it has changes that are not committed.
pub(crate) fn commit() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty", "--exclude", "*"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn machine(device: DeviceArg) -> String {
    if device != DeviceArg::Cpu {
        return format!("{device:?}").to_lowercase();
    }
    let name = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Settings without the directories of this machine: of a path the last part stays.
fn without_places(value: Value) -> Value {
    match value {
        Value::String(text) if Path::new(&text).is_absolute() => {
            let last = Path::new(&text).file_name().map(|name| name.to_string_lossy().into_owned());
            Value::String(last.unwrap_or_default())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_places).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, without_places(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::collections::BTreeMap;

    use clap::ValueEnum;

    use super::*;
    use crate::plan::Experiment;

    #[test]
    fn every_line_of_every_table_can_be_run_and_a_name_is_one_work() {
        let mut works: BTreeMap<&str, Work> = BTreeMap::new();
        for line in Experiment::value_variants().iter().flat_map(|experiment| experiment.lines()) {
            match &line.work {
                Work::Tiger(changes) => {
                    let config = changed(base(Duration::from_secs(60), 1), changes).unwrap();
                    assert!(config.validate().is_ok(), "{}: {:?}", line.name, config.validate());
                }
                Work::SasRec(changes) => {
                    changed(SasRecTraining::default(), changes).unwrap();
                }
                Work::Popularity | Work::SemanticKnn | Work::Transitions | Work::Sampled(_) => {}
            }
            let before = works.entry(line.name).or_insert_with(|| line.work.clone());
            assert_eq!(*before, line.work, "two works are called {}", line.name);
        }
    }

    #[test]
    fn the_row_best_is_the_preset() {
        let lines = Experiment::Best.lines();
        let line = lines.iter().find(|line| line.name == "best").unwrap();
        let Work::Tiger(changes) = &line.work else { panic!("{line:?}") };
        let row = changed(base(Duration::from_secs(60), 1), changes).unwrap();
        let mut best = TigerConfig::best().with_seed(1).with_train(row.train.clone());
        best.decode.exclude_history = false;
        assert_eq!(row, best, "all but which items are ranked");
    }

    #[test]
    fn places_are_left_out_of_manifests() {
        let settings = json!({"dir": "/home/me/model", "name": "a/b", "list": ["/x/y.npy", 1]});
        assert_eq!(without_places(settings), json!({"dir": "model", "name": "a/b", "list": ["y.npy", 1]}));
    }
}
