//! Linear maps of the features that have an inverse on what they keep: principal components, rotations.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{Device, Error, Result as TensorResult, Tensor};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, Side};
use genrec_kernels::matmul::{Panels, Target, View, product};
use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::saved::matrix;
use crate::usage::pass;
use crate::{QuantizeError, Result, RowSource};

const FORWARD: &str = "input.projection";
const OFFSET: &str = "input.offset";
const BACKWARD: &str = "input.back_projection";
const CENTRE: &str = "input.centre";

/// Rows that one parallel task projects.
const BLOCK: usize = 128;

/// Share of the largest variance below which a direction is rounding noise of `f32` rows.
const NOISE: f64 = 1e-10;

/// `y = x P + o` with `P` of shape `(dim, width)`, and `x = y B + c` back.
#[derive(Clone, Debug)]
pub(crate) struct Projection {
    forward: Tensor,
    offset: Tensor,
    backward: Tensor,
    centre: Tensor,
    /// `P` and `o` for rows on the host.
    panels: Panels,
    bias: Vec<f32>,
}

impl Projection {
    /// Whitening by principal components: those of the largest variance, each brought to variance 1. A direction in which
    /// the rows do not differ keeps its scale.
    pub(crate) fn whitening(components: usize, rows: &mut dyn RowSource, device: &Device) -> Result<Self> {
        let deviation = |variance: f64, largest: f64| if variance > NOISE * largest { variance.sqrt() } else { 1.0 };
        Self::components(components, rows, deviation, device)
    }

    /// All principal components, those of the largest variance first, at the scale that they have.
    pub(crate) fn principal(rows: &mut dyn RowSource, device: &Device) -> Result<Self> {
        Self::components(rows.dim(), rows, |_, _| 1.0, device)
    }

    /// Principal components, divided by a function of their variance and the largest one.
    fn components(
        components: usize,
        rows: &mut dyn RowSource,
        scale: impl Fn(f64, f64) -> f64,
        device: &Device,
    ) -> Result<Self> {
        let (centre, covariance) = moments(rows)?;
        let dim = centre.len();
        let eigen = covariance
            .self_adjoint_eigen(Side::Lower)
            .map_err(|error| QuantizeError::Decomposition { what: "covariance", fact: format!("{error:?}") })?;
        let values: Vec<f64> = eigen.S().column_vector().iter().copied().collect();
        let largest = values.iter().copied().fold(0.0, f64::max);
        // Ascending order: the last are the largest.
        let column = |at: usize| dim - 1 - at;
        let sign = |at: usize| {
            let vector = eigen.U().col(column(at));
            let strongest = vector.iter().copied().fold(0.0_f64, |most, x| if x.abs() > most.abs() { x } else { most });
            // An eigenvector has no sign of its own; this one does not depend on the algorithm.
            if strongest < 0.0 { -1.0 } else { 1.0 }
        };
        let axes: Vec<(usize, f64, f64)> =
            (0..components).map(|at| (column(at), scale(values[column(at)], largest), sign(at))).collect();
        let forward = Mat::from_fn(dim, components, |i, j| {
            let (column, scale, sign) = axes[j];
            sign * eigen.U()[(i, column)] / scale
        });
        let backward = Mat::from_fn(components, dim, |i, j| {
            let (column, scale, sign) = axes[i];
            sign * eigen.U()[(j, column)] * scale
        });
        Self::new(forward.as_ref(), backward.as_ref(), &centre, device)
    }

    /// The map by an orthogonal matrix, `y = x R`.
    pub(crate) fn rotation(rotation: MatRef<'_, f64>, device: &Device) -> Result<Self> {
        Self::new(rotation, rotation.transpose(), &vec![0.0; rotation.nrows()], device)
    }

    fn new(forward: MatRef<'_, f64>, backward: MatRef<'_, f64>, centre: &[f64], device: &Device) -> Result<Self> {
        let offset: Vec<f32> = forward
            .col_iter()
            .map(|column| -column.iter().zip(centre).map(|(p, c)| p * c).sum::<f64>() as f32)
            .collect();
        let centre: Vec<f32> = centre.iter().map(|&c| c as f32).collect();
        let (dim, width) = (centre.len(), offset.len());
        Ok(Self::from_parts(
            Tensor::from_vec(row_major(forward), (dim, width), device)?,
            Tensor::from_vec(offset, (1, width), device)?,
            Tensor::from_vec(row_major(backward), (width, dim), device)?,
            Tensor::from_vec(centre, (1, dim), device)?,
        )?)
    }

    fn from_parts(forward: Tensor, offset: Tensor, backward: Tensor, centre: Tensor) -> TensorResult<Self> {
        let (dim, width) = forward.dims2()?;
        let values = forward.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
        let mut panels = Panels::default();
        panels.pack(View::new(&values, dim, width, width).map_err(Error::wrap)?);
        let bias = offset.flatten_all()?.to_device(&Device::Cpu)?.to_vec1()?;
        Ok(Self { forward, offset, backward, centre, panels, bias })
    }

    /// This map, and then another.
    pub(crate) fn then(&self, next: &Self) -> TensorResult<Self> {
        Self::from_parts(
            self.forward.matmul(&next.forward)?,
            next.apply(&self.offset)?,
            next.backward.matmul(&self.backward)?,
            self.invert(&next.centre)?,
        )
    }

    /// These columns of `y` alone; on the way back the others count as 0.
    pub(crate) fn columns(&self, columns: Range<usize>) -> TensorResult<Self> {
        let Range { start, .. } = columns;
        Self::from_parts(
            self.forward.narrow(1, start, columns.len())?.contiguous()?,
            self.offset.narrow(1, start, columns.len())?.contiguous()?,
            self.backward.narrow(0, start, columns.len())?.contiguous()?,
            self.centre.clone(),
        )
    }

    pub(crate) fn shapes(dim: usize, width: usize, into: &mut BTreeMap<String, Vec<usize>>) {
        into.insert(FORWARD.to_owned(), vec![dim, width]);
        into.insert(OFFSET.to_owned(), vec![1, width]);
        into.insert(BACKWARD.to_owned(), vec![width, dim]);
        into.insert(CENTRE.to_owned(), vec![1, dim]);
    }

    pub(crate) fn tensors(&self, into: &mut BTreeMap<String, Tensor>) {
        into.insert(FORWARD.to_owned(), self.forward.clone());
        into.insert(OFFSET.to_owned(), self.offset.clone());
        into.insert(BACKWARD.to_owned(), self.backward.clone());
        into.insert(CENTRE.to_owned(), self.centre.clone());
    }

    /// From what [`tensors`](Self::tensors) gave; `None` where there is none.
    pub(crate) fn load(tensors: &BTreeMap<String, Tensor>, device: &Device) -> Result<Option<Self>> {
        if !tensors.contains_key(FORWARD) {
            return Ok(None);
        }
        let part = |name| matrix(tensors, name, device);
        Ok(Some(Self::from_parts(part(FORWARD)?, part(OFFSET)?, part(BACKWARD)?, part(CENTRE)?)?))
    }

    /// Columns of `y`.
    pub(crate) fn width(&self) -> usize {
        self.bias.len()
    }

    /// `P` and `o`, prepared for products on the host.
    pub(crate) fn host(&self) -> (&Panels, &[f32]) {
        (&self.panels, &self.bias)
    }

    /// `(n, dim)` to `(n, width)`.
    pub(crate) fn apply(&self, xs: &Tensor) -> TensorResult<Tensor> {
        xs.matmul(&self.forward)?.broadcast_add(&self.offset)
    }

    /// `(n, width)` to `(n, dim)`.
    pub(crate) fn invert(&self, ys: &Tensor) -> TensorResult<Tensor> {
        ys.matmul(&self.backward)?.broadcast_add(&self.centre)
    }

    /// [`apply`](Self::apply) to rows on the host that lie one after another.
    pub(crate) fn apply_rows(&self, rows: &[f32]) -> TensorResult<Vec<f32>> {
        let (dim, width) = (self.panels.rows().max(1), self.width().max(1));
        let mut out = vec![0.0; rows.len() / dim * width];
        rows.par_chunks(BLOCK * dim)
            .zip(out.par_chunks_mut(BLOCK * width))
            .try_for_each(|(rows, out)| {
                product(View::new(rows, rows.len() / dim, dim, dim)?, &self.panels, Target::set(out, width))?;
                for row in out.chunks_exact_mut(width) {
                    row.iter_mut().zip(&self.bias).for_each(|(y, b)| *y += b);
                }
                Ok(())
            })
            .map_err(|error: genrec_kernels::gemm::GemmError| Error::wrap(error))?;
        Ok(out)
    }
}

fn row_major(matrix: MatRef<'_, f64>) -> Vec<f32> {
    matrix.row_iter().flat_map(|row| row.iter().map(|&x| x as f32).collect::<Vec<_>>()).collect()
}

/// A block of rows in `f64`, each less `centre`.
pub(crate) fn centred(block: ArrayView2<'_, f32>, centre: &[f64]) -> Mat<f64> {
    Mat::from_fn(block.nrows(), block.ncols(), |i, j| f64::from(block[(i, j)]) - centre[j])
}

/// Mean and covariance of rows that were checked before.
fn moments(rows: &mut dyn RowSource) -> Result<(Vec<f64>, Mat<f64>)> {
    let dim = rows.dim();
    let count = rows.len().max(1) as f64;
    let mut mean = vec![0.0; dim];
    pass(dim, rows, |_, block| {
        for row in block.outer_iter() {
            mean.iter_mut().zip(row).for_each(|(mean, &x)| *mean += f64::from(x) / count);
        }
        Ok(())
    })?;
    let mut covariance = Mat::zeros(dim, dim);
    pass(dim, rows, |_, block| {
        let block = centred(block, &mean);
        // One thread: the sums then have one order.
        matmul(covariance.as_mut(), Accum::Add, block.transpose(), block.as_ref(), 1.0 / count, Par::Seq);
        Ok(())
    })?;
    Ok((mean, covariance))
}
