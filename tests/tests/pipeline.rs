//! The whole pipeline on small data: what it writes, what it refuses, and that interruptions leave no trace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use candle_core::{Device, Tensor};
use genrec::{
    Error, History, Recommender, Wanted,
    data::{Item, Synthetic},
    decode::{AnySearch, ColdStart, ExactSearch, Resolve, Sampling},
    embed::AnyEmbedder,
    index::{ItemFilter, ItemId},
    model::{ItemScorer, RaggedBatch},
    pipeline::{self, Budget, EmbeddingSource, Event, SasRecTraining, TigerConfig},
    quantize::{QuantizeError, QuantizerConfig},
    train::{DirectoryLock, StopReason, TrainError},
};
use genrec_tests::{assert_same, contents, small_config, small_shop};
use ndarray::Array2;

fn run(dir: &Path, config: &TigerConfig, resume: bool) -> genrec::Result<pipeline::Outcome> {
    let Synthetic { dataset, .. } = small_shop();
    pipeline::run(&dataset, config, dir, &Device::Cpu, None, resume, &mut |_: &Event<'_>| {})
}

#[test]
fn a_run_writes_every_part_and_opens_again() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let outcome = run(dir.path(), &small_config(), false)?;
    for part in ["run.json", "catalogue/items.jsonl", "embedder", "embeddings.safetensors", "quantizer/config.json"]
        .into_iter()
        .chain(["index/index.json", "model/config.json", "model/model.safetensors", "decode.json", "report.json"])
    {
        assert!(dir.path().join(part).exists(), "{part} is missing");
    }
    let report: serde_json::Value = serde_json::from_slice(&fs::read(dir.path().join("report.json")).unwrap()).unwrap();
    for pointer in
        ["/format_version", "/dataset/users", "/sid/collision_rate", "/train/best_epoch", "/timing/train_seconds"]
            .into_iter()
            .chain(["/timing/examples_per_second", "/valid/recall@5", "/valid/ndcg@10", "/test/recall@10"])
            .chain(["/test/invalid_rate@10", "/baselines/popularity/recall@10", "/baselines/semantic_knn/ndcg@5"])
    {
        assert!(report.pointer(pointer).is_some_and(serde_json::Value::is_number), "{pointer} is not a number");
    }

    let recommender = Recommender::load(dir.path(), &Device::Cpu)?;
    let items = [ItemId(3), ItemId(5)];
    let histories = [History { user: Some("someone"), items: &items }, History { user: None, items: &items[..1] }];
    let before = outcome.recommender.recommend(&histories, 10)?;
    assert_eq!(before, recommender.recommend(&histories, 10)?);
    for list in &before {
        assert_eq!(list.len(), 10);
        assert!(list.windows(2).all(|pair| pair[0].score >= pair[1].score));
        let mut items: Vec<_> = list.iter().map(|found| found.item).collect();
        items.sort_unstable();
        items.dedup();
        assert_eq!(items.len(), 10, "an item is recommended twice");
    }
    Ok(())
}

#[test]
fn a_budget_ends_the_training_with_a_validation_and_resuming_trains_on() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let mut config = small_config();
    (config.train.epochs, config.train.patience) = (Some(100_000), None);
    let Synthetic { dataset, .. } = small_shop();
    let budget = Some(Budget::new(Duration::from_secs(6)));
    let mut steps = 0;
    for resume in [false, true] {
        let mut validated = 0;
        let mut observer = |event: &Event<'_>| {
            if let Event::Validation(report) = event {
                validated = report.step;
            }
        };
        let report = pipeline::run(&dataset, &config, dir.path(), &Device::Cpu, budget, resume, &mut observer)?.report;
        assert_eq!(report.train.stopped, StopReason::MaxDuration);
        assert_eq!(report.train.steps, validated, "the last weights were not validated");
        assert!(report.train.steps > steps, "no step was taken");
        steps = report.train.steps;
    }
    Ok(())
}

#[test]
fn an_unseen_item_is_added_recommended_and_kept() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let mut recommender = run(dir.path(), &small_config(), false)?.recommender;
    let sids: Vec<_> = (0..recommender.index().len() as u32)
        .map(|item| recommender.index().sid(ItemId(item)).map(|sid| sid.to_vec()))
        .collect();
    let relative = recommender.catalogue().get(ItemId(7)).cloned().unwrap();
    let snapshot = recommender.clone();
    let new = recommender.add_item(Item { id: "brand-new".into(), ..relative.clone() })?;
    assert_eq!(recommender.seen(new), Some(false));
    assert_eq!((snapshot.index().len(), snapshot.seen(new)), (sids.len(), None), "a clone has changed");
    assert!(snapshot.find("brand-new").is_err());
    for (item, sid) in sids.iter().enumerate() {
        assert_eq!(recommender.index().sid(ItemId(item as u32)).map(|sid| sid.to_vec()), *sid, "a SID has changed");
    }
    // The same text gets the same codes and another suffix.
    let (old, added) = (recommender.index().sid(ItemId(7)).unwrap(), recommender.index().sid(new).unwrap());
    assert_eq!(old[..old.len() - 1], added[..added.len() - 1]);
    assert_ne!(old[old.len() - 1], added[added.len() - 1]);
    let everything = recommender.recommend(&[History { user: None, items: &[ItemId(7)] }], sids.len() + 1)?;
    assert!(everything[0].iter().any(|found| found.item == new), "the new item cannot be reached");

    assert!(recommender.add_item(relative).is_err(), "an id was taken twice");
    assert_eq!(recommender.index().len(), sids.len() + 1);
    // The catalogue is written before the index: a process that is killed in between has added nothing.
    let index = dir.path().join("index");
    let before = fs::read(index.join("index.json")).unwrap();
    let payload = fs::read(index.join("index.safetensors")).unwrap();
    recommender.save_catalogue(dir.path())?;
    let again = Recommender::load(dir.path(), &Device::Cpu)?;
    assert_eq!(again.find("brand-new")?, new);
    assert_eq!(again.seen(new), Some(false));
    let resumed = run(dir.path(), &small_config(), true);
    assert!(matches!(resumed, Err(Error::ItemsAdded { indexed, items, .. }) if indexed == items + 1));
    fs::write(index.join("index.json"), before).unwrap();
    fs::write(index.join("index.safetensors"), payload).unwrap();
    let old = Recommender::load(dir.path(), &Device::Cpu)?;
    assert_eq!(old.catalogue().len(), sids.len());
    assert!(matches!(old.find("brand-new"), Err(Error::UnknownItem { .. })));
    Ok(())
}

/// Every way to decode that a run takes, on one run with one item that training has not seen.
#[test]
fn searches_filters_and_cold_start_do_what_they_say() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let mut recommender = run(dir.path(), &small_config(), false)?.recommender;
    let relative = recommender.catalogue().get(ItemId(7)).cloned().unwrap();
    let new = recommender.add_item(Item { id: "brand-new".into(), ..relative })?;
    let (config, items) = (recommender.config().clone(), recommender.index().len());
    let known = [ItemId(7), ItemId(3)];
    let history = [History { user: None, items: &known }];
    let ids = |found: Vec<Vec<genrec::Recommendation>>| found.into_iter().flatten().map(|f| f.item).collect::<Vec<_>>();
    let usual = recommender.recommend(&history, 10)?;

    // Filters compose, leave nothing behind, and are named when they do.
    let even = ItemFilter::matching(recommender.index(), |item| item.0 % 2 == 0);
    let low = ItemFilter::matching(recommender.index(), |item| item.0 < 20);
    let wanted = Wanted::any().with_filter("even", &even).with_filter("low", &low).without_history();
    let mut found = ids(recommender.recommend_wanted(&history, items, &wanted)?);
    found.sort_unstable();
    assert_eq!(found, (0..20).step_by(2).map(ItemId).collect::<Vec<_>>());
    let odd = ItemFilter::matching(recommender.index(), |item| item.0 % 2 == 1);
    let nothing = Wanted::any().with_filter("even", &even).with_filter("odd", &odd);
    let error = recommender.recommend_wanted(&history, 3, &nothing).unwrap_err().to_string();
    assert!(error.contains("`odd`"), "{error}");

    // The exact search is the oracle of a wide beam; sampling is seeded and repeats nothing.
    recommender = recommender.with_config(config.clone().with_search(AnySearch::Exact(ExactSearch::new(10))))?;
    let exact = recommender.recommend(&history, 10)?;
    recommender = recommender.with_config(config.clone().with_beams(items))?;
    assert_eq!(exact, recommender.recommend(&history, 10)?);
    let sampling = |seed| AnySearch::Sampling(Sampling::new(15, seed));
    recommender = recommender.with_config(config.clone().with_search(sampling(1)))?;
    let (first, again) = (ids(recommender.recommend(&history, 15)?), ids(recommender.recommend(&history, 15)?));
    assert_eq!((first.iter().collect::<std::collections::BTreeSet<_>>().len(), &first), (15, &again));
    // Settings for one call give what they would give for all.
    let plain = recommender.clone().with_config(config.clone())?;
    let once = config.clone().with_search(sampling(1));
    let ranked = plain.searcher().with_config(&once)?.rank(plain.model(), &history, 15, &mut |_, _| {})?;
    assert_eq!(ranked[0].items.iter().map(|(item, _)| *item).take(15).collect::<Vec<_>>(), first);
    let (other_model, no_beams) = (config.clone().with_user_tokens(7), config.clone().with_beams(0));
    assert!(matches!(plain.searcher().with_config(&other_model), Err(Error::Mismatch { what: "user tokens", .. })));
    assert!(matches!(plain.searcher().with_config(&no_beams), Err(Error::Config { field: "beams", .. })));
    recommender = recommender.with_config(config.clone().with_search(sampling(2)))?;
    assert_ne!(first, ids(recommender.recommend(&history, 15)?));

    // Free generation fills its list when it may widen.
    recommender = recommender.with_config(config.clone().with_free(Resolve::Exact))?;
    let narrow = ids(recommender.recommend(&history, 40)?).len();
    recommender = recommender.with_config(config.clone().with_free(Resolve::Exact).with_widen_to(1 << 12))?;
    assert!(narrow < 40, "every one of the first 40 sequences is an item: the test shows nothing");
    assert_eq!(ids(recommender.recommend(&history, 40)?).len(), 40);

    recommender = recommender.with_config(config.clone())?;
    assert_eq!(recommender.recommend(&history, 10)?, usual);

    // Unseen items have a share of the list and no more.
    let levels = recommender.index().layout().levels();
    for (epsilon, most) in [(0.0, 0), (0.1, 1), (1.0, 1)] {
        let cold = ColdStart::new(epsilon).with_prefix(levels);
        recommender = recommender.with_config(config.clone().with_beams(items).with_cold_start(cold))?;
        let list = ids(recommender.recommend(&history, items)?);
        assert_eq!(list.iter().filter(|&&item| item == new).count(), most, "epsilon {epsilon}");
    }

    // Of two that agree in their codes a score chooses.
    let twin = recommender.catalogue().get(new).cloned().unwrap();
    let newer = recommender.add_item(Item { id: "newer".into(), title: Some("Something else".into()), ..twin })?;
    let embeddings = genrec::embed::io::read_safetensors(dir.path().join("embeddings.safetensors"))?;
    let more = Array2::zeros((recommender.catalogue().len() + 2, embeddings.ncols()));
    let cold = config.clone().with_beams(items).with_cold_start(ColdStart::new(0.1).with_prefix(1));
    recommender = recommender.with_config(cold)?;
    let chosen = |recommender: &Recommender| -> genrec::Result<Vec<ItemId>> {
        Ok(ids(recommender.recommend(&history, 10)?).into_iter().filter(|&item| item >= new).collect())
    };
    recommender = recommender.with_unseen_scorer(Arc::new(Prefers(newer)));
    assert_eq!(chosen(&recommender)?, [newer]);
    recommender = recommender.with_unseen_scorer(Arc::new(Prefers(new)));
    assert_eq!(chosen(&recommender)?, [new]);
    // The history's last item is 3, then 7, whose text the first new one has.
    recommender = recommender.with_semantic_knn(embeddings.view())?;
    let of = |recommender: &Recommender, items: &[ItemId]| -> genrec::Result<Vec<ItemId>> {
        let found = ids(recommender.recommend(&[History { user: None, items }], 10)?);
        Ok(found.into_iter().filter(|&item| item >= new).collect())
    };
    assert_eq!(of(&recommender, &[ItemId(3), ItemId(7)])?, [new]);
    // One that comes later may stand in a history.
    let relative = recommender.catalogue().get(ItemId(7)).cloned().unwrap();
    let newest = recommender.add_item(Item { id: "newest".into(), ..relative })?;
    assert_eq!(of(&recommender, &[ItemId(3), ItemId(7), newest])?, [new]);
    assert!(matches!(recommender.with_semantic_knn(more.view()), Err(Error::Mismatch { what: "items", .. })));
    Ok(())
}

/// Scores one item above all others.
struct Prefers(ItemId);

impl ItemScorer for Prefers {
    fn scores(&self, histories: &RaggedBatch) -> candle_core::Result<Tensor> {
        let scores: Vec<f32> = (0..2_000).map(|item| f32::from(u8::from(item == self.0.0))).collect();
        Tensor::from_vec(scores, (histories.len(), 2_000), &Device::Cpu)
    }
}

#[test]
fn an_index_of_another_quantizer_is_refused() -> genrec::Result<()> {
    let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(ours.path(), &small_config(), false)?;
    let mut config = small_config();
    config.seed += 1;
    run(other.path(), &config, false)?;
    for file in ["config.json", "model.safetensors"] {
        fs::copy(other.path().join("quantizer").join(file), ours.path().join("quantizer").join(file)).unwrap();
    }
    let error = Recommender::load(ours.path(), &Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("belongs to codebook"), "{error}");
    Ok(())
}

#[test]
fn the_embedder_is_opened_by_the_first_new_item() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &small_config(), false)?;
    let moved = dir.path().join("elsewhere");
    fs::rename(dir.path().join("embedder"), &moved).unwrap();
    let mut recommender = Recommender::load(dir.path(), &Device::Cpu)?;
    let mut item = Item::default();
    (item.id, item.title) = ("new".into(), Some("something new".into()));
    assert!(matches!(recommender.add_item(item.clone()), Err(Error::Embed(_))));
    assert!(recommender.find("new").is_err(), "a failure added an item");
    let mut recommender = recommender.with_embedder(AnyEmbedder::load(&moved, &Device::Cpu)?);
    let new = recommender.add_item(item)?;
    assert_eq!(recommender.find("new")?, new);
    Ok(())
}

/// What a kill between the last two steps of saving an index leaves.
#[test]
fn an_index_that_was_not_moved_to_its_place_is() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &small_config(), false)?;
    let whole = contents(dir.path());
    let index = dir.path().join("index");
    fs::rename(index.join("index.safetensors"), index.join("index.safetensors.next")).unwrap();
    run(dir.path(), &small_config(), true)?;
    assert_same(&whole, &contents(dir.path()));
    Ok(())
}

/// What a kill between the files of a stage leaves: a directory that lacks the file written last.
#[test]
fn a_stage_that_was_cut_short_is_done_again() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &small_config(), false)?;
    let whole = contents(dir.path());
    for last in ["embeddings.safetensors", "quantizer/config.json", "index/index.json", "model/config.json"] {
        fs::remove_file(dir.path().join(last)).unwrap();
    }
    run(dir.path(), &small_config(), true)?;
    assert_same(&whole, &contents(dir.path()));
    Ok(())
}

#[test]
fn settings_that_fail_at_once_do_not_claim_the_directory() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let mut mistyped = small_config();
    mistyped.embedder = EmbeddingSource::Npy { path: "/no/such/file.npy".into() };
    assert!(run(dir.path(), &mistyped, false).is_err());
    assert!(dir.path().join("run.json").exists());
    run(dir.path(), &small_config(), false)?;
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), &small_config(), false)?;
    assert_same(&contents(dir.path()), &contents(whole.path()));
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused_by_name() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let config = small_config();
    let recommender = run(dir.path(), &config, false)?.recommender;
    assert!(matches!(run(dir.path(), &config, false), Err(Error::RunExists { .. })));
    let locked = |error: Error| matches!(error, Error::Train(error) if matches!(*error, TrainError::Locked { .. }));
    let mut ignored = |_: &Event<'_>| {};
    let other = DirectoryLock::take(dir.path()).unwrap();
    assert!(run(dir.path(), &config, true).is_err_and(locked));
    assert!(recommender.save_catalogue(dir.path()).is_err_and(locked));
    assert!(
        SasRecTraining::default()
            .run(&small_shop().dataset, dir.path(), &Device::Cpu, true, &mut ignored)
            .is_err_and(locked)
    );
    drop(other);
    recommender.save_catalogue(dir.path())?;
    let other = small_config().with_seed(config.seed + 1);
    assert!(matches!(run(dir.path(), &other, true), Err(Error::ConfigChanged { field, .. }) if field.contains("seed")));
    assert!(matches!(recommender.find("no such item"), Err(Error::UnknownItem { .. })));
    let beyond = [ItemId(u32::MAX)];
    let asked = recommender.recommend(&[History { user: None, items: &beyond }], 3);
    assert!(matches!(asked, Err(Error::UnknownItem { .. })));
    let empty = tempfile::tempdir().unwrap();
    let mut spoilt = small_config();
    spoilt.train.epochs = Some(0);
    assert!(matches!(run(empty.path(), &spoilt, false), Err(Error::Train(_))));
    let mut greedy = small_config();
    if let QuantizerConfig::RqVae(config) = &mut greedy.quantizer {
        config.codebook_sizes[0] = 100_000;
    }
    let asked = run(empty.path(), &greedy, false);
    assert!(matches!(asked, Err(Error::Quantize(QuantizeError::TooFewRows { codes: 100_000, .. }))), "{asked:?}");
    assert_eq!(
        fs::read_dir(empty.path()).unwrap().count(),
        0,
        "something was written before the settings were checked"
    );
    fs::rename(dir.path().join("run.json"), dir.path().join("run.bak")).unwrap();
    assert!(matches!(run(dir.path(), &config, true), Err(Error::Unclaimed { part }) if part.ends_with("catalogue")));
    fs::rename(dir.path().join("run.bak"), dir.path().join("run.json")).unwrap();
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    assert!(Recommender::load(dir.path(), &Device::Cpu).is_err());
    fs::remove_file(dir.path().join("decode.json")).unwrap();
    assert!(matches!(Recommender::load(dir.path(), &Device::Cpu), Err(Error::MissingArtifact { .. })));
    Ok(())
}

const CHILD_DIR: &str = "GENREC_TEST_CHILD_DIR";

/// Not a test of its own: the process that the tests below start, kill and start again.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    run(Path::new(&dir), &small_config(), true).unwrap();
}

fn child_process(dir: &Path, threads: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--test-threads", "1"])
        .env(CHILD_DIR, dir)
        .env("RAYON_NUM_THREADS", threads.to_string())
        .env("CANDLE_NUM_THREADS", threads.to_string())
        .stdout(Stdio::null());
    command
}

#[test]
fn one_thread_and_two_threads_write_the_same_bytes() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(child_process(one.path(), 1).status().unwrap().success());
    assert!(child_process(two.path(), 2).status().unwrap().success());
    assert_same(&contents(one.path()), &contents(two.path()));
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_bytes() {
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let start = std::time::Instant::now();
    assert!(child_process(whole.path(), 2).status().unwrap().success());
    let pace = start.elapsed();
    let mut kills = 0;
    // Each attempt lives longer than the last, so that the sequence of kills walks through every stage and ends.
    for attempt in 1..=12_u32 {
        let mut child = child_process(killed.path(), 2).spawn().unwrap();
        std::thread::sleep(pace.mul_f64(0.13 * f64::from(attempt)).max(Duration::from_millis(50)));
        if child.try_wait().unwrap().is_some_and(|status| status.success()) {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 0, "no process was killed");
    assert!(child_process(killed.path(), 2).status().unwrap().success());
    assert_same(&contents(whole.path()), &contents(killed.path()));
}
