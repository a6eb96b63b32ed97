//! Users of the data, as examples to begin with.

use std::path::Path;

use genrec::{
    data::{Catalogue, ReadOptions, readers::neutral},
    index::ItemId,
};
use serde::Serialize;
use support::BoxError;

use crate::snapshot::{Shown, Snapshot};

/// As many as a person would look through.
const KEPT: usize = 60;

/// Some users, spread over the data, with the outside ids of what they took: rows are of one run, and another may follow it.
#[derive(Debug, Default)]
pub(crate) struct Users(Vec<User>);

#[derive(Debug)]
struct User {
    user: String,
    history: Vec<String>,
    /// What they took last, which the model has not been trained on.
    next: String,
}

/// A user with titles.
#[derive(Debug, Serialize)]
pub(crate) struct ShownUser<'a> {
    user: &'a str,
    history: Vec<Shown>,
    next: Option<Shown>,
}

impl Users {
    /// Reads the sequences of a directory over the items of a run.
    pub(crate) fn read(data: &Path, catalogue: &Catalogue) -> Result<Self, BoxError> {
        let (sequences, _) =
            neutral::read_sequences(&data.join(neutral::SEQUENCES), catalogue, &ReadOptions::default())?;
        let step = sequences.len().div_ceil(KEPT).max(1);
        let users = sequences.iter().step_by(step).filter_map(|(user, items)| {
            let (next, history) = items.split_last().filter(|(_, history)| !history.is_empty())?;
            let id = |&item: &ItemId| Some(catalogue.get(item)?.id.clone());
            Some(User { user: user.to_owned(), history: history.iter().filter_map(id).collect(), next: id(next)? })
        });
        Ok(Self(users.collect()))
    }

    /// How many of them took something that a snapshot has.
    pub(crate) fn count(&self, snapshot: &Snapshot) -> usize {
        let catalogue = snapshot.recommender.catalogue();
        self.0.iter().filter(|user| user.history.iter().any(|id| catalogue.find(id).is_some())).count()
    }

    /// Those who took something that a snapshot has, with that.
    pub(crate) fn shown(&self, snapshot: &Snapshot) -> Vec<ShownUser<'_>> {
        let show = |id: &String| snapshot.show(snapshot.recommender.catalogue().find(id)?);
        self.0
            .iter()
            .map(|user| ShownUser {
                user: &user.user,
                history: user.history.iter().filter_map(show).collect(),
                next: show(&user.next),
            })
            .filter(|user| !user.history.is_empty())
            .collect()
    }
}
