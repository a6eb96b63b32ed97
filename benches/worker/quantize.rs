//! Fitting and applying quantisers.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

use genrec::{
    kernels::{
        nearest::{Codebook, residual_codes},
        simhash::SimHash,
    },
    quantize::{
        AnyQuantizer, ArrayRows, EpochReport, FileRows, Fit, FitControl, Quantizer, QuantizerConfig,
        ResidualKMeansConfig, RowSource, RqVaeConfig, usage::reconstruction_error,
    },
};
use ndarray::Array2;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::BoxError;

/// Reads a matrix once; later requests name it.
#[derive(Debug, Deserialize)]
pub(crate) struct Rows {
    name: String,
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct KMeans {
    rows: String,
    codes: u32,
    iterations: usize,
    seed: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Encode {
    rows: String,
    /// Names of codebooks, one a level.
    codebooks: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Hash {
    rows: String,
    normals: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RqVaeFit {
    rows: String,
    epochs: usize,
    /// Where the fitted quantiser goes.
    out: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RqVaeEncode {
    rows: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Errors {
    rows: String,
    config: QuantizerConfig,
}

/// The matrices read so far, and the last quantiser.
#[derive(Default)]
pub(crate) struct Store {
    rows: std::collections::HashMap<String, Array2<f32>>,
    quantizer: Option<AnyQuantizer>,
}

fn read(path: &Path) -> Result<Array2<f32>, BoxError> {
    let mut source = FileRows::open_npy(path)?;
    let mut rows = Array2::zeros((source.len(), source.dim()));
    source.read(0, rows.view_mut())?;
    Ok(rows)
}

/// The seconds at which epochs ended.
struct Clock {
    start: Instant,
    ends: Vec<f64>,
    last: f64,
}

impl Clock {
    fn new() -> Self {
        Self { start: Instant::now(), ends: Vec::new(), last: 0.0 }
    }
}

impl FitControl for Clock {
    fn on_epoch(&mut self, epoch: &EpochReport) -> ControlFlow<()> {
        self.ends.push(self.start.elapsed().as_secs_f64());
        self.last = epoch.reconstruction;
        ControlFlow::Continue(())
    }
}

impl Store {
    pub(crate) fn read(&mut self, request: Rows) -> Result<Value, BoxError> {
        let rows = read(&request.path)?;
        let shape = rows.dim();
        self.rows.insert(request.name, rows);
        Ok(json!({ "rows": shape.0, "dim": shape.1 }))
    }

    fn get(&self, name: &str) -> Result<&Array2<f32>, BoxError> {
        self.rows.get(name).ok_or_else(|| format!("no rows are called {name}").into())
    }

    fn flat(&self, name: &str) -> Result<&[f32], BoxError> {
        Ok(self.get(name)?.as_slice().ok_or("rows lie one after another")?)
    }

    pub(crate) fn kmeans(&self, request: &KMeans) -> Result<Value, BoxError> {
        let rows = self.get(&request.rows)?;
        let config = ResidualKMeansConfig::default()
            .with_codebook_sizes([request.codes])
            .with_iterations(request.iterations)
            .with_tolerance(0.0)
            .with_init(genrec::quantize::KMeansInit::Points)
            .with_seed(request.seed);
        let mut clock = Clock::new();
        config.fit_with(&mut ArrayRows::from(rows.view()), &mut clock)?;
        let seconds = clock.start.elapsed().as_secs_f64();
        Ok(json!({ "seconds": seconds, "inertia": clock.last, "iterations": clock.ends.len() }))
    }

    /// How far the rows are from what the codes of a quantiser fitted on them stand for.
    pub(crate) fn errors(&self, request: &Errors) -> Result<Value, BoxError> {
        let mut rows = ArrayRows::from(self.get(&request.rows)?.view());
        let start = Instant::now();
        let model = request.config.fit(&mut rows)?;
        let seconds = start.elapsed().as_secs_f64();
        let model = model.as_reconstruct().ok_or("codes of this quantiser stand for no embedding")?;
        let error = reconstruction_error(model, &mut rows)?.mean_squared;
        Ok(json!({ "seconds": seconds, "mean_squared": error }))
    }

    pub(crate) fn encode(&self, request: &Encode) -> Result<Value, BoxError> {
        let rows = self.get(&request.rows)?;
        let books =
            request.codebooks.iter().map(|name| Ok(self.get(name)?.view())).collect::<Result<Vec<_>, BoxError>>()?;
        let mut codes = vec![0; rows.nrows() * books.len()];
        let start = Instant::now();
        let books = books
            .iter()
            .map(|book| Ok(Codebook::new(book.as_slice().ok_or("rows lie one after another")?, book.ncols())?))
            .collect::<Result<Vec<_>, BoxError>>()?;
        residual_codes(self.flat(&request.rows)?, &books, &mut codes)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(json!({ "seconds": seconds, "codes": &codes[..codes.len().min(3000)] }))
    }

    pub(crate) fn hash(&self, request: &Hash) -> Result<Value, BoxError> {
        let (rows, normals) = (self.get(&request.rows)?, self.get(&request.normals)?);
        let start = Instant::now();
        let hash = SimHash::new(self.flat(&request.normals)?, normals.ncols())?;
        let mut words = vec![0; rows.nrows() * hash.words()];
        hash.hash(self.flat(&request.rows)?, &mut words)?;
        let seconds = start.elapsed().as_secs_f64();
        let first: Vec<String> = words[..words.len().min(1000)].iter().map(u64::to_string).collect();
        Ok(json!({ "seconds": seconds, "words": first }))
    }

    pub(crate) fn rqvae_fit(&mut self, request: &RqVaeFit) -> Result<Value, BoxError> {
        // All epochs alike: codes from the first, at one rate.
        let config =
            RqVaeConfig::default().with_epochs(request.epochs).with_autoencoder_share(0.0).with_patience(None, 0.0);
        let rows = self.get(&request.rows)?;
        let mut clock = Clock::new();
        let model = QuantizerConfig::from(config).fit_with(&mut ArrayRows::from(rows.view()), &mut clock)?;
        let epochs: Vec<f64> = clock.ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
        if let Some(out) = &request.out {
            model.save(out)?;
        }
        self.quantizer = Some(model);
        Ok(json!({ "epochs": epochs, "reconstruction": clock.last }))
    }

    pub(crate) fn rqvae_encode(&self, request: &RqVaeEncode) -> Result<Value, BoxError> {
        let quantizer = self.quantizer.as_ref().ok_or("rqvae-fit comes first")?;
        let rows = self.get(&request.rows)?;
        let start = Instant::now();
        let codes = quantizer.encode_array(rows.view(), 1024)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(json!({ "seconds": seconds, "codes": codes.iter().take(3000).collect::<Vec<_>>() }))
    }
}
