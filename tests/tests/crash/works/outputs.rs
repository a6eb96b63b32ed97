//! A run is exported; embeddings are kept.

use std::{fs, path::Path};

use candle_core::Device;
use genrec::{
    Export, Recommender,
    artifacts::RunDir,
    embed::{EmbeddingCache, Tfidf, TfidfConfig},
};

use super::{BoxError, Work, run};

pub(crate) const EXPORT: Work =
    Work { prepare: |root| run::finish(&root.join("run")), ..Work::new("export", export, is_exported) };

/// An unfinished export is begun anew, as its error asks.
fn export(root: &Path) -> Result<(), BoxError> {
    let out = root.join("out");
    if out.exists() && !out.join("README.md").exists() {
        fs::remove_dir_all(&out).unwrap();
    }
    if !out.exists() {
        Export::new("A shop", "mit").write(root.join("run"), out)?;
    }
    Ok(())
}

/// Whatever has a card is whole, and the run is as it was.
fn is_exported(root: &Path) -> bool {
    RunDir::new(root.join("run")).verify().unwrap();
    let out = root.join("out");
    let is_done = out.join("README.md").exists();
    if is_done {
        RunDir::new(&out).verify().unwrap();
        Recommender::load(out, &Device::Cpu).unwrap();
    }
    is_done
}

pub(crate) const CACHE: Work =
    Work { prepare: |root| embed(root, 5).unwrap(), ..Work::new("cache", |root| embed(root, 9), is_embedded) };

fn embed(root: &Path, texts: usize) -> Result<(), BoxError> {
    let fitted: Vec<_> = (0..9).map(|at| format!("{} shade {}", ["red", "blue", "green"][at % 3], at % 4)).collect();
    let texts: Vec<_> = (0..texts).map(|at| format!("{} number {at}", fitted[at])).collect();
    let tfidf = Tfidf::fit(&fitted, TfidfConfig::default().with_min_df(1))?;
    EmbeddingCache::open(root.join("cache"))?.embed_with(&tfidf, &texts, &mut |_, _| {})?;
    Ok(())
}

/// Every file is whole: a damaged one would be an error.
fn is_embedded(root: &Path) -> bool {
    embed(root, 5).unwrap();
    fs::read_dir(root.join("cache")).unwrap().count() == 2
}
