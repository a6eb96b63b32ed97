//! `index.safetensors`: the arrays of an index, each a tensor of U64.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

use super::{
    description::{Description, description_error},
    files::io_error,
};
use crate::{
    error::{IndexError, Result},
    packed::{Words, map_file},
};

pub(super) const PAYLOAD: &str = "index.safetensors";
pub(super) const NEXT_PAYLOAD: &str = "index.safetensors.next";
/// Name of the header's field that ties it to its data.
const DATA_CRC32: &str = "data_crc32";
/// Some hundred bytes for each array of the longest layout.
const MAX_HEADER: u64 = 1 << 18;
/// Bytes of a safetensors file before its header.
const LENGTH_BYTES: u64 = 8;

/// An open payload whose header is the one described.
pub(super) struct Payload {
    path: PathBuf,
    file: File,
    /// Where the data begin.
    start: u64,
    /// First byte and number of words of each array, by name.
    arrays: BTreeMap<String, (u64, u64)>,
    data_bytes: u64,
    data_crc32: u32,
}

impl Payload {
    /// Writes a payload to the disk and completes its description.
    pub(super) fn write(description: &mut Description, arrays: &[(String, &[u64])], path: &Path) -> Result<()> {
        let bytes: BTreeMap<&str, Vec<u8>>;
        let mut views: Vec<(&str, &[u8], usize)> = Vec::new();
        if cfg!(target_endian = "big") {
            let swapped = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes = arrays.iter().map(|(name, words)| (name.as_str(), swapped(words))).collect();
            views.extend(bytes.iter().map(|(name, bytes)| (*name, bytes.as_slice(), bytes.len() / 8)));
        } else {
            views.extend(arrays.iter().map(|(name, words)| (name.as_str(), bytemuck::cast_slice(words), words.len())));
        }
        // The order in which safetensors lays out tensors of one type.
        views.sort_unstable_by_key(|(name, ..)| *name);
        let mut hasher = crc32fast::Hasher::new();
        views.iter().for_each(|(_, bytes, _)| hasher.update(bytes));
        description.data_crc32 = hasher.finalize();
        let header = header(&views, description.data_crc32, path)?;
        description.header_crc32 = crc32fast::hash(&header);
        description.payload_bytes =
            header.len() as u64 + views.iter().map(|(_, bytes, _)| bytes.len() as u64).sum::<u64>();
        let fill = |file: &mut BufWriter<File>| {
            file.write_all(&header)?;
            views.iter().try_for_each(|(_, bytes, _)| file.write_all(bytes))
        };
        genrec_files::write_with(path, fill).map_err(io_error("write", path))
    }

    /// Opens a file and checks its header against the description.
    pub(super) fn open(path: &Path, description: &Description) -> Result<Self> {
        let mut file = File::open(path).map_err(io_error("read", path))?;
        let got = file.metadata().map_err(io_error("read", path))?.len();
        if got != description.payload_bytes {
            return Err(IndexError::FileSize { path: path.to_owned(), expected: description.payload_bytes, got });
        }
        let header = read_header(&mut file, got, path)?;
        let checksum = crc32fast::hash(&header);
        if checksum != description.header_crc32 {
            let expected = description.header_crc32;
            return Err(IndexError::Checksum { path: path.to_owned(), expected, got: checksum });
        }
        let (start, json) = (header.len() as u64, &header[LENGTH_BYTES as usize..]);
        let metadata: Metadata = serde_json::from_slice(json).map_err(description_error(path))?;
        let wrong = |what| IndexError::Contradiction { path: path.to_owned(), what };
        let tie = metadata.metadata().as_ref().and_then(|fields| fields.get(DATA_CRC32));
        if tie.is_none_or(|tie| *tie != format!("{:08x}", description.data_crc32)) {
            return Err(wrong("its header belongs to other data"));
        }
        let mut tensors = metadata.tensors();
        let (mut arrays, mut data_bytes) = (BTreeMap::new(), 0);
        for (name, words) in description.arrays() {
            let Some(tensor) = tensors.remove(&name) else {
                return Err(wrong("an array is missing from its header"));
            };
            let (first, end) = tensor.data_offsets;
            let shape = [words as usize];
            if tensor.dtype != Dtype::U64 || tensor.shape != shape || (end - first) as u64 != words * 8 {
                let found = format!("{:?} of shape {:?}", tensor.dtype, tensor.shape);
                let expected = format!("U64 of shape {shape:?}");
                return Err(IndexError::Tensor { path: path.to_owned(), name, expected, found });
            }
            data_bytes += words * 8;
            arrays.insert(name, (start + first as u64, words));
        }
        if !tensors.is_empty() {
            return Err(wrong("its header names an array that an index of this description does not have"));
        }
        if start + data_bytes != got {
            return Err(wrong("its arrays do not fill the file"));
        }
        if !start.is_multiple_of(8) {
            return Err(wrong("its arrays do not begin where a word may"));
        }
        Ok(Self { path: path.to_owned(), file, start, arrays, data_bytes, data_crc32: description.data_crc32 })
    }

    /// Checks the data against their checksum.
    pub(super) fn check_data(&self) -> Result<()> {
        let failed = io_error("read", &self.path);
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; self.data_bytes.min(1 << 18) as usize];
        let mut read = || -> std::io::Result<()> {
            let mut file = &self.file;
            file.seek(SeekFrom::Start(self.start))?;
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(length) => hasher.update(buffer.get(..length).unwrap_or_default()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        };
        read().map_err(failed)?;
        self.check_crc(hasher.finalize())
    }

    fn check_crc(&self, got: u32) -> Result<()> {
        match got == self.data_crc32 {
            true => Ok(()),
            false => Err(IndexError::Checksum { path: self.path.clone(), expected: self.data_crc32, got }),
        }
    }

    /// All arrays in memory, after their checksum was found right.
    pub(super) fn read(&self) -> Result<BTreeMap<String, Vec<u64>>> {
        let mut in_order: Vec<_> = self.arrays.iter().collect();
        in_order.sort_unstable_by_key(|(_, (first, _))| *first);
        let mut hasher = crc32fast::Hasher::new();
        let mut arrays = BTreeMap::new();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.start)).map_err(io_error("read", &self.path))?;
        for (name, &(_, words)) in in_order {
            // No more than the file holds, as was checked.
            let mut array = vec![0_u64; words as usize];
            file.read_exact(bytemuck::cast_slice_mut(&mut array)).map_err(io_error("read", &self.path))?;
            hasher.update(bytemuck::cast_slice(&array));
            if cfg!(target_endian = "big") {
                array.iter_mut().for_each(|word| *word = u64::from_le(*word));
            }
            arrays.insert(name.clone(), array);
        }
        self.check_crc(hasher.finalize())?;
        Ok(arrays)
    }

    /// All arrays where they are in the file.
    pub(super) fn map(&self) -> Result<BTreeMap<String, Words>> {
        if self.data_bytes == 0 {
            return Ok(BTreeMap::new());
        }
        let file = Arc::new(map_file(&self.file).map_err(io_error("map", &self.path))?);
        let mapped = |&(first, words): &(u64, u64)| Words::Mapped {
            file: Arc::clone(&file),
            bytes: first as usize..(first + words * 8) as usize,
        };
        Ok(self.arrays.iter().map(|(name, place)| (name.clone(), mapped(place))).collect())
    }
}

/// The header of a safetensors file of these arrays, and the length before it.
fn header(views: &[(&str, &[u8], usize)], data_crc32: u32, path: &Path) -> Result<Vec<u8>> {
    let mut end = 0;
    let tensors = views.iter().map(|&(name, bytes, words)| {
        let start = end;
        end += bytes.len();
        (name.to_owned(), TensorInfo { dtype: Dtype::U64, shape: vec![words], data_offsets: (start, end) })
    });
    let fields = HashMap::from([(DATA_CRC32.to_owned(), format!("{data_crc32:08x}"))]);
    let metadata = Metadata::new(Some(fields), tensors.collect()).map_err(payload_error(path))?;
    let mut json = serde_json::to_vec(&metadata).map_err(description_error(path))?;
    // The data are words, and stand where words may be mapped.
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes()[..], &json].concat())
}

/// The header of a safetensors file and the length before it.
fn read_header(file: &mut File, file_bytes: u64, path: &Path) -> Result<Vec<u8>> {
    let mut length = [0; LENGTH_BYTES as usize];
    file.seek(SeekFrom::Start(0)).map_err(io_error("read", path))?;
    file.read_exact(&mut length).map_err(io_error("read", path))?;
    let most = file_bytes.saturating_sub(LENGTH_BYTES).min(MAX_HEADER);
    let got = u64::from_le_bytes(length);
    if got > most {
        let what = "its header is longer than the file, or than any header of an index";
        return Err(IndexError::Contradiction { path: path.to_owned(), what });
    }
    let mut header = vec![0; (LENGTH_BYTES + got) as usize];
    file.seek(SeekFrom::Start(0)).map_err(io_error("read", path))?;
    file.read_exact(&mut header).map_err(io_error("read", path))?;
    Ok(header)
}

pub(super) fn payload_error(path: &Path) -> impl Fn(safetensors::SafeTensorError) -> IndexError + '_ {
    |source| IndexError::Payload { path: path.to_owned(), source }
}
