//! A run on disk: where each part lies, and how it is written.
//!
//! ```text
//! run.json                  settings and a fingerprint of the data
//! catalogue/items.jsonl     one item a line, with whether training saw it
//! embedder/                 how new texts are embedded
//! embeddings.safetensors    (items, features), f32
//! behaviour/                who took what, where Semantic IDs are made of it too
//! quantizer/                embeddings -> codes
//! index/                    codes <-> items
//! train/{last,best}/        checkpoints of the training loop
//! model/                    the chosen weights, as a plain Hugging Face T5
//! co-occurrence.safetensors what came near what, where rankings ask
//! decode.json               vocabulary and search settings
//! report.json               counts, timings, metrics
//! checksums.json            what all these files held at the end, for [`RunDir::verify`]
//! ```
//!
//! Every part is written under a temporary name, flushed to the disk and renamed: a part that exists is whole.

mod checksums;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::checksums::Verified;
use crate::{Error, Result};

/// Version of the layout of a run directory.
pub const FORMAT_VERSION: u32 = 1;

/// The paths of one run directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// Names a directory; nothing is read or written.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Removes the temporary files that a killed process left. A run directory has one owner, so none is in use.
    ///
    /// # Errors
    /// [`Error::Io`] names the file that could not be removed.
    pub(crate) fn sweep(&self) -> Result<()> {
        let catalogue = self.root.join("catalogue");
        let parts = [self.embedder(), self.behaviour(), self.quantizer(), self.index(), self.model()];
        for dir in [&self.root, &catalogue].into_iter().chain(&parts) {
            let Ok(entries) = fs::read_dir(dir) else { continue };
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.is_file() && genrec_files::is_temporary(&path) {
                    fs::remove_file(&path).map_err(|source| Error::Io { action: "remove", path, source })?;
                }
            }
        }
        Ok(())
    }

    /// The first part of a run that is there, besides its manifest.
    pub(crate) fn any_part(&self) -> Result<Option<PathBuf>> {
        match first_there(self.beginnings())? {
            None => self.any_result(),
            part => Ok(part),
        }
    }

    /// The first result of a stage that is there.
    pub(crate) fn any_result(&self) -> Result<Option<PathBuf>> {
        first_there([
            self.embeddings(),
            self.behaviour(),
            self.quantizer(),
            self.index(),
            self.train(),
            self.model(),
            self.co_occurrence(),
            self.decode(),
            self.report(),
            self.checksums(),
        ])
    }

    /// What is written before the first stage has a result.
    fn beginnings(&self) -> [PathBuf; 2] {
        [self.root.join("catalogue"), self.embedder()]
    }

    /// Removes what a run that ended before its first result has left.
    ///
    /// # Errors
    /// [`Error::Io`] names the directory that could not be removed.
    pub(crate) fn remove_beginnings(&self) -> Result<()> {
        for path in self.beginnings() {
            if exists(&path)? {
                fs::remove_dir_all(&path).map_err(|source| Error::Io { action: "remove", path, source })?;
            }
        }
        Ok(())
    }

    /// Settings and data fingerprint.
    pub fn manifest(&self) -> PathBuf {
        self.root.join("run.json")
    }

    /// One item a line.
    pub fn catalogue(&self) -> PathBuf {
        self.root.join("catalogue").join("items.jsonl")
    }

    /// How new texts are embedded.
    pub fn embedder(&self) -> PathBuf {
        self.root.join("embedder")
    }

    /// Content embeddings of every item.
    pub fn embeddings(&self) -> PathBuf {
        self.root.join("embeddings.safetensors")
    }

    /// Who took what, where Semantic IDs are made of it too.
    pub fn behaviour(&self) -> PathBuf {
        self.root.join("behaviour")
    }

    /// Embeddings to codes.
    pub fn quantizer(&self) -> PathBuf {
        self.root.join("quantizer")
    }

    /// Codes to items and back.
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// Checkpoints of the training loop.
    pub fn train(&self) -> PathBuf {
        self.root.join("train")
    }

    /// The chosen weights.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// What came near what in training, where rankings ask.
    pub fn co_occurrence(&self) -> PathBuf {
        self.root.join("co-occurrence.safetensors")
    }

    /// Vocabulary and search settings.
    pub fn decode(&self) -> PathBuf {
        self.root.join("decode.json")
    }

    /// Counts, timings, metrics.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.json")
    }
}

/// Whether a file of a run is one that recommending or adding an item may read, by its path within the run with `/` between
/// names. Checkpoints, locks and temporary files are not.
pub fn serves(file: &str) -> bool {
    match file.split_once('/') {
        None => matches!(
            file,
            "run.json"
                | "decode.json"
                | "report.json"
                | "checksums.json"
                | "embeddings.safetensors"
                | "co-occurrence.safetensors"
        ),
        Some((part, name)) => {
            let parts = ["catalogue", "embedder", "behaviour", "quantizer", "index", "model"];
            parts.contains(&part) && !name.contains('/') && !name.starts_with('.') && !name.ends_with(".tmp")
        }
    }
}

/// Whether something is there. What cannot be looked at must not pass for missing, and be written anew.
///
/// # Errors
/// [`Error::Io`] names the path.
pub(crate) fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|source| Error::Io { action: "look for", path: path.to_path_buf(), source })
}

fn first_there(paths: impl IntoIterator<Item = PathBuf>) -> Result<Option<PathBuf>> {
    for path in paths {
        if exists(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Writes a JSON file under a temporary name, flushes it and renames it.
///
/// # Errors
/// [`Error::Io`] names the path; the old file, if any, is untouched then.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write_with(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value).map_err(std::io::Error::from)?;
        file.write_all(b"\n")
    })
}

/// Writes a file under a temporary name, flushes it and renames it.
///
/// # Errors
/// [`Error::Io`] names the path; the old file, if any, is untouched then.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut std::io::BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    let io = |action: &'static str| {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    };
    if let Some(parent) = path.parent() {
        genrec_files::create_dir_all(parent).map_err(io("create the directory of"))?;
    }
    genrec_files::write_with(path, fill).map_err(io("write"))
}

/// Reads a JSON file.
///
/// # Errors
/// [`Error::MissingArtifact`] when there is no such file, [`Error::Io`] or [`Error::Json`] when it cannot be read.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::MissingArtifact { path: path.to_path_buf() });
        }
        Err(source) => return Err(Error::Io { action: "read", path: path.to_path_buf(), source }),
    };
    serde_json::from_str(&text).map_err(|source| Error::Json { path: path.to_path_buf(), source })
}

/// Reads a JSON file with a `format_version`, which is looked at first: another version's fields are no error in
/// themselves.
///
/// # Errors
/// [`Error::FormatVersion`] when the file is of another version, otherwise as [`read_json`].
pub fn read_versioned<T: DeserializeOwned>(path: &Path) -> Result<T> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let value: serde_json::Value = read_json(path)?;
    let malformed = |source| Error::Json { path: path.to_path_buf(), source };
    let Version { format_version: found } = Version::deserialize(&value).map_err(malformed)?;
    if found != FORMAT_VERSION {
        return Err(Error::FormatVersion { path: path.to_path_buf(), found, supported: FORMAT_VERSION });
    }
    T::deserialize(value).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_the_disk_and_leaves_no_temporary_file() -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep").join("value.json");
        write_json(&path, &vec![1.5, -2.0])?;
        assert_eq!(read_json::<Vec<f64>>(&path)?, [1.5, -2.0]);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        Ok(())
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path());
        fs::create_dir_all(run.embedder()).unwrap();
        for name in [".vocabulary.json.1.0.tmp", "vocabulary.json"] {
            fs::write(run.embedder().join(name), "x").unwrap();
        }
        run.sweep()?;
        let left: Vec<_> = fs::read_dir(run.embedder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["vocabulary.json"]);
        Ok(())
    }

    #[test]
    fn what_serves_is_told_from_what_only_trained() {
        for file in ["run.json", "index/index.safetensors.next", "embedder/vocabulary.json", "model/config.json"] {
            assert!(serves(file), "{file}");
        }
        for file in
            ["README.md", ".lock", "train/best/state.json", "model/config.tmp", "index/.a.tmp", "model/a/b.json"]
        {
            assert!(!serves(file), "{file}");
        }
    }

    #[test]
    fn the_version_is_read_before_the_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("decode.json");
        fs::write(&path, r#"{"format_version": 2, "a_field_of_the_future": true}"#).unwrap();
        let read = read_versioned::<crate::DecodeConfig>(&path);
        assert!(matches!(read, Err(Error::FormatVersion { found: 2, supported: FORMAT_VERSION, .. })));
        fs::write(&path, r#"{"format_version": 1, "a_field_of_the_future": true}"#).unwrap();
        assert!(matches!(read_versioned::<crate::DecodeConfig>(&path), Err(Error::Json { .. })));
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value.json");
        assert!(matches!(read_json::<u32>(&path), Err(Error::MissingArtifact { path: p }) if p == path));
        fs::write(&path, "{").unwrap();
        assert!(matches!(read_json::<u32>(&path), Err(Error::Json { path: p, .. }) if p == path));
    }
}
