//! Parquet, through Arrow, one record batch at a time.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, LargeListArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::{Cell, Cells, Content, locate};
use crate::lines::{Fault, LineResult};
use crate::{BadLine, DataError, OnBadLine, ReadOptions, ReadReport, Result};

pub(super) fn rows(
    path: &Path,
    names: &[Option<&str>],
    options: &ReadOptions,
    mut each: impl FnMut(&Cells) -> LineResult<()>,
) -> Result<ReadReport> {
    options.validate()?;
    let broken = |source: ParquetError| DataError::Parquet { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
    let builder = decoded(|| ParquetRecordBatchReaderBuilder::try_new(file)).map_err(broken)?;
    let fields = builder.schema().fields().clone();
    let available: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
    let places = locate(path, names, &available)?;
    let mut wanted: Vec<usize> = places.iter().flatten().copied().collect();
    wanted.sort_unstable();
    wanted.dedup();
    for field in wanted.iter().filter_map(|&at| fields.get(at)) {
        if depth(field.data_type()).is_none() {
            let (column, found) = (field.name().clone(), field.data_type().to_string());
            return Err(DataError::ColumnType { path: path.to_path_buf(), column, found });
        }
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.iter().copied());
    let mut reader = decoded(|| builder.with_projection(mask).with_batch_size(4096).build()).map_err(broken)?;
    let mut report = ReadReport::default();
    while let Some((rows, columns)) = decoded(|| next(&mut reader)).map_err(broken)? {
        for row in 0..rows {
            report.lines += 1;
            let cell = |place: &Option<usize>| -> Result<Option<Cell>, ArrowError> {
                let Some(at) = *place else { return Ok(None) };
                let column = wanted.binary_search(&at).ok().and_then(|at| columns.get(at));
                let content = column.map_or(Ok(Content::Null), |column| column.content(row))?;
                Ok(Some(Cell { column: at + 1, content }))
            };
            let cells = decoded(|| Ok(places.iter().map(cell).collect::<Result<Vec<_>, _>>()?)).map_err(broken)?;
            match each(&cells) {
                Ok(()) => report.records += 1,
                Err(Fault::Fatal(error)) => return Err(error),
                Err(Fault::Line { column, expected }) => {
                    let found = cells.iter().flatten().find(|cell| cell.column == column).and_then(Cell::text);
                    let found = found.map_or_else(
                        || "null or blank".to_owned(),
                        |text| format!("{:?}", text.chars().take(32).collect::<String>()),
                    );
                    let bad = BadLine {
                        file: path.to_path_buf(),
                        line: report.lines,
                        column: column as u64,
                        expected,
                        found,
                    };
                    match options.on_bad_line {
                        OnBadLine::Fail => return Err(bad.into()),
                        OnBadLine::Skip => report.skip(bad),
                    }
                }
            }
        }
    }
    Ok(report)
}

/// The next rows and how many they are; `None` at the end.
fn next(reader: &mut ParquetRecordBatchReader) -> Result<Option<(usize, Vec<Column>)>, ParquetError> {
    let Some(batch) = reader.next().transpose()? else { return Ok(None) };
    let columns = batch.columns().iter().map(Column::new).collect::<Result<_, _>>()?;
    Ok(Some((batch.num_rows(), columns)))
}

/// What the decoder makes of a file. Of one that is damaged it panics in places, which is an error here; what it held is not used again.
fn decoded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(ParquetError::General(format!(
            "the decoder gave up ({}); the file is damaged, write it anew",
            said.unwrap_or("it did not say why")
        )))
    })
}

/// How many lists stand around the text; `None` when that is no text, or too many.
fn depth(of: &DataType) -> Option<usize> {
    match of {
        DataType::List(inner) | DataType::LargeList(inner) => {
            depth(inner.data_type()).map(|depth| depth + 1).filter(|&depth| depth <= 2)
        }
        other => (!other.is_nested()).then_some(0),
    }
}

/// A column of one batch.
enum Column {
    Text(StringArray),
    /// Lists of text.
    Path(LargeListArray),
    /// Lists of lists of text.
    Paths(LargeListArray),
}

impl Column {
    fn new(column: &ArrayRef) -> Result<Self, ArrowError> {
        // Offsets of 64 bits take lists of either kind.
        let list = |of: DataType| DataType::LargeList(Arc::new(Field::new_list_field(of, true)));
        match depth(column.data_type()) {
            Some(0) => text_column(column).map(Self::Text),
            Some(1) => downcast(&cast(column, &list(DataType::Utf8))?).map(Self::Path),
            _ => downcast(&cast(column, &list(list(DataType::Utf8)))?).map(Self::Paths),
        }
    }

    fn content(&self, row: usize) -> Result<Content, ArrowError> {
        Ok(match self {
            Self::Text(column) if column.is_valid(row) => Content::Text(column.value(row).to_owned()),
            Self::Path(column) if column.is_valid(row) => Content::Paths(vec![strings(&column.value(row))?]),
            Self::Paths(column) if column.is_valid(row) => {
                let paths = downcast::<LargeListArray>(&column.value(row))?;
                let paths = paths.iter().flatten().map(|path| strings(&path));
                Content::Paths(paths.collect::<Result<_, _>>()?)
            }
            _ => Content::Null,
        })
    }
}

/// The texts of an array; what is null is left out.
fn strings(array: &ArrayRef) -> Result<Vec<String>, ArrowError> {
    Ok(downcast::<StringArray>(array)?.iter().flatten().map(str::to_owned).collect())
}

fn downcast<A: Array + Clone + 'static>(array: &ArrayRef) -> Result<A, ArrowError> {
    let known = array.as_any().downcast_ref::<A>();
    known.cloned().ok_or_else(|| ArrowError::CastError(format!("{} is no text", array.data_type())))
}

/// A column as text; times as their number.
fn text_column(column: &ArrayRef) -> Result<StringArray, ArrowError> {
    let numbers = match column.data_type() {
        DataType::Timestamp(..) | DataType::Date64 => cast(column, &DataType::Int64)?,
        DataType::Date32 => cast(column, &DataType::Int32)?,
        _ => column.clone(),
    };
    downcast(&cast(&numbers, &DataType::Utf8)?)
}
