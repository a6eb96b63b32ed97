//! Amazon reviews as published: 2014, 2018 and 2023.
//!
//! | edition | reviews | items | fields of a review |
//! |---|---|---|---|
//! | 2014 | `reviews_X_5.json.gz` | `meta_X.json.gz` | `reviewerID`, `asin`, `unixReviewTime` (s), `overall` |
//! | 2018 | `X_5.json.gz` | `meta_X.json.gz` | the same |
//! | 2023 | `X.jsonl.gz` | `meta_X.jsonl.gz` | `user_id`, `parent_asin`, `timestamp` (ms), `rating` |
//!
//! One record a line: JSON, or, as in most files of 2014, a Python literal with single quotes, `True` and `None`. Both
//! are taken line by line, as are the names of all editions; where a review has both ids, `parent_asin` counts, which
//! is the one the items of 2023 carry. Times have days only before 2023: mind [`Ties`](crate::Ties).
//!
//! References: [McAuley et al., SIGIR 2015](https://arxiv.org/abs/1506.04757) (2014),
//! [Ni et al., EMNLP 2019](https://aclanthology.org/D19-1018) (2018),
//! [Hou et al., 2024](https://arxiv.org/abs/2403.03952) (2023).

use std::path::Path;

use serde_json::{Map, Value};

use super::text::{clean, clean_paths, json_paths};
use crate::lines::{Fault, LineReader, LineResult};
use crate::{Interaction, InteractionLog, Item, ReadOptions, ReadReport, Result, python_literal};

/// Reads reviews into a log, in the order of the file.
///
/// # Errors
/// [`DataError::Open`](crate::DataError::Open) and [`DataError::Read`](crate::DataError::Read);
/// [`DataError::BadLine`](crate::DataError::BadLine), unless `options` say to skip, for a line that is neither JSON nor
/// a Python literal, or lacks the user, the item or the time, or has a rating that is no number.
pub fn read_reviews(path: &Path, options: &ReadOptions) -> Result<(InteractionLog, ReadReport)> {
    let mut log = InteractionLog::new();
    let report = LineReader::open(path, options)?.for_each(|line| {
        let record = Record::parse(line)?;
        let user = record.id(&["reviewerID", "user_id"])?;
        let item = record.id(&["parent_asin", "asin"])?;
        let timestamp = record.time(&["unixReviewTime", "timestamp"])?;
        let rating = record.number(&["overall", "rating"])?;
        Ok(log.push(Interaction { user, item, timestamp: Some(timestamp), rating })?)
    })?;
    Ok((log, report))
}

/// Reads what is known of the items for which `keep` holds: usually those of a log, for the files list many more.
///
/// Title, brand (2023: `store`), price, categories and description are taken; of several entries for an item all are
/// given, and [`Prepare::run`](crate::Prepare::run) uses the first. A price that is a range or a phrase is unknown.
///
/// # Errors
/// As [`read_reviews`], for lines without an id or with content of another type than any edition has.
///
/// ```no_run
/// use std::path::Path;
/// use genrec_data::readers::amazon;
/// use genrec_data::{Prepare, ReadOptions};
///
/// let options = ReadOptions::default();
/// let (log, _) = amazon::read_reviews(Path::new("reviews_Beauty_5.json.gz"), &options)?;
/// let (items, _) = amazon::read_items(Path::new("meta_Beauty.json.gz"), &options, |id| log.has_item(id))?;
/// let beauty = Prepare::default().run("beauty", &log, items)?;
/// # Ok::<(), genrec_data::DataError>(())
/// ```
pub fn read_items(path: &Path, options: &ReadOptions, keep: impl Fn(&str) -> bool) -> Result<(Vec<Item>, ReadReport)> {
    let mut items = Vec::new();
    let report = LineReader::open(path, options)?.for_each(|line| {
        let record = Record::parse(line)?;
        let id = record.id(&["parent_asin", "asin"])?;
        if keep(id) {
            items.push(record.item(id)?);
        }
        Ok(())
    })?;
    Ok((items, report))
}

/// One line's fields.
struct Record<'a> {
    line: &'a str,
    fields: Map<String, Value>,
}

impl<'a> Record<'a> {
    fn parse(line: &'a str) -> LineResult<Self> {
        let value = match serde_json::from_str::<Value>(line) {
            Ok(value) => value,
            Err(json) => match python_literal::parse(line.trim_end()) {
                Ok(value) => value,
                // Of two readings of a broken line, the one that got further tells more.
                Err(Fault::Line { column, expected }) if column >= json.column() => {
                    return Err(Fault::at(column, expected));
                }
                Err(Fault::Line { .. }) => return Err(Fault::json(&json, "JSON or a Python literal")),
                Err(fatal) => return Err(fatal),
            },
        };
        match value {
            Value::Object(fields) => Ok(Self { line, fields }),
            _ => Err(Fault::at(1, "a record in braces")),
        }
    }

    /// The first of several fields that is there and not null.
    fn first(&self, names: &[&'static str]) -> Option<(&'static str, &Value)> {
        names.iter().find_map(|&name| Some((name, self.fields.get(name).filter(|value| !value.is_null())?)))
    }

    fn fault(&self, name: &str, expected: &str) -> Fault {
        let key = |quote: char| self.line.find(&format!("{quote}{name}{quote}"));
        let column = key('"').or_else(|| key('\'')).map_or(1, |at| at + 1);
        Fault::at(column, format!("`{name}` to be {expected}"))
    }

    fn missing(&self, names: &[&str]) -> Fault {
        Fault::at(1, format!("a record with `{}`", names.join("` or `")))
    }

    fn id(&self, names: &[&'static str]) -> LineResult<&str> {
        match self.first(names).ok_or_else(|| self.missing(names))? {
            (_, Value::String(id)) if !id.is_empty() => Ok(id),
            (name, _) => Err(self.fault(name, "a string that is not empty")),
        }
    }

    fn time(&self, names: &[&'static str]) -> LineResult<i64> {
        let (name, value) = self.first(names).ok_or_else(|| self.missing(names))?;
        value.as_i64().ok_or_else(|| self.fault(name, "a whole number"))
    }

    fn number(&self, names: &[&'static str]) -> LineResult<Option<f64>> {
        let Some((name, value)) = self.first(names) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.fault(name, "a number"))
    }

    fn text(&self, names: &[&'static str]) -> LineResult<Option<String>> {
        let Some((name, value)) = self.first(names) else { return Ok(None) };
        match value {
            Value::String(text) => Ok(clean(text)),
            Value::Array(parts) if parts.iter().all(Value::is_string) => {
                let parts: Vec<&str> = parts.iter().filter_map(Value::as_str).collect();
                Ok(clean(&parts.join(" ")))
            }
            _ => Err(self.fault(name, "a string or a list of strings")),
        }
    }

    fn item(&self, id: &str) -> LineResult<Item> {
        let mut item = Item::new(id);
        item.title = self.text(&["title"])?;
        item.brand = self.text(&["brand", "store"])?;
        item.description = self.text(&["description"])?;
        item.price = match self.first(&["price"]) {
            None => None,
            Some((_, Value::Number(price))) => price.as_f64(),
            Some((_, Value::String(price))) => parse_price(price),
            Some((name, _)) => return Err(self.fault(name, "a number or a string")),
        };
        item.categories = match self.first(&["categories", "category"]) {
            None => Vec::new(),
            Some((name, value)) => {
                paths(value).ok_or_else(|| self.fault(name, "a list of strings or of such lists"))?
            }
        };
        if let Some(category) = self.text(&["main_category", "main_cat"])? {
            item.attributes.insert("main_category".to_owned(), category);
        }
        Ok(item)
    }
}

/// A list of paths (2014), or one path (2018, 2023).
fn paths(value: &Value) -> Option<Vec<Vec<String>>> {
    json_paths(value.as_array()?).map(clean_paths)
}

/// `12.5`, `$12.50` or `$1,250.00`.
fn parse_price(text: &str) -> Option<f64> {
    let digits: String = text.trim().trim_start_matches('$').chars().filter(|&c| c != ',').collect();
    let plain = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    digits.parse::<f64>().ok().filter(|price| plain && price.is_finite())
}

#[cfg(test)]
mod tests;
