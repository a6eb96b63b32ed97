//! What is on the disk after a crash, at any moment, opens as what was there before or what was to come.
//!
//! A child process does a work while `recorder.c`, preloaded, records every file operation. Each beginning of that sequence is
//! written out as a disk would have it after a crash there, once with all that was written and once without what was not
//! synced, and opened.

// Elsewhere a library cannot be put before the system's own.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::print_stderr, reason = "a test that does not run says so")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod replay;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use candle_core::{DType, Device, Tensor};
use genrec::{
    Error, Recommender,
    artifacts::RunDir,
    data::Item,
    index::{CollisionPolicy, ItemId, SemanticId, SidIndex, SidLayout},
    kernels::{
        Gradients, Parameters,
        optim::{AdamWConfig, OptimizerConfig},
    },
    model::Trainable,
    pipeline::{self, Event},
    quantize::{AnyQuantizer, ArrayRows, Fit, QuantizerConfig, ResidualKMeansConfig},
    train::{BatchSource, BoxError, Every, TrainConfig, Trainer},
};
use genrec_tests::{small_config, small_shop};
use ndarray::Array2;
use replay::{Disk, Unsynced};

/// The tests' own name for a work, for the child that does it; and where.
const WORK: &str = "GENREC_CRASH_WORK";
const ROOT: &str = "GENREC_CRASH_ROOT";

/// Not a test of its own: the process that is recorded.
#[test]
fn child() {
    let (Ok(work), Ok(root)) = (std::env::var(WORK), std::env::var(ROOT)) else { return };
    let root = Path::new(&root);
    match work.as_str() {
        "index" => index::change(root),
        "checkpoints" => checkpoints::train(root).unwrap(),
        "quantizer" => quantizer::fit(root),
        "items" => items::add(root),
        "run" => run::start(root).unwrap(),
        other => panic!("no work `{other}`"),
    }
}

/// The recorder as a library, or `None` where there is no C compiler, which is said.
fn recorder(dir: &Path) -> Option<PathBuf> {
    let library = dir.join("recorder.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crash/recorder.c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    match Command::new(compiler).args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status()
    {
        Ok(status) => {
            assert!(status.success(), "recorder.c does not compile");
            Some(library)
        }
        Err(error) => {
            eprintln!("no C compiler ({error}): crashes are not replayed");
            None
        }
    }
}

/// Records a work on a directory and opens what a crash would leave after each of its operations; `at_most` so many states,
/// evenly spaced, where that is a number.
fn replay(work: &str, prepare: impl Fn(&Path), at_most: Option<usize>, mut open: impl FnMut(&Path)) {
    let temporary = tempfile::tempdir().unwrap();
    // As the kernel names it, since the recorder asks the kernel.
    let dir = temporary.path().canonicalize().unwrap();
    let Some(library) = recorder(&dir) else { return };
    let (root, log) = (dir.join("root"), dir.join("log"));
    fs::create_dir(&root).unwrap();
    prepare(&root);
    let mut disk = Disk::of(&root);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--test-threads", "1"])
        .env("LD_PRELOAD", library)
        .env("GENREC_CRASH_LOG", &log)
        .env(ROOT, &root)
        .env(WORK, work)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let records = replay::read(&log);
    // Odd, so that both variants are taken in turn.
    let every = at_most.map_or(1, |most| (2 * records.len()).div_ceil(most.max(1)) | 1);
    let (mut moment, mut taken, mut opened, mut seen) = (0, [0, 0], 0, BTreeSet::new());
    for record in &records {
        if !disk.apply(record) {
            continue;
        }
        for (variant, unsynced) in [Unsynced::Kept, Unsynced::Dropped].into_iter().enumerate() {
            moment += 1;
            if moment % every != 0 {
                continue;
            }
            taken[variant] += 1;
            let state = dir.join("state");
            disk.write(&root, &state, unsynced);
            // Many moments leave the same: above all those whose bytes were not synced and had no name yet.
            if seen.insert(digest(&state)) {
                open(&state);
                opened += 1;
            }
            fs::remove_dir_all(&state).unwrap();
        }
    }
    eprintln!("{work}: {} operations, {opened} states after a crash opened", records.len());
    assert!(opened > 0 && taken[0] > 0 && taken[1] > 0, "{work}: was anything recorded?");
    // What was reported as done must not be undone by a crash a moment later.
    let lost: Vec<_> = disk.dirty().iter().filter(|dir| dir.starts_with(&root)).collect();
    assert!(lost.is_empty(), "{work}: these directories were changed and not synced: {lost:?}");
    disk.write(&root, &dir.join("end"), Unsynced::Kept);
    assert!(tree(&root) == tree(&dir.join("end")), "{work}: the replay does not end where the work did");
}

/// Files with their contents, directories without.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let (mut tree, mut open) = (BTreeMap::new(), vec![dir.to_path_buf()]);
    while let Some(at) = open.pop() {
        for path in fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()) {
            let contents = (!path.is_dir()).then(|| fs::read(&path).unwrap());
            tree.insert(path.strip_prefix(dir).unwrap().to_path_buf(), contents);
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    tree
}

fn digest(dir: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    tree(dir).hash(&mut hasher);
    hasher.finish()
}

mod index {
    use super::*;

    fn old() -> SidIndex {
        let codes = Array2::from_shape_fn((60, 2), |(item, level)| ((item * (level + 3)) % 8) as u32);
        SidIndex::from_codes(SidLayout::new(vec![8, 8]).unwrap().with_suffix(16), codes.view(), CollisionPolicy::Suffix)
            .unwrap()
    }

    fn new(mut index: SidIndex) -> SidIndex {
        for code in 0..8 {
            index.insert(&[code, 7 - code]).unwrap();
        }
        index.remove(ItemId(3)).unwrap();
        index.compact().unwrap();
        index
    }

    pub(super) fn change(root: &Path) {
        new(SidIndex::open(root).unwrap()).save(root).unwrap();
    }

    fn sids(index: &SidIndex) -> Vec<Option<SemanticId>> {
        (0..index.id_bound()).map(|item| index.sid(ItemId(item))).collect()
    }

    #[test]
    fn an_index_is_the_old_one_or_the_new_one() {
        let (before, after) = (sids(&old()), sids(&new(old())));
        let mut found = [0, 0];
        replay(
            "index",
            |root| old().save(root).unwrap(),
            None,
            |state| {
                let sids = sids(&SidIndex::open(state).unwrap());
                assert!(sids == before || sids == after);
                found[usize::from(sids == after)] += 1;
            },
        );
        assert!(found[0] > 0 && found[1] > 0, "{found:?}");
    }
}

mod checkpoints {
    use super::*;

    /// y = w x, by least squares.
    struct Line(Parameters);

    impl Line {
        fn new() -> candle_core::Result<Self> {
            let mut parameters = Parameters::new(&Device::Cpu);
            parameters.insert("w", &Tensor::zeros(3, DType::F32, &Device::Cpu)?).map_err(candle_core::Error::wrap)?;
            Ok(Self(parameters))
        }

        fn weights(&self) -> Vec<f32> {
            self.0.get("w").unwrap().to_vec1().unwrap()
        }
    }

    impl Trainable for Line {
        type Batch = (Tensor, Tensor);
        fn parameters(&self) -> &Parameters {
            &self.0
        }
        fn loss_and_grads(&self, (x, y): &Self::Batch, _seed: u64) -> candle_core::Result<(f32, Gradients)> {
            let w = self.0.get("w").ok_or_else(|| candle_core::Error::msg("no weight"))?;
            let loss = (x.broadcast_mul(w)? - y)?.sqr()?.mean_all()?;
            Ok((loss.to_scalar()?, Gradients::from_store(&self.0, &loss.backward()?)?))
        }
        fn loss(&self, batch: &Self::Batch) -> candle_core::Result<f32> {
            Ok(self.loss_and_grads(batch, 0)?.0)
        }
    }

    struct Points;

    impl BatchSource for Points {
        type Batch = (Tensor, Tensor);
        fn num_batches(&self, _epoch: u32) -> usize {
            3
        }
        fn batch(&self, epoch: u32, index: usize) -> Result<Self::Batch, BoxError> {
            let x = Tensor::arange(1f32, 4.0, &Device::Cpu)?.affine(0.1, f64::from(epoch) + 0.01 * index as f64)?;
            let y = (&x * 3.0)?;
            Ok((x, y))
        }
        fn num_examples(&self) -> usize {
            9
        }
    }

    fn fit(dir: Option<&Path>) -> Result<Vec<f32>, BoxError> {
        let config = TrainConfig::default()
            .with_optimizer(OptimizerConfig::AdamW(AdamWConfig::default()))
            .with_learning_rate(0.1)
            .with_epochs(Some(3))
            .with_validate_every(Every::Steps(2))
            .with_checkpoint_every_steps(1);
        let model = Line::new()?;
        let mut metric = |model: &Line| -> Result<f64, BoxError> { Ok(-f64::from(model.loss(&Points.batch(0, 0)?)?)) };
        Trainer::new(config)?.with_resume(true).fit(&model, &Points, &mut metric, &mut (), dir)?;
        Ok(model.weights())
    }

    pub(super) fn train(root: &Path) -> Result<(), BoxError> {
        fit(Some(root)).map(drop)
    }

    #[test]
    fn training_goes_on_from_whatever_checkpoints_are_left() {
        let expected = fit(None).unwrap();
        replay(
            "checkpoints",
            |_| (),
            None,
            |state| {
                assert_eq!(fit(Some(state)).unwrap(), expected);
                let names: BTreeSet<_> = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                assert_eq!(names, [".lock", "best", "last"].map(Into::into).into(), "something is left over");
            },
        );
    }
}

mod quantizer {
    use super::*;

    fn rows() -> Array2<f32> {
        Array2::from_shape_fn((80, 6), |(row, column)| ((row * 7 + column * 5) % 23) as f32 / 23.0)
    }

    fn fitted() -> AnyQuantizer {
        let config = ResidualKMeansConfig::default().with_codebook_sizes([8, 8]);
        let rows = rows();
        QuantizerConfig::ResidualKMeans(config).fit(&mut ArrayRows::from(rows.view())).unwrap()
    }

    pub(super) fn fit(root: &Path) {
        fitted().save(root.join("quantizer")).unwrap();
    }

    #[test]
    fn a_quantizer_is_there_or_it_is_not() {
        let expected = fitted().fingerprint().unwrap();
        let mut found = [0, 0];
        replay(
            "quantizer",
            |_| (),
            None,
            |state| {
                let read = AnyQuantizer::load(state.join("quantizer"), &Device::Cpu);
                found[usize::from(read.is_ok())] += 1;
                assert!(read.is_err() || read.unwrap().fingerprint().unwrap() == expected);
            },
        );
        assert!(found[0] > 0 && found[1] > 0, "{found:?}");
    }
}

mod items {
    use super::*;

    pub(super) fn add(root: &Path) {
        let mut recommender = Recommender::load(root, &Device::Cpu).unwrap();
        for id in ["new", "newer"] {
            recommender.add_item(Item::new(id)).unwrap();
        }
        recommender.save_catalogue(root).unwrap();
    }

    #[test]
    fn added_items_are_all_there_or_none_is() {
        let items = small_shop().dataset.catalogue.len();
        let mut found = [0, 0];
        replay(
            "items",
            |root| run::start(root).unwrap(),
            None,
            |state| {
                let recommender = Recommender::load(state, &Device::Cpu).unwrap();
                let added = recommender.catalogue().len() - items;
                assert!(added == 0 || added == 2, "{added}");
                assert_eq!(recommender.find("newer").is_ok(), added == 2);
                RunDir::new(state).verify().unwrap();
                found[usize::from(added == 2)] += 1;
            },
        );
        assert!(found[0] > 0 && found[1] > 0, "{found:?}");
    }
}

mod run {
    use super::*;

    pub(super) fn start(root: &Path) -> Result<(), Error> {
        let mut quiet = |_: &Event<'_>| {};
        pipeline::run(&small_shop().dataset, &small_config(), root, &Device::Cpu, None, true, &mut quiet).map(drop)
    }

    /// What a run leaves to recommend with; the report has times in it.
    fn results(root: &Path) -> Vec<Vec<u8>> {
        let run = RunDir::new(root);
        let files = [
            run.catalogue(),
            run.embeddings(),
            run.quantizer().join("model.safetensors"),
            run.index().join("index.safetensors"),
            run.model().join("model.safetensors"),
            run.decode(),
        ];
        files.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    /// Some states alone: each is a run of seconds. `GENREC_CRASH_STATES` sets how many.
    #[test]
    fn a_run_goes_on_from_whatever_is_left() {
        let states = std::env::var("GENREC_CRASH_STATES").ok().and_then(|count| count.parse().ok()).unwrap_or(8);
        let whole = tempfile::tempdir().unwrap();
        start(whole.path()).unwrap();
        let expected = results(whole.path());
        let goes_on = |state: &Path| {
            let run = RunDir::new(state);
            match run.verify() {
                Ok(_) => {}
                Err(Error::MissingArtifact { path }) if path == run.checksums() => {}
                Err(error) => panic!("{error}"),
            }
            start(state).unwrap();
            assert!(results(state) == expected);
            run.verify().unwrap();
        };
        replay("run", |_| (), Some(states), goes_on);
        // Of a finished run that is resumed everything is there until it is finished again.
        replay("run", |root| start(root).unwrap(), Some(states.div_ceil(2)), goes_on);
    }
}
