//! The row of figure 5: items that training has not seen.

use std::time::Instant;

use genrec::{data::hold_out, embed::io::read_npy};
use support::{BoxError, cold};

use super::Bench;
use crate::row::Row;

/// Share of the test items that is held out, as in the paper (section 4.3).
pub(super) const SHARE: f64 = 0.05;

/// What is asked: the paper's share of unseen items in figure 5a.
pub(super) fn asked(seed: u64) -> cold::Settings {
    cold::Settings { epsilon: 0.1, weight: cold::WEIGHT, beams: 50, seed }
}

impl Bench<'_> {
    /// TIGER trained without some items: its figures over all users that are left with a test item, and how well these items are
    /// found.
    pub(super) fn cold_start(&self, name: &str, seed: u64) -> Result<Row, BoxError> {
        let held_out = hold_out(&self.dataset.sequences, SHARE, seed)?;
        let mut dataset = self.dataset.clone();
        dataset.sequences = held_out.sequences;
        let outcome = self.trained_as(name, self.config(&[], seed)?, &dataset)?;
        let (mut row, recommender) = self.generated((name, seed), outcome, &dataset)?;
        let start = Instant::now();
        let embeddings = read_npy(self.embedded()?)?;
        let measured = cold::measure(recommender, &dataset, &held_out.items, embeddings.view(), asked(seed))?;
        row.cold = Some(measured);
        row.manifest.minutes += start.elapsed().as_secs_f64() / 60.0;
        Ok(row)
    }
}
