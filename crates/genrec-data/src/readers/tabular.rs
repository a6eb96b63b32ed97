//! CSV, TSV, JSON lines and Parquet with columns of any name.
//!
//! CSV and TSV need a header; fields may be quoted as in RFC 4180, line breaks inside included. JSON lines hold one
//! object each. Parquet (feature `parquet`) is read batch by batch; every column type that Arrow casts to text is taken,
//! and lists of such, or of such lists. A list where a text is wanted is joined with spaces.
//!
//! **Ties**: rows are taken in the order of the file. Among interactions of a user at the same time, or without a
//! column for it, this order decides, unless [`Prepare`](crate::Prepare) is told otherwise ([`Ties`](crate::Ties)).

#[cfg(feature = "parquet")]
mod parquet;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Map, Value};

use super::delimited::{Field, Quotes, number, time_or_date};
use super::records::Records;
use super::text::{clean, clean_paths, json_paths};
use crate::lines::{Fault, LineReader, LineResult};
use crate::{DataError, Interaction, InteractionLog, Item, ReadOptions, ReadReport, Result};

/// The form of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// Commas.
    Csv,
    /// Tabs.
    Tsv,
    /// One JSON object a line.
    JsonLines,
    /// Apache Parquet.
    #[cfg(feature = "parquet")]
    Parquet,
}

impl Format {
    /// The form that a file name's ending tells: `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json`, `.parquet`, the textual
    /// ones also with `.gz` behind.
    pub fn from_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let textual = name.strip_suffix(".gz").unwrap_or(&name);
        match textual.rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "jsonl" | "ndjson" | "json" => Some(Self::JsonLines),
            #[cfg(feature = "parquet")]
            "parquet" if textual == name => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Which columns make an interaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct InteractionColumns {
    /// User id.
    pub user: String,
    /// Item id.
    pub item: String,
    /// Time as a number, or as a date with or without a time of day (`2024-03-01`, `2024-03-01T12:30:05+01:00`), which becomes
    /// milliseconds since 1970. Default: none, the order of the file counts.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// Rating. Default: none.
    #[serde(default)]
    pub rating: Option<String>,
}

impl InteractionColumns {
    /// The two ids.
    pub fn new(user: impl Into<String>, item: impl Into<String>) -> Self {
        Self { user: user.into(), item: item.into(), timestamp: None, rating: None }
    }

    /// Names the column with the time.
    #[must_use]
    pub fn with_timestamp(mut self, column: impl Into<String>) -> Self {
        self.timestamp = Some(column.into());
        self
    }

    /// Names the column with the rating.
    #[must_use]
    pub fn with_rating(mut self, column: impl Into<String>) -> Self {
        self.rating = Some(column.into());
        self
    }
}

/// Which columns make an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ItemColumns {
    /// Item id.
    pub id: String,
    /// Title.
    #[serde(default)]
    pub title: Option<String>,
    /// Brand.
    #[serde(default)]
    pub brand: Option<String>,
    /// Price, a number.
    #[serde(default)]
    pub price: Option<String>,
    /// Category paths: levels with `>` between, paths with `|` between; in JSON and Parquet also a list of strings (one
    /// path) or of lists of strings, which are taken as they are.
    #[serde(default)]
    pub categories: Option<String>,
    /// Description.
    #[serde(default)]
    pub description: Option<String>,
    /// Further columns, kept as attributes of their name.
    #[serde(default)]
    pub attributes: Vec<String>,
}

impl ItemColumns {
    /// The id alone.
    pub fn new(id: impl Into<String>) -> Self {
        let id = id.into();
        Self { id, title: None, brand: None, price: None, categories: None, description: None, attributes: Vec::new() }
    }

    /// Names the column with the title.
    #[must_use]
    pub fn with_title(mut self, column: impl Into<String>) -> Self {
        self.title = Some(column.into());
        self
    }

    /// Names the column with the brand.
    #[must_use]
    pub fn with_brand(mut self, column: impl Into<String>) -> Self {
        self.brand = Some(column.into());
        self
    }

    /// Names the column with the price.
    #[must_use]
    pub fn with_price(mut self, column: impl Into<String>) -> Self {
        self.price = Some(column.into());
        self
    }

    /// Names the column with the category paths.
    #[must_use]
    pub fn with_categories(mut self, column: impl Into<String>) -> Self {
        self.categories = Some(column.into());
        self
    }

    /// Names the column with the description.
    #[must_use]
    pub fn with_description(mut self, column: impl Into<String>) -> Self {
        self.description = Some(column.into());
        self
    }

    /// Adds a column to be kept as an attribute.
    #[must_use]
    pub fn with_attribute(mut self, column: impl Into<String>) -> Self {
        self.attributes.push(column.into());
        self
    }
}

/// The columns of a table: of CSV, TSV and Parquet those of the header, in its order; of JSON lines, which have none, whatever fields an
/// object of the file has, in alphabetical order.
///
/// # Errors
/// As [`read_interactions`]; an empty file has no columns.
pub fn columns(path: &Path, format: Format, options: &ReadOptions) -> Result<Vec<String>> {
    if format == Format::JsonLines {
        let mut names = BTreeSet::new();
        LineReader::open(path, options)?.for_each(|line| {
            let object: BTreeMap<String, IgnoredAny> =
                serde_json::from_str(line).map_err(|e| Fault::json(&e, "a JSON object"))?;
            names.extend(object.into_keys());
            Ok(())
        })?;
        return Ok(names.into_iter().collect());
    }
    // A name that no table has: the answer lists those that it has.
    let nowhere = InteractionColumns::new("\0", "\0");
    match read_interactions(path, format, &nowhere, options) {
        Err(DataError::MissingColumn { available, .. }) => Ok(available),
        Err(other) => Err(other),
        Ok(_) => Ok(Vec::new()),
    }
}

/// Reads interactions, in the order of the file.
///
/// # Errors
/// [`DataError::Open`] and [`DataError::Read`]; [`DataError::MissingColumn`]; `DataError::Parquet` and
/// `DataError::ColumnType`;
/// [`DataError::BadLine`], unless `options` say to skip, for what is not of the format, an empty id, or a number that
/// is none.
///
/// ```no_run
/// use std::path::Path;
/// use genrec_data::ReadOptions;
/// use genrec_data::readers::tabular::{self, Format, InteractionColumns};
///
/// let columns = InteractionColumns::new("customer", "sku").with_timestamp("bought_at");
/// let (log, _) = tabular::read_interactions(Path::new("orders.csv"), Format::Csv, &columns, &ReadOptions::default())?;
/// # Ok::<(), genrec_data::DataError>(())
/// ```
pub fn read_interactions(
    path: &Path,
    format: Format,
    columns: &InteractionColumns,
    options: &ReadOptions,
) -> Result<(InteractionLog, ReadReport)> {
    let mut log = InteractionLog::new();
    let names = [Some(&columns.user), Some(&columns.item), columns.timestamp.as_ref(), columns.rating.as_ref()];
    let report = rows(path, format, &names.map(|name| name.map(String::as_str)), options, |cells| {
        let [user, item, timestamp, rating] = cells else { return Err(Fault::at(1, "4 cells")) };
        Ok(log.push(Interaction {
            user: &id(user.as_ref())?,
            item: &id(item.as_ref())?,
            timestamp: given(timestamp).map(|(text, column)| time_or_date(&text, column)).transpose()?,
            rating: given(rating).map(|(text, column)| number(&text, column, "a rating")).transpose()?,
        })?)
    })?;
    Ok((log, report))
}

/// Reads items, in the order of the file.
///
/// # Errors
/// As [`read_interactions`].
pub fn read_items(
    path: &Path,
    format: Format,
    columns: &ItemColumns,
    options: &ReadOptions,
) -> Result<(Vec<Item>, ReadReport)> {
    let mut items = Vec::new();
    let ItemColumns { id: key, title, brand, price, categories, description, attributes } = columns;
    let mut names = vec![Some(key.as_str())];
    names.extend([title, brand, price, categories, description].map(|name| name.as_deref()));
    names.extend(attributes.iter().map(|name| Some(name.as_str())));
    let report = rows(path, format, &names, options, |cells| {
        let [key, title, brand, price, categories, description, others @ ..] = cells else {
            return Err(Fault::at(1, "6 cells"));
        };
        let text = |cell: &Option<Cell>| given(cell).and_then(|(text, _)| clean(&text));
        let mut item = Item::new(id(key.as_ref())?);
        item.title = text(title);
        item.brand = text(brand);
        item.price = given(price).map(|(text, column)| number(&text, column, "a price")).transpose()?;
        item.description = text(description);
        item.categories = categories.as_ref().map(Cell::paths).unwrap_or_default();
        for (name, cell) in attributes.iter().zip(others) {
            if let Some(text) = text(cell) {
                item.attributes.insert(name.clone(), text);
            }
        }
        items.push(item);
        Ok(())
    })?;
    Ok((items, report))
}

/// The wanted cells of a row, `None` where no column is wanted.
type Cells = [Option<Cell>];

/// A cell, with the place of its column.
#[derive(Debug)]
struct Cell {
    column: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Null, or absent.
    Null,
    Text(String),
    /// A list of strings, as one path, or a list of such lists.
    Paths(Vec<Vec<String>>),
}

impl Cell {
    /// The text, a list's with spaces between; `None` when null or blank.
    fn text(&self) -> Option<Cow<'_, str>> {
        let text = match &self.content {
            Content::Null => return None,
            Content::Text(text) => Cow::Borrowed(text.as_str()),
            Content::Paths(paths) => Cow::Owned(paths.concat().join(" ")),
        };
        Some(text).filter(|text| !text.trim().is_empty())
    }

    /// A list as it is, a text cut at `|` and `>`.
    fn paths(&self) -> Vec<Vec<String>> {
        match &self.content {
            Content::Null => Vec::new(),
            Content::Text(text) => {
                clean_paths(text.split('|').map(|path| path.split('>').map(str::to_owned).collect()).collect())
            }
            Content::Paths(paths) => clean_paths(paths.clone()),
        }
    }
}

/// The text of a cell that is neither null nor blank, and its column.
fn given(cell: &Option<Cell>) -> Option<(Cow<'_, str>, usize)> {
    let cell = cell.as_ref()?;
    Some((cell.text()?, cell.column))
}

fn rows(
    path: &Path,
    format: Format,
    names: &[Option<&str>],
    options: &ReadOptions,
    each: impl FnMut(&Cells) -> LineResult<()>,
) -> Result<ReadReport> {
    match format {
        Format::Csv => delimited_rows(path, ',', names, options, each),
        Format::Tsv => delimited_rows(path, '\t', names, options, each),
        Format::JsonLines => json_rows(path, names, options, each),
        #[cfg(feature = "parquet")]
        Format::Parquet => parquet::rows(path, names, options, each),
    }
}

/// Where the wanted columns are among those there.
fn locate(path: &Path, names: &[Option<&str>], available: &[String]) -> Result<Vec<Option<usize>>> {
    let find = |name: &str| {
        available.iter().position(|column| column == name).ok_or_else(|| DataError::MissingColumn {
            path: path.to_path_buf(),
            column: name.to_owned(),
            available: available.to_vec(),
        })
    };
    names.iter().map(|name| name.map(find).transpose()).collect()
}

fn delimited_rows(
    path: &Path,
    delimiter: char,
    names: &[Option<&str>],
    options: &ReadOptions,
    mut each: impl FnMut(&Cells) -> LineResult<()>,
) -> Result<ReadReport> {
    let mut header: Option<Vec<Option<usize>>> = None;
    Records::open(path, delimiter, Quotes::Strict, options)?.for_each(|mut fields| {
        for field in &mut fields {
            field.text = field.text.trim().to_owned();
        }
        let Some(places) = &header else {
            let columns: Vec<String> = fields.into_iter().map(|field| field.text).collect();
            header = Some(locate(path, names, &columns)?);
            return Ok(());
        };
        // A column may be wanted twice, so that cells are copied, not taken.
        let cell = |&Field { ref text, column }: &Field| Cell { column, content: Content::Text(text.clone()) };
        let cells: Vec<Option<Cell>> = places.iter().map(|place| place.map(|at| cell(&fields[at]))).collect();
        each(&cells)
    })
}

fn json_rows(
    path: &Path,
    names: &[Option<&str>],
    options: &ReadOptions,
    mut each: impl FnMut(&Cells) -> LineResult<()>,
) -> Result<ReadReport> {
    LineReader::open(path, options)?.for_each(|line| {
        let object: Map<String, Value> = serde_json::from_str(line).map_err(|e| Fault::json(&e, "a JSON object"))?;
        let cell = |name: &str| -> LineResult<Cell> {
            let column = line.find(&format!("\"{name}\"")).map_or(1, |at| at + 1);
            let content = match object.get(name) {
                None | Some(Value::Null) => Content::Null,
                Some(Value::String(text)) => Content::Text(text.clone()),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => Content::Text(value.to_string()),
                Some(Value::Array(values)) => {
                    let fault =
                        || Fault::at(column, format!("`{name}` to be a list of strings or numbers, or of such lists"));
                    Content::Paths(json_paths(values).ok_or_else(fault)?)
                }
                Some(Value::Object(_)) => {
                    return Err(Fault::at(column, format!("`{name}` to be a string, a number or a list")));
                }
            };
            Ok(Cell { column, content })
        };
        let cells = names.iter().map(|name| name.map(cell).transpose()).collect::<LineResult<Vec<_>>>()?;
        each(&cells)
    })
}

fn id(cell: Option<&Cell>) -> LineResult<Cow<'_, str>> {
    let expected = |column| Fault::at(column, "an id that is not empty");
    let cell = cell.ok_or_else(|| expected(1))?;
    match cell.text().ok_or_else(|| expected(cell.column))? {
        Cow::Borrowed(text) => Ok(Cow::Borrowed(text.trim())),
        Cow::Owned(text) => Ok(Cow::Owned(text.trim().to_owned())),
    }
}

#[cfg(test)]
mod tests;
