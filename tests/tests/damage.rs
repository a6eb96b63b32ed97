//! A finished run whose files are not as it left them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use candle_core::Device;
use genrec::{
    Damage, Error, Recommender,
    artifacts::RunDir,
    data::Item,
    kernels::CounterRng,
    pipeline::{self, Event},
};
use genrec_tests::{small_config, small_shop};

fn finished(dir: &Path) -> Recommender {
    let mut config = small_config();
    config.decode = config.decode.with_rerank(Some(genrec::Rerank::default()));
    let mut quiet = |_: &Event<'_>| {};
    pipeline::run(&small_shop().dataset, &config, dir, &Device::Cpu, None, false, &mut quiet).unwrap().recommender
}

/// Every file of the run that says something, by size.
fn files(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut open) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().unwrap() != ".lock" {
                files.push(path);
            }
        }
    }
    files.sort_by_key(|path| fs::metadata(path).unwrap().len());
    files
}

#[test]
fn every_damage_is_found() {
    const TRIES: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    finished(dir.path());
    let run = RunDir::new(dir.path());
    let whole = run.verify().unwrap();
    let files = files(dir.path());
    // Its own file of checksums is not counted among those that it is of.
    assert_eq!((whole.files, whole.unsummed), (files.len() - 1, 0));
    let rng = CounterRng::new(3).named("damage");
    for (number, path) in (0..).zip(&files) {
        let bytes = fs::read(path).unwrap();
        let bits = bytes.len() as u64 * 8;
        // Every bit of what is small, some of what is large.
        let flips: Vec<u64> = if bits <= TRIES {
            (0..bits).collect()
        } else {
            (0..TRIES).map(|at| rng.stream(number).below(at, bits)).collect()
        };
        for bit in flips {
            let mut damaged = bytes.clone();
            damaged[(bit / 8) as usize] ^= 1 << (bit % 8);
            fs::write(path, damaged).unwrap();
            assert!(run.verify().is_err(), "bit {bit} of `{}`", path.display());
        }
        // A text that lacks its last line break alone has lost nothing.
        let last = bytes.len() - if bytes.ends_with(b"\n") { 2 } else { 1 };
        for length in [0, 1, bytes.len() / 2, last] {
            fs::write(path, &bytes[..length]).unwrap();
            assert!(run.verify().is_err(), "`{}` of {length} bytes", path.display());
        }
        fs::remove_file(path).unwrap();
        assert!(run.verify().is_err(), "without `{}`", path.display());
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(run.verify().unwrap(), whole);
}

#[test]
fn damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut recommender = finished(dir.path());
    let run = RunDir::new(dir.path());
    let weights = run.model().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(&weights, &other).unwrap();
    let error = run.verify().unwrap_err();
    assert!(matches!(&error, Error::Damaged { path, damage: Damage::Contents } if *path == weights), "{error}");
    fs::write(&weights, [&bytes[..], &[0]].concat()).unwrap();
    let (was, now) = (bytes.len() as u64, bytes.len() as u64 + 1);
    let error = run.verify().unwrap_err();
    assert!(matches!(error, Error::Damaged { damage: Damage::Size { was: w, now: n }, .. } if (w, n) == (was, now)));
    fs::remove_file(&weights).unwrap();
    assert!(matches!(run.verify(), Err(Error::MissingArtifact { path }) if path == weights));
    fs::write(&weights, &bytes).unwrap();

    // Items that are added are summed up too; a process that is killed before that leaves them unsummed, not wrong.
    let before = fs::read(run.checksums()).unwrap();
    recommender.add_item(Item::new("new")).unwrap();
    recommender.save_catalogue(dir.path()).unwrap();
    let verified = run.verify().unwrap();
    assert_eq!(verified.unsummed, 0);
    let after = fs::read(run.checksums()).unwrap();
    fs::write(run.checksums(), before).unwrap();
    assert!(run.verify().unwrap().unsummed > 0);
    fs::write(run.checksums(), after).unwrap();
    let catalogue = fs::read(run.catalogue()).unwrap();
    fs::write(run.catalogue(), &catalogue[..catalogue.len() - 1]).unwrap();
    assert!(matches!(run.verify(), Err(Error::Damaged { path, .. }) if path == run.catalogue()));
    fs::write(run.catalogue(), catalogue).unwrap();

    // Checksums that name what is not the run's are not followed.
    let text = fs::read_to_string(run.checksums()).unwrap();
    fs::write(run.checksums(), text.replace("decode.json", "../decode.json")).unwrap();
    assert!(matches!(run.verify(), Err(Error::Damaged { path, .. }) if path == run.checksums()));
    fs::remove_file(run.checksums()).unwrap();
    assert!(matches!(run.verify(), Err(Error::MissingArtifact { path }) if path == run.checksums()));
    assert!(Recommender::load(dir.path(), &Device::Cpu).is_ok());
    recommender.save_catalogue(dir.path()).unwrap();
    assert!(!run.checksums().exists());
}

#[test]
fn a_fingerprint_is_of_what_recommends() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut recommenders = dirs.each_ref().map(|dir| finished(dir.path()));
    let [run, again] = dirs.each_ref().map(|dir| RunDir::new(dir.path()));
    let first = run.fingerprint().unwrap();
    // The reports differ in seconds.
    assert_ne!(fs::read(run.report()).unwrap(), fs::read(again.report()).unwrap());
    assert_eq!(again.fingerprint().unwrap(), first);

    recommenders[0].add_item(Item::new("new")).unwrap();
    recommenders[0].save_catalogue(run.root()).unwrap();
    assert_ne!(run.fingerprint().unwrap(), first);
    // Settings of the search are edited by hand.
    let settings = fs::read_to_string(again.decode()).unwrap();
    fs::write(again.decode(), format!("{settings} ")).unwrap();
    assert_ne!(again.fingerprint().unwrap(), first);
    fs::write(again.decode(), settings).unwrap();
    assert_eq!(again.fingerprint().unwrap(), first);
    // Checksums that are not whole.
    let mut sums: serde_json::Value = serde_json::from_slice(&fs::read(again.checksums()).unwrap()).unwrap();
    sums["files"]["model/model.safetensors"]["crc32"] = 1.into();
    fs::write(again.checksums(), sums.to_string()).unwrap();
    assert!(matches!(again.fingerprint(), Err(Error::Damaged { path, .. }) if path == again.checksums()));
    // The same of other weights, whole.
    let own = serde_json::json!([sums["files"], sums["items"]]).to_string();
    sums["crc32"] = crc32fast::hash(own.as_bytes()).into();
    fs::write(again.checksums(), sums.to_string()).unwrap();
    assert_ne!(again.fingerprint().unwrap(), first);
    fs::remove_file(again.checksums()).unwrap();
    assert!(matches!(again.fingerprint(), Err(Error::MissingArtifact { path }) if path == again.checksums()));
}

/// Neither another run that has come to lie there nor what another process has added.
#[test]
fn what_somebody_else_saved_is_not_overwritten() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = finished(dir.path());
    let mut second = Recommender::load(dir.path(), &Device::Cpu).unwrap();
    first.add_item(Item::new("a")).unwrap();
    first.save_catalogue(dir.path()).unwrap();
    second.add_item(Item::new("b")).unwrap();
    let contents = || files(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let whole = contents();
    let refused =
        |saved: genrec::Result<()>, dir: &Path| matches!(saved, Err(Error::Superseded { path }) if path == dir);
    assert!(refused(second.save_catalogue(dir.path()), dir.path()));
    assert!(whole == contents());
    first.add_item(Item::new("c")).unwrap();
    first.save_catalogue(dir.path()).unwrap();
    let mut quiet = |_: &Event<'_>| {};
    let config = small_config().with_seed(6);
    pipeline::run(&small_shop().dataset, &config, other.path(), &Device::Cpu, None, false, &mut quiet).unwrap();
    assert!(refused(first.save_catalogue(other.path()), other.path()));
}
