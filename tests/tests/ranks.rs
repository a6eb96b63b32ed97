//! A run by several ranks is the run of one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path};

use candle_core::Device;
use genrec::{
    Error,
    data::{Dataset, Synthetic},
    pipeline::{self, Event, Outcome, TigerConfig},
    train::{Alone, Collective, Threads, TrainError},
};
use genrec_tests::{small_config, small_shop};

fn run(ranks: &dyn Collective, dataset: &Dataset, config: &TigerConfig, dir: &Path) -> genrec::Result<Option<Outcome>> {
    let mut watch = |_: &Event<'_>| {};
    pipeline::run_together(ranks, dataset, config, dir, &Device::Cpu, true, &mut watch)
}

fn trained(error: &Error) -> Option<&TrainError> {
    match error {
        Error::Train(error) => Some(error),
        _ => None,
    }
}

/// What each of two ranks returns, which may be given different things.
fn two(work: impl Fn(&Threads) -> genrec::Result<Option<Outcome>> + Sync) -> Vec<genrec::Result<Option<Outcome>>> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            Threads::new(2).unwrap().into_iter().map(|rank| scope.spawn(move || work(&rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn two_ranks_train_the_weights_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let (one, both) = (dir.path().join("one"), dir.path().join("both"));
    let Synthetic { dataset, .. } = small_shop();
    let config = small_config();
    assert!(run(&Alone, &dataset, &config, &one).unwrap().is_some());
    let done = two(|rank| run(rank, &dataset, &config, &both));
    assert!(done[0].as_ref().unwrap().is_some() && done[1].as_ref().unwrap().is_none());
    for part in ["model/model.safetensors", "train/last/optimizer.safetensors", "index/index.json"] {
        assert!(fs::read(one.join(part)).unwrap() == fs::read(both.join(part)).unwrap(), "{part}");
    }
    // It is a run as any other: finished, and taken up by one.
    assert!(run(&Alone, &dataset, &config, &both).unwrap().is_some());
}

#[test]
fn ranks_that_are_given_different_things_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let Synthetic { dataset, .. } = small_shop();
    let mut fewer = dataset.clone();
    fewer.sequences = fewer.sequences.truncated(50);
    let mut longer = small_config();
    longer.suffix_size += 1;
    let elsewhere = dir.path().join("elsewhere");
    let given: [(&str, &Dataset, &TigerConfig, &Path); 3] = [
        ("suffix_size", &dataset, &longer, dir.path()),
        ("data_crc32", &fewer, &small_config(), dir.path()),
        ("read", &dataset, &small_config(), &elsewhere),
    ];
    for (what, data, config, place) in given {
        let done = two(|rank| match rank.rank() {
            0 => run(rank, &dataset, &small_config(), dir.path()),
            _ => run(rank, data, config, place),
        });
        let [leading, other] = [0, 1].map(|rank| done[rank].as_ref().unwrap_err());
        assert!(trained(leading).is_some_and(|error| matches!(error, TrainError::OtherRank)), "{what}: {leading}");
        assert!(other.to_string().contains(what), "{what}: {other}");
    }
}

#[test]
fn an_error_of_rank_0_before_training_reaches_the_others() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let Synthetic { dataset, .. } = small_shop();
    let done = two(|rank| run(rank, &dataset, &small_config(), file.path()));
    let [leading, other] = [0, 1].map(|rank| done[rank].as_ref().unwrap_err());
    assert!(!matches!(trained(leading), Some(TrainError::Leader { .. })), "{leading}");
    let Some(TrainError::Leader { reason }) = trained(other) else { panic!("{other}") };
    assert!(reason.starts_with(&leading.to_string()), "{reason}");
}
