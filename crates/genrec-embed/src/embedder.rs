//! The trait of everything that turns texts into vectors.

use ndarray::Array2;

use crate::error::{EmbedError, Result};

/// Turns texts into content embeddings, one row a text.
///
/// Implementors give [`dim`](Self::dim), [`fingerprint`](Self::fingerprint) and
/// [`embed_with`](Self::embed_with). The row of a text must depend on that text alone: neither its
/// neighbours nor its place in the input may move it by more than rounding (1e-5).
pub trait Embedder {
    /// Width of an embedding.
    fn dim(&self) -> usize;

    /// Identifies the model and every setting that changes its output; the key of the
    /// [cache](crate::cache::EmbeddingCache). Two embedders with one fingerprint are interchangeable.
    fn fingerprint(&self) -> String;

    /// Embeds texts and reports progress as `(texts done, texts in all)`, also once at the end.
    ///
    /// # Shapes
    /// `(texts, dim)` f32; row `i` belongs to `texts[i]`.
    ///
    /// # Errors
    /// When a text cannot be tokenised, a tensor operation fails, or the model returns a value that is not finite.
    fn embed_with(&self, texts: &[String], progress: &mut dyn FnMut(usize, usize)) -> Result<Array2<f32>>;

    /// [`embed_with`](Self::embed_with) without progress.
    ///
    /// # Errors
    /// As [`embed_with`](Self::embed_with).
    fn embed(&self, texts: &[String]) -> Result<Array2<f32>> {
        self.embed_with(texts, &mut |_, _| {})
    }
}

impl<E: Embedder + ?Sized> Embedder for &E {
    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn fingerprint(&self) -> String {
        (**self).fingerprint()
    }

    fn embed_with(&self, texts: &[String], progress: &mut dyn FnMut(usize, usize)) -> Result<Array2<f32>> {
        (**self).embed_with(texts, progress)
    }
}

impl<E: Embedder + ?Sized> Embedder for Box<E> {
    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn fingerprint(&self) -> String {
        (**self).fingerprint()
    }

    fn embed_with(&self, texts: &[String], progress: &mut dyn FnMut(usize, usize)) -> Result<Array2<f32>> {
        (**self).embed_with(texts, progress)
    }
}

/// Fails on the first row that holds NaN or an infinity; `model` gives the fingerprint for the error.
pub(crate) fn check_finite(rows: &Array2<f32>, model: &dyn Fn() -> String) -> Result<()> {
    for (row, values) in rows.outer_iter().enumerate() {
        if values.iter().any(|value| !value.is_finite()) {
            return Err(EmbedError::NotFinite { row, model: model() });
        }
    }
    Ok(())
}
