//! The two checkpoints of a training directory, replaced so that one of each is always whole.

use std::fs;
use std::path::{Path, PathBuf};

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::Checkpoint;
use super::files::{self, io, sync_dir};
use crate::error::{Result, TrainError};
use crate::lock::DirectoryLock;

const LAST: &str = "last";
const BEST: &str = "best";

/// `<name>.<stage>` beside `<name>`.
fn staged(path: &Path, stage: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(stage);
    PathBuf::from(name)
}

/// Where the newest whole checkpoint of that name is, without changing anything.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    for candidate in [staged(path, "new"), path.to_owned(), staged(path, "old")] {
        if is_there(&candidate)? {
            return Ok(candidate);
        }
    }
    Ok(path.to_owned())
}

/// A training directory.
#[derive(Debug)]
pub(crate) struct CheckpointStore {
    dir: PathBuf,
    _lock: DirectoryLock,
}

impl CheckpointStore {
    /// Locks a directory, makes it when it is not there, and tidies up after a process that was killed.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let store = Self { dir: dir.to_owned(), _lock: DirectoryLock::take(dir)? };
        for name in [LAST, BEST] {
            store.recover(&dir.join(name))?;
        }
        Ok(store)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, best: bool) -> PathBuf {
        self.dir.join(if best { BEST } else { LAST })
    }

    /// Whether there is a checkpoint of that name.
    pub(crate) fn contains(&self, best: bool) -> Result<bool> {
        is_there(&self.path(best))
    }

    pub(crate) fn read(&self, best: bool) -> Result<Checkpoint> {
        files::read(&self.path(best))
    }

    /// The checkpoint that a run continues from, or `None` when there is none.
    ///
    /// `best` is written before the `last` of the same step, so that it is ahead of it only after a process was killed
    /// between the two; it is then the one to continue from.
    pub(crate) fn newest(&self) -> Result<Option<Resumed>> {
        let read = |best| if self.contains(best)? { self.read(best).map(Some) } else { Ok(None) };
        let corrupt = |reason: String| TrainError::Corrupt { path: self.path(true), reason };
        Ok(match (read(false)?, read(true)?) {
            (None, None) => None,
            (None, Some(best)) => Some(Resumed::from_best(best, self.path(true))),
            (Some(last), Some(best)) if best.progress.step > last.progress.step => {
                Some(Resumed::from_best(best, self.path(true)))
            }
            (Some(last), best) => {
                let expected = last.progress.best.map(|best| best.step);
                let found = best.as_ref().map(|best| best.progress.step);
                if expected != found {
                    let step =
                        |step: Option<u64>| step.map_or("none".to_owned(), |step| format!("that of step {step}"));
                    return Err(corrupt(format!(
                        "the best checkpoint should be {}, but is {}",
                        step(expected),
                        step(found)
                    )));
                }
                let best = best.map(|best| best.weights);
                Some(Resumed { checkpoint: last, best, path: self.path(false), ahead: false })
            }
        })
    }

    /// Replaces a checkpoint. Until the new one is whole on disk, the old one stays.
    pub(crate) fn write(&self, best: bool, checkpoint: &Checkpoint) -> Result<PathBuf> {
        let path = self.path(best);
        let tmp = staged(&path, "tmp");
        remove(&tmp)?;
        let written = fs::create_dir(&tmp)
            .map_err(io("create", &tmp))
            .and_then(|()| files::write(&tmp, checkpoint))
            .and_then(|()| rename(&tmp, &staged(&path, "new")));
        if written.is_err() {
            // It takes room, of which there may be none. The first error is the one to report.
            let _ = remove(&tmp);
        }
        written?;
        sync_dir(&self.dir)?;
        self.recover(&path)?;
        Ok(path)
    }

    /// Finishes a replacement from wherever it stopped, and sweeps what it left behind.
    fn recover(&self, path: &Path) -> Result<()> {
        let [tmp, new, old] = ["tmp", "new", "old"].map(|stage| staged(path, stage));
        remove(&tmp)?;
        if is_there(&new)? {
            // `old` outlives `path` only until `new` has taken its name: one of the two is superfluous here.
            if is_there(path)? {
                remove(&old)?;
                rename(path, &old)?;
            }
            rename(&new, path)?;
            sync_dir(&self.dir)?;
        } else if !is_there(path)? && is_there(&old)? {
            rename(&old, path)?;
            sync_dir(&self.dir)?;
        }
        remove(&old)
    }
}

/// What a run continues from.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) checkpoint: Checkpoint,
    /// Weights of the best validation.
    pub(crate) best: Option<BTreeMap<String, Tensor>>,
    /// Where the checkpoint is.
    pub(crate) path: PathBuf,
    /// Whether it is ahead of `last`, which is owed.
    pub(crate) ahead: bool,
}

impl Resumed {
    fn from_best(checkpoint: Checkpoint, path: PathBuf) -> Self {
        let best = Some(checkpoint.weights.clone());
        Self { checkpoint, best, path, ahead: true }
    }
}

/// Whether there is such a directory; one that cannot be looked at must not pass for missing, and be replaced.
fn is_there(dir: &Path) -> Result<bool> {
    match fs::metadata(dir) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io("look at", dir)(error)),
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(io("rename", from))
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", dir)(error)),
        _ => Ok(()),
    }
}
