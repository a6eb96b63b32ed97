//! Sizes and weights of the synthetic process.

use serde::{Deserialize, Serialize};

use crate::{DataError, Result};

/// What to generate. The defaults suit a quick start: some 20,500 training windows over 1,000 items in which a model
/// that sees the whole history beats one that sees the last item, and both beat popularity.
///
/// The weights `recency`, `drift`, `home` and `exploration` are relative: they need not sum to one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SyntheticConfig {
    /// Items. Default: 1,000.
    pub items: usize,
    /// Users. Default: 3,000.
    pub users: usize,
    /// Seed of everything. Default: 0.
    pub seed: u64,
    /// Top-level categories. Default: 5.
    pub departments: usize,
    /// Categories under each department. Default: 4.
    pub categories: usize,
    /// Leaves under each category. Default: 5.
    pub leaves: usize,
    /// Brands that each category's items are shared among. Default: 4.
    pub brands: usize,
    /// Shortest sequence. Default: 5, as in 5-core data.
    pub min_length: usize,
    /// Longest sequence. Default: 40.
    pub max_length: usize,
    /// Mean of the (geometric) number of items beyond the shortest, before the cut at the longest. Default: 5.
    pub mean_extra_length: f64,
    /// Weight of the leaf of the last item, of the one before it, and so on. Default: .26, .18, .11, .07, .05.
    pub recency: Vec<f64>,
    /// Weight of the leaf next to the last item's. Default: .09.
    pub drift: f64,
    /// Weight of the user's lasting taste. Default: .07.
    pub home: f64,
    /// Weight of a leaf drawn evenly from all. Default: .17.
    pub exploration: f64,
    /// How strongly a user keeps to the brands of the history: a brand that makes up all of it is drawn `1 +
    /// brand_affinity` times as often. Default: 2.
    pub brand_affinity: f64,
    /// Exponent of popularity within a leaf: the item of rank `r` has weight `r^-popularity`. At most 10. Default:
    /// 0.3.
    pub popularity: f64,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self {
            items: 1_000,
            users: 3_000,
            seed: 0,
            departments: 5,
            categories: 4,
            leaves: 5,
            brands: 4,
            min_length: 5,
            max_length: 40,
            mean_extra_length: 5.0,
            recency: vec![0.26, 0.18, 0.11, 0.07, 0.05],
            drift: 0.09,
            home: 0.07,
            exploration: 0.17,
            brand_affinity: 2.0,
            popularity: 0.3,
        }
    }
}

impl SyntheticConfig {
    /// Sets [`items`](Self::items).
    #[must_use]
    pub fn with_items(mut self, items: usize) -> Self {
        self.items = items;
        self
    }

    /// Sets [`users`](Self::users).
    #[must_use]
    pub fn with_users(mut self, users: usize) -> Self {
        self.users = users;
        self
    }

    /// Sets [`seed`](Self::seed).
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the shape of the category tree: departments, categories under each, leaves under each of these.
    #[must_use]
    pub fn with_tree(mut self, departments: usize, categories: usize, leaves: usize) -> Self {
        (self.departments, self.categories, self.leaves) = (departments, categories, leaves);
        self
    }

    /// Sets [`min_length`](Self::min_length), [`mean_extra_length`](Self::mean_extra_length) and
    /// [`max_length`](Self::max_length).
    #[must_use]
    pub fn with_lengths(mut self, min: usize, mean_extra: f64, max: usize) -> Self {
        (self.min_length, self.mean_extra_length, self.max_length) = (min, mean_extra, max);
        self
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// [`DataError::Config`] names the field, its value and its bound.
    pub fn validate(&self) -> Result<()> {
        fn bad(field: &'static str, value: impl ToString + Copy, bound: &'static str) -> DataError {
            DataError::config(field, value, bound)
        }
        for (field, value, most) in [
            ("SyntheticConfig::departments", self.departments, 1_000),
            ("SyntheticConfig::categories", self.categories, 1_000),
            ("SyntheticConfig::leaves", self.leaves, 1_000),
            ("SyntheticConfig::brands", self.brands, 1_000),
        ] {
            if value == 0 || value > most {
                return Err(bad(field, value, "it must lie between 1 and 1,000"));
            }
        }
        if self.items > 10_000_000 || self.items / 2 < self.total_leaves() {
            return Err(bad(
                "SyntheticConfig::items",
                self.items,
                "it must be at least two a leaf and at most 10,000,000",
            ));
        }
        if self.users > 100_000_000 {
            return Err(bad("SyntheticConfig::users", self.users, "it must be at most 100,000,000"));
        }
        if self.max_length > self.items / 2 {
            return Err(bad(
                "SyntheticConfig::max_length",
                self.max_length,
                "it must be at most half the items, for no item comes twice",
            ));
        }
        if self.min_length > self.max_length {
            return Err(bad("SyntheticConfig::min_length", self.min_length, "it must not be above `max_length`"));
        }
        let weights = [
            ("SyntheticConfig::mean_extra_length", self.mean_extra_length),
            ("SyntheticConfig::drift", self.drift),
            ("SyntheticConfig::home", self.home),
            ("SyntheticConfig::brand_affinity", self.brand_affinity),
        ];
        let recency = self.recency.iter().map(|&w| ("SyntheticConfig::recency", w));
        for (field, value) in weights.into_iter().chain(recency) {
            if !(0.0..=1e6).contains(&value) {
                return Err(bad(field, value, "it must lie between 0 and 1,000,000"));
            }
        }
        if !(0.0..=10.0).contains(&self.popularity) {
            return Err(bad(
                "SyntheticConfig::popularity",
                self.popularity,
                "it must lie between 0 and 10, or the weights of rare items come to nothing",
            ));
        }
        if self.recency.first() == Some(&0.0) {
            return Err(bad(
                "SyntheticConfig::recency",
                0.0,
                "the first weight must be positive; leave the list empty for none",
            ));
        }
        if !(1e-6..=1e6).contains(&self.exploration) {
            return Err(bad(
                "SyntheticConfig::exploration",
                self.exploration,
                "it must lie between 0.000001 and 1,000,000, or a user could be left without a next item",
            ));
        }
        Ok(())
    }

    /// Leaves of the whole tree.
    pub(super) fn total_leaves(&self) -> usize {
        self.departments * self.categories * self.leaves
    }
}
