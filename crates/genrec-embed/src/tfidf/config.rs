//! Configuration of TF-IDF.

use serde::{Deserialize, Serialize};

use crate::error::{EmbedError, Result};

/// How texts are cut into terms, which terms are kept and how wide the embedding is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TfidfConfig {
    /// Width of the embedding, in 1..=4096. Default 256: beyond it, recall on item texts barely moves while the quantiser slows down.
    pub dim: usize,
    /// Seed of the random projection that starts the decomposition. Default 0.
    pub seed: u64,
    /// Least number of texts a term must occur in, at least 1. Default 2: a term of one text relates it to no other.
    pub min_df: usize,
    /// Greatest share of the texts a term may occur in, in (0, 1]. Default 0.8: field labels and the
    /// name of the shop's department are in every text and tell nothing.
    pub max_df: f64,
    /// Greatest number of terms; the most frequent are kept. Default 20,000, which bounds the saved file at 20 MB for 256 dimensions.
    pub max_terms: usize,
    /// Shortest and longest run of words that makes a term, `1 <= shortest <= longest <= 8`. Default `(1, 2)`.
    pub word_ngrams: (usize, usize),
    /// Shortest and longest run of characters, within words and their boundaries; `None` for no such terms.
    /// Default `None`; `Some((3, 5))` helps with misspellings and with languages that do not space words.
    pub char_ngrams: Option<(usize, usize)>,
    /// Columns drawn beyond `dim`, for accuracy. Default 16 (Halko et al., section 4.2, advise 5 to 10 or more).
    pub oversample: usize,
    /// Power iterations, at most 32. Default 4: the spectrum of texts decays slowly (Halko et al., section 4.5).
    pub power_iterations: usize,
}

impl Default for TfidfConfig {
    fn default() -> Self {
        Self {
            dim: 256,
            seed: 0,
            min_df: 2,
            max_df: 0.8,
            max_terms: 20_000,
            word_ngrams: (1, 2),
            char_ngrams: None,
            oversample: 16,
            power_iterations: 4,
        }
    }
}

impl TfidfConfig {
    /// Sets [`dim`](Self::dim).
    #[must_use]
    pub fn with_dim(mut self, dim: usize) -> Self {
        self.dim = dim;
        self
    }

    /// Sets [`seed`](Self::seed).
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets [`min_df`](Self::min_df).
    #[must_use]
    pub fn with_min_df(mut self, texts: usize) -> Self {
        self.min_df = texts;
        self
    }

    /// Sets [`max_df`](Self::max_df).
    #[must_use]
    pub fn with_max_df(mut self, share: f64) -> Self {
        self.max_df = share;
        self
    }

    /// Sets [`max_terms`](Self::max_terms).
    #[must_use]
    pub fn with_max_terms(mut self, terms: usize) -> Self {
        self.max_terms = terms;
        self
    }

    /// Sets [`word_ngrams`](Self::word_ngrams).
    #[must_use]
    pub fn with_word_ngrams(mut self, shortest: usize, longest: usize) -> Self {
        self.word_ngrams = (shortest, longest);
        self
    }

    /// Sets [`char_ngrams`](Self::char_ngrams).
    #[must_use]
    pub fn with_char_ngrams(mut self, shortest: usize, longest: usize) -> Self {
        self.char_ngrams = Some((shortest, longest));
        self
    }

    /// Sets [`power_iterations`](Self::power_iterations).
    #[must_use]
    pub fn with_power_iterations(mut self, iterations: usize) -> Self {
        self.power_iterations = iterations;
        self
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`EmbedError::Config`] names the first field out of range.
    pub fn validate(&self) -> Result<()> {
        let ordered = |(shortest, longest): (usize, usize)| 1 <= shortest && shortest <= longest && longest <= 8;
        let char_ngrams = self.char_ngrams.unwrap_or((1, 1));
        check("dim", &self.dim, (1..=4096).contains(&self.dim), "in 1..=4096")?;
        check("min_df", &self.min_df, self.min_df >= 1, "at least 1")?;
        check("max_df", &self.max_df, self.max_df > 0.0 && self.max_df <= 1.0, "in (0, 1]")?;
        check("max_terms", &self.max_terms, (1..=10_000_000).contains(&self.max_terms), "in 1..=10000000")?;
        check(
            "word_ngrams",
            &format!("{:?}", self.word_ngrams),
            ordered(self.word_ngrams),
            "(a, b) with 1 <= a <= b <= 8",
        )?;
        check("char_ngrams", &format!("{char_ngrams:?}"), ordered(char_ngrams), "(a, b) with 1 <= a <= b <= 8")?;
        check("oversample", &self.oversample, self.oversample <= 1024, "at most 1024")?;
        check("power_iterations", &self.power_iterations, self.power_iterations <= 32, "at most 32")
    }
}

fn check(field: &'static str, value: &dyn ToString, ok: bool, bound: &'static str) -> Result<()> {
    if ok { Ok(()) } else { Err(EmbedError::Config { field, value: value.to_string(), bound }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_checked() {
        let default = TfidfConfig::default;
        assert!(default().validate().is_ok());
        let bad = [
            ("dim", default().with_dim(0)),
            ("min_df", default().with_min_df(0)),
            ("max_df", default().with_max_df(f64::NAN)),
            ("max_terms", default().with_max_terms(0)),
            ("word_ngrams", default().with_word_ngrams(2, 1)),
            ("char_ngrams", default().with_char_ngrams(0, 3)),
            ("oversample", TfidfConfig { oversample: 2000, ..default() }),
            ("power_iterations", default().with_power_iterations(33)),
        ];
        for (name, config) in bad {
            assert!(matches!(config.validate(), Err(EmbedError::Config { field, .. }) if field == name), "{name}");
        }
    }

    #[test]
    fn unknown_fields_are_refused_and_missing_ones_default() {
        assert_eq!(serde_json::from_str::<TfidfConfig>(r#"{"dim": 8}"#).unwrap(), TfidfConfig::default().with_dim(8));
        assert!(serde_json::from_str::<TfidfConfig>(r#"{"dims": 8}"#).is_err());
    }
}
