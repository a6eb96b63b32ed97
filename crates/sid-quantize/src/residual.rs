//! Residual k-means: one k-means a level, each on what the levels before it leave.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use candle_core::{Device, Result as TensorResult, Tensor};
use genrec_kernels::CounterRng;
use ndarray::{Array2, ArrayViewMut2};
use serde::{Deserialize, Serialize};

use crate::codebook::{check_input, decode_residual, encode_residual, to_tensor};
use crate::encoder::{HostEncoder, LazyEncoder, on_host};
use crate::kmeans::{KMeansInit, Lloyd};
use crate::saved::{check_sizes, expect_shapes, matrix};
use crate::standardize::{self, Standardizer};
use crate::usage::scan;
use crate::{EpochReport, Fit, FitControl, QuantizeError, Quantizer, Reconstruct, Result, RowSource};

/// How [`ResidualKMeans`] is fitted.
///
/// ```
/// use ndarray::Array2;
/// use sid_quantize::{ArrayRows, Fit, Quantizer, ResidualKMeansConfig};
///
/// let embeddings = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
/// let config = ResidualKMeansConfig::default().with_codebook_sizes([8, 8]);
/// let quantizer = config.fit(&mut ArrayRows::from(embeddings.view()))?;
/// let codes = quantizer.encode_array(embeddings.view(), 32)?;
/// assert_eq!(codes.dim(), (64, 2));
/// # Ok::<(), sid_quantize::QuantizeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ResidualKMeansConfig {
    /// Codes in each level's codebook; three levels of 256, TIGER's size, by default.
    pub codebook_sizes: Vec<u32>,
    /// Most Lloyd iterations a level; 100 by default.
    pub iterations: usize,
    /// A level ends when an iteration lowers the mean squared distance by no more than this share of it; 1e-5 by
    /// default, 0 to go on until no row changes its cluster.
    pub tolerance: f64,
    /// Rows drawn anew for each iteration (mini-batch k-means, Sculley 2010), for so many rows that a pass over all of them is
    /// dear; an iteration is then far cheaper and the centroids a little worse. All rows by default.
    pub batch_rows: Option<usize>,
    /// How the first centroids are chosen; k-means++ by default.
    pub init: KMeansInit,
    /// Rows drawn to choose the first centroids from; 65,536 by default, and never fewer than the codes.
    pub init_rows: usize,
    /// Whether each feature is brought to mean 0 and deviation 1 first; off by default: sentence embeddings have one
    /// scale already, and equal weight for weak features only adds noise to the distances.
    pub standardize: bool,
    /// Seed of every random choice; 0 by default.
    pub seed: u64,
}

impl Default for ResidualKMeansConfig {
    fn default() -> Self {
        Self {
            codebook_sizes: vec![256; 3],
            iterations: 100,
            tolerance: 1e-5,
            batch_rows: None,
            init: KMeansInit::PlusPlus,
            init_rows: 65_536,
            standardize: false,
            seed: 0,
        }
    }
}

impl ResidualKMeansConfig {
    /// Sets the codes of each level's codebook.
    #[must_use]
    pub fn with_codebook_sizes(mut self, sizes: impl Into<Vec<u32>>) -> Self {
        self.codebook_sizes = sizes.into();
        self
    }

    /// Sets the most Lloyd iterations a level.
    #[must_use]
    pub fn with_iterations(mut self, iterations: usize) -> Self {
        self.iterations = iterations;
        self
    }

    /// Sets the share of improvement at which a level ends.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Sets the rows drawn for each iteration, or takes all of them.
    #[must_use]
    pub fn with_batch_rows(mut self, batch_rows: Option<usize>) -> Self {
        self.batch_rows = batch_rows;
        self
    }

    /// Sets how the first centroids are chosen.
    #[must_use]
    pub fn with_init(mut self, init: KMeansInit) -> Self {
        self.init = init;
        self
    }

    /// Sets the number of rows the first centroids are chosen from.
    #[must_use]
    pub fn with_init_rows(mut self, init_rows: usize) -> Self {
        self.init_rows = init_rows;
        self
    }

    /// Turns standardisation of the features on or off.
    #[must_use]
    pub fn with_standardize(mut self, standardize: bool) -> Self {
        self.standardize = standardize;
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`QuantizeError::InvalidConfig`] names the first field out of its bounds.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&self.codebook_sizes)?;
        if self.iterations == 0 {
            return Err(QuantizeError::config("iterations", 0, "at least 1 is needed"));
        }
        let largest = self.codebook_sizes.iter().copied().max().unwrap_or(0) as usize;
        if let Some(rows) = self.batch_rows.filter(|rows| *rows < largest) {
            return Err(QuantizeError::config("batch_rows", rows, "a batch needs a row for each code of a level"));
        }
        if !(self.tolerance >= 0.0 && self.tolerance < 1.0) {
            return Err(QuantizeError::config("tolerance", self.tolerance, "it must lie in 0..1"));
        }
        Ok(())
    }

    fn epochs(&self) -> usize {
        self.iterations.saturating_mul(self.codebook_sizes.len())
    }
}

/// Residual quantisation by k-means, with no encoder: level `d` holds the centroids of the residuals `r_d`,
/// `r_0 = x`, `r_{d+1} = r_d - e_{d,c_d}`, and a row takes the nearest centroid at every level.
///
/// It needs no training beyond Lloyd's iterations and, on sentence embeddings, is a strong rival of the RQ-VAE; OneRec
/// builds its Semantic IDs so (Deng et al. 2025, arXiv 2502.18965).
#[derive(Clone, Debug)]
pub struct ResidualKMeans {
    config: ResidualKMeansConfig,
    dim: usize,
    codebooks: Vec<Tensor>,
    standardizer: Option<Standardizer>,
    device: Device,
    encoder: LazyEncoder,
}

impl ResidualKMeans {
    fn new(
        config: ResidualKMeansConfig,
        dim: usize,
        codebooks: Vec<Tensor>,
        standardizer: Option<Standardizer>,
        device: &Device,
    ) -> Self {
        Self { config, dim, codebooks, standardizer, device: device.clone(), encoder: LazyEncoder::default() }
    }

    fn host_encoder(&self) -> TensorResult<&HostEncoder> {
        self.encoder.get(|| HostEncoder::new(self.dim, self.standardizer.as_ref(), [], &self.codebooks))
    }

    /// The configuration it was fitted with.
    pub fn config(&self) -> &ResidualKMeansConfig {
        &self.config
    }

    /// The centroids of each level, coarse to fine, in the units of the (possibly standardised) features.
    ///
    /// # Shapes
    /// - each: `(codes, dim)`, f32
    pub fn codebooks(&self) -> &[Tensor] {
        &self.codebooks
    }

    pub(crate) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors: BTreeMap<_, _> =
            self.codebooks.iter().enumerate().map(|(level, book)| (codebook_name(level), book.clone())).collect();
        if let Some(standardizer) = &self.standardizer {
            standardizer.tensors(&mut tensors);
        }
        tensors
    }

    pub(crate) fn shapes(config: &ResidualKMeansConfig, dim: usize) -> BTreeMap<String, Vec<usize>> {
        let mut shapes: BTreeMap<_, _> = config
            .codebook_sizes
            .iter()
            .enumerate()
            .map(|(level, &size)| (codebook_name(level), vec![size as usize, dim]))
            .collect();
        if config.standardize {
            shapes.insert(standardize::MEAN.to_owned(), vec![1, dim]);
            shapes.insert(standardize::DEVIATION.to_owned(), vec![1, dim]);
        }
        shapes
    }

    pub(crate) fn from_tensors(
        config: ResidualKMeansConfig,
        dim: usize,
        tensors: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        config.validate()?;
        expect_shapes(tensors, &Self::shapes(&config, dim))?;
        let codebooks = (0..config.codebook_sizes.len())
            .map(|level| matrix(tensors, &codebook_name(level), device))
            .collect::<Result<_>>()?;
        let standardizer = if config.standardize { Some(Standardizer::load(tensors, device)?) } else { None };
        Ok(Self::new(config, dim, codebooks, standardizer, device))
    }
}

pub(crate) fn codebook_name(level: usize) -> String {
    format!("codebooks.{level}")
}

impl Quantizer for ResidualKMeans {
    fn dim(&self) -> usize {
        self.dim
    }

    fn codebook_sizes(&self) -> &[u32] {
        &self.config.codebook_sizes
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn encode(&self, xs: &Tensor) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        if on_host(&self.device, xs) {
            return self.host_encoder()?.encode_tensor(xs);
        }
        match &self.standardizer {
            Some(standardizer) => encode_residual(&standardizer.apply(xs)?, &self.codebooks),
            None => encode_residual(xs, &self.codebooks),
        }
    }

    fn encode_slice(&self, xs: &[f32], codes: &mut [u32]) -> TensorResult<bool> {
        if !self.device.is_cpu() {
            return Ok(false);
        }
        self.host_encoder()?.encode(xs, codes)?;
        Ok(true)
    }
}

impl Reconstruct for ResidualKMeans {
    fn reconstruct(&self, codes: &Tensor) -> TensorResult<Tensor> {
        let books: Vec<&Tensor> = self.codebooks.iter().collect();
        let sum = decode_residual(codes, &books)?;
        match &self.standardizer {
            Some(standardizer) => standardizer.invert(&sum),
            None => Ok(sum),
        }
    }
}

impl Fit for ResidualKMeansConfig {
    type Model = ResidualKMeans;

    fn fit_on(&self, xs: &mut dyn RowSource, device: &Device, ctl: &mut dyn FitControl) -> Result<ResidualKMeans> {
        self.validate()?;
        let (rows, dim) = (xs.len(), xs.dim());
        let largest = self.codebook_sizes.iter().copied().max().unwrap_or(0) as usize;
        if rows < largest {
            return Err(QuantizeError::TooFewRows { rows, codes: largest });
        }
        if dim == 0 {
            return Err(QuantizeError::DimMismatch { expected: 1, got: 0 });
        }
        // Rows are checked here once; the passes below would only repeat it on residuals.
        let standardizer = if self.standardize {
            Some(Standardizer::fit(xs, device)?)
        } else {
            scan(dim, xs, |_, _| Ok(()))?;
            None
        };
        let rng = CounterRng::new(self.seed).named("residual k-means");
        let mut residuals = Residuals { source: xs, standardizer: standardizer.as_ref(), levels: Vec::new() };
        let mut done = 0;
        let mut stopped = false;
        for (level, &size) in self.codebook_sizes.iter().enumerate() {
            let lloyd = Lloyd {
                codes: size as usize,
                // A fit that was ended keeps valid codebooks for the levels left: their first centroids, moved once.
                iterations: if stopped { 1 } else { self.iterations },
                tolerance: self.tolerance,
                batch: self.batch_rows,
                init: self.init,
                init_rows: self.init_rows,
                rng: rng.stream(level as u64),
            };
            let clusters = lloyd.run(&mut residuals, device, &mut |step| {
                done += 1;
                if stopped {
                    return ControlFlow::Break(());
                }
                let report = EpochReport {
                    epoch: done,
                    epochs: self.epochs(),
                    level: Some(level),
                    loss: step.inertia,
                    reconstruction: step.inertia,
                    used: vec![step.used],
                    restarted: step.reseeded,
                };
                let flow = ctl.on_epoch(&report);
                stopped = flow.is_break();
                flow
            })?;
            tracing::debug!(level, size, "fitted a level by k-means");
            residuals.levels.push((clusters.centroids, clusters.codes));
        }
        let codebooks = residuals
            .levels
            .iter()
            .map(|(centroids, _)| to_tensor(centroids.view(), device))
            .collect::<TensorResult<_>>()?;
        Ok(ResidualKMeans::new(self.clone(), dim, codebooks, standardizer, device))
    }
}

/// The rows that the levels so far leave, computed as they are read.
struct Residuals<'a> {
    source: &'a mut dyn RowSource,
    standardizer: Option<&'a Standardizer>,
    levels: Vec<(Array2<f32>, Vec<u32>)>,
}

impl Residuals<'_> {
    fn subtract(&self, rows: impl Iterator<Item = usize>, mut out: ArrayViewMut2<'_, f32>) {
        if let Some(standardizer) = self.standardizer {
            standardizer.apply_host(out.view_mut());
        }
        for (row, mut residual) in rows.zip(out.outer_iter_mut()) {
            for (centroids, codes) in &self.levels {
                residual -= &centroids.row(codes[row] as usize);
            }
        }
    }
}

impl RowSource for Residuals<'_> {
    fn dim(&self) -> usize {
        self.source.dim()
    }

    fn len(&self) -> usize {
        self.source.len()
    }

    fn read(&mut self, start: usize, mut out: ArrayViewMut2<'_, f32>) -> Result<()> {
        self.source.read(start, out.view_mut())?;
        self.subtract(start.., out);
        Ok(())
    }

    /// The first level's rows are the source's own.
    fn slice(&self, start: usize, count: usize) -> Option<&[f32]> {
        let unchanged = self.levels.is_empty() && self.standardizer.is_none();
        unchanged.then(|| self.source.slice(start, count)).flatten()
    }

    fn gather(&mut self, rows: &[usize], mut out: ArrayViewMut2<'_, f32>) -> Result<()> {
        self.source.gather(rows, out.view_mut())?;
        self.subtract(rows.iter().copied(), out);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
