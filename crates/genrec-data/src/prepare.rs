//! From a log to sequences: rating filter, chronological order, duplicates, k-core.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use sid_index::ItemId;

use crate::interactions::Row;
use crate::rng::Rng;
use crate::{Catalogue, DataError, Dataset, InteractionLog, Item, Result, Sequences};

/// What to do when a user meets an item again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Duplicates {
    /// Keep the earliest. The default: the next *new* item is what the published protocol asks for.
    #[default]
    KeepFirst,
    /// Keep the latest.
    KeepLast,
    /// Keep all.
    KeepAll,
}

/// The order of interactions of one user at the same time.
///
/// Where the source has days and no time of day (Amazon 2014 and 2018), whole baskets tie and the rule decides a good
/// part of the targets: say which was in force beside every figure. Interactions without a time come before those with
/// one and tie with each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule")]
#[non_exhaustive]
pub enum Ties {
    /// The order of the source. The default, because the published files have it. It leaks: the Amazon files are
    /// sorted by item id, so that within a day the next id is above the last.
    #[default]
    InputOrder,
    /// A random order, by seed: leaks nothing.
    Shuffled {
        /// Seed of the order.
        seed: u64,
    },
    /// By outside item id, byte-wise: the same on every copy of the source, but as leaky as `InputOrder`.
    ByItemId,
}

/// How a log becomes a [`Dataset`].
///
/// In this order: ratings below `min_rating` go; each user's interactions are put in order of time and `ties`;
/// `duplicates` are resolved; users with fewer than `user_core` and items with fewer than `item_core` interactions go,
/// again and again until none is left to go. Users are numbered by first appearance in the log, items likewise.
///
/// ```
/// use genrec_data::{Interaction, InteractionLog, Prepare};
///
/// let mut log = InteractionLog::new();
/// for (item, timestamp) in [("b", 2), ("a", 1), ("b", 3)] {
///     log.push(Interaction { user: "ada", item, timestamp: Some(timestamp), rating: None })?;
/// }
/// let dataset = Prepare::default().with_k_core(1, 1).run("tiny", &log, Vec::new())?;
/// assert_eq!(dataset.statistics().interactions, 2); // a, then the first b
/// # Ok::<(), genrec_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Prepare {
    /// Interactions with a lower rating go; those without a rating stay. Default: none, as in the paper.
    pub min_rating: Option<f64>,
    /// What to do with repeats. Default: [`Duplicates::KeepFirst`].
    pub duplicates: Duplicates,
    /// Order within the same time. Default: [`Ties::InputOrder`].
    pub ties: Ties,
    /// Interactions a user needs. Default: 5, as in the paper (section 4).
    pub user_core: usize,
    /// Interactions an item needs. Default: 5.
    pub item_core: usize,
}

impl Default for Prepare {
    fn default() -> Self {
        Self { min_rating: None, duplicates: Duplicates::KeepFirst, ties: Ties::InputOrder, user_core: 5, item_core: 5 }
    }
}

impl Prepare {
    /// Sets [`user_core`](Self::user_core) and [`item_core`](Self::item_core).
    #[must_use]
    pub fn with_k_core(mut self, user: usize, item: usize) -> Self {
        (self.user_core, self.item_core) = (user, item);
        self
    }

    /// Sets [`min_rating`](Self::min_rating).
    #[must_use]
    pub fn with_min_rating(mut self, min_rating: Option<f64>) -> Self {
        self.min_rating = min_rating;
        self
    }

    /// Sets [`duplicates`](Self::duplicates).
    #[must_use]
    pub fn with_duplicates(mut self, duplicates: Duplicates) -> Self {
        self.duplicates = duplicates;
        self
    }

    /// Sets [`ties`](Self::ties).
    #[must_use]
    pub fn with_ties(mut self, ties: Ties) -> Self {
        self.ties = ties;
        self
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// [`DataError::Config`] when `min_rating` is not a number.
    pub fn validate(&self) -> Result<()> {
        match self.min_rating {
            Some(rating) if rating.is_nan() => {
                Err(DataError::config("Prepare::min_rating", rating, "it must be a number; use `None` for no filter"))
            }
            _ => Ok(()),
        }
    }

    /// Prepares a log. `items` says what is known of the items: those the log does not have (any more) are ignored,
    /// those without an entry get their id alone, and of several entries for one id the first counts.
    ///
    /// # Errors
    /// [`DataError::Config`]; [`DataError::NothingLeft`] when the filters leave nothing; those of
    /// [`Catalogue::push`] for a price or an id that cannot be.
    pub fn run(&self, name: impl Into<String>, log: &InteractionLog, items: Vec<Item>) -> Result<Dataset> {
        self.validate()?;
        let mut rows = self.ordered(log);
        self.core(&mut rows, log);
        if rows.is_empty() {
            let filters = format!(
                "min_rating {:?}, {} interactions a user, {} an item",
                self.min_rating, self.user_core, self.item_core
            );
            return Err(DataError::NothingLeft { read: log.len(), filters });
        }
        let kept: HashSet<u32> = rows.iter().map(|row| row.item).collect();
        let mut known: HashMap<String, Item> = HashMap::with_capacity(kept.len());
        for item in items {
            if log.has_item(&item.id) {
                known.entry(item.id.clone()).or_insert(item);
            }
        }
        let mut catalogue = Catalogue::new();
        let mut numbers = vec![ItemId(0); log.items.names.len()];
        for (number, id) in log.items.names.iter().enumerate().filter(|(n, _)| kept.contains(&(*n as u32))) {
            numbers[number] = catalogue.push(known.remove(id).unwrap_or_else(|| Item::new(id)))?;
        }
        let mut sequences = Sequences::new();
        for user in rows.chunk_by(|a, b| a.user == b.user) {
            let items: Vec<ItemId> = user.iter().map(|row| numbers[row.item as usize]).collect();
            sequences.push(&log.users.names[user[0].user as usize], &items)?;
        }
        Dataset::new(name, catalogue, sequences)
    }

    /// Rows by user (in order of first appearance) and time, filtered by rating, repeats resolved.
    fn ordered(&self, log: &InteractionLog) -> Vec<Row> {
        let wanted = |row: &&Row| match (self.min_rating, row.rating) {
            (Some(least), Some(rating)) => rating >= least,
            _ => true,
        };
        let mut rows: Vec<Row> = log.rows.iter().filter(wanted).copied().collect();
        rows.sort_by_key(|row| row.user);
        for user in rows.chunk_by_mut(|a, b| a.user == b.user) {
            match self.ties {
                Ties::InputOrder => {}
                Ties::Shuffled { seed } => Rng::new(seed, u64::from(user[0].user)).shuffle(user),
                Ties::ByItemId => {
                    user.sort_by(|a, b| log.items.names[a.item as usize].cmp(&log.items.names[b.item as usize]));
                }
            }
            user.sort_by_key(|row| row.timestamp);
        }
        let mut seen = HashSet::new();
        match self.duplicates {
            Duplicates::KeepAll => {}
            Duplicates::KeepFirst => rows.retain(|row| seen.insert((row.user, row.item))),
            Duplicates::KeepLast => {
                rows.reverse();
                rows.retain(|row| seen.insert((row.user, row.item)));
                rows.reverse();
            }
        }
        rows
    }

    /// Removes what is below the core until nothing is.
    fn core(&self, rows: &mut Vec<Row>, log: &InteractionLog) {
        for round in 1u32.. {
            let mut users = vec![0usize; log.users.names.len()];
            let mut items = vec![0usize; log.items.names.len()];
            for row in rows.iter() {
                users[row.user as usize] += 1;
                items[row.item as usize] += 1;
            }
            let before = rows.len();
            rows.retain(|row| users[row.user as usize] >= self.user_core && items[row.item as usize] >= self.item_core);
            tracing::debug!(round, before, after = rows.len(), "k-core");
            if rows.len() == before {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
