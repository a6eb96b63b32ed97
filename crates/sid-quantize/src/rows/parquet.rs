//! Rows of a column of vectors in a Parquet file, decoded as they are read.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type};
use ndarray::ArrayViewMut2;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::{RowSource, check_read};
use crate::error::RowFileFault;
use crate::{QuantizeError, Result};

/// Rows decoded at once.
const BATCH: usize = 1024;

/// Rows of a column that holds a list of floats in each row; only the rows asked for are decoded.
///
/// Lists are of type `FixedSizeList`, `List` or `LargeList` and hold f32, or f64 which is rounded to f32; all have one
/// length and nothing is null. A scan from start to end decodes every page once. What reads rows in random order, as
/// the training of an RQ-VAE does, decodes far more than it uses: convert such a file to `.npy` first.
#[derive(Debug)]
pub struct ParquetRows {
    path: PathBuf,
    column: String,
    file: File,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    /// First row of each row group.
    starts: Vec<usize>,
    rows: usize,
    dim: usize,
    stream: Option<Stream>,
}

/// A reader somewhere in the file.
struct Stream {
    reader: ParquetRecordBatchReader,
    /// Values of the rows decoded and not yet read.
    values: Vec<f32>,
    /// Elements of `values` that were read.
    used: usize,
    /// The row that comes next.
    next: usize,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("next", &self.next).finish_non_exhaustive()
    }
}

/// The elements of a list type, and its length where the type has one.
fn list(data: &DataType) -> Option<(&Field, Option<i32>)> {
    match data {
        DataType::FixedSizeList(field, length) => Some((field, Some(*length))),
        DataType::List(field) | DataType::LargeList(field) => Some((field, None)),
        _ => None,
    }
}

/// What the decoder makes of a file. Of one that is damaged it panics in places, which is an error here; what it held is not used again.
fn decoded<T>(work: impl FnOnce() -> std::result::Result<T, ParquetError>) -> std::result::Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(ParquetError::General(format!(
            "the decoder gave up ({}); the file is damaged, write it anew",
            said.unwrap_or("it did not say why")
        )))
    })
}

impl ParquetRows {
    /// Opens a column of a file; `None` takes the only column of lists of floats.
    ///
    /// # Errors
    /// [`QuantizeError::Io`], [`QuantizeError::Parquet`] when the file cannot be decoded, or
    /// [`QuantizeError::RowFile`] with what is wrong with the column.
    pub fn open(path: impl AsRef<Path>, column: Option<&str>) -> Result<Self> {
        let path = path.as_ref();
        let fault = |fact| QuantizeError::RowFile { path: path.to_owned(), fact };
        let broken = |source: ParquetError| QuantizeError::Parquet { path: path.to_owned(), source };
        let file = File::open(path).map_err(QuantizeError::io(path))?;
        let metadata = decoded(|| ArrowReaderMetadata::load(&file, Default::default())).map_err(broken)?;
        let fields = metadata.schema().fields().clone();
        let floats = |field: &Field| {
            list(field.data_type())
                .is_some_and(|(item, _)| matches!(item.data_type(), DataType::Float32 | DataType::Float64))
        };
        let at = match column {
            Some(name) => fields.iter().position(|field| field.name() == name),
            None => match fields.iter().enumerate().filter(|(_, field)| floats(field)).collect::<Vec<_>>()[..] {
                [(at, _)] => Some(at),
                _ => None,
            },
        };
        let Some(at) = at else {
            let names = fields.iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
            return Err(fault(RowFileFault::NoColumn { wanted: column.map(str::to_owned), columns: names }));
        };
        let field = &fields[at];
        if !floats(field) {
            return Err(fault(RowFileFault::ElementType(field.data_type().to_string())));
        }
        let groups = metadata.metadata().row_groups();
        let mut starts = Vec::with_capacity(groups.len());
        let mut rows = 0_usize;
        for group in groups {
            starts.push(rows);
            let count = usize::try_from(group.num_rows()).map_err(|_| fault(RowFileFault::Header))?;
            rows = rows.checked_add(count).ok_or_else(|| fault(RowFileFault::Header))?;
        }
        let mask = ProjectionMask::roots(metadata.parquet_schema(), [at]);
        let mut source = Self {
            path: path.to_owned(),
            column: field.name().clone(),
            file,
            metadata: metadata.clone(),
            mask,
            starts,
            rows,
            dim: 0,
            stream: None,
        };
        source.dim = match list(field.data_type()).and_then(|(_, length)| length) {
            Some(length) => usize::try_from(length).map_err(|_| fault(RowFileFault::Header))?,
            None if rows == 0 => 0,
            // A list's length is known from its rows alone.
            None => source.seek(0)?.first_length(path)?,
        };
        if source.dim == 0 && rows > 0 {
            return Err(fault(RowFileFault::NoColumns(rows)));
        }
        source.stream = None;
        Ok(source)
    }

    /// Name of the column that is read.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// A reader that stands at a row.
    fn seek(&self, row: usize) -> Result<Stream> {
        let broken = |source: ParquetError| QuantizeError::Parquet { path: self.path.clone(), source };
        let group = self.starts.partition_point(|start| *start <= row).saturating_sub(1);
        let file = self.file.try_clone().map_err(QuantizeError::io(&self.path))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_projection(self.mask.clone())
            .with_row_groups((group..self.starts.len()).collect())
            .with_offset(row - self.starts.get(group).copied().unwrap_or(0))
            .with_batch_size(BATCH);
        let reader = decoded(|| builder.build()).map_err(broken)?;
        Ok(Stream { reader, values: Vec::new(), used: 0, next: row })
    }
}

impl Stream {
    /// Decodes a batch: the length of each row, and the values of all of them.
    fn decode(&mut self, path: &Path) -> Result<(Vec<usize>, Vec<f32>)> {
        let fault = |fact| QuantizeError::RowFile { path: path.to_owned(), fact };
        let batch = decoded(|| Ok(self.reader.next().transpose()?))
            .map_err(|source| QuantizeError::Parquet { path: path.to_owned(), source })?
            .ok_or_else(|| fault(RowFileFault::Header))?;
        let column = batch.columns().first().ok_or_else(|| fault(RowFileFault::Header))?;
        let null = |at: usize| fault(RowFileFault::Null { row: self.next + at });
        if let Some(at) = (0..column.len()).find(|at| column.is_null(*at)) {
            return Err(null(at));
        }
        let (ends, items) = match column.data_type() {
            DataType::FixedSizeList(..) => {
                let list = column.as_fixed_size_list();
                let ends = (0..=list.len()).map(|at| i64::from(list.value_offset(at))).collect::<Vec<_>>();
                (ends, list.values())
            }
            DataType::List(_) => {
                let list = column.as_list::<i32>();
                (list.value_offsets().iter().copied().map(i64::from).collect(), list.values())
            }
            _ => {
                let list = column.as_list::<i64>();
                (list.value_offsets().to_vec(), list.values())
            }
        };
        let (first, last) = (ends.first().copied().unwrap_or(0), ends.last().copied().unwrap_or(0));
        let items = items.slice(first as usize, (last - first) as usize);
        if let Some(place) = (0..items.len()).find(|at| items.is_null(*at)) {
            let at = ends.partition_point(|end| *end - first <= place as i64).saturating_sub(1);
            return Err(null(at));
        }
        let lengths = ends.windows(2).map(|pair| (pair[1] - pair[0]) as usize).collect();
        let values = match items.data_type() {
            DataType::Float32 => items.as_primitive::<Float32Type>().values().to_vec(),
            _ => items.as_primitive::<Float64Type>().values().iter().map(|value| *value as f32).collect(),
        };
        Ok((lengths, values))
    }

    /// Length of the first row.
    fn first_length(mut self, path: &Path) -> Result<usize> {
        Ok(self.decode(path)?.0.first().copied().unwrap_or(0))
    }

    /// Copies the next rows.
    fn read(&mut self, path: &Path, dim: usize, out: &mut ArrayViewMut2<'_, f32>) -> Result<()> {
        for mut row in out.outer_iter_mut() {
            self.fill(path, dim)?;
            let values = &self.values[self.used..self.used + dim];
            row.iter_mut().zip(values).for_each(|(slot, value)| *slot = *value);
            self.step(dim);
        }
        Ok(())
    }

    fn step(&mut self, dim: usize) {
        self.used += dim;
        self.next += 1;
    }

    /// Decodes a batch unless rows are left of the last.
    fn fill(&mut self, path: &Path, dim: usize) -> Result<()> {
        if self.used < self.values.len() {
            return Ok(());
        }
        let (lengths, values) = self.decode(path)?;
        if let Some(at) = lengths.iter().position(|length| *length != dim) {
            let fact = RowFileFault::Ragged { row: self.next + at, expected: dim, got: lengths[at] };
            return Err(QuantizeError::RowFile { path: path.to_owned(), fact });
        }
        (self.values, self.used) = (values, 0);
        Ok(())
    }
}

impl RowSource for ParquetRows {
    fn dim(&self) -> usize {
        self.dim
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn read(&mut self, start: usize, mut out: ArrayViewMut2<'_, f32>) -> Result<()> {
        check_read(self.rows, self.dim, start, &out)?;
        if out.nrows() == 0 {
            return Ok(());
        }
        let mut stream = match self.stream.take() {
            Some(stream) if stream.next == start => stream,
            // A little way ahead it costs less to decode on than to start anew.
            Some(mut stream) if stream.next < start && start - stream.next <= BATCH => {
                while stream.next < start {
                    stream.fill(&self.path, self.dim)?;
                    stream.step(self.dim);
                }
                stream
            }
            _ => self.seek(start)?,
        };
        // A reader that failed is not used again.
        stream.read(&self.path, self.dim, &mut out)?;
        self.stream = Some(stream);
        Ok(())
    }
}
