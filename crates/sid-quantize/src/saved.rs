//! A fitted quantiser as two files of one directory: `config.json` and `model.safetensors`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use genrec_kernels::ParamError;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{QuantizeError, QuantizerConfig, Result, RowSource};

/// Version of the format this crate writes and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Room for the safetensors header.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Most levels of a quantiser.
pub(crate) const MAX_LEVELS: usize = 64;
/// Values in all weights together, and columns of a row: 16 GiB of f32.
pub(crate) const MAX_ELEMENTS: usize = 1 << 32;

#[derive(Deserialize)]
struct Versioned {
    format_version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format_version: u32,
    dim: usize,
    /// CRC-32 of the weights' file, so that a half-replaced directory is noticed.
    weights_crc32: u32,
    quantizer: QuantizerConfig,
}

/// Writes both files to temporary names and syncs them, then renames them; the weights first.
pub(crate) fn save(dir: &Path, config: &QuantizerConfig, dim: usize, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    genrec_files::create_dir_all(dir).map_err(QuantizeError::io(dir))?;
    let path = dir.join(WEIGHTS);
    let host: BTreeMap<&String, Tensor> = tensors
        .iter()
        .map(|(name, tensor)| Ok((name, tensor.to_device(&Device::Cpu)?.contiguous()?)))
        .collect::<Result<_>>()?;
    let weights = safetensors::serialize(host, None)
        .map_err(|source| QuantizeError::Safetensors { path: path.clone(), source })?;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        dim,
        weights_crc32: crc32fast::hash(&weights),
        quantizer: config.clone(),
    };
    let config_path = dir.join(CONFIG);
    let mut json = serde_json::to_vec_pretty(&manifest)
        .map_err(|source| QuantizeError::Json { path: config_path.clone(), source })?;
    json.push(b'\n');
    genrec_files::write_all(&[(&path, &weights), (&config_path, &json)])
        .map_err(|(path, source)| QuantizeError::io(path)(source))
}

/// The first half of a SHA-256 of all that is named.
pub(crate) fn fingerprint(
    config: &QuantizerConfig,
    dim: usize,
    codebook_sizes: &[u32],
    tensors: &BTreeMap<String, Tensor>,
) -> Result<[u8; 16]> {
    let mut hash = Sha256::new();
    let number = |hash: &mut Sha256, value: usize| hash.update((value as u64).to_le_bytes());
    number(&mut hash, dim);
    number(&mut hash, codebook_sizes.len());
    codebook_sizes.iter().for_each(|&size| number(&mut hash, size as usize));
    if tensors.is_empty() {
        // Random codes follow from the seed.
        hash.update(serde_json::to_vec(config).map_err(|source| QuantizeError::Json { path: CONFIG.into(), source })?);
    }
    for (name, tensor) in tensors {
        number(&mut hash, name.len());
        hash.update(name);
        number(&mut hash, tensor.rank());
        tensor.dims().iter().for_each(|&axis| number(&mut hash, axis));
        let flat = tensor.flatten_all()?;
        match tensor.dtype() {
            DType::U32 => flat.to_vec1::<u32>()?.iter().for_each(|value| hash.update(value.to_le_bytes())),
            _ => flat.to_dtype(DType::F32)?.to_vec1::<f32>()?.iter().for_each(|value| hash.update(value.to_le_bytes())),
        }
    }
    let mut half = [0; 16];
    half.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    Ok(half)
}

/// A model that a directory can hold.
pub(crate) trait Saved: Sized {
    /// How it is fitted.
    type Config;

    /// The most values that its tensors have together, [`MAX_ELEMENTS`] where the rows of the fit decide and the
    /// configuration allows more; `None` where they cannot be counted.
    fn elements(config: &Self::Config, dim: usize) -> Option<usize>;

    /// Everything but the configuration, by name.
    fn tensors(&self) -> Result<BTreeMap<String, Tensor>>;

    /// From what [`tensors`](Self::tensors) gave; names and shapes are checked here. The configuration is valid.
    fn from_tensors(
        config: Self::Config,
        dim: usize,
        tensors: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self>;
}

/// Values of all shapes together; `None` where that is more than can be counted.
pub(crate) fn count_elements(shapes: &BTreeMap<String, Vec<usize>>) -> Option<usize> {
    shapes.values().try_fold(0_usize, |sum, shape| {
        shape.iter().try_fold(1_usize, |product, &axis| product.checked_mul(axis))?.checked_add(sum)
    })
}

/// What [`load`] finds: the configuration, the width, and the named weights.
pub(crate) type Loaded = (QuantizerConfig, usize, BTreeMap<String, Tensor>);

/// Reads both files. `elements` gives the most values that a configuration and width allow; sizes are bounded before memory
/// is taken, and every tensor's type and values are checked. Names and shapes are the caller's to check.
pub(crate) fn load(
    dir: &Path,
    device: &Device,
    elements: impl Fn(&QuantizerConfig, usize) -> Result<Option<usize>>,
) -> Result<Loaded> {
    let path = dir.join(CONFIG);
    let json = read_bounded(&path, MAX_CONFIG_BYTES)?;
    let fault = |source| QuantizeError::Json { path: path.clone(), source };
    // The version is read first: a later format may have fields this one does not know.
    let Versioned { format_version } = serde_json::from_slice(&json).map_err(fault)?;
    if format_version != u64::from(FORMAT_VERSION) {
        return Err(QuantizeError::FormatVersion { path, found: format_version, supported: FORMAT_VERSION });
    }
    let manifest: Manifest = serde_json::from_slice(&json).map_err(fault)?;
    if manifest.dim == 0 || manifest.dim > MAX_ELEMENTS {
        return Err(QuantizeError::config("dim", manifest.dim, "1 to 2^32 columns are allowed"));
    }
    let elements = elements(&manifest.quantizer, manifest.dim)?
        .filter(|&elements| elements <= MAX_ELEMENTS)
        .ok_or_else(|| QuantizeError::config("dim", manifest.dim, "the weights may have 2^32 values at most"))?;

    let path = dir.join(WEIGHTS);
    let bytes = read_bounded(&path, 4 * elements as u64 + MAX_HEADER_BYTES)?;
    let found = crc32fast::hash(&bytes);
    if found != manifest.weights_crc32 {
        return Err(QuantizeError::Checksum { path, expected: manifest.weights_crc32, found });
    }
    let fault = |source| QuantizeError::Safetensors { path: path.clone(), source };
    let file = SafeTensors::deserialize(&bytes).map_err(fault)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let words = view.data().as_chunks::<4>().0.iter();
        let tensor = match view.dtype() {
            Dtype::F32 => {
                let values: Vec<f32> = words.map(|bytes| f32::from_le_bytes(*bytes)).collect();
                if values.iter().any(|value| !value.is_finite()) {
                    return Err(ParamError::NotFinite { name }.into());
                }
                Tensor::from_vec(values, view.shape(), device)?
            }
            Dtype::U32 => {
                let values: Vec<u32> = words.map(|bytes| u32::from_le_bytes(*bytes)).collect();
                Tensor::from_vec(values, view.shape(), device)?
            }
            other => return Err(tensor_type(name, other, "f32 or u32")),
        };
        tensors.insert(name, tensor);
    }
    Ok((manifest.quantizer, manifest.dim, tensors))
}

fn tensor_type(name: String, got: impl std::fmt::Debug, expected: &'static str) -> QuantizeError {
    QuantizeError::TensorType { name, got: format!("{got:?}"), expected }
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(QuantizeError::io(path))?;
    let size = file.metadata().map_err(QuantizeError::io(path))?.len();
    if size > limit {
        return Err(QuantizeError::FileSize { path: path.to_owned(), size, limit });
    }
    let mut bytes = Vec::new();
    // A file that grows while it is read does not take more memory than it may.
    file.take(limit).read_to_end(&mut bytes).map_err(QuantizeError::io(path))?;
    Ok(bytes)
}

/// Checks that there are exactly the tensors wanted, in their shapes.
pub(crate) fn expect_shapes(
    tensors: &BTreeMap<String, Tensor>,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> Result<(), ParamError> {
    if let Some(name) = tensors.keys().find(|name| !shapes.contains_key(*name)) {
        return Err(ParamError::Unexpected { name: name.clone() });
    }
    for (name, expected) in shapes {
        let tensor = tensors.get(name).ok_or_else(|| ParamError::Missing { name: name.clone() })?;
        if tensor.dims() != expected {
            return Err(ParamError::Shape {
                name: name.clone(),
                expected: expected.clone(),
                got: tensor.dims().to_vec(),
            });
        }
    }
    Ok(())
}

/// The f32 tensors of exactly these names and shapes, on the device.
pub(crate) fn matrices(
    tensors: &BTreeMap<String, Tensor>,
    shapes: &BTreeMap<String, Vec<usize>>,
    device: &Device,
) -> Result<BTreeMap<String, Tensor>> {
    expect_shapes(tensors, shapes)?;
    shapes.keys().map(|name| matrix(tensors, name, device).map(|value| (name.clone(), value))).collect()
}

/// The f32 tensor of that name, on the device.
pub(crate) fn matrix(tensors: &BTreeMap<String, Tensor>, name: &str, device: &Device) -> Result<Tensor> {
    let tensor = tensors.get(name).ok_or_else(|| ParamError::Missing { name: name.to_owned() })?;
    if tensor.dtype() != DType::F32 {
        return Err(tensor_type(name.to_owned(), tensor.dtype(), "f32"));
    }
    Ok(tensor.to_device(device)?.contiguous()?)
}

/// The u32 tensor of that name, which has one axis.
pub(crate) fn offsets(tensors: &BTreeMap<String, Tensor>, name: &str) -> Result<Vec<u32>> {
    let tensor = tensors.get(name).ok_or_else(|| ParamError::Missing { name: name.to_owned() })?;
    if tensor.dtype() != DType::U32 {
        return Err(tensor_type(name.to_owned(), tensor.dtype(), "u32"));
    }
    Ok(tensor.to_vec1()?)
}

/// Bounds of the codebooks: 1 to 64 levels of 1 to 2^20 codes.
pub(crate) fn check_sizes(sizes: &[u32]) -> Result<()> {
    if sizes.is_empty() || sizes.len() > MAX_LEVELS {
        return Err(QuantizeError::config(
            "codebook_sizes",
            format!("a list of {}", sizes.len()),
            "1 to 64 levels are allowed",
        ));
    }
    match sizes.iter().find(|&&size| size == 0 || size > 1 << 20) {
        Some(&size) => Err(QuantizeError::config("codebook_sizes", size, "each level may have 1 to 1048576 codes")),
        None => Ok(()),
    }
}

/// Checks that there are a column and as many rows as the largest codebook has codes.
pub(crate) fn check_rows(xs: &dyn RowSource, sizes: &[u32]) -> Result<()> {
    let (rows, codes) = (xs.len(), sizes.iter().copied().max().unwrap_or(0) as usize);
    if rows < codes {
        return Err(QuantizeError::TooFewRows { rows, codes });
    }
    if xs.dim() == 0 {
        return Err(QuantizeError::DimMismatch { expected: 1, got: 0 });
    }
    if u32::try_from(rows).is_err() {
        return Err(QuantizeError::TooManyRows { rows });
    }
    Ok(())
}
