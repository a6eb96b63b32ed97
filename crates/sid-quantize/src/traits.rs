//! The abilities of a quantiser, one trait each: use, reconstruct, fit.

use std::ops::ControlFlow;

use candle_core::{DType, Device, Tensor};
use ndarray::{Array2, ArrayView2, Axis};

use crate::rows::check_finite;
use crate::{Result, RowSource};

/// Maps embeddings to Semantic-ID codes: a fitted, immutable model.
///
/// A new quantiser needs only these methods to work with everything that consumes codes; the built-in ones are also
/// gathered in [`AnyQuantizer`](crate::AnyQuantizer), which is for files and command lines and never a bound.
pub trait Quantizer {
    /// Columns of the embeddings it takes.
    fn dim(&self) -> usize;

    /// Codes in each level's codebook, coarse to fine; its length is the number of levels.
    fn codebook_sizes(&self) -> &[u32];

    /// The device it computes on.
    fn device(&self) -> &Device;

    /// The codes of each row by plain search for the nearest codewords (greedy, unless the quantiser was set to follow a beam),
    /// with no repair of collisions.
    ///
    /// Ties go to the lowest code. The values are not checked: what is not finite gets some code.
    ///
    /// # Shapes
    /// - `xs`: `(n, dim)`, f32
    /// - result: `(n, levels)`, u32, on the same device, `codes[i][d] < codebook_sizes()[d]`
    ///
    /// # Errors
    /// When the shape, type or device of `xs` is wrong or a tensor operation fails.
    fn encode(&self, xs: &Tensor) -> candle_core::Result<Tensor>;

    /// Writes the codes of rows where they lie, if the quantiser computes on the host; returns whether it did. The
    /// default does not.
    ///
    /// # Shapes
    /// - `xs`: `(n, dim)` row-major; `codes`: `(n, levels)`
    ///
    /// # Errors
    /// When a slice does not fit or an operation fails.
    fn encode_slice(&self, xs: &[f32], codes: &mut [u32]) -> candle_core::Result<bool> {
        let _ = (xs, codes);
        Ok(false)
    }

    /// The codes of the rows of an array, `batch` rows at a time (0 counts as 1) where they go through a device.
    ///
    /// # Shapes
    /// - `xs`: `(n, dim)`
    /// - result: `(n, levels)`
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and when a row holds NaN or an infinity.
    fn encode_array(&self, xs: ArrayView2<'_, f32>, batch: usize) -> candle_core::Result<Array2<u32>> {
        if xs.ncols() != self.dim() {
            candle_core::bail!("embeddings have {} columns, the quantiser takes {}", xs.ncols(), self.dim());
        }
        check_finite(xs, 0).map_err(candle_core::Error::wrap)?;
        let levels = self.codebook_sizes().len();
        let mut codes = Array2::zeros((xs.nrows(), levels));
        let done = match (xs.as_slice(), codes.as_slice_mut()) {
            (Some(xs), Some(codes)) => self.encode_slice(xs, codes)?,
            _ => false,
        };
        if done {
            return Ok(codes);
        }
        let batch = batch.max(1);
        for (rows, mut out) in xs.axis_chunks_iter(Axis(0), batch).zip(codes.axis_chunks_iter_mut(Axis(0), batch)) {
            let flat: Vec<f32> = rows.iter().copied().collect();
            let rows = Tensor::from_vec(flat, rows.dim(), self.device())?;
            let block = self.encode(&rows)?.to_dtype(DType::U32)?.flatten_all()?.to_vec1::<u32>()?;
            for (slot, code) in out.iter_mut().zip(block) {
                *slot = code;
            }
        }
        Ok(codes)
    }
}

/// A quantiser that can also map codes back to the neighbourhood of their embeddings.
///
/// Not every quantiser can: the signs of random projections, for one, do not determine a point.
pub trait Reconstruct: Quantizer {
    /// The embedding that stands for each row of codes.
    ///
    /// # Shapes
    /// - `codes`: `(n, levels)`, u32
    /// - result: `(n, dim)`, f32
    ///
    /// # Errors
    /// When a code is not in its codebook or a tensor operation fails.
    fn reconstruct(&self, codes: &Tensor) -> candle_core::Result<Tensor>;
}

/// A quantiser that can say what every code would cost a row, so that a row whose codes are taken can be given the next
/// best: see `sid_index::reassign`.
pub trait RankCodes: Quantizer {
    /// What each code of the level after `prefix` would cost each row that has this prefix; lower is better. For codebooks it
    /// is the distance of the row's residual, or of its part, to the codeword. Costs of one call can be compared, those of
    /// different quantisers cannot.
    ///
    /// # Shapes
    /// - `xs`: `(n, dim)`, f32
    /// - `prefix`: fewer codes than there are levels
    /// - result: `(n, codebook_sizes()[prefix.len()])`, f32; infinite where a code may not follow
    ///
    /// # Errors
    /// When the shape, type or device of `xs` is wrong, the prefix is too long or holds a code that is not in its codebook,
    /// a row is so large that its costs are no numbers, or a tensor operation fails.
    fn code_costs(&self, xs: &Tensor, prefix: &[u32]) -> candle_core::Result<Tensor>;
}

/// A configuration that learns a quantiser from embeddings.
///
/// The same configuration and rows give the same bytes, whatever the number of threads.
pub trait Fit {
    /// What is learned.
    type Model: Quantizer;

    /// Fits on all rows, with nobody watching.
    ///
    /// # Errors
    /// See [`fit_on`](Self::fit_on).
    fn fit(&self, xs: &mut dyn RowSource) -> Result<Self::Model> {
        self.fit_with(xs, &mut ())
    }

    /// Fits on the CPU and reports each epoch to `ctl`, which may end the fit early and keep what is learned.
    ///
    /// # Errors
    /// See [`fit_on`](Self::fit_on).
    fn fit_with(&self, xs: &mut dyn RowSource, ctl: &mut dyn FitControl) -> Result<Self::Model> {
        self.fit_on(xs, &Device::Cpu, ctl)
    }

    /// Fits on a device and reports each epoch to `ctl`; the model lives on that device.
    ///
    /// # Errors
    /// When the configuration is invalid, the rows cannot be read, hold NaN or an infinity, or are fewer than the codes
    /// of a codebook, and when the loss stops being finite.
    fn fit_on(&self, xs: &mut dyn RowSource, device: &Device, ctl: &mut dyn FitControl) -> Result<Self::Model>;
}

/// Watches a fit and may end it. `()` watches nothing.
///
/// ```
/// use std::ops::ControlFlow;
/// use ndarray::Array2;
/// use sid_quantize::{ArrayRows, EpochReport, Fit, FitControl, ResidualKMeansConfig};
///
/// /// Keeps the loss of every epoch and stops after the hundredth.
/// struct Losses(Vec<f64>);
///
/// impl FitControl for Losses {
///     fn on_epoch(&mut self, epoch: &EpochReport) -> ControlFlow<()> {
///         self.0.push(epoch.loss);
///         if self.0.len() < 100 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
///     }
/// }
///
/// let rows = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
/// let mut losses = Losses(Vec::new());
/// let config = ResidualKMeansConfig::default().with_codebook_sizes([8, 8]);
/// config.fit_with(&mut ArrayRows::from(rows), &mut losses)?;
/// assert!(losses.0.iter().all(|loss| loss.is_finite()));
/// # Ok::<(), sid_quantize::QuantizeError>(())
/// ```
pub trait FitControl {
    /// Called after each epoch (RQ-VAE), Lloyd iteration (k-means) or level (hierarchical k-means). `Break` ends the fit with
    /// what it has.
    fn on_epoch(&mut self, epoch: &EpochReport) -> ControlFlow<()> {
        let _ = epoch;
        ControlFlow::Continue(())
    }
}

impl FitControl for () {}

/// The state of a fit after one pass over the rows.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EpochReport {
    /// Passes done, from 1; over all levels together where levels are fitted one after another. A pass of hierarchical
    /// k-means is a level.
    pub epoch: usize,
    /// The most passes there can be.
    pub epochs: usize,
    /// The level being fitted, from 0; `None` where all levels are fitted at once.
    pub level: Option<usize>,
    /// Mean loss a row: the training objective of the RQ-VAE, the squared distance to the codeword for k-means, to the node of the level for
    /// hierarchical k-means.
    pub loss: f64,
    /// Mean squared reconstruction error a row, in the units the model is fitted in (standardised or not).
    pub reconstruction: f64,
    /// Codes that at least one row used in this pass, by level; the fitted level's alone for k-means, and 0 while an
    /// RQ-VAE trains its autoencoder alone.
    pub used: Vec<u32>,
    /// Codes that were re-seeded after this pass because rows stopped using them; within it, in all nodes together, for
    /// hierarchical k-means.
    pub restarted: u32,
    /// Share of the rows that repeated the codes of another, by the codes they had while the pass changed the model; `None`
    /// where a pass does not give all codes of a row.
    pub collision_rate: Option<f64>,
}
