//! A run made ready for others: the files that recommending needs, and a model card.

mod card;
mod front;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use candle_core::Device;
use genrec_embed::{AnyEmbedder, EmbedderSpec, OutsideModel};

use crate::{
    Error, Recommender, Result,
    artifacts::{self, RunDir},
    catalogue,
    pipeline::{EmbeddingSource, Manifest, Report, TigerConfig},
};

/// What the Hub keeps outside of git, with a SHA-256 that downloads are compared with.
const ATTRIBUTES: &str =
    "*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.jsonl filter=lfs diff=lfs merge=lfs -text\n";

/// Makes of a run directory one that can be uploaded to the Hugging Face Hub as it is, and says what its model card says
/// beside the run's own numbers.
///
/// ```sh
/// hf upload owner/beauty exported .
/// ```
///
/// ```no_run
/// use genrec::Export;
///
/// # fn main() -> genrec::Result<()> {
/// Export::new("Beauty by TIGER", "mit")
///     .with_repo("owner/beauty")
///     .with_dataset("owner/amazon-beauty")
///     .write("runs/beauty", "exported")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Export {
    /// What the model is called.
    pub name: String,
    /// The licence of the weights and the catalogue, by the Hub's name for it: `mit`, `apache-2.0`, `cc-by-nc-4.0`, `other`.
    pub license: String,
    /// Where it will be uploaded to, `owner/name`; the card's examples name it. None by default.
    pub repo: Option<String>,
    /// What it is and who made it, in Markdown. None by default.
    pub description: Option<String>,
    /// Data sets on the Hub that it was trained on. None by default.
    pub datasets: Vec<String>,
    /// Languages of the items' texts, by their ISO 639-1 codes. None by default.
    pub languages: Vec<String>,
    /// Tags beside those that every export has. None by default.
    pub tags: Vec<String>,
    /// What the pretrained model that embedded the texts is called where it was published, such as
    /// `sentence-transformers/all-MiniLM-L6-v2`. By default this is guessed from the directory that it lay in, whose last name
    /// it is but in the Hub's cache.
    pub embedder: Option<String>,
}

impl Export {
    /// An export of that name and licence.
    pub fn new(name: impl Into<String>, license: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            license: license.into(),
            repo: None,
            description: None,
            datasets: Vec::new(),
            languages: Vec::new(),
            tags: Vec::new(),
            embedder: None,
        }
    }

    /// Sets [`repo`](Self::repo).
    #[must_use]
    pub fn with_repo(mut self, repo: impl Into<String>) -> Self {
        self.repo = Some(repo.into());
        self
    }

    /// Sets [`description`](Self::description).
    #[must_use]
    pub fn with_description(mut self, markdown: impl Into<String>) -> Self {
        self.description = Some(markdown.into());
        self
    }

    /// Adds one of the [`datasets`](Self::datasets).
    #[must_use]
    pub fn with_dataset(mut self, dataset: impl Into<String>) -> Self {
        self.datasets.push(dataset.into());
        self
    }

    /// Adds one of the [`languages`](Self::languages).
    #[must_use]
    pub fn with_language(mut self, code: impl Into<String>) -> Self {
        self.languages.push(code.into());
        self
    }

    /// Adds one of the [`tags`](Self::tags).
    #[must_use]
    pub fn with_tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Sets [`embedder`](Self::embedder).
    #[must_use]
    pub fn with_embedder(mut self, name: impl Into<String>) -> Self {
        self.embedder = Some(name.into());
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] names the first that a model card cannot have.
    pub fn validate(&self) -> Result<()> {
        let one_line = |text: &str| !text.trim().is_empty() && !text.contains(char::is_control);
        let word = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/'))
        };
        let repo =
            |text: &str| word(text) && text.split('/').count() == 2 && text.split('/').all(|part| !part.is_empty());
        let bad = |field, value: &str, expected| Err(Error::Config { field, value: format!("`{value}`"), expected });
        if !one_line(&self.name) {
            return bad("name", &self.name, "one line of text");
        }
        if !word(&self.license) {
            return bad("license", &self.license, "a licence by the Hub's name for it, such as `mit`, or `other`");
        }
        if let Some(value) = self.repo.as_deref().filter(|value| !repo(value)) {
            return bad("repo", value, "a repository, `owner/name`");
        }
        if let Some(value) = self.embedder.as_deref().filter(|value| !one_line(value)) {
            return bad("embedder", value, "one line of text");
        }
        for (field, values, expected) in [
            ("datasets", &self.datasets, "names of data sets on the Hub"),
            ("languages", &self.languages, "codes of languages, such as `en`"),
        ] {
            if let Some(value) = values.iter().find(|value| !word(value)) {
                return bad(field, value, expected);
            }
        }
        match self.tags.iter().find(|tag| !one_line(tag)) {
            Some(tag) => bad("tags", tag, "one line of text each"),
            None => Ok(()),
        }
    }

    /// Writes the files that recommending and adding items need into an empty or new directory, with a model card `README.md`
    /// and `.gitattributes`, and names it as a run, which [`verify`](RunDir::verify) can check wherever it goes. Checkpoints stay behind, and so do paths of this machine: settings name the
    /// files and models that they led to.
    ///
    /// The run is opened first, so that only a whole one is exported.
    ///
    /// # Errors
    /// [`Error::Config`] for a field that a model card cannot have, [`Error::NotEmpty`] when `out` holds something, those of
    /// [`Recommender::load`], and [`Error::Io`] when a file cannot be copied; what was written stays then, without a card.
    pub fn write(&self, run: impl Into<PathBuf>, out: impl Into<PathBuf>) -> Result<RunDir> {
        self.validate()?;
        let (from, to) = (RunDir::new(run), RunDir::new(out));
        match fs::read_dir(to.root()).map(|mut entries| entries.next().is_some()) {
            Ok(true) => return Err(Error::NotEmpty { path: to.root().to_owned() }),
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(Error::Io { action: "read", path: to.root().to_owned(), source });
            }
            _ => {}
        }
        let recommender = Recommender::load(from.root(), &Device::Cpu)?;
        let report: Report = artifacts::read_versioned(&from.report())?;
        let mut manifest: Manifest = artifacts::read_versioned(&from.manifest())?;
        let is_text = manifest.config.embedder.is_text();
        let outside = if is_text { AnyEmbedder::outside_model(from.embedder())? } else { None };
        let embedder = outside.map(|mut model| {
            model.dir = self.name_of(&model.dir).into();
            model
        });
        without_places(&mut manifest.config, embedder.as_ref());

        artifacts::write_json(&to.manifest(), &manifest)?;
        catalogue::write(&to.catalogue(), recommender.catalogue(), recommender.seen_flags())?;
        recommender.index().save(&to.index())?;
        if is_text {
            let name = embedder.as_ref().map(|model| model.dir.to_string_lossy()).unwrap_or_default();
            AnyEmbedder::copy_saved(from.embedder(), to.embedder(), &name)?;
        }
        copy_parts(&from, &to)?;
        to.seal(recommender.index().id_bound())?;
        artifacts::write_with(&to.root().join(".gitattributes"), |file| file.write_all(ATTRIBUTES.as_bytes()))?;
        let card = card::Card {
            export: self,
            manifest: &manifest,
            report: &report,
            items: recommender.catalogue().len(),
            vocab: recommender.vocab(),
            model: recommender.model().config(),
            embedder: embedder.as_ref(),
        };
        let text = card.text()?;
        artifacts::write_with(&to.root().join("README.md"), |file| file.write_all(text.as_bytes()))?;
        Ok(to)
    }

    /// What the model in a directory is called.
    fn name_of(&self, dir: &Path) -> String {
        self.embedder.clone().unwrap_or_else(|| published_name(dir))
    }
}

/// The last name of a path; in the Hub's cache that of the model, as the last one is a commit there.
fn published_name(dir: &Path) -> String {
    let names: Vec<_> = dir.iter().map(|name| name.to_string_lossy()).collect();
    if let [.., model, snapshots, _] = &names[..]
        && snapshots == "snapshots"
        && let Some(model) = model.strip_prefix("models--")
    {
        return model.replacen("--", "/", 1);
    }
    names.last().map(|name| name.clone().into_owned()).unwrap_or_default()
}

/// Puts names in the place of this machine's paths.
fn without_places(config: &mut TigerConfig, embedder: Option<&OutsideModel>) {
    match &mut config.embedder {
        EmbeddingSource::Npy { path } => *path = published_name(path).into(),
        EmbeddingSource::Text {
            embedder: EmbedderSpec::Bert { dir } | EmbedderSpec::SentenceT5 { dir } | EmbedderSpec::CausalLm { dir },
        } => *dir = embedder.map_or_else(|| published_name(dir).into(), |model| model.dir.clone()),
        EmbeddingSource::Text { .. } => {}
    }
    if let Some(path) = &mut config.fitted_quantizer {
        *path = published_name(path).into();
    }
}

/// Copies what neither names a place nor changes with the catalogue.
fn copy_parts(from: &RunDir, to: &RunDir) -> Result<()> {
    for (source, target) in
        [(from.behaviour(), to.behaviour()), (from.quantizer(), to.quantizer()), (from.model(), to.model())]
    {
        let entries = match fs::read_dir(&source) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::Io { action: "read", path: source, source: error }),
        };
        for entry in entries {
            let entry = entry.map_err(|error| Error::Io { action: "read", path: source.clone(), source: error })?;
            let name = entry.file_name();
            let part = source.file_name().unwrap_or_default().to_string_lossy();
            if artifacts::serves(&format!("{part}/{}", name.to_string_lossy())) {
                copy(&entry.path(), &target.join(name))?;
            }
        }
    }
    for (source, target) in [
        (from.embeddings(), to.embeddings()),
        (from.co_occurrence(), to.co_occurrence()),
        (from.decode(), to.decode()),
        (from.report(), to.report()),
    ] {
        if artifacts::exists(&source)? {
            copy(&source, &target)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let unread = |source| Error::Io { action: "read", path: from.to_owned(), source };
    let mut source = fs::File::open(from).map_err(unread)?;
    let mut failed = None;
    let written = artifacts::write_with(to, |file| {
        let mut block = vec![0; 1 << 20];
        loop {
            match source.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(length) => file.write_all(block.get(..length).unwrap_or_default())?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed.insert(error).kind().into()),
            }
        }
    });
    failed.map_or(written, |error| Err(unread(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_become_names() {
        for (dir, name) in [
            ("/home/someone/models/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
            (
                "/c/hub/models--sentence-transformers--all-MiniLM-L6-v2/snapshots/0123",
                "sentence-transformers/all-MiniLM-L6-v2",
            ),
            ("/c/hub/models--gpt2/snapshots/0123", "gpt2"),
            ("relative", "relative"),
            ("/", "/"),
        ] {
            assert_eq!(published_name(Path::new(dir)), name);
        }
        let mut config = TigerConfig::paper();
        config.embedder = EmbeddingSource::Npy { path: "/data/rows.npy".into() };
        config.fitted_quantizer = Some("/runs/other/quantizer".into());
        without_places(&mut config, None);
        assert_eq!(config.embedder, EmbeddingSource::Npy { path: "rows.npy".into() });
        assert_eq!(config.fitted_quantizer, Some("quantizer".into()));
    }

    #[test]
    fn what_a_card_cannot_have_is_named() {
        let good = Export::new("A name", "apache-2.0");
        assert!(good.validate().is_ok());
        for (field, bad) in [
            ("name", Export { name: "two\nlines".into(), ..good.clone() }),
            ("license", Export { license: "M I T".into(), ..good.clone() }),
            ("repo", good.clone().with_repo("name")),
            ("datasets", good.clone().with_dataset("a: b")),
            ("languages", good.clone().with_language("")),
            ("tags", good.clone().with_tag("\n")),
            ("embedder", good.with_embedder(" ")),
        ] {
            assert!(matches!(bad.validate(), Err(Error::Config { field: named, .. }) if named == field), "{field}");
        }
    }
}
