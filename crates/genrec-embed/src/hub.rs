//! Models from the Hugging Face Hub. Nothing else in this crate touches the network.

use std::path::PathBuf;

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{ApiBuilder, ApiError, ApiRepo},
};

use crate::error::{EmbedError, Result};

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

/// A download with its settings.
#[derive(Clone)]
#[non_exhaustive]
pub struct HubDownload {
    /// Model id, such as `sentence-transformers/all-MiniLM-L6-v2`.
    pub model: String,
    /// Branch, tag or commit. Default `main`.
    pub revision: String,
    /// Where files are kept; `None`, the default, for Hugging Face's own cache.
    pub cache_dir: Option<PathBuf>,
    /// Address of the Hub; `None`, the default, for the public one.
    pub endpoint: Option<String>,
    /// Access token, for gated models; `None`, the default, for the one that Hugging Face's tools have stored, if any.
    pub token: Option<String>,
}

impl std::fmt::Debug for HubDownload {
    /// Leaves the token out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubDownload")
            .field("model", &self.model)
            .field("revision", &self.revision)
            .field("cache_dir", &self.cache_dir)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl HubDownload {
    /// A download of a model's `main` branch.
    pub fn new(model: impl Into<String>) -> Self {
        Self { model: model.into(), revision: "main".to_owned(), cache_dir: None, endpoint: None, token: None }
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

    /// Fetches what an embedder reads: configurations, `tokenizer.json`, safetensors weights, and the
    /// modules of sentence-transformers. Files that are in the cache already are not fetched again.
    ///
    /// # Errors
    /// [`EmbedError::Hub`] names the file that could not be had.
    pub fn download(&self) -> Result<PathBuf> {
        let error = |file: &str, source: ApiError| EmbedError::Hub {
            model: self.model.clone(),
            revision: self.revision.clone(),
            file: file.to_owned(),
            source: Box::new(source),
        };
        let mut builder = match &self.cache_dir {
            Some(dir) => ApiBuilder::from_cache(Cache::new(dir.clone())),
            None => ApiBuilder::new(),
        };
        builder = builder.with_progress(false);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        if let Some(token) = &self.token {
            builder = builder.with_token(Some(token.clone()));
        }
        let api = builder.build().map_err(|source| error("the client's set-up", source))?;
        let repo = |revision: &str| -> ApiRepo {
            api.repo(Repo::with_revision(self.model.clone(), RepoType::Model, revision.to_owned()))
        };
        let info = repo(&self.revision).info().map_err(|source| error("the list of files", source))?;
        let names: Vec<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
        // All files of one commit, even if the branch moves meanwhile.
        let pinned = repo(&info.sha);
        let mut dir = PathBuf::new();
        for file in wanted(&names) {
            tracing::info!(file, model = self.model, "from the Hub");
            let path = pinned.get(file).map_err(|source| error(file, source))?;
            if !file.contains('/')
                && let Some(parent) = path.parent()
            {
                dir = parent.to_owned();
            }
        }
        if dir.as_os_str().is_empty() {
            let remedy = "name a model of a supported family in Hugging Face's layout";
            return Err(EmbedError::MissingFile { dir: self.model.clone().into(), file: "config.json", remedy });
        }
        Ok(dir)
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
mod tests;
