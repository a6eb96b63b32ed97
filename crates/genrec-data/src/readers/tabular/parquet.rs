//! Parquet, through Arrow, one record batch at a time.

use std::fs::File;
use std::path::Path;

use arrow::array::{Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use super::{Cells, locate};
use crate::lines::{Fault, LineResult};
use crate::readers::delimited::Field;
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
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(broken)?;
    let available: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let places = locate(path, names, &available)?;
    let mut wanted: Vec<usize> = places.iter().flatten().copied().collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.iter().copied());
    let reader = builder.with_projection(mask).with_batch_size(4096).build().map_err(broken)?;
    let mut report = ReadReport::default();
    for batch in reader {
        let batch = batch.map_err(|e| broken(e.into()))?;
        let columns =
            batch.columns().iter().map(text_column).collect::<Result<Vec<_>, _>>().map_err(|e| broken(e.into()))?;
        for row in 0..batch.num_rows() {
            report.lines += 1;
            let cell = |place: &Option<usize>| {
                let at = (*place)?;
                let column = columns.get(wanted.binary_search(&at).ok()?)?;
                let text = column.is_valid(row).then(|| column.value(row)).filter(|text| !text.trim().is_empty())?;
                Some(Field { text: text.to_owned(), column: at + 1 })
            };
            let cells: Vec<Option<Field>> = places.iter().map(cell).collect();
            match each(&cells) {
                Ok(()) => report.records += 1,
                Err(Fault::Fatal(error)) => return Err(error),
                Err(Fault::Line { column, expected }) => {
                    let found = cells.iter().flatten().find(|cell| cell.column == column);
                    let found = found.map_or_else(
                        || "null".to_owned(),
                        |cell| format!("{:?}", cell.text.chars().take(32).collect::<String>()),
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

/// A column as text; times as their number.
fn text_column(column: &arrow::array::ArrayRef) -> Result<StringArray, arrow::error::ArrowError> {
    let numbers = match column.data_type() {
        DataType::Timestamp(..) | DataType::Date64 => cast(column, &DataType::Int64)?,
        DataType::Date32 => cast(column, &DataType::Int32)?,
        _ => column.clone(),
    };
    let text = cast(&numbers, &DataType::Utf8)?;
    let text = text.as_any().downcast_ref::<StringArray>();
    text.cloned().ok_or_else(|| arrow::error::ArrowError::CastError("a column is no text".to_owned()))
}
