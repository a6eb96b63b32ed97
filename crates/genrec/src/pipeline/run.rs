//! The stages, one after the other.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use candle_core::Device;
use genrec_data::{Dataset, LeaveOneOut};
use genrec_eval::Suite;
use genrec_kernels::CounterRng;
use genrec_model::{baseline::CoOccurrence, t5::T5};
use genrec_train::{Alone, Collective, DirectoryLock};
use ndarray::Array2;
use sid_index::{CodebookId, CollisionPolicy, ItemId, SidIndex, SidLayout};
use sid_quantize::{AnyQuantizer, ArrayRows, QuantizeError, Quantizer};

use super::{
    Budget, Event, Manifest, Observer, Precision, Report, SidReport, Stage, TigerConfig, TimingReport, content,
    testing, together, training,
};
use crate::{
    Error, QuantizerCosts, Recommender, Result,
    artifacts::{self, FORMAT_VERSION, RunDir},
    catalogue,
    encoder::{ItemBlend, ItemEncoder},
    evaluate::{self, Part, Question},
};

/// A finished run.
#[derive(Debug)]
pub struct Outcome {
    /// What it was, took and reached; also in `report.json`.
    pub report: Report,
    /// The trained recommender.
    pub recommender: Recommender<T5>,
    /// Test metrics user by user, in the order of [`evaluate::questions`].
    pub test: Suite<ItemId>,
}

/// What every stage needs to know.
pub(super) struct Context<'a> {
    pub(super) dataset: &'a Dataset,
    pub(super) split: LeaveOneOut<'a>,
    pub(super) config: &'a TigerConfig,
    pub(super) run: RunDir,
    pub(super) device: &'a Device,
    pub(super) start: Instant,
    pub(super) budget: Option<Budget>,
    pub(super) resume: bool,
    /// Those that train together; this is one of them.
    pub(super) ranks: &'a dyn Collective,
}

/// What the stages before training made.
struct Prepared<'a> {
    validation: Vec<Question<'a>>,
    test: Vec<Question<'a>>,
    index: SidIndex,
    seen: Vec<bool>,
    embeddings: Array2<f32>,
    encoder: ItemEncoder,
    sid: SidReport,
    timing: TimingReport,
    /// The run's, until it is over.
    _lock: DirectoryLock,
}

impl Context<'_> {
    /// When everything before the test must have ended, if the test takes `foretold` or its share of the budget, whichever
    /// is longer; none without a budget.
    pub(super) fn deadline(&self, foretold: Duration) -> Option<Instant> {
        let budget = self.budget?;
        let reserve = foretold.max(budget.total.mul_f64(budget.evaluate_share));
        self.start.checked_add(budget.total.saturating_sub(reserve))
    }

    /// At most `count` of the questions, drawn by the run's seed, in their order.
    pub(super) fn sample<'q>(&self, questions: Vec<Question<'q>>, count: Option<usize>) -> Vec<Question<'q>> {
        let Some(count) = count.filter(|&count| count < questions.len()) else { return questions };
        let order = CounterRng::new(self.config.seed).named("questions").permutation(questions.len() as u32);
        let mut chosen = order[..count].to_vec();
        chosen.sort_unstable();
        chosen.into_iter().map(|i| questions[i as usize]).collect()
    }
}

/// Runs the pipeline on a data set and writes a run directory.
///
/// With `resume` a directory that already holds a run of the same settings and data is continued; stages whose results are
/// there are not run again. Under a `budget` the quantiser and the training stop in time for the test; each call has the
/// whole budget, so that a run which its budget ended trains on when it is resumed.
///
/// # Errors
/// [`Error::Config`], [`Error::NoTargets`] and [`Error::Quantize`], when there are fewer items than codes in a codebook or a
/// quantiser that was fitted elsewhere cannot be taken, before anything is written; [`Error::RunExists`] when the directory holds results of a run and `resume` is false, [`Error::Unclaimed`] when it holds parts of one without its settings, [`Error::ConfigChanged`]
/// when it was started with other settings or data, `TrainError::Locked` when another run writes to it, and the errors of each
/// stage. What earlier stages wrote stays.
pub fn run(
    dataset: &Dataset,
    config: &TigerConfig,
    dir: &Path,
    device: &Device,
    budget: Option<Budget>,
    resume: bool,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    budget.map_or(Ok(()), |budget| budget.validate())?;
    let config = &checked(config, device)?;
    let (split, run) = (LeaveOneOut::new(&dataset.sequences), RunDir::new(dir));
    let start = Instant::now();
    lead(&Context { dataset, split, config, run, device, start, budget, resume, ranks: &Alone }, observer)
}

/// Settings that can be asked for, with the run's seed in all parts.
pub(super) fn checked(config: &TigerConfig, device: &Device) -> Result<TigerConfig> {
    config.validate()?;
    if config.precision != Precision::F32 && device.is_cpu() {
        let value = format!("{:?} on the CPU", config.precision);
        return Err(Error::Config { field: "precision", value, expected: "f32 there; bf16 needs a GPU" });
    }
    Ok(config.clone().seeded())
}

/// The run as rank 0 does it: all of it, but for the other ranks' shares of the training.
pub(super) fn lead(ctx: &Context<'_>, observer: &mut dyn Observer) -> Result<Outcome> {
    let prepared = prepare(ctx, observer);
    together::announce(ctx, &prepared)?;
    let Prepared { validation, test, index, seen, embeddings, encoder, sid, mut timing, _lock } = prepared?;
    let (config, dataset) = (ctx.config, ctx.dataset);
    let trained = staged(Stage::Train, &mut 0.0, observer, |observer| {
        Ok((training::train(ctx, &index, &validation, test.len(), observer)?, false))
    })?;
    timing.train_seconds = trained.report.seconds;
    timing.examples_per_second = trained.report.examples_seen as f64 / trained.report.seconds.max(1e-9);

    let summary = trained.summary();
    let mut recommender =
        Recommender::new(dataset.catalogue.clone(), seen, index, trained.model, encoder, config.decode.clone())?;
    if config.decode.rerank.is_some() {
        let near = CoOccurrence::fit(ctx.split.train_rows(), dataset.catalogue.len())?;
        near.save(ctx.run.co_occurrence())?;
        recommender = recommender.with_co_occurrence(near)?;
    }
    artifacts::write_json(&ctx.run.decode(), &config.decode)?;
    let tested = staged(Stage::Evaluate, &mut timing.evaluate_seconds, observer, |observer| {
        Ok((testing::test(ctx, &recommender, &validation, &test, &embeddings, observer)?, false))
    })?;
    timing.users_per_second = tested.users_per_second;
    timing.total_seconds = ctx.start.elapsed().as_secs_f64();
    let report = tested.report(ctx, sid, summary, timing)?;
    artifacts::write_json(&ctx.run.report(), &report)?;
    ctx.run.seal(recommender.index().id_bound())?;
    observer.on_event(&Event::Reported(&report));
    Ok(Outcome { report, recommender, test: tested.ours })
}

/// The stages before training.
fn prepare<'a>(ctx: &Context<'a>, observer: &mut dyn Observer) -> Result<Prepared<'a>> {
    let (config, dataset) = (ctx.config, ctx.dataset);
    // Whatever cannot be asked is found out before anything is written.
    let validation = evaluate::questions(&dataset.sequences, Part::Validation)?;
    let test = evaluate::questions(&dataset.sequences, Part::Test)?;
    let (rows, codes) = (dataset.catalogue.len(), config.quantizer.codebook_sizes().into_iter().max());
    let too_many = |codes: &usize| *codes > rows && config.fitted_quantizer.is_none();
    if let Some(codes) = codes.map(|codes| codes as usize).filter(too_many) {
        return Err(QuantizeError::TooFewRows { rows, codes }.into());
    }
    if let Some(dims) = config.blend.as_ref().map(|blend| blend.behaviour.dims).filter(|&dims| dims >= rows) {
        let (field, value) = ("blend.behaviour.dims", format!("{dims} for {rows} items"));
        return Err(Error::Config { field, value, expected: "below the number of items" });
    }
    content::fitted(ctx)?;
    let lock = DirectoryLock::take(ctx.run.root())?;
    claim(ctx)?;
    ctx.run.unseal()?;
    let mut timing = TimingReport::default();

    let seen = seen_items(ctx);
    if !artifacts::exists(&ctx.run.catalogue())? {
        catalogue::write(&ctx.run.catalogue(), &dataset.catalogue, &seen)?;
    }
    let (embeddings, embedder) =
        staged(Stage::Embed, &mut timing.embed_seconds, observer, |observer| content::embed(ctx, observer))?;
    let quantized = |observer: &mut dyn Observer| {
        let (features, blend) = content::features(ctx, &embeddings)?;
        let (quantizer, resumed) = content::quantize(ctx, &features, observer)?;
        let codes = quantizer.encode_array(features.view(), content::ENCODE_BATCH)?;
        observer.on_event(&Event::Encoded { codes: codes.view(), codebook_sizes: quantizer.codebook_sizes(), resumed });
        Ok(((features, blend, quantizer, codes), resumed))
    };
    let (features, blend, quantizer, codes) =
        staged(Stage::Quantize, &mut timing.quantize_seconds, observer, quantized)?;
    let index = staged(Stage::Index, &mut 0.0, observer, |_| build_index(ctx, &quantizer, &features, &codes))?;
    let sid = content::sid_report(&quantizer, &features, &codes)?;
    drop(features);

    let validation = ctx.sample(validation, config.validation_users);
    let blend = blend.map(|blend| ItemBlend::saved(blend, ctx.run.embeddings()));
    let encoder = ItemEncoder { text: config.text.clone(), embedder, blend, quantizer };
    Ok(Prepared { validation, test, index, seen, embeddings, encoder, sid, timing, _lock: lock })
}

/// Announces a stage, runs it, and adds its time to `seconds`. The stage says whether its result was there already.
fn staged<T>(
    stage: Stage,
    seconds: &mut f64,
    observer: &mut dyn Observer,
    work: impl FnOnce(&mut dyn Observer) -> Result<(T, bool)>,
) -> Result<T> {
    observer.on_event(&Event::Started { stage });
    let start = Instant::now();
    let (result, resumed) = work(observer)?;
    *seconds = start.elapsed().as_secs_f64();
    observer.on_event(&Event::Finished { stage, seconds: *seconds, resumed });
    Ok(result)
}

/// What the run is of.
pub(super) fn manifest(ctx: &Context<'_>) -> Result<Manifest> {
    Ok(Manifest {
        format_version: FORMAT_VERSION,
        config: ctx.config.clone(),
        dataset: ctx.dataset.name.clone(),
        data_crc32: fingerprint(ctx.dataset)?,
    })
}

/// Makes the directory this run's own, or checks that it is.
fn claim(ctx: &Context<'_>) -> Result<()> {
    let (path, manifest) = (ctx.run.manifest(), manifest(ctx)?);
    if !artifacts::exists(&path)? {
        // What lies there was made by other settings, for all that is known.
        return match ctx.run.any_part()? {
            Some(part) => Err(Error::Unclaimed { part }),
            None => artifacts::write_json(&path, &manifest),
        };
    }
    if ctx.run.any_result()?.is_none() {
        // Nothing to lose yet: a mistyped path in the settings must not claim the directory.
        ctx.run.remove_beginnings()?;
        return artifacts::write_json(&path, &manifest);
    }
    if !ctx.resume {
        return Err(Error::RunExists { path: ctx.run.root().to_path_buf() });
    }
    let json = |manifest: &Manifest| {
        serde_json::to_value(manifest).map_err(|source| Error::Json { path: path.clone(), source })
    };
    match first_difference("", &json(&artifacts::read_versioned(&path)?)?, &json(&manifest)?) {
        Some((field, was, now)) => Err(Error::ConfigChanged { field, was, now }),
        None => ctx.run.sweep(),
    }
}

/// The dotted path and both values of the first place where two JSON values differ; paths begin with `at`, which may be empty.
pub fn first_difference(
    at: &str,
    was: &serde_json::Value,
    now: &serde_json::Value,
) -> Option<(String, String, String)> {
    if let (Some(a), Some(b)) = (was.as_object(), now.as_object()) {
        let join = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
        let null = serde_json::Value::Null;
        return a
            .keys()
            .chain(b.keys().filter(|key| !a.contains_key(*key)))
            .find_map(|key| first_difference(&join(key), a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null)));
    }
    (was != now).then(|| (at.to_owned(), was.to_string(), now.to_string()))
}

/// CRC-32 over every item and sequence, which a run's manifest keeps.
///
/// # Errors
/// [`Error::Json`] when an item cannot be written as JSON: a price that is not finite.
pub fn fingerprint(dataset: &Dataset) -> Result<u32> {
    let mut hash = crc32fast::Hasher::new();
    for item in dataset.catalogue.items() {
        let bytes = serde_json::to_vec(item).map_err(|source| Error::Json { path: "catalogue".into(), source })?;
        hash.update(&bytes);
    }
    for (user, items) in dataset.sequences.iter() {
        hash.update(user.as_bytes());
        hash.update(&[0]);
        items.iter().for_each(|item| hash.update(&item.0.to_le_bytes()));
    }
    Ok(hash.finalize())
}

/// Whether an item stands in some user's training part.
fn seen_items(ctx: &Context<'_>) -> Vec<bool> {
    let mut seen = vec![false; ctx.dataset.catalogue.len()];
    for user in 0..ctx.dataset.sequences.len() {
        for item in ctx.split.train(user) {
            if let Some(flag) = seen.get_mut(item.index()) {
                *flag = true;
            }
        }
    }
    seen
}

fn build_index(
    ctx: &Context<'_>,
    quantizer: &AnyQuantizer,
    embeddings: &Array2<f32>,
    codes: &Array2<u32>,
) -> Result<(SidIndex, bool)> {
    let dir = ctx.run.index();
    // The file whose arrival completes an index: a run may have been killed before.
    if artifacts::exists(&dir.join("index.json"))? {
        let index = SidIndex::open(&dir)?;
        let indexed = index.id_bound() as usize;
        if indexed > codes.nrows() {
            let (path, items) = (ctx.run.root().to_path_buf(), codes.nrows());
            return Err(Error::ItemsAdded { path, indexed, items });
        }
        // Finishes a save that was cut short after its commit.
        index.save(&dir)?;
        return Ok((index, true));
    }
    let layout = SidLayout::new(quantizer.codebook_sizes().to_vec())?.with_suffix(ctx.config.suffix_size);
    let index = match &ctx.config.reassign {
        None => SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix)?,
        Some(reassign) => {
            let mut rows = ArrayRows::from(embeddings.view());
            let repaired = reassign.repair(&layout, codes.view(), &mut QuantizerCosts::new(quantizer, &mut rows))?;
            tracing::info!(moved = ?repaired.report.moved, left = repaired.report.left, "re-assigned colliding items");
            SidIndex::from_codes(layout, repaired.codes.view(), CollisionPolicy::Suffix)?
        }
    };
    let index = index.with_codebook(CodebookId(quantizer.fingerprint()?));
    index.save(&dir)?;
    Ok((index, false))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_difference_is_named_by_its_path() {
        let was = json!({"a": 1, "b": {"c": [1, 2], "d": true}});
        assert_eq!(first_difference("", &was, &was), None);
        let now = json!({"a": 1, "b": {"c": [1, 3], "d": true}});
        assert_eq!(first_difference("", &was, &now), Some(("b.c".into(), "[1,2]".into(), "[1,3]".into())));
        let more = json!({"a": 1, "b": {"c": [1, 2], "d": true}, "e": 4});
        assert_eq!(first_difference("", &was, &more), Some(("e".into(), "null".into(), "4".into())));
    }
}
