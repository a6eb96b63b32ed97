//! Operations with indices: cross-entropy and embedding.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
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
