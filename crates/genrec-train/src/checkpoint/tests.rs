use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::*;
use crate::error::TrainError;

fn checkpoint(step: u64) -> Checkpoint {
    let tensor = |value: f32| Tensor::from_vec(vec![value, step as f32], 2, &Device::Cpu).unwrap();
    let mut progress = Progress::start();
    progress.step = step;
    progress.seconds = 0.1 + 0.2;
    Checkpoint {
        weights: BTreeMap::from([("w".to_owned(), tensor(1.0)), ("a.b".to_owned(), tensor(-2.5))]),
        optimizer: BTreeMap::from([("exp_avg.w".to_owned(), tensor(1e-30))]),
        progress,
        config: serde_json::json!({ "learning_rate": 0.1 + 0.2, "seed": u64::MAX }),
        data: DataSize { examples: 9, batches: 2 },
    }
}

fn written(step: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = CheckpointStore::open(dir.path()).unwrap().write(false, &checkpoint(step)).unwrap();
    (dir, path)
}

fn step_of(path: &Path) -> u64 {
    Checkpoint::read(path).unwrap().progress.step
}

#[test]
fn what_is_written_is_read() {
    let (_dir, path) = written(7);
    let (read, expected) = (Checkpoint::read(&path).unwrap(), checkpoint(7));
    assert_eq!(read.progress, expected.progress);
    assert_eq!((read.config, read.data), (expected.config, expected.data));
    for (ours, theirs) in [(&read.weights, &expected.weights), (&read.optimizer, &expected.optimizer)] {
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for (a, b) in ours.values().zip(theirs.values()) {
            assert_eq!(a.to_vec1::<f32>().unwrap(), b.to_vec1::<f32>().unwrap());
        }
    }
}

#[test]
fn the_same_state_has_the_same_bytes() {
    let ((_a, a), (_b, b)) = (written(3), written(3));
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        assert_eq!(fs::read(a.join(file)).unwrap(), fs::read(b.join(file)).unwrap());
    }
}

/// A field more, or another order, and the checksums of all checkpoints there are would be wrong.
#[test]
fn checkpoints_of_before_are_read() {
    let (_dir, path) = written(7);
    let file: serde_json::Value = serde_json::from_slice(&fs::read(path.join("state.json")).unwrap()).unwrap();
    assert_eq!(file["checksums"]["state"], "5b671eed");
    let mut cooling = Progress::start();
    cooling.cooling_since = Some(3);
    let json = serde_json::to_string(&cooling).unwrap();
    assert_eq!(serde_json::from_str::<Progress>(&json).unwrap(), cooling);
}

#[test]
fn any_damaged_byte_and_any_lost_end_is_noticed() {
    let (_dir, path) = written(3);
    let intact = checkpoint(3);
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let file = path.join(file);
        let whole = fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&file, &damaged).unwrap();
            match Checkpoint::read(&path) {
                Err(TrainError::Corrupt { path, .. }) => assert!(path.starts_with(file.parent().unwrap())),
                Err(TrainError::Version { .. }) => assert!(file.ends_with("state.json")),
                Err(other) => panic!("byte {at}: {other:?}"),
                // White space, or a last digit beyond what an f64 holds: nothing that is read has changed.
                Ok(read) => {
                    assert!(file.ends_with("state.json"), "byte {at} of {}", file.display());
                    assert_eq!((read.progress, read.config), (intact.progress.clone(), intact.config.clone()));
                }
            }
        }
        for len in (0..whole.len()).step_by(whole.len() / 20 + 1) {
            fs::write(&file, &whole[..len]).unwrap();
            assert!(matches!(Checkpoint::read(&path), Err(TrainError::Corrupt { .. })), "{len} bytes");
        }
        fs::remove_file(&file).unwrap();
        assert!(matches!(Checkpoint::read(&path), Err(TrainError::Corrupt { path, .. }) if path == file));
        fs::write(&file, &whole).unwrap();
    }
    assert_eq!(step_of(&path), 3);
}

#[test]
fn another_version_is_named() {
    let (_dir, path) = written(3);
    let file = path.join("state.json");
    let text = fs::read_to_string(&file).unwrap().replacen("\"format_version\": 1", "\"format_version\": 2", 1);
    fs::write(&file, text).unwrap();
    assert!(matches!(Checkpoint::read(&path), Err(TrainError::Version { found: 2, supported: 1, .. })));
}

/// Moves a fresh checkpoint of that step to `dir/name`.
fn place(dir: &Path, name: &str, step: u64) {
    let (_source, path) = written(step);
    fs::create_dir_all(dir.join(name)).unwrap();
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        fs::copy(path.join(file), dir.join(name).join(file)).unwrap();
    }
}

#[test]
fn every_instant_of_a_replacement_leaves_a_whole_checkpoint() {
    // The directories there, with the step that each holds, at every point of replacing step 1 by step 2.
    let instants: [(&[(&str, u64)], u64); 7] = [
        (&[("last", 1)], 1),
        (&[("last", 1), ("last.tmp", 0)], 1),
        (&[("last", 1), ("last.new", 2)], 2),
        (&[("last.old", 1), ("last.new", 2)], 2),
        (&[("last", 2), ("last.old", 1)], 2),
        (&[("last.old", 1)], 1),
        (&[("last", 1), ("last.new", 2), ("last.old", 0)], 2),
    ];
    for (present, expected) in instants {
        let dir = tempfile::tempdir().unwrap();
        for &(name, step) in present {
            place(dir.path(), name, step);
        }
        if present.iter().any(|(name, _)| *name == "last.tmp") {
            fs::write(dir.path().join("last.tmp").join("model.safetensors"), "half").unwrap();
        }
        assert_eq!(step_of(&dir.path().join("last")), expected, "read at {present:?}");
        let store = CheckpointStore::open(dir.path()).unwrap();
        assert_eq!(store.read(false).unwrap().progress.step, expected, "opened at {present:?}");
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        let names: Vec<_> = names.into_iter().filter(|name| name != ".lock").collect();
        assert_eq!(names, ["last"], "swept at {present:?}");
        store.write(false, &checkpoint(9)).unwrap();
        assert_eq!(step_of(&dir.path().join("last")), 9);
    }
}

#[test]
fn the_furthest_checkpoint_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let store = CheckpointStore::open(dir.path()).unwrap();
    assert!(store.newest().unwrap().is_none());
    store.write(true, &checkpoint(4)).unwrap();
    store.write(false, &checkpoint(3)).unwrap();
    let resumed = store.newest().unwrap().unwrap();
    assert_eq!((resumed.checkpoint.progress.step, resumed.path), (4, store.path(true)));
    assert!(resumed.best.is_some());
}
