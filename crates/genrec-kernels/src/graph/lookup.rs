//! Operations with indices: cross-entropy and embedding.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, DType, Layout, MetalStorage, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::host::{indices, read, read_indices, rows, tensor, values};
use crate::math::{exp, max, sum_by};

/// Mean negative log-likelihood of labels under logits.
pub(super) struct CrossEntropy;

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, labels) = (values(s1, l1)?, indices(s2, l2)?);
        let (count, width) = l1.shape().dims2()?;
        if let Some(label) = labels.iter().find(|&&label| label as usize >= width) {
            bail!("the label {label} has no logit: there are {width}; labels must be below that")
        }
        let losses = rows(count, 1, |row, out| {
            let x = &x[row * width..(row + 1) * width];
            let top = max(x);
            let log = sum_by(x, x, |v, _| exp(v - top)).ln();
            out[0] = log - (x[labels[row] as usize] - top);
        });
        let mean = losses.iter().map(|&v| f64::from(v)).sum::<f64>() / count as f64;
        Ok((CpuStorage::F32(vec![mean as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        labels: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (count, width) = logits.dims2()?;
        let factor = grad.to_scalar::<f32>()? / count as f32;
        let out = read(logits, |x| {
            read_indices(labels, |labels| {
                Ok(rows(x.len(), width, |row, out| {
                    let x = &x[row * width..(row + 1) * width];
                    let top = max(x);
                    for (o, v) in out.iter_mut().zip(x) {
                        *o = exp(v - top);
                    }
                    let scale = factor / sum_by(out, out, |v, _| v);
                    out.iter_mut().for_each(|v| *v *= scale);
                    out[labels[row] as usize] -= factor;
                }))
            })
        })?;
        Ok((Some(tensor(out, logits)?), None))
    }
}

/// Rows of a matrix chosen by ids.
pub(super) struct Embedding;

impl CustomOp2 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (weight, ids) = (values(s1, l1)?, indices(s2, l2)?);
        let (count, width) = l1.shape().dims2()?;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= count) {
            bail!("the id {id} has no embedding: there are {count}; ids must be below that")
        }
        let out = rows(ids.len() * width, width, |row, out| {
            let start = ids[row] as usize * width;
            out.copy_from_slice(&weight[start..start + width]);
        });
        Ok((CpuStorage::F32(out), Shape::from(vec![ids.len(), width])))
    }

    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        Ok((s1.index_select(s2, l1, l2, 0)?, chosen(l1, l2)?))
    }

    fn metal_fwd(
        &self,
        s1: &MetalStorage,
        l1: &Layout,
        s2: &MetalStorage,
        l2: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        Ok((s1.index_select(s2, l1, l2, 0)?, chosen(l1, l2)?))
    }

    fn bwd(
        &self,
        weight: &Tensor,
        ids: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        /// Ranges of the vocabulary that are added up side by side.
        const RANGES: usize = 8;
        let (count, width) = weight.dims2()?;
        if !weight.device().is_cpu() {
            return Ok((Some(sums_by_product(ids, grad, count)?), None));
        }
        let mut sums = vec![0f32; count * width];
        if !sums.is_empty() {
            let per_range = count.div_ceil(RANGES);
            read_indices(ids, |ids| {
                read(grad, |g| {
                    sums.par_chunks_mut(per_range * width).enumerate().for_each(|(range, sums)| {
                        let first = range * per_range;
                        for (&id, g) in ids.iter().zip(g.chunks_exact(width)) {
                            let Some(row) = (id as usize).checked_sub(first).filter(|r| r * width < sums.len()) else {
                                continue;
                            };
                            if let Some(sums) = sums.get_mut(row * width..(row + 1) * width) {
                                sums.iter_mut().zip(g).for_each(|(s, g)| *s += g);
                            }
                        }
                    });
                    Ok(())
                })
            })?;
        }
        Ok((Some(tensor(sums, weight)?), None))
    }
}

fn chosen(weight: &Layout, ids: &Layout) -> Result<Shape> {
    Ok(Shape::from((ids.shape().elem_count(), weight.shape().dims2()?.1)))
}

/// Sums of the rows of `grad` by their ids, `(count, width)`: a product with the ids' indicator. candle's `index_add` walks
/// through all ids in each of `width` threads, which is slower by far on a device with thousands.
fn sums_by_product(ids: &Tensor, grad: &Tensor, count: usize) -> Result<Tensor> {
    /// Elements of the indicator that are held at once.
    const HELD: usize = 1 << 27;
    let (rows, width) = grad.dims2()?;
    let classes = Tensor::arange(0, count as u32, grad.device())?.unsqueeze(1)?;
    let ids = ids.unsqueeze(0)?;
    let wide = if grad.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let mut sums = Tensor::zeros((count, width), wide, grad.device())?;
    let at_once = (HELD / count.max(1)).clamp(1, rows.max(1));
    for first in (0..rows).step_by(at_once) {
        let size = at_once.min(rows - first);
        let indicator = classes.broadcast_eq(&ids.narrow(1, first, size)?)?.to_dtype(grad.dtype())?;
        let part = indicator.matmul(&grad.narrow(0, first, size)?.contiguous()?)?;
        sums = (sums + part.to_dtype(wide)?)?;
    }
    sums.to_dtype(grad.dtype())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_product_with_the_indicator_adds_rows_up() {
        let cpu = &Device::Cpu;
        let ids = Tensor::new(&[3u32, 0, 3, 1, 3], cpu).unwrap();
        let grad = Tensor::arange(0f32, 10.0, cpu).unwrap().reshape((5, 2)).unwrap();
        let sums = sums_by_product(&ids, &grad, 5).unwrap();
        let expected = Tensor::zeros((5, 2), DType::F32, cpu).unwrap().index_add(&ids, &grad, 0).unwrap();
        assert_eq!(sums.to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap());
        let none = sums_by_product(&ids.narrow(0, 0, 0).unwrap(), &grad.narrow(0, 0, 0).unwrap(), 2).unwrap();
        assert_eq!(none.to_vec2::<f32>().unwrap(), [[0.0; 2]; 2]);
    }
}
