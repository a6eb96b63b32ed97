//! The log of interactions that every reader fills.

use std::collections::HashMap;

use crate::{DataError, Result};

/// One user met one item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interaction<'a> {
    /// Outside id of the user.
    pub user: &'a str,
    /// Outside id of the item.
    pub item: &'a str,
    /// Time in the unit of the source (seconds or milliseconds since 1970); only the order matters.
    pub timestamp: Option<i64>,
    /// Rating in the scale of the source.
    pub rating: Option<f64>,
}

/// Interactions in the order of their source; ids are kept once.
///
/// ```
/// use genrec_data::{Interaction, InteractionLog};
///
/// let mut log = InteractionLog::new();
/// log.push(Interaction { user: "ada", item: "b1", timestamp: Some(7), rating: Some(5.0) })?;
/// assert_eq!(log.iter().next().map(|i| i.item), Some("b1"));
/// # Ok::<(), genrec_data::DataError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct InteractionLog {
    pub(crate) users: Names,
    pub(crate) items: Names,
    pub(crate) rows: Vec<Row>,
}

/// An interaction by numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Row {
    pub(crate) user: u32,
    pub(crate) item: u32,
    pub(crate) timestamp: Option<i64>,
    pub(crate) rating: Option<f64>,
}

impl InteractionLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an interaction behind the others.
    ///
    /// # Errors
    /// [`DataError::TooMany`] beyond `u32::MAX` users or items.
    pub fn push(&mut self, interaction: Interaction<'_>) -> Result<()> {
        let Interaction { user, item, timestamp, rating } = interaction;
        let (user, item) = (self.users.number(user, "users")?, self.items.number(item, "items")?);
        self.rows.push(Row { user, item, timestamp, rating });
        Ok(())
    }

    /// Number of interactions.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no interaction.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether some interaction has this item: to read of a large catalogue what is needed.
    pub fn has_item(&self, id: &str) -> bool {
        self.items.numbers.contains_key(id)
    }

    /// The interactions in the order they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Interaction<'_>> {
        self.rows.iter().map(|row| Interaction {
            user: &self.users.names[row.user as usize],
            item: &self.items.names[row.item as usize],
            timestamp: row.timestamp,
            rating: row.rating,
        })
    }
}

/// Names numbered by first appearance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) names: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Names {
    fn number(&mut self, name: &str, what: &'static str) -> Result<u32> {
        if let Some(&number) = self.numbers.get(name) {
            return Ok(number);
        }
        let count = self.names.len();
        let number = u32::try_from(count).map_err(|_| DataError::TooMany { what, count: count as u64 + 1 })?;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        Ok(number)
    }
}
