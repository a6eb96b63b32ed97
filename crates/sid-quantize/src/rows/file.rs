//! Rows of a dense matrix in a `.npy` or safetensors file, read on demand.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ndarray::ArrayViewMut2;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::{RowSource, check_read};
use crate::error::RowFileFault;
use crate::{QuantizeError, Result};

/// Headers longer than this are refused before they are read.
const MAX_HEADER: u64 = 16 << 20;

/// Element type of a file.
#[derive(Clone, Copy, Debug)]
enum Element {
    F32,
    F64,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// Rows of a `.npy` or safetensors file; only the rows asked for are in memory.
///
/// Elements are little-endian f32, or f64 which is rounded to f32. The file's size is checked against its header when
/// it is opened.
#[derive(Debug)]
pub struct FileRows {
    path: PathBuf,
    file: File,
    data: u64,
    rows: usize,
    dim: usize,
    element: Element,
    buffer: Vec<u8>,
}

impl FileRows {
    /// Opens a two-dimensional `.npy` array in C order (format versions 1 to 3).
    ///
    /// # Errors
    /// [`QuantizeError::Io`], or [`QuantizeError::RowFile`] with what is wrong with the header.
    pub fn open_npy(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fault = |fact| QuantizeError::RowFile { path: path.to_owned(), fact };
        let mut file = File::open(path).map_err(QuantizeError::io(path))?;
        let size = file.metadata().map_err(QuantizeError::io(path))?.len();
        let mut start = [0_u8; 8];
        if size < 10 {
            return Err(fault(RowFileFault::Magic));
        }
        file.read_exact(&mut start).map_err(QuantizeError::io(path))?;
        if &start[..6] != b"\x93NUMPY" {
            return Err(fault(RowFileFault::Magic));
        }
        let (length, before) = if start[6] == 1 {
            let mut length = [0_u8; 2];
            file.read_exact(&mut length).map_err(QuantizeError::io(path))?;
            (u64::from(u16::from_le_bytes(length)), 10)
        } else {
            if size < 12 {
                return Err(fault(RowFileFault::Header));
            }
            let mut length = [0_u8; 4];
            file.read_exact(&mut length).map_err(QuantizeError::io(path))?;
            (u64::from(u32::from_le_bytes(length)), 12)
        };
        if length > MAX_HEADER || before + length > size {
            return Err(fault(RowFileFault::HeaderLength(length)));
        }
        let mut header = Vec::new();
        (&mut file).take(length).read_to_end(&mut header).map_err(QuantizeError::io(path))?;
        let header = String::from_utf8(header).map_err(|_| fault(RowFileFault::Header))?;
        let (element, shape) = parse_npy_header(&header).map_err(fault)?;
        Self::new(path, file, size, before + length, &shape, element)
    }

    /// Opens one two-dimensional tensor of a safetensors file; `None` takes the only tensor there is.
    ///
    /// # Errors
    /// [`QuantizeError::Io`], or [`QuantizeError::RowFile`] with what is wrong with the header.
    pub fn open_safetensors(path: impl AsRef<Path>, name: Option<&str>) -> Result<Self> {
        let path = path.as_ref();
        let fault = |fact| QuantizeError::RowFile { path: path.to_owned(), fact };
        let mut file = File::open(path).map_err(QuantizeError::io(path))?;
        let size = file.metadata().map_err(QuantizeError::io(path))?.len();
        let mut length = [0_u8; 8];
        if size < 8 {
            return Err(fault(RowFileFault::Header));
        }
        file.read_exact(&mut length).map_err(QuantizeError::io(path))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length + 8 > size {
            return Err(fault(RowFileFault::HeaderLength(length)));
        }
        let mut header = Vec::new();
        (&mut file).take(length).read_to_end(&mut header).map_err(QuantizeError::io(path))?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|_| fault(RowFileFault::Header))?;
        let tensors = metadata.tensors();
        let info = match name {
            Some(name) => tensors.get(name).ok_or_else(|| fault(RowFileFault::NoTensor(name.to_owned())))?,
            None if tensors.len() == 1 => {
                tensors.values().next().ok_or_else(|| fault(RowFileFault::NoTensor(String::new())))?
            }
            None => {
                let mut names: Vec<_> = tensors.keys().map(String::as_str).collect();
                names.sort_unstable();
                return Err(fault(RowFileFault::NoTensor(format!("(one of {})", names.join(", ")))));
            }
        };
        let element = match info.dtype {
            Dtype::F32 => Element::F32,
            Dtype::F64 => Element::F64,
            other => return Err(fault(RowFileFault::ElementType(format!("{other:?}")))),
        };
        let data = 8 + length;
        let (begin, end) = info.data_offsets;
        let begin = data.saturating_add(begin as u64);
        let end = data.saturating_add(end as u64);
        if end > size || begin > end {
            return Err(fault(RowFileFault::Length { expected: end, got: size }));
        }
        Self::new(path, file, end, begin, &info.shape, element)
    }

    fn new(path: &Path, file: File, end: u64, data: u64, shape: &[usize], element: Element) -> Result<Self> {
        let fault = |fact| QuantizeError::RowFile { path: path.to_owned(), fact };
        let &[rows, dim] = shape else {
            return Err(fault(RowFileFault::Rank(shape.len())));
        };
        if dim == 0 && rows > 0 {
            return Err(fault(RowFileFault::NoColumns(rows)));
        }
        let expected = (rows as u64)
            .checked_mul(dim as u64)
            .and_then(|count| count.checked_mul(element.bytes() as u64))
            .unwrap_or(u64::MAX);
        let got = end - data;
        if expected != got {
            return Err(fault(RowFileFault::Length { expected, got }));
        }
        Ok(Self { path: path.to_owned(), file, data, rows, dim, element, buffer: Vec::new() })
    }
}

impl RowSource for FileRows {
    fn dim(&self) -> usize {
        self.dim
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn read(&mut self, start: usize, mut out: ArrayViewMut2<'_, f32>) -> Result<()> {
        check_read(self.rows, self.dim, start, &out)?;
        let row = self.dim * self.element.bytes();
        self.buffer.resize(out.nrows() * row, 0);
        self.file
            .seek(SeekFrom::Start(self.data + (start * row) as u64))
            .and_then(|_| self.file.read_exact(&mut self.buffer))
            .map_err(QuantizeError::io(&self.path))?;
        match self.element {
            Element::F32 => {
                for (slot, bytes) in out.iter_mut().zip(self.buffer.as_chunks::<4>().0) {
                    *slot = f32::from_le_bytes(*bytes);
                }
            }
            Element::F64 => {
                for (slot, bytes) in out.iter_mut().zip(self.buffer.as_chunks::<8>().0) {
                    *slot = f64::from_le_bytes(*bytes) as f32;
                }
            }
        }
        Ok(())
    }
}

/// Element type and shape out of a `.npy` header such as
/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }`.
fn parse_npy_header(header: &str) -> Result<(Element, Vec<usize>), RowFileFault> {
    let value = |key: &str| {
        let (_, rest) = header.split_once(key)?;
        let (_, rest) = rest.split_once(':')?;
        Some(rest.trim_start())
    };
    let descr = value("'descr'").ok_or(RowFileFault::Header)?;
    let descr = descr.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).ok_or(RowFileFault::Header)?.0;
    let element = match descr {
        "<f4" => Element::F32,
        "<f8" => Element::F64,
        other => return Err(RowFileFault::ElementType(other.to_owned())),
    };
    let fortran = value("'fortran_order'").ok_or(RowFileFault::Header)?;
    let shape = value("'shape'").ok_or(RowFileFault::Header)?;
    let (shape, _) = shape.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or(RowFileFault::Header)?;
    let shape: Vec<usize> = shape
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().map_err(|_| RowFileFault::Header))
        .collect::<Result<_, _>>()?;
    if shape.len() != 2 {
        return Err(RowFileFault::Rank(shape.len()));
    }
    if fortran.starts_with("True") {
        return Err(RowFileFault::FortranOrder);
    }
    if !fortran.starts_with("False") {
        return Err(RowFileFault::Header);
    }
    Ok((element, shape))
}
