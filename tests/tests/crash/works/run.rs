//! A whole run, from items to a report.

use std::{fs, path::Path, sync::OnceLock};

use candle_core::Device;
use genrec::{
    Error,
    artifacts::RunDir,
    pipeline::{self, Event},
};
use genrec_tests::{small_config, small_shop};

use super::{BoxError, Work};
use crate::{Tree, plant, tree};

pub(crate) const RUN: Work = Work { is_timed, ..Work::new("run", start, is_done) };

pub(crate) const RESUMED: Work = Work { name: "resumed run", prepare: finish, is_done: was_done, is_moved, ..RUN };

fn is_moved(file: &str) -> bool {
    file.starts_with("train/")
}

/// What a finished run has left, made once for all tests.
pub(crate) fn finish(root: &Path) {
    static RUN: OnceLock<Tree> = OnceLock::new();
    let run = RUN.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        start(dir.path()).unwrap();
        tree(dir.path())
    });
    plant(run, root);
}

fn start(root: &Path) -> Result<(), BoxError> {
    let mut quiet = |_: &Event<'_>| {};
    pipeline::run(&small_shop().dataset, &small_config(), root, &Device::Cpu, None, true, &mut quiet)?;
    Ok(())
}

/// The report says how long everything took, and checksums are of the report too; so is the state of a checkpoint.
pub(super) fn is_timed(file: &str) -> bool {
    ["report.json", "checksums.json", "state.json"].iter().any(|name| file.ends_with(name))
}

fn is_done(root: &Path) -> bool {
    let run = RunDir::new(root);
    match run.verify() {
        Ok(_) => true,
        Err(Error::MissingArtifact { path }) if path == run.checksums() => false,
        Err(error) => panic!("{error}"),
    }
}

/// All that a finished run recommends with is there while it is resumed.
fn was_done(root: &Path) -> bool {
    results(root);
    is_done(root)
}

/// What a run leaves to recommend with.
pub(crate) fn results(root: &Path) -> Vec<Vec<u8>> {
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
