//! Synthetic data that knows its own truth.
//!
//! A [`Synthetic`] data set has a category tree, brands, texts made from the words of the categories, and users whose
//! taste drifts from leaf to leaf. The distribution of every user's next item has a closed form over the visible
//! history, so a model's ranking can be held against the best ranking there is.

mod codes;
mod config;
mod tree;

use sid_index::ItemId;

pub use codes::distinct_codes;
pub use config::SyntheticConfig;

use crate::rng::Rng;
use crate::{Dataset, Result, Sequences};
use tree::Tree;

/// A generated data set together with the process that generated it.
///
/// # The process
/// With the history `h_1 .. h_n` (oldest first), the next item's leaf `l` is drawn with weight
///
/// ```text
/// w(l) = sum_k recency_k * [leaf(h_{n+1-k}) = l]      the last items, newest first, renormalised over those there are
///      + drift * [l = successor(leaf(h_n))]           a fixed neighbour under the same category
///      + home * [l = home(user)]                      the user's lasting taste
///      + exploration / leaves                         anything
/// ```
///
/// where terms that need a history drop out of the first item's. Inside the leaf an item `i` not yet in the history is
/// drawn with weight `popularity(i) * (1 + brand_affinity * share of the history with the brand of i)`. A leaf whose
/// items are all in the history gets no weight.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Synthetic {
    /// The data set.
    pub dataset: Dataset,
    config: SyntheticConfig,
    tree: Tree,
    homes: Vec<u32>,
}

/// Purposes that draw from their own stream of the seed.
mod stream {
    pub(super) const TREE: u64 = 1;
    pub(super) const USERS: u64 = 2;
}

impl SyntheticConfig {
    /// Generates the data set: the same configuration gives the same bytes on every machine of one platform and toolchain.
    /// Elsewhere the last bit of a popularity, a power, may differ, and with it, rarely, a draw.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    ///
    /// ```
    /// use genrec_data::SyntheticConfig;
    ///
    /// let synthetic = SyntheticConfig::default().with_users(50).generate()?;
    /// let statistics = synthetic.dataset.statistics();
    /// assert_eq!((statistics.users, statistics.items), (50, 1000));
    ///
    /// let history = synthetic.dataset.sequences.items(0).unwrap_or_default();
    /// let next = synthetic.next_item_probabilities(0, history);
    /// assert!((next.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    /// # Ok::<(), genrec_data::DataError>(())
    /// ```
    pub fn generate(&self) -> Result<Synthetic> {
        self.validate()?;
        let mut rng = Rng::new(self.seed, stream::TREE);
        let tree = Tree::grow(self, &mut rng);
        let catalogue = tree.catalogue(self, &mut rng)?;
        let mut rng = Rng::new(self.seed, stream::USERS);
        let homes = (0..self.users).map(|_| rng.below(tree.leaves()) as u32).collect();
        let dataset = Dataset::new("synthetic", catalogue, Sequences::new())?;
        let mut synthetic = Synthetic { dataset, config: self.clone(), tree, homes };
        let mut sequences = Sequences::new();
        for user in 0..self.users {
            let history = synthetic.walk(user, &mut rng);
            sequences.push(&format!("u{user}"), &history)?;
        }
        synthetic.dataset.sequences = sequences;
        Ok(synthetic)
    }
}

impl Synthetic {
    /// The configuration that generated this.
    pub fn config(&self) -> &SyntheticConfig {
        &self.config
    }

    /// The exact distribution of the item that follows `history` (oldest first) for a user, by row of the catalogue:
    /// `(items,)`, summing to one.
    ///
    /// A user that does not exist has no home: that term then drops out. Rows beyond the catalogue are ignored. All are
    /// zero when the history holds every item.
    pub fn next_item_probabilities(&self, user: usize, history: &[ItemId]) -> Vec<f64> {
        let view = self.view(history);
        let leaves = self.leaf_weights(user, &view);
        let total: f64 = leaves.iter().sum();
        let mut probabilities = vec![0.0; self.tree.items()];
        if total <= 0.0 {
            return probabilities;
        }
        for (leaf, weight) in leaves.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            let rows = self.tree.rows(leaf);
            let weights = self.item_weights(leaf, &view);
            let inside: f64 = weights.iter().sum();
            for (row, item) in rows.zip(weights) {
                probabilities[row] = weight / total * item / inside;
            }
        }
        probabilities
    }

    /// Rows of the `k` most probable next items, most probable first: the oracle's ranking. Ties go to the lower row.
    pub fn oracle_ranking(&self, user: usize, history: &[ItemId], k: usize) -> Vec<ItemId> {
        let probabilities = self.next_item_probabilities(user, history);
        let mut rows: Vec<u32> = (0..probabilities.len() as u32).collect();
        rows.sort_by(|&a, &b| probabilities[b as usize].total_cmp(&probabilities[a as usize]).then(a.cmp(&b)));
        rows.truncate(k);
        rows.into_iter().map(ItemId).collect()
    }

    /// The leaf of the category tree that an item hangs on, counted from zero over the tree.
    pub fn leaf(&self, item: ItemId) -> Option<usize> {
        (item.index() < self.tree.items()).then(|| self.tree.leaf_of(item.index()))
    }

    /// Number of leaves of the category tree.
    pub fn leaves(&self) -> usize {
        self.tree.leaves()
    }

    /// One user's sequence.
    fn walk(&self, user: usize, rng: &mut Rng) -> Vec<ItemId> {
        let mut history = Vec::new();
        let go_on = 1.0 - 1.0 / (1.0 + self.config.mean_extra_length);
        let mut length = self.config.min_length;
        while length < self.config.max_length && rng.unit() < go_on {
            length += 1;
        }
        while history.len() < length {
            let view = self.view(&history);
            // Drawn in two steps; the product is what `next_item_probabilities` writes out.
            let Some(leaf) = rng.weighted(&self.leaf_weights(user, &view)) else { break };
            let Some(item) = rng.weighted(&self.item_weights(leaf, &view)) else { break };
            history.push(ItemId((self.tree.rows(leaf).start + item) as u32));
        }
        history
    }

    fn view(&self, history: &[ItemId]) -> View {
        let rows: Vec<usize> = history.iter().map(|i| i.index()).filter(|&i| i < self.tree.items()).collect();
        let mut seen_in_leaf = vec![0usize; self.tree.leaves()];
        let mut brands = vec![0usize; self.tree.brands()];
        let mut distinct = rows.clone();
        distinct.sort_unstable();
        distinct.dedup();
        for &row in &distinct {
            seen_in_leaf[self.tree.leaf_of(row)] += 1;
            brands[self.tree.brand_of(row)] += 1;
        }
        View { rows, distinct, seen_in_leaf, brands }
    }

    fn leaf_weights(&self, user: usize, view: &View) -> Vec<f64> {
        let config = &self.config;
        let leaves = self.tree.leaves();
        let mut weights = vec![config.exploration / leaves as f64; leaves];
        if let Some(&home) = self.homes.get(user) {
            weights[home as usize] += config.home;
        }
        if let Some(&last) = view.rows.last() {
            weights[self.tree.successor(self.tree.leaf_of(last))] += config.drift;
            let mass: f64 = config.recency.iter().sum();
            let present: f64 = config.recency.iter().take(view.rows.len()).sum();
            for (&row, &weight) in view.rows.iter().rev().zip(&config.recency) {
                weights[self.tree.leaf_of(row)] += weight * mass / present;
            }
        }
        for (leaf, weight) in weights.iter_mut().enumerate() {
            if view.seen_in_leaf[leaf] == self.tree.rows(leaf).len() {
                *weight = 0.0;
            }
        }
        weights
    }

    fn item_weights(&self, leaf: usize, view: &View) -> Vec<f64> {
        let total = view.distinct.len().max(1) as f64;
        let weight = |row: usize| {
            if view.distinct.binary_search(&row).is_ok() {
                return 0.0;
            }
            let share = view.brands[self.tree.brand_of(row)] as f64 / total;
            self.tree.popularity(row) * (1.0 + self.config.brand_affinity * share)
        };
        self.tree.rows(leaf).map(weight).collect()
    }
}

/// What the process sees of a history.
struct View {
    /// Rows in order.
    rows: Vec<usize>,
    /// Rows sorted, each once.
    distinct: Vec<usize>,
    seen_in_leaf: Vec<usize>,
    brands: Vec<usize>,
}

#[cfg(test)]
mod tests;
