//! CSV, TSV, JSON lines and Parquet with columns of any name.
//!
//! CSV and TSV need a header; fields may be quoted as in RFC 4180, line breaks inside included. JSON lines hold one
//! object each. Parquet (feature `parquet`) is read batch by batch; every column type that Arrow casts to text is taken.

#[cfg(feature = "parquet")]
mod parquet;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::delimited::{Field, Quotes, number, time};
use super::records::Records;
use super::text::clean;
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
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "jsonl" | "ndjson" | "json" => Some(Self::JsonLines),
            #[cfg(feature = "parquet")]
            "parquet" => Some(Self::Parquet),
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
    /// Time as a number. Default: none, the order of the file counts.
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
    /// Category paths: levels with `>` between, paths with `|` between; in JSON also a list of strings (one path) or
    /// of lists of strings.
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

/// Reads interactions, in the order of the file.
///
/// # Errors
/// [`DataError::Open`] and [`DataError::Read`]; [`DataError::MissingColumn`]; `DataError::Parquet`;
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
            user: id(user.as_ref())?,
            item: id(item.as_ref())?,
            timestamp: timestamp.as_ref().map(|cell| time(&cell.text, cell.column)).transpose()?,
            rating: rating.as_ref().map(|cell| number(&cell.text, cell.column, "a rating")).transpose()?,
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
        let text = |cell: &Option<Field>| cell.as_ref().and_then(|cell| clean(&cell.text));
        let mut item = Item::new(id(key.as_ref())?);
        item.title = text(title);
        item.brand = text(brand);
        item.price = price.as_ref().map(|cell| number(&cell.text, cell.column, "a price")).transpose()?;
        item.description = text(description);
        if let Some(cell) = categories {
            let path = |path: &str| path.split('>').filter_map(clean).collect::<Vec<_>>();
            item.categories = cell.text.split('|').map(path).filter(|path| !path.is_empty()).collect();
        }
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

/// The wanted cells of a row, `None` where the column is not wanted or the cell is null or blank.
type Cells = [Option<Field>];

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
        let cells: Vec<Option<Field>> = places
            .iter()
            .map(|place| place.map(|at| fields[at].clone()).filter(|cell| !cell.text.is_empty()))
            .collect();
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
        let cell = |name: &str| -> LineResult<Option<Field>> {
            let column = line.find(&format!("\"{name}\"")).map_or(1, |at| at + 1);
            let text = match object.get(name) {
                None | Some(Value::Null) => return Ok(None),
                Some(Value::String(text)) => text.clone(),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                Some(Value::Array(values)) => {
                    joined(values).ok_or_else(|| Fault::at(column, format!("`{name}` to be a list of strings")))?
                }
                Some(Value::Object(_)) => {
                    return Err(Fault::at(column, format!("`{name}` to be a string, a number or a list")));
                }
            };
            Ok((!text.trim().is_empty()).then_some(Field { text, column }))
        };
        let cells = names.iter().map(|name| name.map_or(Ok(None), cell)).collect::<LineResult<Vec<_>>>()?;
        each(&cells)
    })
}

/// `["a", "b"]` as `a>b`, `[["a", "b"], ["c"]]` as `a>b|c`: the form in which tables write paths.
fn joined(values: &[Value]) -> Option<String> {
    let path =
        |values: &[Value]| values.iter().map(Value::as_str).collect::<Option<Vec<_>>>().map(|path| path.join(">"));
    if values.iter().any(Value::is_array) {
        let paths = values.iter().map(|value| path(value.as_array()?)).collect::<Option<Vec<_>>>()?;
        return Some(paths.join("|"));
    }
    path(values)
}

fn id(cell: Option<&Field>) -> LineResult<&str> {
    let cell = cell.ok_or_else(|| Fault::at(1, "an id that is not empty"))?;
    Ok(cell.text.trim())
}

#[cfg(test)]
mod tests;
