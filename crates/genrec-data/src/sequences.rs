//! One chronological sequence of items a user.

use std::collections::HashSet;

use sid_index::ItemId;

use crate::{DataError, Result};

/// Users and their items, oldest first, laid end to end.
///
/// ```
/// use genrec_data::{ItemId, Sequences};
///
/// let mut sequences = Sequences::new();
/// sequences.push("ada", &[ItemId(3), ItemId(1)])?;
/// assert_eq!(sequences.user(0), Some("ada"));
/// assert_eq!(sequences.items(0), Some(&[ItemId(3), ItemId(1)][..]));
/// # Ok::<(), genrec_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequences {
    users: Vec<String>,
    seen: HashSet<String>,
    items: Vec<ItemId>,
    /// Sequence `i` is `items[offsets[i]..offsets[i + 1]]`.
    offsets: Vec<usize>,
}

impl Default for Sequences {
    fn default() -> Self {
        Self::new()
    }
}

impl Sequences {
    /// No users.
    pub fn new() -> Self {
        Self { users: Vec::new(), seen: HashSet::new(), items: Vec::new(), offsets: vec![0] }
    }

    /// Adds a user with the items in order of time, oldest first; returns the user's number.
    ///
    /// # Errors
    /// [`DataError::DuplicateUser`], or [`DataError::TooMany`] beyond `u32::MAX` users.
    pub fn push(&mut self, user: &str, items: &[ItemId]) -> Result<usize> {
        let index = self.users.len();
        if u32::try_from(index).is_err() {
            return Err(DataError::TooMany { what: "users", count: index as u64 + 1 });
        }
        if !self.seen.insert(user.to_owned()) {
            return Err(DataError::DuplicateUser { user: user.to_owned() });
        }
        self.users.push(user.to_owned());
        self.items.extend_from_slice(items);
        self.offsets.push(self.items.len());
        Ok(index)
    }

    /// Number of users.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is no user.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether a user has a sequence.
    pub fn contains(&self, user: &str) -> bool {
        self.seen.contains(user)
    }

    /// The outside id of user `i`.
    pub fn user(&self, i: usize) -> Option<&str> {
        self.users.get(i).map(String::as_str)
    }

    /// The items of user `i`, oldest first.
    pub fn items(&self, i: usize) -> Option<&[ItemId]> {
        let (&start, &end) = (self.offsets.get(i)?, self.offsets.get(i.checked_add(1)?)?);
        self.items.get(start..end)
    }

    /// Users with their items, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[ItemId])> {
        self.users.iter().zip(self.offsets.windows(2)).map(|(user, w)| (user.as_str(), &self.items[w[0]..w[1]]))
    }

    /// Number of interactions over all users.
    pub fn interactions(&self) -> usize {
        self.items.len()
    }

    /// The first `users` users: for quick runs on a part of the data.
    #[must_use]
    pub fn truncated(&self, users: usize) -> Self {
        let users = users.min(self.len());
        let end = self.offsets[users];
        Self {
            users: self.users[..users].to_vec(),
            seen: self.users[..users].iter().cloned().collect(),
            items: self.items[..end].to_vec(),
            offsets: self.offsets[..=users].to_vec(),
        }
    }
}
