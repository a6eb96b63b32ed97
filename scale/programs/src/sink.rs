//! Query results written to Parquet by the program that asked, however many processes computed them.

use std::fs::File;
use std::path::{Path, PathBuf};

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::metadata::{KeyValue, ParquetMetaDataReader};
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::{DataFrame, SessionContext};
use futures::StreamExt;

use crate::{BoxError, fit::files, patience::retried, session::parquet};

/// Rows of a file.
const FILE_ROWS: usize = 4 << 20;

/// Rows of a row group: small groups let a reader share a file out.
const GROUP_ROWS: usize = 128 << 10;

/// A name and a value in the metadata of each file.
pub type Label<'a> = (&'a str, &'a str);

/// A directory of Parquet files that appears when it is whole.
struct Directory {
    path: PathBuf,
    unfinished: PathBuf,
    schema: SchemaRef,
    properties: WriterProperties,
    writer: Option<ArrowWriter<File>>,
    files: usize,
    rows: usize,
}

impl Directory {
    fn create(path: &Path, schema: SchemaRef, label: Option<Label<'_>>) -> Result<Self, BoxError> {
        let unfinished = path.with_extension("unfinished");
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished)?;
        }
        std::fs::create_dir_all(&unfinished)?;
        let label = label.map(|(name, value)| vec![KeyValue::new(name.to_owned(), value.to_owned())]);
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_key_value_metadata(label)
            .build();
        Ok(Self { path: path.to_owned(), unfinished, schema, properties, writer: None, files: 0, rows: 0 })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), BoxError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let file = File::create(self.unfinished.join(format!("part-{:05}.parquet", self.files)))?;
                let properties = Some(self.properties.clone());
                self.writer.insert(ArrowWriter::try_new(file, self.schema.clone(), properties)?)
            }
        };
        writer.write(batch)?;
        self.rows += batch.num_rows();
        if self.rows >= (self.files + 1) * FILE_ROWS {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), BoxError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        writer.into_inner()?.sync_all()?;
        self.files += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<usize, BoxError> {
        if self.rows == 0 {
            // An empty table still has columns.
            self.write(&RecordBatch::new_empty(self.schema.clone()))?;
        }
        self.close()?;
        std::fs::rename(&self.unfinished, &self.path)?;
        Ok(self.rows)
    }
}

/// Rows of a table, as its files count them.
///
/// # Errors
/// When they cannot be read.
pub async fn rows_of(table: &Path) -> Result<usize, BoxError> {
    Ok(parquet(&SessionContext::new(), table).await?.count().await?)
}

/// Checks that a table is not there yet.
///
/// # Errors
/// When it is.
pub fn check_absent(table: &Path) -> Result<(), BoxError> {
    if table.exists() {
        return Err(format!("`{}` is there already; delete it, or choose another directory", table.display()).into());
    }
    Ok(())
}

/// A table to be written: a directory of Parquet files that appears when all rows are in it.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    /// The directory.
    pub path: &'a Path,
    /// Columns in which no value may be null.
    pub whole: &'a [&'a str],
    /// What all files say of themselves.
    pub label: Option<Label<'a>>,
    /// A table of as many rows.
    pub rows_of: Option<&'a Path>,
    /// Whether the query is begun anew as in [`retried`].
    pub again: bool,
}

impl Table<'_> {
    /// Writes the rows of a query, and returns their number.
    ///
    /// # Errors
    /// When the directory is there already or cannot be written, when the query fails, when a value that may not be null is, and when
    /// there are more or fewer rows than there should be.
    pub async fn write(&self, query: DataFrame) -> Result<usize, BoxError> {
        check_absent(self.path)?;
        let expected = match self.rows_of {
            Some(table) => Some((table, rows_of(table).await?)),
            None => None,
        };
        retried(self.again, async || self.try_write(query.clone(), expected).await).await
    }

    async fn try_write(&self, query: DataFrame, expected: Option<(&Path, usize)>) -> Result<usize, BoxError> {
        let mut batches = query.execute_stream().await?;
        let mut directory = Directory::create(self.path, batches.schema(), self.label)?;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            for name in self.whole {
                let nulls = batch.column_by_name(name).map_or(0, |column| column.logical_null_count());
                if nulls > 0 {
                    return Err(format!(
                        "{nulls} rows have no `{name}`; leave rows out whose id, embedding or history is null"
                    )
                    .into());
                }
            }
            directory.write(&batch)?;
        }
        match expected {
            Some((table, expected)) if directory.rows != expected => Err(format!(
                "`{}` has {expected} rows, and `{}` came to {}; start the job anew, and report this if nobody added to the former",
                table.display(),
                self.path.display(),
                directory.rows
            )
            .into()),
            _ => directory.finish(),
        }
    }
}

/// Checks that all files of a table have one value under a name; files that have none under it, which others have written, are let
/// pass with a warning.
///
/// # Errors
/// When a file cannot be read, or has another value.
pub fn check_label(table: &Path, name: &str, value: &str) -> Result<(), BoxError> {
    for path in files(table)? {
        let unreadable =
            |error: &dyn std::fmt::Display| format!("cannot read `{}` as Parquet: {error}", path.display());
        let file = File::open(&path).map_err(|error| unreadable(&error))?;
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|error| unreadable(&error))?;
        let labels = metadata.file_metadata().key_value_metadata();
        let found =
            labels.into_iter().flatten().find(|label| label.key == name).and_then(|label| label.value.as_deref());
        match found {
            Some(found) if found == value => {}
            Some(found) => {
                return Err(format!(
                    "`{}` says `{name}` {found}, and this job's is {value}; use what made it, or make the table anew",
                    path.display()
                )
                .into());
            }
            None => tracing::warn!(
                path = %path.display(),
                name,
                wanted = value,
                "a table does not say what made it; make sure that it was what this job uses"
            ),
        }
    }
    Ok(())
}
