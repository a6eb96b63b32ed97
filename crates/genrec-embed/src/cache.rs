//! Embeddings kept on disk, by model and text.
#![allow(clippy::needless_pass_by_value, reason = "views of arrays are passed by value")]

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use ndarray::{Array2, ArrayView2};
use safetensors::{Dtype, SafeTensors};

use crate::{
    embedder::Embedder,
    error::{ArrayProblem, EmbedError, Result},
    hash::PartHasher,
    io::{FORMAT_VERSION_KEY, RawTensor, check_tensors_version, create_dir, matrix, read_file, write_tensors},
};

/// Texts embedded and then written at once: what a killed run loses at most.
const CHUNK: usize = 4096;

type Key = [u8; 32];

/// A directory of embeddings, keyed by SHA-256 over the embedder's fingerprint and the text.
///
/// Rows that are there come back byte for byte; only the others are embedded, in chunks that are
/// written as they are done. A run that was killed therefore resumes with the same chunks, and ends
/// with the same bytes, as one that was not. Files are added, never changed, so that several
/// processes may share a directory; delete the directory to empty the cache.
///
/// ```
/// use genrec_embed::{Embedder, EmbeddingCache, Tfidf, TfidfConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let texts: Vec<String> = ["red nail polish", "blue nail polish"].iter().map(|text| text.to_string()).collect();
/// let tfidf = Tfidf::fit(&texts, TfidfConfig::default().with_min_df(1))?;
/// let cache = EmbeddingCache::open(dir.path())?;
/// let rows = cache.embed_with(&tfidf, &texts, &mut |_, _| {})?;
/// assert_eq!(cache.embed_with(&tfidf, &texts, &mut |_, _| {})?, rows);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct EmbeddingCache {
    dir: PathBuf,
}

impl EmbeddingCache {
    /// Opens a directory, which is made if need be.
    ///
    /// # Errors
    /// [`EmbedError::Io`] when it cannot be made.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_owned();
        create_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Embeds texts, those in the cache by look-up; progress is `(texts done, texts in all)`, where
    /// equal texts count as done together.
    ///
    /// # Shapes
    /// `(texts, dim)` f32; row `i` belongs to `texts[i]`.
    ///
    /// # Errors
    /// As the embedder's own, [`EmbedError::Array`] when a file of the cache is damaged,
    /// [`EmbedError::FormatVersion`] when one is of a newer version of this crate, and [`EmbedError::Shape`] when the embedder returns another shape than it promised.
    pub fn embed_with<E: Embedder + ?Sized>(
        &self,
        embedder: &E,
        texts: &[String],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Array2<f32>> {
        let dim = embedder.dim();
        let fingerprint = embedder.fingerprint();
        let prefix = PartHasher::default().part(fingerprint.as_bytes()).hex()[..16].to_owned();
        let keys: Vec<Key> = texts.iter().map(|text| key(&fingerprint, text)).collect();
        let mut known = self.read(&prefix, dim, &keys.iter().copied().collect())?;
        let hits = keys.iter().filter(|key| known.contains_key(*key)).count();
        let mut seen = HashSet::new();
        let missing: Vec<usize> =
            (0..texts.len()).filter(|row| !known.contains_key(&keys[*row]) && seen.insert(keys[*row])).collect();
        tracing::debug!(hits, missing = missing.len(), "embedding cache");
        let repeats = texts.len() - hits - missing.len();
        let mut done = hits;
        progress(done, texts.len());
        for chunk in missing.chunks(CHUNK) {
            let wanted: Vec<String> = chunk.iter().map(|row| texts[*row].clone()).collect();
            let rows = embedder.embed_with(&wanted, &mut |part, _| progress(done + part, texts.len()))?;
            if rows.dim() != (wanted.len(), dim) {
                return Err(EmbedError::Shape { expected: (wanted.len(), dim), got: rows.dim() });
            }
            let new: Vec<Key> = chunk.iter().map(|row| keys[*row]).collect();
            self.write(&prefix, &new, rows.view())?;
            known.extend(new.into_iter().zip(rows.outer_iter().map(|row| row.to_vec())));
            done += chunk.len();
        }
        if repeats > 0 {
            progress(texts.len(), texts.len());
        }
        let mut rows = Array2::zeros((texts.len(), dim));
        for (mut row, key) in rows.outer_iter_mut().zip(&keys) {
            if let Some(values) = known.get(key) {
                row.iter_mut().zip(values).for_each(|(value, known)| *value = *known);
            }
        }
        Ok(rows)
    }

    /// The rows of the wanted keys over all files of one fingerprint.
    fn read(&self, prefix: &str, dim: usize, wanted: &HashSet<Key>) -> Result<HashMap<Key, Vec<f32>>> {
        let error = |source| EmbedError::Io { action: "list", path: self.dir.clone(), source };
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(error)? {
            let name = entry.map_err(error)?.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{prefix}-")) && name.ends_with(".safetensors") {
                paths.push(self.dir.join(name));
            }
        }
        paths.sort();
        let mut known = HashMap::new();
        for path in paths {
            let bytes = read_file(&path)?;
            check_tensors_version(&path, &bytes)?;
            let (keys, rows) =
                parse(&bytes, dim).map_err(|problem| EmbedError::Array { path: path.clone(), problem })?;
            for (key, row) in keys.iter().zip(rows.outer_iter()) {
                if wanted.contains(key) {
                    known.entry(*key).or_insert_with(|| row.to_vec());
                }
            }
        }
        Ok(known)
    }

    fn write(&self, prefix: &str, keys: &[Key], rows: ArrayView2<'_, f32>) -> Result<()> {
        let name = keys.iter().fold(PartHasher::default(), |hasher, key| hasher.raw(key)).hex();
        let path = self.dir.join(format!("{prefix}-{}.safetensors", &name[..16]));
        let tensors = [
            ("checksum", RawTensor::bytes(checksum(keys, rows).to_vec(), 32)),
            ("embeddings", RawTensor::matrix(rows)),
            ("keys", RawTensor::bytes(keys.concat(), 32)),
        ];
        write_tensors(&path, tensors, &[(FORMAT_VERSION_KEY, "1")])
    }
}

fn key(fingerprint: &str, text: &str) -> Key {
    PartHasher::default().part(fingerprint.as_bytes()).part(text.as_bytes()).bytes()
}

fn checksum(keys: &[Key], rows: ArrayView2<'_, f32>) -> Key {
    let mut hasher = keys.iter().fold(PartHasher::default(), |hasher, key| hasher.raw(key));
    for row in rows.outer_iter() {
        let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        hasher = hasher.raw(&bytes);
    }
    hasher.bytes()
}

fn parse(bytes: &[u8], dim: usize) -> Result<(Vec<Key>, Array2<f32>), ArrayProblem> {
    let tensors = SafeTensors::deserialize(bytes).map_err(ArrayProblem::Safetensors)?;
    let rows = matrix(&tensors, "embeddings")?;
    let byte_rows = |name: &str| {
        let tensor = tensors.tensor(name).map_err(|_| ArrayProblem::MissingTensor { name: name.to_owned() })?;
        match (tensor.dtype(), tensor.shape()) {
            (Dtype::U8, [_, 32]) => Ok(tensor.data().as_chunks::<32>().0.to_vec()),
            (dtype, shape) => Err(ArrayProblem::WrongTensor {
                name: name.to_owned(),
                dtype: format!("{dtype:?}"),
                shape: shape.to_vec(),
                expected: "U8 with rows of 32",
            }),
        }
    };
    let keys = byte_rows("keys")?;
    if rows.dim() != (keys.len(), dim) || byte_rows("checksum")? != [checksum(&keys, rows.view())] {
        return Err(ArrayProblem::Checksum);
    }
    Ok((keys, rows))
}

#[cfg(test)]
mod tests;
