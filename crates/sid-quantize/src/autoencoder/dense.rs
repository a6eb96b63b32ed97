//! The pieces that most of a training step is spent in: a fully connected layer, its backward, and the squared error.
//!
//! For `f32` on the CPU each is a matrix product over host slices with what surrounds it (bias, ReLU, the ReLU's mask)
//! done in one further pass; elsewhere it is a composition of candle's operations, which is also what the fused form is
//! tested against. Sums are taken over blocks of a fixed number of rows, so that they are the same at any number of
//! threads.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Device, Error, Result, Storage, Tensor, bail};
use genrec_kernels::gemm::GemmError;
use genrec_kernels::matmul::{Panels, Target, View, product};
use rayon::prelude::*;

/// Rows that one parallel task takes.
const BLOCK: usize = 128;

/// Rows of a product that one parallel task computes: enough to share what is read of the right operand, few enough to go
/// round the threads.
fn task_rows(rows: usize) -> usize {
    rows.div_ceil(8).next_multiple_of(12).clamp(24, 192)
}

/// The values of a tensor on the host, read in place. `G` is candle's read guard, whose type depends on its features.
pub(super) struct HostValues<G> {
    storage: G,
    range: Range<usize>,
}

/// The values of a contiguous `f32` tensor on the CPU.
pub(super) fn host(tensor: &Tensor) -> Result<HostValues<impl Deref<Target = Storage>>> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(_)), Some((start, end))) => Ok(HostValues { storage, range: start..end }),
        _ => bail!("contiguous f32 values on the CPU are expected"),
    }
}

impl<G: Deref<Target = Storage>> HostValues<G> {
    pub(super) fn values(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            _ => &[],
        }
    }
}

/// Whether the fused forms apply to these tensors.
pub(super) fn on_host(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| t.device().is_cpu() && t.dtype() == DType::F32 && t.is_contiguous())
}

/// `a b`, row-major, some rows a task; `finish` gets the first row and the values of each.
fn products(
    a: View<'_>,
    b: View<'_>,
    (rows, cols): (usize, usize),
    finish: impl Fn(usize, &mut [f32]) + Sync,
) -> Result<Vec<f32>> {
    let mut panels = Panels::default();
    panels.par_pack(b);
    let mut out = vec![0.0; rows * cols];
    let task_rows = task_rows(rows);
    out.par_chunks_mut((task_rows * cols).max(1))
        .enumerate()
        .try_for_each(|(task, out)| {
            let first = task * task_rows;
            product(a.rows(first..first + out.len() / cols)?, &panels, Target::set(out, cols))?;
            finish(first, out);
            Ok(())
        })
        .map_err(|error: GemmError| Error::wrap(error))?;
    Ok(out)
}

/// A row-major matrix.
fn matrix(values: &[f32], rows: usize, cols: usize) -> Result<View<'_>> {
    View::new(values, rows, cols, cols).map_err(Error::wrap)
}

/// `x weight^T + bias`, and the positive part of it if `relu`.
///
/// # Shapes
/// - `x`: `(n, in)`; `weight`: `(out, in)`; `bias`: `(out,)`; result `(n, out)`
pub(super) fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, relu: bool) -> Result<Tensor> {
    if !on_host(&[x, weight, bias]) {
        let y = x.matmul(&weight.t()?)?.broadcast_add(bias)?;
        return if relu { y.relu() } else { Ok(y) };
    }
    let ((rows, width), out) = (x.dims2()?, weight.dim(0)?);
    let (x, weight, bias) = (host(x)?, host(weight)?, host(bias)?);
    let (x, weight, bias) = (matrix(x.values(), rows, width)?, matrix(weight.values(), out, width)?, bias.values());
    let y = products(x, weight.t(), (rows, out), |_, block| {
        for row in block.chunks_exact_mut(out) {
            for (y, b) in row.iter_mut().zip(bias) {
                let sum = *y + b;
                // Not `max`: NaN must stay NaN for the loss to show it.
                *y = if relu && sum < 0.0 { 0.0 } else { sum };
            }
        }
    })?;
    Tensor::from_vec(y, (rows, out), &Device::Cpu)
}

/// The gradients of a layer's weight and bias.
///
/// # Shapes
/// - `x`: `(n, in)`, the layer's input; `grad`: `(n, out)`, with respect to its output before any ReLU; results
///   `(out, in)` and `(out,)`
pub(super) fn backward_parameters(x: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
    if !on_host(&[x, grad]) {
        let ones = Tensor::ones((1, grad.dim(0)?), grad.dtype(), grad.device())?;
        return Ok((grad.t()?.matmul(x)?, ones.matmul(grad)?.flatten_all()?));
    }
    let ((rows, width), out) = (x.dims2()?, grad.dim(1)?);
    let (x, grad) = (host(x)?, host(grad)?);
    let dy = matrix(grad.values(), rows, out)?;
    let weight = products(dy.t(), matrix(x.values(), rows, width)?, (out, width), |_, _| ())?;
    let sums: Vec<Vec<f32>> = grad
        .values()
        .par_chunks(BLOCK * out.max(1))
        .map(|block| {
            let mut sum = vec![0.0; out];
            for row in block.chunks_exact(out.max(1)) {
                sum.iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
            }
            sum
        })
        .collect();
    let mut bias = vec![0.0; out];
    for sum in sums {
        bias.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
    }
    Ok((Tensor::from_vec(weight, (out, width), &Device::Cpu)?, Tensor::from_vec(bias, out, &Device::Cpu)?))
}

/// The gradient with respect to a layer's input; 0 where `relu`, if given, is not positive: a hidden input is the output
/// of a ReLU, and passes a gradient only where it is.
///
/// # Shapes
/// - `grad`: `(n, out)`; `weight`: `(out, in)`; `relu`: `(n, in)`; result `(n, in)`
pub(super) fn backward_input(grad: &Tensor, weight: &Tensor, relu: Option<&Tensor>) -> Result<Tensor> {
    if !on_host(&[grad, weight]) || relu.is_some_and(|input| !on_host(&[input])) {
        let dx = grad.matmul(weight)?;
        return match relu {
            Some(input) => dx * input.sign()?,
            None => Ok(dx),
        };
    }
    let ((rows, out), width) = (grad.dims2()?, weight.dim(1)?);
    let (grad, weight) = (host(grad)?, host(weight)?);
    let (dy, weight) = (matrix(grad.values(), rows, out)?, matrix(weight.values(), out, width)?);
    let input = relu.map(host).transpose()?;
    let input = input.as_ref().map(HostValues::values);
    let dx = products(dy, weight, (rows, width), |first, dx| {
        let Some(input) = input else { return };
        for (dx, &x) in dx.iter_mut().zip(&input[first * width..]) {
            *dx = if x > 0.0 { *dx } else { 0.0 };
        }
    })?;
    Tensor::from_vec(dx, (rows, width), &Device::Cpu)
}

/// The squared distance between two tensors of one shape, and `scale * (a - b)`.
pub(super) fn squared_error(a: &Tensor, b: &Tensor, scale: f64) -> Result<(f64, Tensor)> {
    if !on_host(&[a, b]) {
        let difference = (a - b)?;
        let sum = difference.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        return Ok((sum, difference.affine(scale, 0.0)?));
    }
    let shape = a.shape();
    let (a, b) = (host(a)?, host(b)?);
    let block = BLOCK * shape.dims().last().copied().unwrap_or(1).max(1);
    let mut scaled = vec![0.0; shape.elem_count()];
    let sums: Vec<f64> = scaled
        .par_chunks_mut(block)
        .zip(a.values().par_chunks(block).zip(b.values().par_chunks(block)))
        .map(|(scaled, (a, b))| {
            let mut sum = 0.0;
            for (scaled, (a, b)) in scaled.chunks_mut(64).zip(a.chunks(64).zip(b.chunks(64))) {
                let mut part = 0.0_f32;
                for (scaled, (a, b)) in scaled.iter_mut().zip(a.iter().zip(b)) {
                    let difference = a - b;
                    part += difference * difference;
                    *scaled = scale as f32 * difference;
                }
                sum += f64::from(part);
            }
            sum
        })
        .collect();
    Ok((sums.iter().sum(), Tensor::from_vec(scaled, shape, &Device::Cpu)?))
}
