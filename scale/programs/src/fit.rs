//! A quantiser fitted on a sample of embeddings in Parquet.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use ndarray::{Array2, s};
use sid_quantize::{
    AnyQuantizer, ArrayRows, Fit, ParquetRows, QuantizerConfig, ResidualKMeansConfig, RowSource, RqVaeConfig,
};

use crate::BoxError;

/// Which quantiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Residual k-means.
    ResidualKMeans,
    /// The RQ-VAE, with its default layers.
    RqVae,
}

/// What to fit on.
#[derive(Debug, Clone, clap::Args)]
pub struct Sample {
    /// Parquet file, or directory of Parquet files, with a column of embeddings.
    #[arg(long)]
    pub input: PathBuf,
    /// Column of embeddings; the only one of lists of floats otherwise.
    #[arg(long)]
    pub embedding: Option<String>,
    /// Rows to fit on: the first ones of each file, as many of each.
    #[arg(long, default_value_t = 100_000)]
    pub rows: usize,
    /// The quantiser.
    #[arg(long, value_enum, default_value_t = Method::ResidualKMeans)]
    pub method: Method,
    /// Codes of each level.
    #[arg(long, value_delimiter = ',', default_values_t = [256, 256, 256])]
    pub codebooks: Vec<u32>,
    /// Every random choice derives from it.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Passes over the sample; the method's own number otherwise.
    #[arg(long)]
    pub epochs: Option<usize>,
}

impl Sample {
    /// Reads the sample and fits.
    ///
    /// # Errors
    /// When a file cannot be read or the fit fails.
    pub fn fit(&self) -> Result<AnyQuantizer, BoxError> {
        let rows = self.read()?;
        let mut config = match self.method {
            Method::ResidualKMeans => {
                QuantizerConfig::from(ResidualKMeansConfig::default().with_codebook_sizes(self.codebooks.clone()))
            }
            Method::RqVae => QuantizerConfig::from(RqVaeConfig::default().with_codebook_sizes(self.codebooks.clone())),
        };
        if let (QuantizerConfig::RqVae(config), Some(epochs)) = (&mut config, self.epochs) {
            config.epochs = Some(epochs);
        }
        if let (QuantizerConfig::ResidualKMeans(config), Some(epochs)) = (&mut config, self.epochs) {
            config.iterations = epochs;
        }
        Ok(config.with_seed(self.seed).fit(&mut ArrayRows::from(rows))?)
    }

    fn read(&self) -> Result<Array2<f32>, BoxError> {
        let files = files(&self.input)?;
        let mut all = Vec::new();
        let mut width = 0;
        for file in &files {
            let mut rows = ParquetRows::open(file, self.embedding.as_deref())?;
            let take = self.rows.div_ceil(files.len()).min(rows.len());
            let mut block = Array2::zeros((take, rows.dim()));
            rows.read(0, block.slice_mut(s![.., ..]))?;
            if width != 0 && width != rows.dim() {
                let (file, got) = (file.display(), rows.dim());
                return Err(format!("`{file}` has embeddings of {got} values, the files before it of {width}").into());
            }
            width = rows.dim();
            all.extend(block);
        }
        Ok(Array2::from_shape_vec((all.len() / width.max(1), width), all)?)
    }
}

/// A Parquet file, or those of a directory in the order of their names.
///
/// # Errors
/// When the directory cannot be read or has none.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, BoxError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    let mut files = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "parquet"));
    files.sort();
    if files.is_empty() {
        let sids = path.join("sids");
        let remedy = if sids.is_dir() { format!("; did you mean `{}`?", sids.display()) } else { String::new() };
        return Err(format!("`{}` has no file that ends in .parquet{remedy}", path.display()).into());
    }
    Ok(files)
}
