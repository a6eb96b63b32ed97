//! Histories of an arrow array as items of a catalogue.

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use genrec::{Recommender, index::ItemId};

use crate::embeddings::element;
use crate::{Error, Result};

/// The histories of the rows that are not null, one after another.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    items: Vec<ItemId>,
    /// Of each history, one past its last item.
    ends: Vec<usize>,
    /// Of each history, its row.
    pub(crate) rows: Vec<usize>,
}

/// What items of a history are, and how they are read.
pub(crate) fn read_as(history: &DataType) -> Option<DataType> {
    match element(history)? {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Some(DataType::Utf8),
        // Beyond the largest `Int64`.
        DataType::UInt64 => Some(DataType::Utf8),
        integer if integer.is_integer() => Some(DataType::Int64),
        _ => None,
    }
}

impl Histories {
    /// Looks the items of each row up: text is an item's id, an integer is one that is written as a decimal number. Rows for which
    /// `wanted` is false are passed over, as those that are null.
    ///
    /// # Errors
    /// [`Error::ArgumentType`] for another array, [`Error::NullItem`] and [`Error::History`] name the first row with an item that is
    /// null or that the catalogue does not have.
    pub(crate) fn read(array: &dyn Array, recommender: &Recommender, wanted: impl Fn(usize) -> bool) -> Result<Self> {
        let wrong = || Error::ArgumentType {
            function: "recommend",
            argument: "history",
            got: array.data_type().clone(),
            expected: "a list of item ids, text or integers",
        };
        let items = read_as(array.data_type()).ok_or_else(wrong)?;
        let field = datafusion::arrow::datatypes::Field::new_list_field(items.clone(), true);
        let lists = cast(array, &DataType::LargeList(field.into())).map_err(|_| wrong())?;
        let lists = lists.as_list::<i64>();
        let mut read = Self::default();
        let find =
            |row, id: &str| recommender.find(id).map_err(|source| Error::History { row, source: Box::new(source) });
        for row in (0..lists.len()).filter(|&row| lists.is_valid(row) && wanted(row)) {
            let history = lists.value(row);
            if history.logical_null_count() > 0 {
                return Err(Error::NullItem { row });
            }
            match items {
                DataType::Utf8 => {
                    for id in history.as_string::<i32>().iter().flatten() {
                        read.items.push(find(row, id)?);
                    }
                }
                _ => {
                    for id in history.as_primitive::<Int64Type>().values() {
                        read.items.push(find(row, &id.to_string())?);
                    }
                }
            }
            read.ends.push(read.items.len());
            read.rows.push(row);
        }
        Ok(read)
    }

    /// The items of each history, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[ItemId]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.items[start..end])
    }
}
