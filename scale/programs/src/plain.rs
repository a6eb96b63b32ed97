//! The yardstick: the same files through `sid-quantize` alone, block by block, without DataFusion.

use std::path::{Path, PathBuf};

use candle_core::Device;
use ndarray::{Array2, s};
use sid_quantize::{AnyQuantizer, ParquetRows, Quantizer, RowSource};

use crate::{BoxError, fit::files};

/// Rows of a block.
const BATCH: usize = 8192;

/// Encodes all files and hands each block's codes on; returns the number of rows.
///
/// # Errors
/// When a file cannot be read or a row cannot be encoded.
pub fn encode(
    quantizer: &Path,
    input: &Path,
    column: Option<&str>,
    mut take: impl FnMut(&Array2<u32>),
) -> Result<usize, BoxError> {
    let quantizer = AnyQuantizer::load(quantizer, &Device::Cpu)?;
    let mut block = Array2::zeros((BATCH, quantizer.dim()));
    let mut all = 0;
    for file in files(input)? {
        let mut rows = ParquetRows::open(file, column)?;
        let mut at = 0;
        while at < rows.len() {
            let count = BATCH.min(rows.len() - at);
            let mut block = block.slice_mut(s![..count, ..]);
            rows.read(at, block.view_mut())?;
            take(&quantizer.encode_array(block.view(), BATCH)?);
            at += count;
        }
        all += at;
    }
    Ok(all)
}

/// What to encode.
#[derive(Debug, Clone, clap::Args)]
pub struct Job {
    /// Directory of a saved quantiser.
    #[arg(long)]
    pub quantizer: PathBuf,
    /// Parquet file, or directory of Parquet files.
    #[arg(long)]
    pub input: PathBuf,
    /// Column of embeddings; the only one of lists of floats otherwise.
    #[arg(long)]
    pub embedding: Option<String>,
}
