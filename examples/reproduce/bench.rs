//! What the rows of a set have in common, and which of them are there already.

mod cold;
mod generative;
mod hierarchy;
mod scorers;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use genrec::{
    data::Dataset,
    embed::io::write_npy,
    eval::Suite,
    index::ItemId,
    model::baseline::CoOccurrence,
    pipeline::{self, EmbeddingSource, Precision, TigerConfig},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use support::{BoxError, DeviceArg, asked, create_dir, embed::embed};

use crate::{
    figures::of_codes,
    plan::{Line, Preset, Set, Work},
    row::{self, Manifest, Row, Tested},
};

/// Settings of a run that all rows of a table have in common, but for what a row changes; a model without one has none of them.
const SHARED: [&str; 5] = ["/model", "/precision", "/embedder", "/train/max_duration", "/train/patience"];

/// What all rows of a command share.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) out: PathBuf,
    pub(crate) results: PathBuf,
    pub(crate) embedder: EmbeddingSource,
    pub(crate) preset: Preset,
    pub(crate) precision: Precision,
    pub(crate) budget: Duration,
    /// Validations without progress after which a TIGER row ends before its time.
    pub(crate) patience: Option<u32>,
    pub(crate) device: DeviceArg,
    /// What was typed, with the places of data and models left out.
    pub(crate) command: String,
    /// The checkout that the program was started in.
    pub(crate) commit: Option<String>,
}

/// Settings with some changed.
fn changed<T: Serialize + DeserializeOwned>(settings: T, changes: &[Value]) -> Result<T, BoxError> {
    let mut settings = serde_json::to_value(settings)?;
    changes.iter().for_each(|change| support::overlay(&mut settings, change.clone()));
    Ok(serde_json::from_value(settings)?)
}

/// A set's data, and what its rows have in common.
#[derive(Debug)]
pub(crate) struct Bench<'s> {
    settings: &'s Settings,
    set: Set,
    dataset: Dataset,
    /// Over items and sequences.
    crc: u32,
}

impl<'s> Bench<'s> {
    /// Reads a set.
    ///
    /// # Errors
    /// When a file is missing or malformed.
    pub(crate) fn open(settings: &'s Settings, set: Set) -> Result<Self, BoxError> {
        let dir = settings.data.join(set.name());
        if !dir.is_dir() {
            let have = settings.data.display();
            return Err(format!("`{have}` has no `{}`: `--data` is the directory of all sets", set.name()).into());
        }
        let dataset = asked::dataset(&dir)?;
        let crc = pipeline::fingerprint(&dataset)?;
        Ok(Self { settings, set, dataset, crc })
    }

    pub(crate) fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The row of a line, if it is finished.
    ///
    /// # Errors
    /// When the file is not that row, or is one of other data, or of another setting that all rows of a table share.
    pub(crate) fn finished(&self, line: &Line, seed: u64) -> Result<Option<Row>, BoxError> {
        self.found(line, seed, |settings| {
            let run = settings.get("run").or_else(|| settings.pointer("/members/0")).unwrap_or(settings);
            SHARED.iter().map(|&at| (at.to_owned(), run.pointer(at).cloned().unwrap_or_default())).collect()
        })
    }

    /// The row's file, of the same data and with the same settings, as far as `compared` keeps them.
    fn found(&self, line: &Line, seed: u64, compared: impl Fn(&Value) -> Value) -> Result<Option<Row>, BoxError> {
        let Some(row) = Row::read(&self.settings.results, self.set.name(), line.name, seed)? else { return Ok(None) };
        let difference = if row.manifest.data_crc32 == self.crc {
            let now = without_places(self.wanted(line, seed)?);
            pipeline::first_difference("", &compared(&row.manifest.settings), &compared(&now))
        } else {
            Some(("data".to_owned(), format!("CRC-32 {}", row.manifest.data_crc32), self.crc.to_string()))
        };
        let Some((field, was, now)) = difference else { return Ok(Some(row)) };
        let path = row::path(&self.settings.results, self.set.name(), line.name, seed);
        let (path, field) = (path.display(), field.trim_start_matches('/').replace('/', "."));
        Err(format!(
            "`{path}` was made with another `{field}` ({was}, now {now}): delete it, or give another `--results`"
        )
        .into())
    }

    /// The row of a line: from its file, or made now and written.
    ///
    /// # Errors
    /// When the file is not that row, or is one of other settings or data, or the row cannot be made.
    pub(crate) fn row(&self, line: &Line, seed: u64) -> Result<Row, BoxError> {
        let picture = of_codes(&self.settings.results, self.set, seed);
        let drawn = line.work != Work::Hierarchy || (picture.exists() && picture.with_extension("png").exists());
        if let Some(row) = self.found(line, seed, Value::clone)?.filter(|_| drawn) {
            return Ok(row);
        }
        let mut row = match &line.work {
            Work::Tiger(changes) => self.tiger(line.name, changes, seed)?,
            Work::Sampled(temperatures) => self.sampled(line.name, temperatures, seed)?,
            Work::Joint => self.joint(line.name, seed)?,
            Work::Reranked { of, changes } => self.reranked(line.name, (of, changes), seed)?,
            Work::Ensemble { of, changes } => self.ensemble(line.name, (of, changes), seed)?,
            Work::Hierarchy => self.hierarchy(line.name, seed)?,
            Work::ColdStart => self.cold_start(line.name, seed)?,
            Work::SasRec(changes) => self.sasrec(line.name, changes, seed)?,
            Work::Popularity => self.scored(line.name, seed, &self.popularity()?)?,
            Work::Transitions => self.scored(line.name, seed, &self.transitions()?)?,
            Work::CoOccurrence => self.scored(line.name, seed, &self.co_occurrence()?)?,
            Work::SemanticKnn => self.scored(line.name, seed, &self.knn()?)?,
        };
        row.manifest.settings = without_places(self.wanted(line, seed)?);
        if line.work.reads_embeddings() {
            row.manifest.embeddings_crc32 = Some(crc32fast::hash(&std::fs::read(self.embedded()?)?));
        }
        row.write(&self.settings.results)?;
        Ok(row)
    }

    /// Every setting of a line.
    fn wanted(&self, line: &Line, seed: u64) -> Result<Value, BoxError> {
        Ok(match &line.work {
            Work::Tiger(changes) => serde_json::to_value(self.config(changes, seed)?)?,
            Work::Sampled(temperatures) => {
                let (run, users) = (self.config(&[], seed)?, generative::SAMPLED_USERS);
                json!({"run": run, "temperatures": temperatures, "users": users})
            }
            Work::Joint => json!({"run": self.config(&[], seed)?, "fitted_to": self.data_of_all_sets()?}),
            Work::Reranked { changes, .. } => {
                json!({"run": self.config(changes, seed)?, "rerank": TigerConfig::best().decode.rerank})
            }
            Work::Ensemble { changes, .. } => {
                let members = generative::members(seed).map(|seed| self.config(changes, seed));
                json!({ "members": members.collect::<Result<Vec<_>, _>>()? })
            }
            Work::Hierarchy => serde_json::to_value(self.config(&[], seed)?)?,
            Work::ColdStart => {
                let run = self.config(&[], seed)?;
                json!({"run": run, "held_out": cold::SHARE, "asked": cold::asked(seed)})
            }
            Work::SasRec(changes) => {
                serde_json::to_value(self.sasrec_training(changes, seed)?.resolved(&self.dataset))?
            }
            Work::SemanticKnn => json!({"embedder": self.settings.embedder, "history": "last_item"}),
            Work::CoOccurrence => {
                let (reach, fade, backward) = (CoOccurrence::REACH, CoOccurrence::FADE, CoOccurrence::BACKWARD);
                json!({"reach": reach, "fade": fade, "backward": backward})
            }
            Work::Popularity | Work::Transitions => json!({}),
        })
    }

    fn dress(&self, name: &str, seed: u64, [test, without_own]: [&Suite<ItemId>; 2]) -> Result<Row, BoxError> {
        let manifest = Manifest {
            command: self.settings.command.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: self.settings.commit.clone(),
            settings: Value::Null,
            data_crc32: self.crc,
            embeddings_crc32: None,
            machine: machine(self.settings.device),
            threads: rayon::current_num_threads(),
            minutes: 0.0,
        };
        let tested = [Tested::of(test, seed)?, Tested::of(without_own, seed)?];
        Ok(Row::new(name, self.set.name(), seed, manifest, tested))
    }

    /// Of the embedder's settings.
    fn embedder_crc(&self) -> Result<u32, BoxError> {
        Ok(crc32fast::hash(&serde_json::to_vec(&self.settings.embedder)?))
    }

    /// The set's embeddings, made once for all rows.
    fn embedded(&self) -> Result<PathBuf, BoxError> {
        let dir = self.settings.out.join(self.set.name());
        create_dir(&dir)?;
        let path = dir.join(format!("embeddings-{:08x}-{:08x}.npy", self.embedder_crc()?, self.crc));
        if !path.exists() {
            let device = self.settings.device.open()?;
            let rows = embed(&self.dataset.catalogue, &self.settings.embedder, &device, &dir.join("texts"))?;
            write_npy(&path, rows.view())?;
        }
        Ok(path)
    }
}

/// The commit that `GENREC_COMMIT` names, for a program that runs where its checkout is not; otherwise the checkout that it is
/// started in, with a word where it has changes that are not committed.
pub(crate) fn commit() -> Option<String> {
    if let Some(commit) = std::env::var("GENREC_COMMIT").ok().filter(|commit| !commit.is_empty()) {
        return Some(commit);
    }
    let output = Command::new("git").args(["describe", "--always", "--dirty", "--exclude", "*"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn machine(device: DeviceArg) -> String {
    if device != DeviceArg::Cpu {
        return gpu().unwrap_or_else(|| format!("{device:?}").to_lowercase());
    }
    let name = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The first NVIDIA GPU's name.
fn gpu() -> Option<String> {
    let query = ["--query-gpu=name", "--format=csv,noheader", "--id=0"];
    let output = Command::new("nvidia-smi").args(query).output().ok().filter(|output| output.status.success())?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// Settings without the directories of this machine: of a path the last part stays.
fn without_places(value: Value) -> Value {
    match value {
        Value::String(text) if Path::new(&text).is_absolute() => {
            let last = Path::new(&text).file_name().map(|name| name.to_string_lossy().into_owned());
            Value::String(last.unwrap_or_default())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_places).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, without_places(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn places_are_left_out_of_manifests() {
        let settings = json!({"dir": "/home/me/model", "name": "a/b", "list": ["/x/y.npy", 1]});
        assert_eq!(without_places(settings), json!({"dir": "model", "name": "a/b", "list": ["y.npy", 1]}));
    }
}
