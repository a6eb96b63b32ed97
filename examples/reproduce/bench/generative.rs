//! Rows of models that generate Semantic IDs.

use std::{collections::BTreeMap, ops::RangeInclusive, path::PathBuf, time::Instant};

use genrec::{
    Ensemble, Recommender,
    data::Dataset,
    decode::{AnySearch, PerLevel, Resolve, Sampling, Shape},
    embed::{EmbedderSpec, io::read_npy},
    eval::InvalidRate,
    evaluate::{Part, questions},
    index::ItemId,
    pipeline::{self, EmbeddingSource, Outcome, Report, TigerConfig, TimingReport},
    quantize::ArrayRows,
};
use ndarray::{Array2, Axis, concatenate};
use serde_json::{Value, json};
use support::{BoxError, ProgressView, asked, categories::Categories, curves::Curves, fit};

use super::{Bench, Settings, changed};
use crate::{plan::Set, row::Row, table::ENTROPY_AT};

/// Depths at which invalid sequences are counted.
const INVALID_AT: [usize; 4] = [1, 5, 10, 20];
/// Users that are asked freely for it, evenly spaced.
const INVALID_USERS: usize = 2_000;

/// Users that lists are drawn for, evenly spaced.
pub(super) const SAMPLED_USERS: usize = 2_000;

/// What counts as progress of the validation's NDCG@10 where a row may end before its time; below it 2,000 users
/// tell nothing apart.
const PROGRESS: f64 = 0.001;

/// Members of an ensemble.
const MEMBERS: u64 = 2;

/// Seeds of the members of an ensemble's row.
pub(super) fn members(seed: u64) -> RangeInclusive<u64> {
    MEMBERS * (seed - 1) + 1..=MEMBERS * seed
}

impl Bench<'_> {
    /// The settings of a run, with the embedder that its embeddings are made by.
    pub(super) fn config(&self, changes: &[Value], seed: u64) -> Result<TigerConfig, BoxError> {
        let Settings { preset, precision, budget, patience, .. } = *self.settings;
        let mut config = preset.config(precision, budget, seed);
        if patience.is_some() {
            config.train = config.train.with_patience(patience).with_min_delta(PROGRESS);
        }
        let config = changed(config, changes)?;
        Ok(config.with_embedder(self.settings.embedder.clone()).seeded())
    }

    /// Where a run of TIGER is, or will be.
    pub(super) fn run_dir(&self, name: &str, seed: u64) -> PathBuf {
        self.settings.out.join(self.set.name()).join(format!("{name}-s{seed}"))
    }

    /// Trains on the set, or goes on with what was interrupted, or opens what is finished.
    pub(super) fn trained(&self, name: &str, changes: &[Value], seed: u64) -> Result<Outcome, BoxError> {
        self.trained_as(name, self.config(changes, seed)?, &self.dataset)
    }

    /// The same of other settings, of their seed, on other sequences of the set's items.
    pub(super) fn trained_as(&self, name: &str, config: TigerConfig, dataset: &Dataset) -> Result<Outcome, BoxError> {
        let config = config.with_embedder(EmbeddingSource::Npy { path: self.embedded()? });
        let dir = self.run_dir(name, config.seed);
        let device = self.settings.device.open()?;
        let mut watch = (ProgressView::new(&config.train, None), Curves::new(&dir, dir.exists()));
        Ok(pipeline::run(dataset, &config, &dir, &device, None, dir.exists(), &mut watch)?)
    }

    pub(super) fn tiger(&self, name: &str, changes: &[Value], seed: u64) -> Result<Row, BoxError> {
        let outcome = self.trained(name, changes, seed)?;
        Ok(self.generated((name, seed), outcome, &self.dataset)?.0)
    }

    /// The row of a run, and the run.
    pub(super) fn generated(
        &self,
        (name, seed): (&str, u64),
        outcome: Outcome,
        dataset: &Dataset,
    ) -> Result<(Row, Recommender), BoxError> {
        let start = Instant::now();
        let asked = questions(&dataset.sequences, Part::Test)?;
        let recommender = outcome.recommender;
        let without = recommender.config().clone().with_exclude_history(true);
        let without_own = asked::evaluate(&recommender, &without, &asked, "own out")?;
        let mut row = self.dress(name, seed, [&outcome.test, &without_own])?;
        row.valid = Some(outcome.report.valid);
        row.sid = Some(outcome.report.sid);
        row.invalid = invalid(&recommender, dataset)?;
        row.train = Some(outcome.report.train);
        row.manifest.minutes = minutes(&outcome.report.timing, start);
        Ok((row, recommender))
    }

    /// A run of another line, what it finds ranked again by what came near the history. Minutes are those of both.
    pub(super) fn reranked(&self, name: &str, (of, changes): (&str, &[Value]), seed: u64) -> Result<Row, BoxError> {
        let Outcome { report, recommender, .. } = self.trained(of, changes, seed)?;
        let start = Instant::now();
        let ranked_again = recommender.config().clone().with_rerank(TigerConfig::best().decode.rerank);
        let recommender = recommender.with_co_occurrence(self.co_occurrence()?)?;
        let questions = questions(&self.dataset.sequences, Part::Test)?;
        let mut suites = Vec::new();
        for exclude in [false, true] {
            let config = ranked_again.clone().with_exclude_history(exclude);
            suites.push(asked::evaluate(&recommender, &config, &questions, name)?);
        }
        let mut row = self.dress(name, seed, [&suites[0], &suites[1]])?;
        row.manifest.minutes = minutes(&report.timing, start);
        (row.train, row.sid) = (Some(report.train), Some(report.sid));
        Ok(row)
    }

    /// TIGER over a quantiser that is fitted to the items of all sets together.
    pub(super) fn joint(&self, name: &str, seed: u64) -> Result<Row, BoxError> {
        let start = Instant::now();
        if let EmbeddingSource::Text { embedder: EmbedderSpec::Tfidf(_) } = self.settings.embedder {
            let text =
                "TF-IDF has other columns in each set, which no quantiser can share: give an `--embedder` with weights";
            return Err(text.into());
        }
        let config = self.config(&[], seed)?;
        let made_of = json!([self.settings.embedder, config.quantizer, self.data_of_all_sets()?]);
        let dir = self.settings.out.join(format!("joint-{:08x}", crc32fast::hash(made_of.to_string().as_bytes())));
        if !dir.join("config.json").exists() {
            let mut all = Vec::new();
            for set in Set::ALL {
                all.push(read_npy(Bench::open(self.settings, set)?.embedded()?)?);
            }
            let rows: Array2<f32> = concatenate(Axis(0), &all.iter().map(|rows| rows.view()).collect::<Vec<_>>())?;
            let device = self.settings.device.open()?;
            fit::fit("joint", &config.quantizer, &mut ArrayRows::from(rows), None, &device)?.quantizer.save(&dir)?;
        }
        let fitted = start.elapsed();
        let outcome = self.trained_as(name, config.with_fitted_quantizer(dir), &self.dataset)?;
        let (mut row, _) = self.generated((name, seed), outcome, &self.dataset)?;
        row.manifest.minutes += fitted.as_secs_f64() / 60.0;
        Ok(row)
    }

    /// Checksums of the sets that a joint quantiser is fitted to.
    pub(super) fn data_of_all_sets(&self) -> Result<BTreeMap<&'static str, u32>, BoxError> {
        Set::ALL.iter().map(|&set| Ok((set.name(), Bench::open(self.settings, set)?.crc))).collect()
    }

    /// Runs of a line that differ by their seeds, and so by their Semantic IDs too, recommending together: each of as many
    /// candidates as it has beams. Examples, parameters and minutes are those of all.
    pub(super) fn ensemble(&self, name: &str, (of, changes): (&str, &[Value]), seed: u64) -> Result<Row, BoxError> {
        let (mut runs, mut together) = (Vec::<Recommender>::new(), None::<Report>);
        for member in members(seed) {
            let Outcome { report, recommender, .. } = self.trained(of, changes, member)?;
            runs.push(recommender);
            together = Some(match together {
                None => report,
                Some(sum) => added(sum, &report),
            });
        }
        let start = Instant::now();
        let beams = runs.first().map_or(0, |run| run.config().beams);
        let questions = questions(&self.dataset.sequences, Part::Test)?;
        let ensemble = Ensemble::new(runs)?.with_candidates(beams);
        let test = asked::evaluate_together(&ensemble, &questions)?;
        let without = |run: Recommender| {
            let config = run.config().clone().with_exclude_history(true);
            run.with_config(config)
        };
        let members = ensemble.into_members().into_iter().map(without).collect::<Result<Vec<_>, _>>()?;
        let ensemble = Ensemble::new(members)?.with_candidates(beams);
        let without_own = asked::evaluate_together(&ensemble, &questions)?;
        let mut row = self.dress(name, seed, [&test, &without_own])?;
        if let Some(report) = together {
            row.manifest.minutes = minutes(&report.timing, start);
            (row.train, row.sid) = (Some(report.train), Some(report.sid));
        }
        Ok(row)
    }

    /// Lists drawn by the run `tiger`, of a sample of users.
    pub(super) fn sampled(&self, name: &str, temperatures: &[f32], seed: u64) -> Result<Row, BoxError> {
        let recommender = self.trained("tiger", &[], seed)?.recommender;
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
}

/// Minutes of a run and of what has been done with it since `after`: of all its training, and of the other stages what the last program
/// that worked on it took for them.
fn minutes(timing: &TimingReport, after: Instant) -> f64 {
    let stages = timing.embed_seconds + timing.quantize_seconds + timing.train_seconds + timing.evaluate_seconds;
    (stages + after.elapsed().as_secs_f64()) / 60.0
}

/// What training took, of one member more.
fn added(mut sum: Report, more: &Report) -> Report {
    sum.train.examples += more.train.examples;
    sum.train.steps += more.train.steps;
    sum.train.parameters += more.train.parameters;
    sum.timing.embed_seconds += more.timing.embed_seconds;
    sum.timing.quantize_seconds += more.timing.quantize_seconds;
    sum.timing.train_seconds += more.timing.train_seconds;
    sum.timing.evaluate_seconds += more.timing.evaluate_seconds;
    sum
}

/// Share of freely generated sequences that are no item, by how many are generated.
fn invalid(recommender: &Recommender, dataset: &Dataset) -> Result<BTreeMap<usize, f64>, BoxError> {
    let deepest = INVALID_AT.into_iter().max().unwrap_or(1);
    let questions = asked::test_questions(dataset, Some(INVALID_USERS))?;
    let free = asked::beam_search(recommender.config(), deepest).with_free(Resolve::Exact);
    let answers = asked::ask(recommender, &free, &questions, deepest, "invalid IDs")?;
    let mut rate = InvalidRate::new(deepest)?;
    for user in &answers.ranked {
        genrec::eval::Metric::<Option<ItemId>>::update(&mut rate, &user.generated, &[]);
    }
    Ok(INVALID_AT.into_iter().filter_map(|k| Some((k, rate.value_at(k)?))).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::time::Duration;

    use clap::ValueEnum;
    use genrec::pipeline::{Precision, SasRecTraining};

    use super::*;
    use crate::plan::{Experiment, Preset, Work};

    fn base(preset: Preset) -> TigerConfig {
        preset.config(Precision::F32, Duration::from_secs(60), 1)
    }

    #[test]
    fn every_line_of_every_table_can_be_run_and_a_name_is_one_work() {
        let mut works: BTreeMap<&str, Work> = BTreeMap::new();
        for line in Experiment::value_variants().iter().flat_map(|experiment| experiment.lines()) {
            match &line.work {
                Work::Tiger(changes) | Work::Reranked { changes, .. } | Work::Ensemble { changes, .. } => {
                    for &preset in Preset::value_variants() {
                        let config = changed(base(preset), changes).unwrap();
                        assert!(config.validate().is_ok(), "{}: {:?}", line.name, config.validate());
                    }
                }
                Work::SasRec(changes) => {
                    changed(SasRecTraining::default(), std::slice::from_ref(changes)).unwrap();
                }
                _ => {}
            }
            if let Work::Ensemble { of, changes } | Work::Reranked { of, changes } = &line.work {
                assert_eq!(works.get(of), Some(&Work::Tiger(changes.clone())), "{} is of another line", line.name);
            }
            let before = works.entry(line.name).or_insert_with(|| line.work.clone());
            assert_eq!(*before, line.work, "two works are called {}", line.name);
        }
    }

    fn settings(name: &str) -> Value {
        let lines = Experiment::Best.lines();
        let line = lines.iter().find(|line| line.name == name).unwrap();
        let Work::Tiger(changes) = &line.work else { panic!("{line:?}") };
        serde_json::to_value(changed(base(Preset::Cpu), changes).unwrap()).unwrap()
    }

    #[test]
    fn the_row_best_is_the_preset() {
        let mut best = TigerConfig::best().with_seed(1).with_train(base(Preset::Cpu).train);
        best.decode = best.decode.with_exclude_history(false).with_rerank(None);
        let expected = serde_json::to_value(best).unwrap();
        assert_eq!(
            settings("best"),
            expected,
            "all but its length, which items are ranked, and that they are ranked again"
        );
    }

    /// The dotted names of all settings that differ.
    fn differences(at: &str, a: &Value, b: &Value) -> Vec<String> {
        let (Value::Object(left), Value::Object(right)) = (a, b) else {
            return if a == b { Vec::new() } else { vec![at.to_owned()] };
        };
        let keys: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
        let of = |key: &String| differences(&format!("{at}.{key}"), &a[key], &b[key]);
        keys.into_iter().flat_map(of).collect()
    }

    #[test]
    fn the_papers_model_is_the_papers() {
        let json = |config: TigerConfig| serde_json::to_value(config).unwrap();
        let found = differences("", &json(base(Preset::Paper)), &json(TigerConfig::paper().with_seed(1)));
        assert_eq!(found, [".train.cooldown", ".train.max_duration", ".validation_users"]);
    }

    #[test]
    fn one_change_at_a_time_is_one_change() {
        for line in Experiment::Best.lines() {
            let (Some(other), Work::Tiger(_)) = (line.against, &line.work) else { continue };
            let found = differences("", &settings(line.name), &settings(other));
            let expected: &[&str] = match line.name {
                "tiger-behaviour" => &[".blend"],
                "best" => &[".decode.user_tokens"],
                "best-thinned" => &[".windows.drop_items"],
                "best-dropout" => &[".model.dropout_rate"],
                "best-4-iterations" => &[".blend.behaviour.power_iterations"],
                "best-4-iterations-12-epochs" => &[".train.epochs", ".train.max_duration", ".train.max_steps"],
                "best-paper-layers" => &[
                    ".model.d_ff",
                    ".model.d_kv",
                    ".model.num_decoder_layers",
                    ".model.num_heads",
                    ".model.num_layers",
                ],
                "best-bidirectional" => &[".model.architectures", ".model.causal_encoder", ".model.model_type"],
                "best-history-40" => &[".decode.max_history", ".windows.max_history"],
                "best-256-columns" => &[".blend.behaviour.dims"],
                other => panic!("{other} is compared with no test"),
            };
            assert_eq!(found, expected, "{}", line.name);
        }
    }

    #[test]
    fn seeds_of_ensembles_do_not_overlap() {
        assert_eq!([1, 2, 3].map(members), [1..=2, 3..=4, 5..=6]);
    }
}
