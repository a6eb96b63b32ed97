//! Reading and writing embeddings as NumPy `.npy` and as safetensors.
//!
//! Readers check every length in a file against the file's size before they allocate, accept f32 and
//! f64 (narrowed to f32), and refuse NaN and infinities. Writers go through a temporary name in the
//! same directory, which is synced and then renamed: a reader sees the old file or the new one.
#![allow(clippy::needless_pass_by_value, reason = "views of arrays are passed by value")]

use std::{borrow::Cow, fs, path::Path};

use ndarray::{Array2, ArrayView2};
use ndarray_npy::{ReadNpyExt, ViewNpyError, ViewNpyExt, WriteNpyExt};
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{ArrayProblem, EmbedError, Result};

/// Name of the tensor in files made by [`write_safetensors`].
pub const EMBEDDINGS: &str = "embeddings";

/// The entry of a file's metadata that tells its format; all this crate writes are of version 1.
pub(crate) const FORMAT_VERSION_KEY: &str = "format_version";

/// Newest format of safetensors files written and read.
const TENSORS_VERSION: u32 = 1;

/// Longest `.npy` header that is parsed, in bytes; NumPy pads that of a plain array to 128.
const MAX_NPY_HEADER: usize = 4096;

/// Reads a two-dimensional `.npy` file.
///
/// # Shapes
/// `(rows, dim)` f32, in C or Fortran order in the file, f32 or f64 there.
///
/// # Errors
/// [`EmbedError::Io`], or [`EmbedError::Array`] when the file is no such array or holds a value that is not finite.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("embeddings.npy");
/// use genrec_embed::io::{read_npy, write_npy};
/// let rows = ndarray::array![[1.0_f32, 2.0], [3.0, 4.0]];
/// write_npy(&path, rows.view())?;
/// assert_eq!(read_npy(&path)?, rows);
/// # Ok(())
/// # }
/// ```
pub fn read_npy(path: impl AsRef<Path>) -> Result<Array2<f32>> {
    let path = path.as_ref();
    npy_from_bytes(&read_file(path)?).and_then(finite).map_err(|problem| array_error(path, problem))
}

/// Writes rows as `.npy`, version 1.0, C order, f32.
///
/// # Errors
/// [`EmbedError::Io`] when the file cannot be written.
pub fn write_npy(path: impl AsRef<Path>, rows: ArrayView2<'_, f32>) -> Result<()> {
    let path = path.as_ref();
    let mut bytes = Vec::with_capacity(rows.len().saturating_mul(size_of::<f32>()).saturating_add(128));
    let rows = rows.as_standard_layout();
    rows.write_npy(&mut bytes).map_err(|error| array_error(path, ArrayProblem::NpyWrite(error)))?;
    write_file(path, &bytes)
}

/// Reads the tensor `embeddings` of a safetensors file, or its only tensor whatever its name.
///
/// # Shapes
/// `(rows, dim)` f32; f32 or f64 in the file.
///
/// # Errors
/// [`EmbedError::Io`], [`EmbedError::FormatVersion`] for a file of a newer version of this crate, or
/// [`EmbedError::Array`] when the file is damaged, holds no such tensor or a value that is not finite.
pub fn read_safetensors(path: impl AsRef<Path>) -> Result<Array2<f32>> {
    let path = path.as_ref();
    let bytes = read_file(path)?;
    check_tensors_version(path, &bytes)?;
    let read = || {
        let tensors = SafeTensors::deserialize(&bytes).map_err(ArrayProblem::Safetensors)?;
        let name = match tensors.names().as_slice() {
            [only] => (*only).to_owned(),
            _ => EMBEDDINGS.to_owned(),
        };
        finite(matrix(&tensors, &name)?)
    };
    read().map_err(|problem| array_error(path, problem))
}

/// Writes rows as a safetensors file with the one tensor `embeddings` and a `format_version` of 1.
///
/// # Errors
/// [`EmbedError::Io`] when the file cannot be written.
pub fn write_safetensors(path: impl AsRef<Path>, rows: ArrayView2<'_, f32>) -> Result<()> {
    write_tensors(path.as_ref(), [(EMBEDDINGS, RawTensor::matrix(rows))], &[(FORMAT_VERSION_KEY, "1")])
}

fn array_error(path: &Path, problem: ArrayProblem) -> EmbedError {
    EmbedError::Array { path: path.to_owned(), problem }
}

pub(crate) fn finite(rows: Array2<f32>) -> Result<Array2<f32>, ArrayProblem> {
    match rows.indexed_iter().find(|(_, value)| !value.is_finite()) {
        Some(((row, column), _)) => Err(ArrayProblem::NotFinite { row, column }),
        None => Ok(rows),
    }
}

fn npy_from_bytes(bytes: &[u8]) -> Result<Array2<f32>, ArrayProblem> {
    check_npy_header(bytes)?;
    match view::<f32>(bytes) {
        Err(ArrayProblem::Npy(ViewNpyError::WrongDescriptor(_))) =>
        {
            #[allow(clippy::cast_possible_truncation, reason = "narrowing is the documented purpose")]
            view::<f64>(bytes).map(|rows| rows.mapv(|value| value as f32))
        }
        other => other,
    }
}

/// The array, by a view of the bytes: lengths are then checked against the payload before allocation.
fn view<T>(bytes: &[u8]) -> Result<Array2<T>, ArrayProblem>
where
    T: Clone + ndarray_npy::ViewElement + ndarray_npy::ReadableElement,
{
    match ArrayView2::<T>::view_npy(bytes) {
        Ok(rows) => Ok(rows.to_owned()),
        // The length has been found right by then, so reading allocates no more than the file holds.
        Err(error @ ViewNpyError::MisalignedData) => Array2::<T>::read_npy(bytes).map_err(|_| ArrayProblem::Npy(error)),
        Err(error) => Err(ArrayProblem::Npy(error)),
    }
}

/// Bounds what the header parser sees: its length, its nesting, as the parser recurses, and its shape.
fn check_npy_header(bytes: &[u8]) -> Result<(), ArrayProblem> {
    let header = match bytes {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, rest @ ..] => {
            rest.get(..usize::from(u16::from_le_bytes([*a, *b])))
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, rest @ ..] => {
            usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).ok().and_then(|length| rest.get(..length))
        }
        _ => None,
    };
    let plain = |header: &&[u8]| {
        header.len() <= MAX_NPY_HEADER && header.iter().filter(|byte| matches!(byte, b'(' | b'[' | b'{')).count() <= 8
    };
    check_shape(header.filter(plain).ok_or(ArrayProblem::NpyHeader)?)
}

/// Refuses a shape beyond the address space, which counts also beside an axis of zero: such an array has no bytes, and
/// no view either.
fn check_shape(header: &[u8]) -> Result<(), ArrayProblem> {
    // Whichever parenthesis opens the shape, the next one closes it, and only numbers stand between.
    for tuple in String::from_utf8_lossy(header).split('(').skip(1) {
        let tuple = tuple.split(')').next().unwrap_or_default();
        if tuple.contains(['\'', '"', '[', '{']) {
            continue;
        }
        let mut size = 1_usize;
        for axis in tuple.split(',').map(str::trim).filter(|axis| !axis.is_empty()) {
            if !axis.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(ArrayProblem::NpyHeader);
            }
            let larger = axis.parse().ok().and_then(|axis: usize| size.checked_mul(axis.max(1)));
            size = larger
                .filter(|size| isize::try_from(*size).is_ok())
                .ok_or(ArrayProblem::Npy(ViewNpyError::LengthOverflow))?;
        }
    }
    Ok(())
}

/// A two-dimensional f32 or f64 tensor by name, as f32.
pub(crate) fn matrix(tensors: &SafeTensors<'_>, name: &str) -> Result<Array2<f32>, ArrayProblem> {
    let tensor = tensors.tensor(name).map_err(|_| ArrayProblem::MissingTensor { name: name.to_owned() })?;
    let wrong = || ArrayProblem::WrongTensor {
        name: name.to_owned(),
        dtype: format!("{:?}", tensor.dtype()),
        shape: tensor.shape().to_vec(),
        expected: "F32 or F64 with two axes",
    };
    let [rows, columns] = *tensor.shape() else { return Err(wrong()) };
    let values = match tensor.dtype() {
        Dtype::F32 => floats(tensor.data()),
        #[allow(clippy::cast_possible_truncation, reason = "narrowing is the documented purpose")]
        Dtype::F64 => tensor.data().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
        _ => return Err(wrong()),
    };
    Array2::from_shape_vec((rows, columns), values).map_err(|_| wrong())
}

pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// A tensor that is to be written.
pub(crate) struct RawTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl RawTensor {
    pub(crate) fn matrix(rows: ArrayView2<'_, f32>) -> Self {
        let data = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: rows.shape().to_vec(), data }
    }

    pub(crate) fn vector(values: &[f32]) -> Self {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: vec![values.len()], data }
    }

    /// `(rows, width)` bytes.
    pub(crate) fn bytes(data: Vec<u8>, width: usize) -> Self {
        Self { dtype: Dtype::U8, shape: vec![data.len() / width.max(1), width], data }
    }
}

impl View for RawTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

pub(crate) fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, RawTensor)>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    write_file(path, &tensor_bytes(path, tensors, metadata)?)
}

/// A safetensors file that is to be written there.
pub(crate) fn tensor_bytes<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, RawTensor)>,
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>> {
    // One entry only: a hash map of several would be written in hash order.
    let note = serde_json::Value::Object(
        metadata.iter().map(|(key, value)| ((*key).to_owned(), serde_json::Value::from(*value))).collect(),
    );
    let metadata = match metadata {
        [(key, value)] => [((*key).to_owned(), (*value).to_owned())].into(),
        _ => [("genrec".to_owned(), note.to_string())].into(),
    };
    safetensors::serialize(tensors, Some(metadata)).map_err(|error| array_error(path, ArrayProblem::Safetensors(error)))
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| EmbedError::Io { action: "read", path: path.to_owned(), source })
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&read_file(path)?).map_err(|source| EmbedError::Json { path: path.to_owned(), source })
}

/// A JSON file with a `format_version`, which is looked at before anything else: a newer file may hold what this
/// version cannot parse.
pub(crate) fn read_versioned<T: DeserializeOwned>(path: &Path, supported: u32) -> Result<T> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let bytes = read_file(path)?;
    let json = |source| EmbedError::Json { path: path.to_owned(), source };
    let Version { format_version } = serde_json::from_slice(&bytes).map_err(json)?;
    check_version(path, format_version, supported)?;
    serde_json::from_slice(&bytes).map_err(json)
}

/// Refuses a safetensors file of a newer version of this crate. Files without a version, or with another tool's idea of
/// one, pass; so do damaged ones, which parsing refuses.
pub(crate) fn check_tensors_version(path: &Path, bytes: &[u8]) -> Result<()> {
    let metadata = SafeTensors::read_metadata(bytes).ok().and_then(|(_, metadata)| metadata.metadata().clone());
    let version = metadata.and_then(|metadata| metadata.get(FORMAT_VERSION_KEY)?.parse().ok());
    version.map_or(Ok(()), |version| check_version(path, version, TENSORS_VERSION))
}

fn check_version(path: &Path, got: u32, supported: u32) -> Result<()> {
    if got > supported {
        return Err(EmbedError::FormatVersion { path: path.to_owned(), got, supported });
    }
    Ok(())
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_file(path, &json_bytes(path, value)?)
}

/// A JSON file that is to be written there.
pub(crate) fn json_bytes(path: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|source| EmbedError::Json { path: path.to_owned(), source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(crate) fn create_dir(path: &Path) -> Result<()> {
    genrec_files::create_dir_all(path).map_err(|source| EmbedError::Io {
        action: "create",
        path: path.to_owned(),
        source,
    })
}

/// Writes files that belong together, all under temporary names before the first takes its own.
pub(crate) fn write_all(files: &[(&Path, &[u8])]) -> Result<()> {
    genrec_files::write_all(files).map_err(|(path, source)| EmbedError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    genrec_files::write(path, bytes).map_err(|source| EmbedError::Io { action: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
