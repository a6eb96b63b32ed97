//! What became of what was read, and what to do about it.

use std::collections::HashSet;

use genrec::data::{Dataset, InteractionLog, Item};
use serde::Serialize;

use crate::{Args, Repeats, SameTime};

/// Codes of a level that `tiger` has by default.
const CODES: usize = 256;
/// Items that a first code should stand for, at least.
const ITEMS_OF_A_CODE: usize = 10;

/// `prepare.json`.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Counts {
    /// Rows that could not be read.
    pub(crate) bad_rows: u64,
    pub(crate) interactions_read: usize,
    pub(crate) below_min_rating: usize,
    /// Of a user and an item that were together before.
    pub(crate) repeated: usize,
    /// Of users or items with too few.
    pub(crate) outside_core: usize,
    pub(crate) interactions: usize,
    pub(crate) users_read: usize,
    pub(crate) users: usize,
    pub(crate) items_read: usize,
    pub(crate) items_taken: usize,
    pub(crate) items: usize,
    /// Without title, brand and category, which are what is embedded.
    pub(crate) items_without_text: usize,
    /// Of the same item; the first counts.
    pub(crate) item_rows_repeated: usize,
    /// Interactions at the same time as another of their user.
    pub(crate) at_the_same_time: usize,
    pub(crate) with_time: usize,
}

impl Counts {
    /// Of the log and what became of it.
    pub(crate) fn of(log: &InteractionLog, items: &[Item], dataset: &Dataset, args: &Args) -> Self {
        let low =
            |rating: Option<f64>| args.min_rating.is_some_and(|least| rating.is_some_and(|rating| rating < least));
        let (mut users, mut pairs, mut times) = (HashSet::new(), HashSet::new(), HashSet::new());
        let mut counts = Self { interactions_read: log.len(), items_read: items.len(), ..Self::default() };
        for row in log.iter() {
            users.insert(row.user);
            if low(row.rating) {
                counts.below_min_rating += 1;
                continue;
            }
            counts.repeated += usize::from(!pairs.insert((row.user, row.item)));
            if let Some(time) = row.timestamp {
                counts.with_time += 1;
                counts.at_the_same_time += usize::from(!times.insert((row.user, time)));
            }
        }
        if matches!(args.repeats, Repeats::All) {
            counts.repeated = 0;
        }
        let statistics = dataset.statistics();
        (counts.interactions, counts.users, counts.items) =
            (statistics.interactions, statistics.users, statistics.items);
        counts.users_read = users.len();
        counts.outside_core = log.len() - counts.below_min_rating - counts.repeated - counts.interactions;
        let ids: HashSet<&str> = items.iter().map(|item| item.id.as_str()).collect();
        counts.item_rows_repeated = items.len() - ids.len();
        counts.items_taken = ids.iter().filter(|id| log.has_item(id)).count();
        let bare = |item: &&Item| item.title.is_none() && item.brand.is_none() && item.categories.is_empty();
        counts.items_without_text = dataset.catalogue.items().iter().filter(bare).count();
        counts
    }

    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        [
            ("interactions read", self.interactions_read),
            ("- with too low a rating", self.below_min_rating),
            ("- of an item that the user had before", self.repeated),
            ("- of users or items with too few", self.outside_core),
            ("interactions kept", self.interactions),
            ("users kept", self.users),
            ("items kept", self.items),
            ("- of these without title, brand and category", self.items_without_text),
            ("rows that could not be read", usize::try_from(self.bad_rows).unwrap_or(usize::MAX)),
        ]
        .map(|(what, count)| vec![what.to_owned(), count.to_string()])
        .into()
    }

    /// What to look at, each with what to do about it.
    pub(crate) fn remarks(&self, args: &Args, time: bool, others: &[&str]) -> Vec<String> {
        let share = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
        let tied = share(self.at_the_same_time, self.with_time);
        let bare = share(self.items_without_text, self.items);
        let lost = share(self.users_read - self.users, self.users_read);
        let (table, repeated) = (args.items.display(), self.item_rows_repeated);
        let order_counts = matches!(args.same_time, SameTime::File);
        [
            (!time).then(|| {
                format!(
                    "No column has times, so the order of the rows counts: name the column with `--time` if one of these does: {}.",
                    others.join(", ")
                )
            }),
            (tied > 10.0 && order_counts).then(|| {
                format!(
                    "{tied:.0} % of the interactions have the time of another of their user, and the order of the rows decides: \
                     where it tells what comes next, as one sorted by item does, give `--same-time shuffled`."
                )
            }),
            (bare > 1.0).then(|| {
                format!(
                    "{bare:.0} % of the items have neither title nor brand nor category, and their Semantic IDs say nothing: \
                     complete {table}, or name its columns."
                )
            }),
            (repeated > 0).then(|| format!("{repeated} rows of {table} repeat an id: the first counts.")),
            (lost > 50.0).then(|| {
                format!(
                    "{lost:.0} % of the users have too few interactions: lower `--user-core` and `--item-core`, down to 3 and \
                     1, to keep more."
                )
            }),
            (args.user_core < 3)
                .then(|| "Users with fewer than 3 interactions are neither tested nor trained on.".to_owned()),
            (self.items < ITEMS_OF_A_CODE * CODES).then(|| {
                let codes = (self.items / ITEMS_OF_A_CODE).next_power_of_two().max(4);
                format!(
                    "{} items are few for the {CODES} codes of a level: give `tiger` a `--config` file with \
                     {{\"quantizer\": {{\"codebook_sizes\": [{codes}, {codes}]}}}}.",
                    self.items
                )
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
