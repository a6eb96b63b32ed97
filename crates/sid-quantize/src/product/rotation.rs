//! The rotation of optimised product quantisation.

use std::ops::{ControlFlow, Range};

use candle_core::Device;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::kmeans::{Clusters, Iteration, Lloyd};
use crate::preprocess::Projection;
use crate::{ArrayRows, QuantizeError, Result};

/// Lloyd iterations of each part before its first rotation is corrected, and before each further one. The codebooks of
/// the iteration before are a start from which few are left to make.
const LLOYD: (usize, usize) = (10, 2);

/// How the rotation of [`ProductKMeans`](crate::ProductKMeans) is learned.
///
/// ```
/// use sid_quantize::{ProductKMeansConfig, RotationConfig};
///
/// let config: ProductKMeansConfig = serde_json::from_str(r#"{"rotation": {"iterations": 20}}"#)?;
/// assert_eq!(config.rotation, Some(RotationConfig::default().with_iterations(20)));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RotationConfig {
    /// Times that codebooks and rotation are fitted to each other in turn; 50 by default, as in faiss.
    pub iterations: usize,
    /// Rows drawn to learn the rotation from, which are held in memory; 65,536 by default, 256 for each code of a
    /// codebook of 256, and never fewer than the codes.
    pub rows: usize,
}

impl Default for RotationConfig {
    fn default() -> Self {
        Self { iterations: 50, rows: 65_536 }
    }
}

impl RotationConfig {
    /// Sets the times that codebooks and rotation are fitted to each other.
    #[must_use]
    pub fn with_iterations(mut self, iterations: usize) -> Self {
        self.iterations = iterations;
        self
    }

    /// Sets the rows drawn to learn the rotation from.
    #[must_use]
    pub fn with_rows(mut self, rows: usize) -> Self {
        self.rows = rows;
        self
    }

    /// Checks every field, for codebooks of at most so many codes.
    pub(super) fn validate(&self, codes: usize) -> Result<()> {
        if self.iterations == 0 {
            return Err(QuantizeError::config(
                "rotation.iterations",
                0,
                "at least 1 is needed; leave `rotation` out for none",
            ));
        }
        if self.rows < codes {
            return Err(QuantizeError::config("rotation.rows", self.rows, "a row for each code of a part is needed"));
        }
        Ok(())
    }
}

/// A rotation, and the codebooks that it was fitted to.
pub(super) struct Rotation {
    /// `R` of `y = x R`, `(dim, dim)` and orthogonal.
    pub(super) matrix: Mat<f64>,
    /// Of each part of `y`, `(codes, columns)`.
    pub(super) codebooks: Vec<Array2<f32>>,
}

impl Rotation {
    /// Fits the codebooks to the rotation and the rotation to the codebooks, in turn, each of which lowers
    ///
    /// $$ \min_{R, C} \sum_i \lVert x_i R - y_i \rVert^2, \quad R^\top R = I $$
    ///
    /// with `y_i` the codewords of row `i` (Ge et al., CVPR 2013, the non-parametric solution). It starts with the features
    /// as they are: on sentence embeddings that ends lower than the balanced principal axes of the parametric solution or a
    /// random rotation do (0.3285, 0.3316 and 0.3319 for the embeddings of Amazon Beauty by all-MiniLM-L6-v2 in 3 x 256
    /// codes), and far lower where features come in the order of their variance.
    ///
    /// `lloyds` cluster the parts, one each; `watch` sees each round.
    ///
    /// # Shapes
    /// - `sample`: `(rows, dim)`; `parts`: the columns of each part, which together are all
    pub(super) fn learn(
        mut sample: Array2<f32>,
        iterations: usize,
        lloyds: &[Lloyd],
        parts: &[Range<usize>],
        device: &Device,
        watch: &mut dyn FnMut(&[Iteration]) -> ControlFlow<()>,
    ) -> Result<Self> {
        let dim = sample.ncols();
        // The codebooks take up any shift, so that the best rotation is that of the centred rows.
        let rows = sample.nrows().max(1) as f64;
        let mean: Vec<f64> =
            sample.columns().into_iter().map(|x| x.iter().map(|&x| f64::from(x)).sum::<f64>() / rows).collect();
        for mut row in sample.outer_iter_mut() {
            row.iter_mut().zip(&mean).for_each(|(x, &mean)| *x -= mean as f32);
        }
        let mut matrix = Mat::identity(dim, dim);
        let mut codebooks = Vec::new();
        for round in 0..iterations {
            let projection = Projection::rotation(matrix.as_ref(), &Device::Cpu)?;
            let mut cross = Mat::zeros(dim, dim);
            let mut steps = Vec::new();
            for (level, (lloyd, columns)) in lloyds.iter().zip(parts).enumerate() {
                let flat = projection.columns(columns.clone())?.apply_rows(sample.as_slice().unwrap_or_default())?;
                let shape = (sample.nrows(), columns.len());
                let mut rows = ArrayRows::from(Array2::from_shape_vec(shape, flat).unwrap_or_default());
                let lloyd = Lloyd { iterations: if round == 0 { LLOYD.0 } else { LLOYD.1 }, batch: None, ..*lloyd };
                let mut last = None;
                let mut keep = |step| {
                    last = Some(step);
                    ControlFlow::Continue(())
                };
                let clusters = match codebooks.get(level) {
                    None => lloyd.run(&mut rows, device, &mut keep)?,
                    Some(from) => lloyd.run_from(Array2::clone(from), &mut rows, device, &mut keep)?,
                };
                steps.extend(last);
                add_cross(cross.as_mut().subcols_mut(columns.start, columns.len()), sample.view(), &clusters);
                if round == 0 { codebooks.push(clusters.centroids) } else { codebooks[level] = clusters.centroids }
            }
            matrix = nearest_orthogonal(cross.as_ref())?;
            if watch(&steps).is_break() {
                break;
            }
        }
        for (codebook, columns) in codebooks.iter_mut().zip(parts) {
            for (column, mut values) in columns.clone().zip(codebook.columns_mut()) {
                let shift: f64 = mean.iter().enumerate().map(|(at, mean)| mean * matrix[(at, column)]).sum();
                values += shift as f32;
            }
        }
        Ok(Self { matrix, codebooks })
    }
}

/// `X^T Y` of the columns of one part, where the rows of `Y` are codewords: the sums of the rows of each cluster times its
/// codeword, which takes a product of as many rows as there are codes.
fn add_cross(cross: MatMut<'_, f64>, sample: ArrayView2<'_, f32>, clusters: &Clusters) {
    let (codes, width) = clusters.centroids.dim();
    let mut sums = Array2::<f64>::zeros((codes, sample.ncols()));
    for (row, &code) in sample.outer_iter().zip(&clusters.codes) {
        sums.row_mut(code as usize).iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let sums = Mat::from_fn(codes, sample.ncols(), |i, j| sums[(i, j)]);
    let words = Mat::from_fn(codes, width, |i, j| f64::from(clusters.centroids[(i, j)]));
    // One thread: the sums then have one order.
    matmul(cross, Accum::Replace, sums.transpose(), words.as_ref(), 1.0, Par::Seq);
}

/// The orthogonal matrix nearest to `cross`, which is the rotation that brings `X` nearest to `Y` where `cross` is
/// `X^T Y` (Schoenemann, *A Generalized Solution of the Orthogonal Procrustes Problem*, 1966).
fn nearest_orthogonal(cross: MatRef<'_, f64>) -> Result<Mat<f64>> {
    let svd = cross
        .svd()
        .map_err(|error| QuantizeError::Decomposition { what: "cross-covariance", fact: format!("{error:?}") })?;
    let mut rotation = Mat::zeros(cross.nrows(), cross.ncols());
    matmul(rotation.as_mut(), Accum::Replace, svd.U(), svd.V().transpose(), 1.0, Par::Seq);
    Ok(rotation)
}
