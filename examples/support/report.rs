//! What is known of each method, as a table and as a file that an interrupted comparison goes on from.

use std::path::Path;

use comfy_table::Table;
use genrec::quantize::QuantizerConfig;
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    BoxError,
    fit::Effort,
    measure::Measures,
    methods::{METHODS, Mode, type_of},
    read_json, table, write_file,
};

/// One method's row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodReport {
    /// The method's name.
    pub name: String,
    /// The `"type"` of its configuration.
    pub r#type: String,
    /// All of its configuration.
    pub config: Value,
    /// Rows it was fitted on.
    pub items: usize,
    /// Columns of a row.
    pub dim: usize,
    /// How good its codes are.
    #[serde(flatten)]
    pub measures: Measures,
    /// How long it took.
    #[serde(flatten)]
    pub effort: Effort,
}

impl MethodReport {
    /// A row; `shape` is that of the embeddings.
    ///
    /// # Errors
    /// When the configuration has no JSON form.
    pub fn new(
        name: &str,
        config: &QuantizerConfig,
        shape: (usize, usize),
        measures: Measures,
        effort: Effort,
    ) -> Result<Self, BoxError> {
        Ok(Self {
            name: name.to_owned(),
            r#type: type_of(config),
            config: serde_json::to_value(config)?,
            items: shape.0,
            dim: shape.1,
            measures,
            effort,
        })
    }
}

/// What a comparison is of; reports of another one do not mix with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Name of the data set.
    pub dataset: String,
    /// Where the embeddings are from.
    pub embedder: String,
    /// CRC-32 of the embeddings' shape and bytes.
    pub embeddings: u32,
    /// How much time the methods were given.
    pub mode: Mode,
    /// What every random choice derives from.
    pub seed: u64,
}

/// The checksum of [`Subject::embeddings`].
pub fn checksum(rows: ArrayView2<'_, f32>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for axis in [rows.nrows(), rows.ncols()] {
        hasher.update(&(axis as u64).to_le_bytes());
    }
    for row in rows.outer_iter() {
        let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    hasher.finalize()
}

/// All rows of a comparison, in the order of [`METHODS`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What it is of.
    #[serde(flatten)]
    pub subject: Subject,
    /// One row a method.
    pub methods: Vec<MethodReport>,
}

impl Comparison {
    /// What an interrupted comparison left in a file, or none yet.
    ///
    /// # Errors
    /// When the file cannot be read or is of another subject.
    pub fn open(path: &Path, subject: Subject) -> Result<Self, BoxError> {
        if !path.exists() {
            return Ok(Self { subject, methods: Vec::new() });
        }
        let remedy = "delete it, or give another --out";
        let found: Self = serde_json::from_value(read_json(path)?)
            .map_err(|error| format!("`{}` is not of this program: {error}; {remedy}", path.display()))?;
        if found.subject != subject {
            let (file, was) = (path.display(), serde_json::to_string(&found.subject)?);
            return Err(format!("`{file}` is of {was}, this is {}; {remedy}", serde_json::to_string(&subject)?).into());
        }
        Ok(found)
    }

    /// The row of a method with these very settings.
    pub fn find(&self, name: &str, config: &QuantizerConfig) -> Option<&MethodReport> {
        let config = serde_json::to_value(config).ok()?;
        self.methods.iter().find(|method| method.name == name && method.config == config)
    }

    /// Puts a row in its place, in that of an older row of the method if there is one, and writes the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put(&mut self, method: MethodReport, path: &Path) -> Result<(), BoxError> {
        self.methods.retain(|other| other.name != method.name);
        self.methods.push(method);
        let place = |row: &MethodReport| METHODS.iter().position(|method| method.name == row.name);
        self.methods.sort_by_key(|row| place(row).unwrap_or(METHODS.len()));
        write_json(path, self)
    }
}

/// Writes a report.
///
/// # Errors
/// When it cannot be written.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), BoxError> {
    write_file(path, &json_bytes(value)?)
}

/// A report as it is written.
///
/// # Errors
/// When it has no JSON form.
pub fn json_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, BoxError> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?).into_bytes())
}

/// Every diagnostic of every row. Levels are separated by slashes.
pub fn methods_table(methods: &[MethodReport]) -> Table {
    let head = [
        "method",
        "collisions",
        "largest group",
        "codes used",
        "perplexity",
        "entropy (bits)",
        "rec. error",
        "purity",
        "next item",
        "neighbours",
        "fit (s)",
        "rows/s",
    ];
    let rows: Vec<Vec<String>> = methods.iter().map(row).collect();
    table(&head, &rows)
}

fn row(method: &MethodReport) -> Vec<String> {
    let Measures { collision_rate, largest_group, reconstruction, .. } = method.measures;
    let measures = &method.measures;
    let numbers = |values: &[f64], digits: usize| joined(values.iter().map(|value| format!("{value:.digits$}")));
    vec![
        method.name.clone(),
        format!("{:.2} %", 100.0 * collision_rate),
        largest_group.to_string(),
        joined(measures.codes_used.iter().map(u32::to_string)),
        numbers(&measures.perplexity, 0),
        numbers(&measures.entropy_bits, 2),
        reconstruction.map_or_else(|| "-".to_owned(), |error| format!("{error:.3}")),
        numbers(&measures.purity, 3),
        numbers(&measures.next_item, 3),
        joined(
            measures
                .neighbours
                .iter()
                .flat_map(|near| &near.share)
                .map(|share| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.3}"))),
        ),
        format!("{:.1}", method.effort.seconds),
        format!("{:.0}", method.effort.encode_rows_per_second),
    ]
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join("/") }
}

#[cfg(test)]
mod tests;
