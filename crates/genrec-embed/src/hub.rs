//! Models from the Hugging Face Hub. Nothing else in this crate touches the network.
//!
//! Files come into Hugging Face's own cache, laid out as its tools lay it out, so that what one has fetched the other finds. What
//! the Hub gives a hash for is checked against it: SHA-256 for files in the large file storage, git's SHA-1 for others. What
//! a cut connection or a killed process has left is completed, not fetched anew. Several processes may fetch the same files;
//! one does, the others wait.

mod cache;
mod checksum;
mod client;
mod error;
mod names;
mod transfer;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use error::HubError;

use crate::error::{EmbedError, Result};
use cache::ModelCache;
use client::{Client, Listing};
use transfer::Transfer;

/// Downloads a model into Hugging Face's own cache (`~/.cache/huggingface/hub`) and gives its directory,
/// for [`EmbedderSpec`](crate::EmbedderSpec) or an embedder's `open`.
///
/// `revision` is a branch, a tag or a commit; a commit makes a run repeatable.
///
/// # Errors
/// As [`HubDownload::download`].
///
/// ```no_run
/// # fn main() -> Result<(), genrec_embed::EmbedError> {
/// let dir = genrec_embed::hub::download("sentence-transformers/all-MiniLM-L6-v2", "main")?;
/// let embedder = genrec_embed::Bert::open(dir, &candle_core::Device::Cpu)?;
/// # Ok(())
/// # }
/// ```
pub fn download(model: &str, revision: &str) -> Result<PathBuf> {
    HubDownload::new(model).with_revision(revision).download()
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubProgress<'a> {
    /// The file under way.
    pub file: &'a str,
    /// Its place among the files, from 0.
    pub number: usize,
    /// How many files there are.
    pub files: usize,
    /// Bytes of this file that are there.
    pub received: u64,
    /// Bytes that it has, where the Hub says so.
    pub size: Option<u64>,
}

/// Told of a download's progress.
pub type ProgressCallback = Arc<dyn Fn(&HubProgress<'_>) + Send + Sync>;

/// A download with its settings.
///
/// ```no_run
/// # fn main() -> Result<(), genrec_embed::EmbedError> {
/// use genrec_embed::hub::HubDownload;
///
/// let dir = HubDownload::new("owner/model")
///     .with_revision("v1.0")
///     .with_token("hf_...")
///     .with_progress(|at| eprintln!("{} {}/{:?}", at.file, at.received, at.size))
///     .download_files(&["config.json"], |name| name.ends_with(".json"))?;
/// assert!(dir.join("config.json").exists());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct HubDownload {
    /// Model id, such as `sentence-transformers/all-MiniLM-L6-v2`.
    pub model: String,
    /// Branch, tag or commit. Default `main`.
    pub revision: String,
    /// Where files are kept; `None`, the default, for Hugging Face's own cache in the home directory.
    pub cache_dir: Option<PathBuf>,
    /// Address of the Hub, or of a mirror; `None`, the default, for the public one.
    pub endpoint: Option<String>,
    /// Access token, for gated and private models. `None`, the default, for the one that Hugging Face's tools have stored, if
    /// any, which is shown to the public Hub alone.
    pub token: Option<String>,
    /// Address of a proxy, such as `http://host:port`. None by default.
    pub proxy: Option<String>,
    /// How often a request is tried again that was cut, or that the Hub was too busy for. Default 5.
    pub retries: u32,
    /// The wait before the second try, doubled before each further one, up to ten seconds. Default half a second.
    pub retry_wait: Duration,
    /// Told of every block that arrives. None by default; each file is logged by `tracing` in any case.
    pub progress: Option<ProgressCallback>,
}

impl std::fmt::Debug for HubDownload {
    /// Leaves the token out, and the proxy, whose address may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubDownload")
            .field("model", &self.model)
            .field("revision", &self.revision)
            .field("cache_dir", &self.cache_dir)
            .field("endpoint", &self.endpoint)
            .field("retries", &self.retries)
            .field("retry_wait", &self.retry_wait)
            .finish_non_exhaustive()
    }
}

impl From<&str> for HubDownload {
    /// The `main` branch of that model.
    fn from(model: &str) -> Self {
        Self::new(model)
    }
}

impl HubDownload {
    /// A download of a model's `main` branch.
    pub fn new(model: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            revision: "main".to_owned(),
            cache_dir: None,
            endpoint: None,
            token: None,
            proxy: None,
            retries: 5,
            retry_wait: Duration::from_millis(500),
            progress: None,
        }
    }

    /// Sets [`revision`](Self::revision).
    #[must_use]
    pub fn with_revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = revision.into();
        self
    }

    /// Sets [`cache_dir`](Self::cache_dir).
    #[must_use]
    pub fn with_cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(dir.into());
        self
    }

    /// Sets [`endpoint`](Self::endpoint).
    #[must_use]
    pub fn with_endpoint(mut self, address: impl Into<String>) -> Self {
        self.endpoint = Some(address.into());
        self
    }

    /// Sets [`token`](Self::token).
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets [`proxy`](Self::proxy).
    #[must_use]
    pub fn with_proxy(mut self, address: impl Into<String>) -> Self {
        self.proxy = Some(address.into());
        self
    }

    /// Sets [`retries`](Self::retries) and [`retry_wait`](Self::retry_wait).
    #[must_use]
    pub fn with_retries(mut self, retries: u32, wait: Duration) -> Self {
        (self.retries, self.retry_wait) = (retries, wait);
        self
    }

    /// Sets [`progress`](Self::progress).
    #[must_use]
    pub fn with_progress(mut self, callback: impl Fn(&HubProgress<'_>) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(callback));
        self
    }

    /// Fetches what an embedder reads: configurations, `tokenizer.json`, safetensors weights, and the
    /// modules of sentence-transformers. Files that are in the cache already are not fetched again.
    ///
    /// # Errors
    /// [`EmbedError::MissingFile`] when the repository has nothing of these at its top, otherwise as
    /// [`download_files`](Self::download_files).
    pub fn download(&self) -> Result<PathBuf> {
        let listed = |names: &[&str]| -> Result<Vec<String>> {
            let wanted = wanted(names);
            if wanted.iter().all(|name| name.contains('/')) {
                let remedy = "name a model of a supported family in Hugging Face's layout";
                return Err(EmbedError::MissingFile { dir: self.model.clone().into(), file: "config.json", remedy });
            }
            Ok(wanted.into_iter().map(str::to_owned).collect())
        };
        self.fetch(listed)
    }

    /// Fetches the files of the repository whose names `keep` accepts and gives the directory that they lie in, each below it
    /// at its name. All are of one commit, even if a branch moves meanwhile, and none is in the directory before all are in the
    /// cache. Files that are in the cache already are not fetched again.
    ///
    /// The directory belongs to the cache: what is written into it, the next download may replace.
    ///
    /// # Errors
    /// [`EmbedError::Hub`] with [`HubError::NoSuchFile`] when one of the `required` files is not there, before anything is
    /// downloaded; [`HubError::NoSuchRepo`], [`HubError::NoSuchRevision`] and [`HubError::Unauthorised`] by the Hub's answer;
    /// [`HubError::UnsafeName`] for a name that leads out of the directory; [`HubError::Connection`] and [`HubError::Status`]
    /// when all tries failed, where what has arrived is kept for the next call; [`HubError::WrongHash`] and
    /// [`HubError::WrongSize`] when what arrived is not what the Hub says, where it is not kept; [`HubError::NoRoom`] and
    /// [`HubError::Io`] when the cache cannot be written.
    pub fn download_files(&self, required: &[&str], keep: impl Fn(&str) -> bool) -> Result<PathBuf> {
        self.fetch(|names| {
            if let Some(file) = required.iter().find(|file| !names.contains(file)) {
                let (model, revision, file) = (self.model.clone(), self.revision.clone(), (*file).to_owned());
                return Err(HubError::NoSuchFile { model, revision, file }.into());
            }
            Ok(names.iter().filter(|name| keep(name)).map(|name| (*name).to_owned()).collect())
        })
    }

    fn fetch(&self, choose: impl FnOnce(&[&str]) -> Result<Vec<String>>) -> Result<PathBuf> {
        names::check_model(&self.model)?;
        names::check_revision(&self.revision)?;
        let cache = ModelCache::new(self.cache_dir.as_deref(), &self.model)?;
        let client = Client::new(self)?;
        let listing: Listing = client.listing()?;
        let commit = listing.sha.as_str();
        let chosen = choose(&listing.names())?;
        let facts = chosen.iter().map(|file| client.facts(commit, file)).collect::<Result<Vec<_>, HubError>>()?;
        for (number, (file, facts)) in chosen.iter().zip(&facts).enumerate() {
            let transfer = Transfer { client: &client, cache: &cache, model: &self.model, commit, file, facts };
            transfer.run(&mut |received| {
                if let Some(progress) = &self.progress {
                    progress(&HubProgress { file, number, files: chosen.len(), received, size: facts.size });
                }
            })?;
        }
        // Links are made under temporary names, which two processes must not share.
        let _lock = cache.lock(commit)?;
        for (file, facts) in chosen.iter().zip(&facts) {
            cache.link(commit, file, &facts.etag)?;
        }
        cache.note(&self.revision, commit)?;
        Ok(cache.snapshot(commit))
    }
}

/// The files an embedder reads, of those a repository has.
fn wanted<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let has = |name: &str| names.contains(&name);
    let keep = |name: &&&str| match name.split_once('/') {
        None if has("model.safetensors") && name.ends_with(".safetensors") => **name == "model.safetensors",
        None => {
            let sharded = name.starts_with("model-") && name.ends_with(".safetensors");
            matches!(
                **name,
                "config.json"
                    | "modules.json"
                    | "sentence_bert_config.json"
                    | "tokenizer.json"
                    | "tokenizer_config.json"
                    | "model.safetensors.index.json"
            ) || sharded
        }
        Some((module, file)) => {
            let numbered = module.starts_with(|c: char| c.is_ascii_digit());
            let pickle = file == "pytorch_model.bin" && !has(&format!("{module}/model.safetensors"));
            numbered && (matches!(file, "config.json" | "model.safetensors") || pickle)
        }
    };
    names.iter().filter(keep).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_embedder_reads_is_wanted() {
        let names = [
            "README.md",
            "config.json",
            "model.safetensors",
            "openvino/model.xml",
            "pytorch_model.bin",
            "rust_model.ot",
            "tokenizer.json",
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "2_Dense/pytorch_model.bin",
            "3_Dense/model.safetensors",
            "3_Dense/pytorch_model.bin",
            "onnx/model.onnx",
        ];
        let expected = [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "2_Dense/pytorch_model.bin",
            "3_Dense/model.safetensors",
        ];
        assert_eq!(wanted(&names), expected);
        let sharded = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "original/params.json"];
        assert_eq!(wanted(&sharded), sharded[..2]);
    }

    #[test]
    fn settings_that_no_hub_has_are_refused_before_anything_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let download = HubDownload::new("owner/name").with_cache_dir(dir.path()).with_endpoint("http://127.0.0.1:1");
        for (download, expected) in [
            (HubDownload { model: "../name".into(), ..download.clone() }, "model"),
            (download.clone().with_revision("../../main"), "revision"),
            (download.clone().with_endpoint("nowhere"), "endpoint"),
            (download.clone().with_token("secret\r\nX-Other: 1"), "token"),
            (download.with_proxy("no proxy"), "proxy"),
        ] {
            let error = download.download().unwrap_err();
            assert!(!format!("{error} {error:?} {download:?}").contains("secret"));
            let EmbedError::Hub(error) = error else { panic!("{error}") };
            assert!(matches!(*error, HubError::Setting { what, .. } if what == expected), "{error}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
