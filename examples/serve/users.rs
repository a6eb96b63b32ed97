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

/// Some users, spread over the data.
#[derive(Debug, Default)]
pub(crate) struct Users(Vec<User>);

#[derive(Debug)]
struct User {
    user: String,
    history: Vec<ItemId>,
    /// What they took last, which the model has not been trained on.
    next: ItemId,
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
            let (&next, history) = items.split_last().filter(|(_, history)| !history.is_empty())?;
            Some(User { user: user.to_owned(), history: history.to_vec(), next })
        });
        Ok(Self(users.collect()))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn shown(&self, snapshot: &Snapshot) -> Vec<ShownUser<'_>> {
        let show = |user: &User| {
            let history = user.history.iter().filter_map(|&item| snapshot.show(item)).collect();
            (history, snapshot.show(user.next))
        };
        self.0
            .iter()
            .map(|user| (user, show(user)))
            .map(|(user, (history, next))| ShownUser { user: &user.user, history, next })
            .collect()
    }
}
