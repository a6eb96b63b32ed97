//! TF-IDF with a truncated singular value decomposition: content embeddings without a neural model.

mod config;
mod persist;
mod terms;

use ndarray::Array2;
use rayon::prelude::*;

pub use self::config::TfidfConfig;
use self::terms::{Vocabulary, count_terms};
use crate::{
    embedder::Embedder,
    error::{EmbedError, Result},
    sparse::Csr,
    svd::{self, Subspace},
};

/// Texts embedded between two calls of the progress function.
const CHUNK: usize = 2048;

/// Latent semantic analysis (Deerwester et al., 1990): TF-IDF rows, projected on the leading right
/// singular vectors of the catalogue's own TF-IDF matrix, then scaled to unit length.
///
/// With `n` texts, term frequency `f` and document frequency `d`, a term weighs
/// `(1 + ln f) (1 + ln((1 + n) / (1 + d)))`; rows are normalised before the decomposition, which is
/// the seeded randomised one of Halko, Martinsson and Tropp (2011, algorithms 4.4 and 5.1).
///
/// Needs no weights, no network and seconds of time, and knows nothing but the words of the
/// catalogue: good enough for a quick start and for machines without a model, weaker than a sentence
/// encoder on synonyms. Texts that were not there when it was fitted embed by the terms they share
/// with the catalogue; one that shares none embeds to zeros.
///
/// The same texts and configuration give the same bytes at any number of threads.
///
/// ```
/// use genrec_embed::{Embedder, Tfidf, TfidfConfig};
///
/// # fn main() -> Result<(), genrec_embed::EmbedError> {
/// let texts: Vec<String> = ["red nail polish", "blue nail polish", "hair dryer", "ionic hair dryer"]
///     .iter().map(|text| text.to_string()).collect();
/// let tfidf = Tfidf::fit(&texts, TfidfConfig::default().with_dim(2).with_min_df(1))?;
/// let rows = tfidf.embed(&["green nail polish".to_owned(), "silent dryer".to_owned()])?;
/// assert_eq!(rows.dim(), (2, tfidf.dim()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Tfidf {
    config: TfidfConfig,
    vocabulary: Vocabulary,
    idf: Vec<f32>,
    components: Array2<f32>,
    sha256: String,
}

impl Tfidf {
    /// Learns vocabulary, weights and projection from the catalogue's texts.
    ///
    /// The width is [`TfidfConfig::dim`], or the rank of the TF-IDF matrix where that is smaller: see [`dim`](Embedder::dim).
    ///
    /// # Errors
    /// [`EmbedError::Config`] for a value out of range, [`EmbedError::EmptyVocabulary`] when no term is left.
    pub fn fit(texts: &[String], config: TfidfConfig) -> Result<Self> {
        config.validate()?;
        let vocabulary = Vocabulary::fit(texts, &config)?;
        let idf = vocabulary.smoothed_idf(texts.len());
        let rows: Vec<_> = texts.par_iter().map(|text| weigh(text, &config, &vocabulary, &idf)).collect();
        let matrix = Csr::from_rows(&rows, vocabulary.len());
        let &TfidfConfig { dim, oversample, power_iterations, seed, .. } = &config;
        let components = svd::right_singular(&matrix, Subspace { dim, oversample, power_iterations, seed }).vectors;
        tracing::debug!(terms = vocabulary.len(), dim = components.ncols(), "fitted TF-IDF");
        Self::from_parts(config, vocabulary, idf, components)
    }

    /// Configuration it was fitted with.
    pub fn config(&self) -> &TfidfConfig {
        &self.config
    }

    /// Number of terms.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary.len()
    }

    fn project(&self, text: &str, row: &mut [f32]) {
        let mut sums = vec![0.0_f64; row.len()];
        for (term, weight) in weigh(text, &self.config, &self.vocabulary, &self.idf) {
            let component = self.components.row(term as usize);
            for (sum, value) in sums.iter_mut().zip(component) {
                *sum += f64::from(weight) * f64::from(*value);
            }
        }
        let norm = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        for (value, sum) in row.iter_mut().zip(sums) {
            #[allow(clippy::cast_possible_truncation, reason = "components of a unit vector")]
            let unit = (sum * scale) as f32;
            *value = unit;
        }
    }
}

impl Embedder for Tfidf {
    fn dim(&self) -> usize {
        self.components.ncols()
    }

    fn fingerprint(&self) -> String {
        format!("tfidf:{}", self.sha256)
    }

    fn embed_with(&self, texts: &[String], progress: &mut dyn FnMut(usize, usize)) -> Result<Array2<f32>> {
        let dim = self.dim();
        let mut values = vec![0.0; texts.len() * dim];
        for (chunk, (out, part)) in values.chunks_mut(CHUNK * dim).zip(texts.chunks(CHUNK)).enumerate() {
            out.par_chunks_mut(dim).zip(part).for_each(|(row, text)| self.project(text, row));
            progress(chunk * CHUNK + part.len(), texts.len());
        }
        if texts.is_empty() {
            progress(0, 0);
        }
        Array2::from_shape_vec((texts.len(), dim), values)
            .map_err(|_| EmbedError::Shape { expected: (texts.len(), dim), got: (0, 0) })
    }
}

/// The TF-IDF row of a text, of unit length, sorted by term.
fn weigh(text: &str, config: &TfidfConfig, vocabulary: &Vocabulary, idf: &[f32]) -> Vec<(u32, f32)> {
    let counts = count_terms(text, config, |term| vocabulary.index(term));
    let mut row: Vec<(u32, f64)> = counts
        .into_iter()
        .map(|(term, count)| (term, (1.0 + f64::from(count).ln()) * f64::from(idf[term as usize])))
        .collect();
    let norm = row.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt();
    row.iter_mut().for_each(|(_, weight)| *weight /= norm);
    #[allow(clippy::cast_possible_truncation, reason = "components of a unit vector")]
    row.into_iter().map(|(term, weight)| (term, weight as f32)).collect()
}

#[cfg(test)]
mod tests;
