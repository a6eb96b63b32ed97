//! Element-wise operations in one pass each way: dropout, ReLU, both together, GELU.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use crate::dropout::DropoutMask;
use crate::host::{blocks, read, tensor, values};
use crate::math::{gelu_new, gelu_new_slope};

/// The positive part; NaN stays NaN, which `f32::max` would turn into 0.
#[inline(always)]
fn positive(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// ReLU, with slope 1 at 0 as in candle's.
pub(super) struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(storage, layout)?;
        let out = blocks(x.len(), |start, out| {
            for (o, &x) in out.iter_mut().zip(&x[start..]) {
                *o = positive(x);
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let out = read(arg, |x| {
            read(grad, |g| {
                Ok(blocks(x.len(), |start, out| {
                    for ((o, &x), &g) in out.iter_mut().zip(&x[start..]).zip(&g[start..]) {
                        *o = if x < 0.0 { 0.0 } else { g };
                    }
                }))
            })
        })?;
        Ok(Some(tensor(out, arg)?))
    }
}

/// Dropout, of the positive part if `relu`.
pub(super) struct Dropout {
    pub(super) mask: DropoutMask,
    pub(super) relu: bool,
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(storage, layout)?;
        let out = blocks(x.len(), |start, out| {
            let x = &x[start..start + out.len()];
            if self.relu {
                self.mask.map(start, x, out, |x, factor| positive(x) * factor);
            } else {
                self.mask.map(start, x, out, |x, factor| x * factor);
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let out = read(grad, |g| {
            if !self.relu {
                return Ok(blocks(g.len(), |start, out| {
                    let g = &g[start..start + out.len()];
                    self.mask.map(start, g, out, |g, factor| g * factor);
                }));
            }
            read(arg, |x| {
                Ok(blocks(g.len(), |start, out| {
                    let (g, x) = (&g[start..start + out.len()], &x[start..start + out.len()]);
                    self.mask.map(start, g, out, |g, factor| g * factor);
                    out.iter_mut().zip(x).for_each(|(out, x)| *out = if *x > 0.0 { *out } else { 0.0 });
                }))
            })
        })?;
        Ok(Some(tensor(out, arg)?))
    }
}

pub(super) struct GeluNew;

impl CustomOp1 for GeluNew {
    fn name(&self) -> &'static str {
        "gelu-new"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(storage, layout)?;
        let out = blocks(x.len(), |start, out| {
            for (o, &x) in out.iter_mut().zip(&x[start..]) {
                *o = gelu_new(x);
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let out = read(arg, |x| {
            read(grad, |g| {
                Ok(blocks(x.len(), |start, out| {
                    for ((o, &x), g) in out.iter_mut().zip(&x[start..]).zip(&g[start..]) {
                        *o = g * gelu_new_slope(x);
                    }
                }))
            })
        })?;
        Ok(Some(tensor(out, arg)?))
    }
}
