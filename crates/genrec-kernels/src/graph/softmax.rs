//! Softmax, its logarithm, and the softmax of attention, each in one pass over the rows.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::host::{BLOCK, read, rows, tensor, values};
use crate::math::{exp, max, sum_by};

/// Writes the softmax of `f(0..)` over the whole of `out`.
#[inline(always)]
fn softmax_row(out: &mut [f32]) {
    let top = max(out);
    out.iter_mut().for_each(|v| *v = exp(*v - top));
    let scale = 1.0 / sum_by(out, out, |v, _| v);
    out.iter_mut().for_each(|v| *v *= scale);
}

/// Gradient of the softmax's argument from its result and the gradient of that.
fn softmax_backward(probs: &Tensor, grad: &Tensor, width: usize) -> Result<Vec<f32>> {
    read(probs, |p| {
        read(grad, |g| {
            Ok(rows(p.len(), width, |row, out| {
                let range = row * width..(row + 1) * width;
                let (p, g) = (&p[range.clone()], &g[range]);
                let mean = sum_by(p, g, |p, g| p * g);
                for ((o, p), g) in out.iter_mut().zip(p).zip(g) {
                    *o = p * (g - mean);
                }
            }))
        })
    })
}

fn last(shape: &Shape) -> usize {
    shape.dims().last().copied().unwrap_or(0)
}

pub(super) struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, width) = (values(storage, layout)?, last(layout.shape()));
        let out = rows(x.len(), width, |row, out| {
            out.copy_from_slice(&x[row * width..(row + 1) * width]);
            softmax_row(out);
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(tensor(softmax_backward(res, grad, last(res.shape()))?, res)?))
    }
}

pub(super) struct LogSoftmax;

impl CustomOp1 for LogSoftmax {
    fn name(&self) -> &'static str {
        "log-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, width) = (values(storage, layout)?, last(layout.shape()));
        let out = rows(x.len(), width, |row, out| {
            let x = &x[row * width..(row + 1) * width];
            let top = max(x);
            let log = sum_by(x, x, |v, _| exp(v - top)).ln() + top;
            for (o, v) in out.iter_mut().zip(x) {
                *o = v - log;
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let width = last(res.shape());
        let out = read(res, |y| {
            read(grad, |g| {
                Ok(rows(y.len(), width, |row, out| {
                    let range = row * width..(row + 1) * width;
                    let (y, g) = (&y[range.clone()], &g[range]);
                    let total = sum_by(g, g, |g, _| g);
                    for ((o, y), g) in out.iter_mut().zip(y).zip(g) {
                        *o = g - exp(*y) * total;
                    }
                }))
            })
        })?;
        Ok(Some(tensor(out, res)?))
    }
}

/// Softmax over the visible keys of scores `(B, H, Q, K)`, with or without a bias `(1, H, Q, K)`.
pub(super) struct BiasSoftmax {
    pub(super) key_lengths: Option<Vec<u32>>,
    pub(super) causal: bool,
}

impl BiasSoftmax {
    fn forward(&self, scores: &[f32], bias: Option<&[f32]>, shape: &Shape) -> Result<(CpuStorage, Shape)> {
        let (_, heads, queries, keys) = shape.dims4()?;
        let per_batch = heads * queries;
        let out = rows(scores.len(), keys, |row, out| {
            let (b, within) = (row / per_batch, row % per_batch);
            let length = self.key_lengths.as_ref().map_or(keys, |lengths| lengths[b] as usize);
            let seen = super::visible(length, keys, queries, row % queries, self.causal);
            if seen == 0 {
                return;
            }
            let out = &mut out[..seen];
            let scores = &scores[row * keys..row * keys + seen];
            match bias {
                None => out.copy_from_slice(scores),
                Some(bias) => {
                    let bias = &bias[within * keys..within * keys + seen];
                    for ((o, s), b) in out.iter_mut().zip(scores).zip(bias) {
                        *o = s + b;
                    }
                }
            }
            softmax_row(out);
        });
        Ok((CpuStorage::F32(out), shape.clone()))
    }
}

impl CustomOp1 for BiasSoftmax {
    fn name(&self) -> &'static str {
        "masked-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(values(storage, layout)?, None, layout.shape())
    }

    fn bwd(&self, _: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(tensor(softmax_backward(res, grad, last(res.shape()))?, res)?))
    }
}

impl CustomOp2 for BiasSoftmax {
    fn name(&self) -> &'static str {
        "bias-softmax"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(values(s1, l1)?, Some(values(s2, l2)?), l1.shape())
    }

    fn bwd(&self, _: &Tensor, bias: &Tensor, res: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let scores = softmax_backward(res, grad, last(res.shape()))?;
        let size = bias.elem_count();
        let mut sums = vec![0f32; size];
        sums.par_chunks_mut(BLOCK).enumerate().for_each(|(block, sums)| {
            let start = block * BLOCK;
            for batch in scores.chunks_exact(size) {
                for (sum, v) in sums.iter_mut().zip(&batch[start..]) {
                    *sum += v;
                }
            }
        });
        Ok((Some(tensor(scores, res)?), Some(tensor(sums, bias)?)))
    }
}
