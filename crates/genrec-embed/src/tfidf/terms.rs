//! Cutting texts into terms, and the vocabulary of a catalogue.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::TfidfConfig;
use crate::error::{EmbedError, Result};

/// Texts counted by one task; the merge does not depend on it.
const CHUNK: usize = 512;

/// Calls `f` with every term of a text, repeated as often as it occurs.
///
/// Words are maximal runs of letters and digits (Unicode), in lower case. Character runs carry a `#`
/// in front, which no word has.
fn for_each_term(text: &str, config: &TfidfConfig, mut f: impl FnMut(&str)) {
    let text = text.to_lowercase();
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let mut term = String::new();
    let (shortest, longest) = config.word_ngrams;
    for start in 0..words.len() {
        term.clear();
        for (length, word) in (1..=longest).zip(&words[start..]) {
            if length > 1 {
                term.push(' ');
            }
            term.push_str(word);
            if length >= shortest {
                f(&term);
            }
        }
    }
    let Some((shortest, longest)) = config.char_ngrams else { return };
    for word in words {
        let padded: Vec<char> = std::iter::once(' ').chain(word.chars()).chain([' ']).collect();
        for start in 0..padded.len() {
            term.clear();
            term.push('#');
            for (length, character) in (1..=longest).zip(&padded[start..]) {
                term.push(*character);
                if length >= shortest {
                    f(&term);
                }
            }
        }
    }
}

/// How often each known term occurs, sorted by term.
pub(super) fn count_terms(text: &str, config: &TfidfConfig, index: impl Fn(&str) -> Option<u32>) -> BTreeMap<u32, u32> {
    let mut counts = BTreeMap::new();
    for_each_term(text, config, |term| {
        if let Some(term) = index(term) {
            *counts.entry(term).or_insert(0) += 1;
        }
    });
    counts
}

/// The terms of a catalogue in alphabetical order, with the number of texts each occurs in.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    terms: Vec<String>,
    document_frequency: Vec<u32>,
    index: HashMap<String, u32>,
}

impl Vocabulary {
    pub(super) fn fit(texts: &[String], config: &TfidfConfig) -> Result<Self> {
        let partial: Vec<HashMap<String, u32>> =
            texts.par_chunks(CHUNK).map(|chunk| document_frequencies(chunk, config)).collect();
        let mut totals: HashMap<String, u32> = HashMap::new();
        for (term, count) in partial.into_iter().flatten() {
            *totals.entry(term).or_insert(0) += count;
        }
        let in_range = |count: u32| {
            usize::try_from(count).is_ok_and(|count| count >= config.min_df)
                && f64::from(count) <= config.max_df * texts.len() as f64
        };
        let mut kept: Vec<(String, u32)> = totals.into_iter().filter(|(_, count)| in_range(*count)).collect();
        kept.sort_unstable_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
        kept.truncate(config.max_terms);
        if kept.is_empty() {
            return Err(EmbedError::EmptyVocabulary {
                texts: texts.len(),
                min_df: config.min_df,
                max_df: config.max_df,
            });
        }
        kept.sort_unstable();
        let (terms, document_frequency) = kept.into_iter().unzip();
        Ok(Self::from_sorted(terms, document_frequency))
    }

    fn from_sorted(terms: Vec<String>, document_frequency: Vec<u32>) -> Self {
        let index = terms.iter().cloned().zip(0..).collect();
        Self { terms, document_frequency, index }
    }

    /// A vocabulary as saved; `None` unless terms are sorted and distinct.
    pub(super) fn from_terms(terms: Vec<String>) -> Option<Self> {
        let sorted = terms.is_sorted_by(|a, b| a < b) && u32::try_from(terms.len()).is_ok();
        sorted.then(|| Self::from_sorted(terms, Vec::new()))
    }

    pub(super) fn len(&self) -> usize {
        self.terms.len()
    }

    pub(super) fn terms(&self) -> &[String] {
        &self.terms
    }

    pub(super) fn index(&self, term: &str) -> Option<u32> {
        self.index.get(term).copied()
    }

    /// `1 + ln((1 + n) / (1 + d))`: as if one more text held every term, so never a division by zero nor a zero.
    pub(super) fn smoothed_idf(&self, texts: usize) -> Vec<f32> {
        let texts = 1.0 + texts as f64;
        #[allow(clippy::cast_possible_truncation, reason = "between 1 and 50, f32 is what is stored")]
        self.document_frequency.iter().map(|count| (1.0 + (texts / (1.0 + f64::from(*count))).ln()) as f32).collect()
    }
}

fn document_frequencies(texts: &[String], config: &TfidfConfig) -> HashMap<String, u32> {
    // Term -> (texts it occurs in, the last of them plus one).
    let mut seen: HashMap<String, (u32, usize)> = HashMap::new();
    for (position, text) in texts.iter().enumerate() {
        for_each_term(text, config, |term| match seen.get_mut(term) {
            Some((_, last)) if *last == position => {}
            Some((count, last)) => {
                *count += 1;
                *last = position;
            }
            None => {
                seen.insert(term.to_owned(), (1, position));
            }
        });
    }
    seen.into_iter().map(|(term, (count, _))| (term, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str, config: &TfidfConfig) -> Vec<String> {
        let mut terms = Vec::new();
        for_each_term(text, config, |term| terms.push(term.to_owned()));
        terms
    }

    #[test]
    fn words_and_their_runs() {
        let config = TfidfConfig::default();
        assert_eq!(
            terms("Crème-BRÛLÉE 0.5", &config),
            ["crème", "crème brûlée", "brûlée", "brûlée 0", "0", "0 5", "5"]
        );
        assert_eq!(terms("a b", &config.clone().with_word_ngrams(2, 3)), ["a b"]);
        assert!(terms(" -- ", &config).is_empty());
    }

    #[test]
    fn character_runs_stay_within_words() {
        let config = TfidfConfig::default().with_word_ngrams(1, 1).with_char_ngrams(3, 3);
        assert_eq!(terms("ab 日本", &config), ["ab", "日本", "# ab", "#ab ", "# 日本", "#日本 "]);
    }

    #[test]
    fn document_frequency_bounds_and_size() {
        let texts: Vec<String> = ["a b a", "a c", "a c d", "a d"].map(str::to_owned).to_vec();
        let config = TfidfConfig::default().with_word_ngrams(1, 1);
        let vocabulary = Vocabulary::fit(&texts, &config).unwrap();
        assert_eq!(vocabulary.terms(), ["c", "d"], "a is in every text, b in one only");
        let idf = vocabulary.smoothed_idf(4);
        assert!((f64::from(idf[0]) - (1.0 + (5.0_f64 / 3.0).ln())).abs() < 1e-6);
        let one = Vocabulary::fit(&texts, &config.clone().with_max_df(1.0).with_max_terms(1)).unwrap();
        assert_eq!(one.terms(), ["a"]);
        assert!(matches!(
            Vocabulary::fit(&texts, &config.with_min_df(9)),
            Err(EmbedError::EmptyVocabulary { texts: 4, min_df: 9, .. })
        ));
        assert!(Vocabulary::from_terms(vec!["b".into(), "a".into()]).is_none());
    }
}
