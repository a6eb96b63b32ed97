//! Embeddings of a catalogue, as a command line names them.

use std::path::Path;

use candle_core::Device;
use genrec::{
    data::{Catalogue, Item, ReadOptions, readers::neutral},
    embed::{AnyEmbedder, Embedder, EmbedderSpec, EmbeddingCache, TextTemplate, TfidfConfig, io},
    pipeline::EmbeddingSource,
};
use ndarray::Array2;

use crate::{BoxError, Progress, waiting};

/// `tfidf`, `bert:DIR`, `sentence-t5:DIR`, `llm:DIR` or `npy:FILE`.
///
/// # Errors
/// When the text is none of them; the message lists them.
pub fn parse_embedder(text: &str) -> Result<EmbeddingSource, String> {
    let (kind, path) = text.split_once(':').unwrap_or((text, ""));
    let spec = match (kind, path.is_empty()) {
        ("tfidf", true) => EmbedderSpec::Tfidf(TfidfConfig::default()),
        ("bert", false) => EmbedderSpec::Bert { dir: path.into() },
        ("sentence-t5", false) => EmbedderSpec::SentenceT5 { dir: path.into() },
        ("llm", false) => EmbedderSpec::CausalLm { dir: path.into() },
        ("npy", false) => return Ok(EmbeddingSource::Npy { path: path.into() }),
        _ => {
            return Err(format!(
                "`{text}` is not an embedder: give tfidf, bert:DIR, sentence-t5:DIR, llm:DIR or npy:FILE"
            ));
        }
    };
    Ok(EmbeddingSource::Text { embedder: spec })
}

/// The items of a directory in the neutral form.
///
/// # Errors
/// When `items.jsonl` cannot be read or holds no item.
pub fn catalogue(dir: &Path) -> Result<Catalogue, BoxError> {
    let path = dir.join(neutral::ITEMS);
    let read = || neutral::read_items(&path, &ReadOptions::default());
    let (catalogue, _) = waiting("read", &path.display().to_string(), read)?;
    if catalogue.is_empty() {
        return Err(
            format!("`{}` holds no item: give one JSON object a line, with an `item_id`", path.display()).into()
        );
    }
    Ok(catalogue)
}

/// The embeddings of all items, by the pipeline's own text template. What an encoder with weights has made is kept in
/// `cache` and found there again.
///
/// # Errors
/// When the encoder cannot be opened or fails, or a file has another number of rows than the catalogue.
pub fn embed(
    catalogue: &Catalogue,
    source: &EmbeddingSource,
    device: &Device,
    cache: &Path,
) -> Result<Array2<f32>, BoxError> {
    let rows = match source {
        EmbeddingSource::Npy { path } => io::read_npy(path)?,
        EmbeddingSource::Text { embedder: spec } => {
            let template = TextTemplate::default();
            let render = |item: &Item| template.render(|field| item.field(field));
            let texts: Vec<String> = catalogue.items().iter().map(render).collect();
            let progress = Progress::new("embed");
            let embedder = AnyEmbedder::fit(spec, &texts, device)?;
            match spec {
                EmbedderSpec::Tfidf(_) => embedder.embed_with(&texts, &mut progress.counter())?,
                _ => EmbeddingCache::open(cache)?.embed_with(&embedder, &texts, &mut progress.counter())?,
            }
        }
        _ => return Err("this program does not know that source of embeddings".into()),
    };
    if rows.nrows() != catalogue.len() {
        let (got, items) = (rows.nrows(), catalogue.len());
        return Err(
            format!("the embeddings have {got} rows and the catalogue {items} items: give a row an item").into()
        );
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn an_embedder_is_a_kind_and_a_place() {
        let bert = EmbeddingSource::Text { embedder: EmbedderSpec::Bert { dir: "a:b".into() } };
        assert_eq!(parse_embedder("bert:a:b").unwrap(), bert);
        assert_eq!(parse_embedder("npy:x.npy").unwrap(), EmbeddingSource::Npy { path: "x.npy".into() });
        for wrong in ["", "bert", "tfidf:x", "word2vec:x"] {
            assert!(parse_embedder(wrong).unwrap_err().contains("sentence-t5:DIR"), "{wrong}");
        }
    }

    #[test]
    fn rows_that_are_missing_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.npy");
        io::write_npy(&path, Array2::zeros((2, 3)).view()).unwrap();
        let catalogue = Catalogue::from_items(vec![Item::new("a")]).unwrap();
        let error = embed(&catalogue, &EmbeddingSource::Npy { path }, &Device::Cpu, dir.path()).unwrap_err();
        assert!(error.to_string().contains("2 rows and the catalogue 1 items"), "{error}");
        std::fs::write(dir.path().join(neutral::ITEMS), "").unwrap();
        assert!(super::catalogue(dir.path()).unwrap_err().to_string().contains("holds no item"));
    }
}
