//! The neutral form: `sequences.txt` and `items.jsonl` in one directory.
//!
//! `sequences.txt` holds one user a line: the user's id and the ids of the items, oldest first, separated by white
//! space. It is the form in which S3-Rec, P5 and TIGER's reproductions pass the Amazon sets on. `items.jsonl` holds one
//! JSON object an item; an example with every field:
//!
//! ```json
//! {"item_id": 1, "asin": "B0", "title": "Soap &amp; Brush", "brand": null, "price": 3.5, "categories": [["Beauty", "Bath"]],
//!  "description": null, "text_hint": "from reviews"}
//! ```
//!
//! `item_id` (a number or a string) alone is required and becomes [`Item::id`]. Any further field with a string, a number
//! or a truth value becomes an [attribute](Item::attributes) (`asin` and `text_hint` among them). HTML entities in texts
//! are resolved; empty texts are unknown. The rows of the catalogue follow `items.jsonl`.
//!
//! **Ties**: the order in `sequences.txt` is taken as it stands. The Amazon files have days and no time of day, and keep
//! catalogue order within a day, which tells a little of the next item (about 70 % of adjacent same-day pairs ascend);
//! results on them share this with every published one.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use sid_index::ItemId;

use super::text::{clean, clean_paths};
use crate::lines::{Fault, LineReader, LineResult};
use crate::{Catalogue, Dataset, Item, ReadOptions, ReadReport, Result, Sequences};

/// File with the sequences.
pub const SEQUENCES: &str = "sequences.txt";
/// File with the items.
pub const ITEMS: &str = "items.jsonl";

/// Reads a directory; the data set is named after it.
///
/// # Errors
/// [`DataError::Open`](crate::DataError::Open) and [`DataError::Read`](crate::DataError::Read);
/// [`DataError::BadLine`](crate::DataError::BadLine), unless `options` say to skip, for an item that is not of the form
/// or repeats an id, and for a user without items, with an item that `items.jsonl` lacks, or met before.
pub fn read(directory: &Path, options: &ReadOptions) -> Result<(Dataset, ReadReport)> {
    let (catalogue, mut report) = read_items(&directory.join(ITEMS), options)?;
    let (sequences, sequences_report) = read_sequences(&directory.join(SEQUENCES), &catalogue, options)?;
    report.merge(sequences_report);
    let name = directory.file_name().map_or_else(|| "neutral".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok((Dataset::new(name, catalogue, sequences)?, report))
}

/// Reads the items alone.
///
/// # Errors
/// As [`read`].
pub fn read_items(path: &Path, options: &ReadOptions) -> Result<(Catalogue, ReadReport)> {
    let mut catalogue = Catalogue::new();
    let report = LineReader::open(path, options)?.for_each(|line| {
        let record: Record = serde_json::from_str(line).map_err(|e| Fault::json(&e, "an item as a JSON object"))?;
        catalogue.push_line(record.into_item()?, 1)
    })?;
    Ok((catalogue, report))
}

/// Reads the sequences over a catalogue.
///
/// # Errors
/// As [`read`].
pub fn read_sequences(path: &Path, catalogue: &Catalogue, options: &ReadOptions) -> Result<(Sequences, ReadReport)> {
    let mut sequences = Sequences::new();
    let mut items: Vec<ItemId> = Vec::new();
    let report = LineReader::open(path, options)?.for_each(|line| {
        let mut fields = line.split_ascii_whitespace();
        let user = fields.next().ok_or_else(|| Fault::at(1, "a user id"))?;
        items.clear();
        for field in fields {
            // The field borrows from the line: its distance to the start is the column.
            let column = field.as_ptr() as usize - line.as_ptr() as usize + 1;
            let item = catalogue.find(field).ok_or_else(|| Fault::at(column, format!("an item id of {ITEMS}")))?;
            items.push(item);
        }
        if items.is_empty() {
            return Err(Fault::at(line.len() + 1, "at least one item id after the user id"));
        }
        if sequences.contains(user) {
            return Err(Fault::at(1, "a user id not yet used"));
        }
        sequences.push(user, &items)?;
        Ok(())
    })?;
    Ok((sequences, report))
}

#[derive(Deserialize)]
struct Record {
    item_id: Value,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    brand: Option<String>,
    #[serde(default)]
    price: Option<f64>,
    #[serde(default)]
    categories: Option<Vec<Vec<String>>>,
    #[serde(default)]
    description: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Record {
    fn into_item(self) -> LineResult<Item> {
        let id = match self.item_id {
            Value::String(id) => id,
            Value::Number(id) => id.to_string(),
            _ => return Err(Fault::at(1, "a number or a string as `item_id`")),
        };
        if id.is_empty() || id.contains(|c: char| c.is_ascii_whitespace()) {
            return Err(Fault::at(1, "an `item_id` that is not empty and has no white space"));
        }
        let text = |text: Option<String>| text.as_deref().and_then(clean);
        let attribute = |(name, value): (String, Value)| match value {
            Value::String(value) => clean(&value).map(|value| (name, value)),
            Value::Number(_) | Value::Bool(_) => Some((name, value.to_string())),
            _ => None,
        };
        Ok(Item {
            id,
            title: text(self.title),
            brand: text(self.brand),
            price: self.price,
            categories: clean_paths(self.categories.unwrap_or_default()),
            description: text(self.description),
            attributes: self.others.into_iter().filter_map(attribute).collect(),
        })
    }
}

#[cfg(test)]
mod tests;
