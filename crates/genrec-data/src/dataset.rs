//! A catalogue with the sequences over it, and its figures.

use serde::{Deserialize, Serialize};

use crate::{Catalogue, DataError, Result, Sequences};

/// Everything a run needs to know of a data set.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Dataset {
    /// Name for reports.
    pub name: String,
    /// The items.
    pub catalogue: Catalogue,
    /// What each user did, oldest first.
    pub sequences: Sequences,
}

impl Dataset {
    /// Joins a catalogue and sequences over it.
    ///
    /// # Errors
    /// [`DataError::ItemOutOfRange`] when a sequence names a row that the catalogue lacks.
    pub fn new(name: impl Into<String>, catalogue: Catalogue, sequences: Sequences) -> Result<Self> {
        let items = catalogue.len();
        for (user, sequence) in sequences.iter() {
            if let Some(item) = sequence.iter().find(|item| item.index() >= items) {
                return Err(DataError::ItemOutOfRange { user: user.to_owned(), item: item.0, items });
            }
        }
        Ok(Self { name: name.into(), catalogue, sequences })
    }

    /// Counts and lengths.
    pub fn statistics(&self) -> Statistics {
        let mut lengths: Vec<usize> = self.sequences.iter().map(|(_, items)| items.len()).collect();
        lengths.sort_unstable();
        let (users, items, interactions) = (lengths.len(), self.catalogue.len(), self.sequences.interactions());
        let median_length = match users {
            0 => 0.0,
            n if n % 2 == 1 => lengths[n / 2] as f64,
            n => (lengths[n / 2 - 1] + lengths[n / 2]) as f64 / 2.0,
        };
        let ratio = |a: usize, b: f64| if b > 0.0 { a as f64 / b } else { 0.0 };
        Statistics {
            users,
            items,
            interactions,
            mean_length: ratio(interactions, users as f64),
            median_length,
            min_length: lengths.first().copied().unwrap_or(0),
            max_length: lengths.last().copied().unwrap_or(0),
            density: ratio(interactions, users as f64 * items as f64),
        }
    }
}

/// The figures of table 6 of the TIGER paper ([arXiv 2305.05065](https://arxiv.org/abs/2305.05065)), and what else is
/// usually asked. All are zero for an empty data set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Users.
    pub users: usize,
    /// Items of the catalogue, whether interacted with or not.
    pub items: usize,
    /// Interactions.
    pub interactions: usize,
    /// Mean number of interactions a user.
    pub mean_length: f64,
    /// Median number of interactions a user; the mean of the middle two for an even number of users.
    pub median_length: f64,
    /// Shortest sequence.
    pub min_length: usize,
    /// Longest sequence.
    pub max_length: usize,
    /// Interactions / (users x items).
    pub density: f64,
}
