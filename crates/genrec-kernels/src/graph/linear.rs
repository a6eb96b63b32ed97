//! The linear map as one operation whose three products need no transposed copy.

use candle_core::{CpuStorage, CustomOp2, Error, Layout, Result, Shape, Tensor};

use crate::gemm::{Operand, Parallelism, gemm};
use crate::host::{read, tensor, values};

fn product(shape: (usize, usize, usize), a: Operand<'_>, b: Operand<'_>) -> Result<Vec<f32>> {
    let mut out = vec![0f32; shape.0 * shape.1];
    gemm(shape, 1.0, a, b, 0.0, &mut out, Parallelism::Rayon).map_err(Error::wrap)?;
    Ok(out)
}

/// `x` `(.., in)` times `weight` `(out, in)` transposed.
pub(super) struct Linear;

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (values(s1, l1)?, values(s2, l2)?);
        let (out, width) = l2.shape().dims2()?;
        let mut dims = l1.dims().to_vec();
        let count: usize = dims.iter().rev().skip(1).product();
        if let Some(last) = dims.last_mut() {
            *last = out;
        }
        let y = product((count, out, width), Operand::new(x), Operand::transposed(w))?;
        Ok((CpuStorage::F32(y), Shape::from(dims)))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (out, width) = w.dims2()?;
        let count: usize = x.dims().iter().rev().skip(1).product();
        let (dx, dw) = read(grad, |g| {
            let dx = read(w, |w| product((count, width, out), Operand::new(g), Operand::new(w)))?;
            let dw = read(x, |x| product((out, width, count), Operand::transposed(g), Operand::new(x)))?;
            Ok((dx, dw))
        })?;
        Ok((Some(tensor(dx, x)?), Some(tensor(dw, w)?)))
    }
}
