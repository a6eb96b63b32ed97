//! What a model finds, ranked again by what came near the history.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::HashSet, fs, path::Path};

use candle_core::Device;
use genrec::{
    DecodeConfig, Error, History, Recommender, Rerank, Wanted,
    data::{Item, LeaveOneOut},
    index::ItemId,
    model::baseline::CoOccurrence,
    pipeline::{self, Event, TigerConfig},
};
use genrec_tests::{small_config, small_shop};

fn run(dir: &Path, config: &TigerConfig) -> genrec::Result<pipeline::Outcome> {
    pipeline::run(&small_shop().dataset, config, dir, &Device::Cpu, None, false, &mut |_: &Event<'_>| {})
}

fn with_rerank(rerank: Option<Rerank>) -> TigerConfig {
    let mut config = small_config();
    config.decode = config.decode.with_rerank(rerank);
    config
}

/// What came near one another, so that each item moves up the others.
fn histories() -> Vec<Vec<ItemId>> {
    let dataset = small_shop().dataset;
    let split = LeaveOneOut::new(&dataset.sequences);
    (0..4).map(|user| split.train(user).to_vec()).collect()
}

type Lists = Vec<Vec<(ItemId, f32)>>;

fn ask(recommender: &Recommender, wanted: &Wanted<'_>) -> genrec::Result<Lists> {
    let histories = histories();
    let histories: Vec<History<'_>> = histories.iter().map(|items| History { user: None, items }).collect();
    let lists = recommender.recommend_wanted(&histories, 10, wanted)?;
    Ok(lists.iter().map(|list| list.iter().map(|found| (found.item, found.score)).collect()).collect())
}

#[test]
fn a_run_keeps_what_it_ranks_by() -> genrec::Result<()> {
    let (plain, reranked) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = run(plain.path(), &with_rerank(None))?.recommender;
    let second = run(reranked.path(), &with_rerank(Some(Rerank::default())))?.recommender;
    assert!(!plain.path().join("co-occurrence.safetensors").exists());
    // The model is the same: its validation knows nothing of the second ranking.
    let weights = |dir: &Path| fs::read(dir.join("model/model.safetensors")).unwrap();
    assert_eq!(weights(plain.path()), weights(reranked.path()));
    let (before, after) = (ask(&first, &Wanted::any())?, ask(&second, &Wanted::any())?);
    assert_ne!(before, after);
    let opened = Recommender::load(reranked.path(), &Device::Cpu)?;
    assert_eq!(ask(&opened, &Wanted::any())?, after);
    // What is not wanted does not join.
    let own: Vec<HashSet<ItemId>> = histories().into_iter().map(HashSet::from_iter).collect();
    let shares = |lists: &Lists| {
        lists
            .iter()
            .zip(&own)
            .map(|(list, own)| list.iter().filter(|(item, _)| own.contains(item)).count())
            .sum::<usize>()
    };
    let without = ask(&opened, &Wanted::any().without_history())?;
    assert!(shares(&without) == 0 && shares(&after) > 0, "{} {}", shares(&without), shares(&after));

    fs::remove_file(reranked.path().join("co-occurrence.safetensors")).unwrap();
    let lost = Recommender::load(reranked.path(), &Device::Cpu);
    assert!(matches!(lost, Err(Error::MissingArtifact { .. })), "{lost:?}");
    Ok(())
}

#[test]
fn a_run_can_be_told_what_came_near_what() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let mut recommender = run(dir.path(), &with_rerank(None))?.recommender;
    let decode: DecodeConfig = recommender.config().clone().with_rerank(Some(Rerank::default()));
    recommender = recommender.with_config(decode)?;
    let untold = ask(&recommender, &Wanted::any());
    assert!(matches!(untold, Err(Error::Config { field: "rerank", .. })), "{untold:?}");
    let dataset = small_shop().dataset;
    let split = LeaveOneOut::new(&dataset.sequences);
    let items = dataset.catalogue.len();
    recommender = recommender.with_co_occurrence(CoOccurrence::fit(split.train_rows(), items)?)?;
    let other = tempfile::tempdir().unwrap();
    let trained = run(other.path(), &with_rerank(Some(Rerank::default())))?.recommender;
    assert_eq!(ask(&recommender, &Wanted::any())?, ask(&trained, &Wanted::any())?);
    // Free generation is judged as it is, and new items came near nothing.
    let history = History { user: None, items: &[ItemId(3)] };
    let mut quiet = |_, _| {};
    assert!(recommender.searcher().rank_unconstrained(recommender.model(), &[history], 5, &mut quiet).is_ok());
    let row = recommender.add_item(Item::new("new"))?;
    let history = History { user: None, items: &[row] };
    assert_eq!(recommender.recommend(&[history], 5)?[0].len(), 5);
    let larger = CoOccurrence::fit([[0_u32, 1]], items + 2)?;
    assert!(matches!(recommender.with_co_occurrence(larger), Err(Error::Mismatch { what: "items", .. })));
    Ok(())
}
