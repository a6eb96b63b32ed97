//! Root-mean-square normalisation in one pass each way.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::fused::rms_norm::{backward_row, inverse_rms};
use crate::host::{read, rows, tensor, values};

/// Rows whose weight gradient one task adds up.
const ROWS: usize = 128;

pub(super) struct RmsNorm {
    pub(super) eps: f64,
}

impl RmsNorm {
    #[inline(always)]
    fn inverse(&self, x: &[f32]) -> f32 {
        inverse_rms(x, self.eps as f32)
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (values(s1, l1)?, values(s2, l2)?);
        let width = w.len();
        let out = rows(x.len(), width, |row, out| {
            let x = &x[row * width..(row + 1) * width];
            let inverse = self.inverse(x);
            for ((o, x), w) in out.iter_mut().zip(x).zip(w) {
                *o = x * inverse * w;
            }
        });
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = w.elem_count();
        let (dx, dw) = read(x, |x| {
            read(w, |w| {
                read(grad, |g| {
                    let dx = rows(x.len(), width, |row, out| {
                        let range = row * width..(row + 1) * width;
                        let (x, g) = (&x[range.clone()], &g[range]);
                        let inverse = self.inverse(x);
                        out.copy_from_slice(g);
                        backward_row(x, w, inverse, out);
                    });
                    let block = (ROWS * width).max(1);
                    let partial: Vec<Vec<f32>> = x
                        .par_chunks(block)
                        .zip(g.par_chunks(block))
                        .map(|(x, g)| {
                            let mut sums = vec![0f32; width];
                            for (x, g) in x.chunks_exact(width).zip(g.chunks_exact(width)) {
                                let inverse = self.inverse(x);
                                for ((s, x), g) in sums.iter_mut().zip(x).zip(g) {
                                    *s += g * (x * inverse);
                                }
                            }
                            sums
                        })
                        .collect();
                    let mut dw = vec![0f32; width];
                    for sums in partial {
                        dw.iter_mut().zip(sums).for_each(|(d, s)| *d += s);
                    }
                    Ok((dx, dw))
                })
            })
        })?;
        Ok((Some(tensor(dx, x)?), Some(tensor(dw, w)?)))
    }
}
