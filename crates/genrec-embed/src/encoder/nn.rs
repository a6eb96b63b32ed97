//! Layers of inference. Fused operations without a backward pass are right here: nothing asks for a gradient.
#![allow(clippy::disallowed_methods, reason = "inference only: no gradient is ever asked for")]
#![allow(clippy::needless_pass_by_value, reason = "a VarBuilder is a handle, passed by value as everywhere in candle")]

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use candle_nn::{Module, VarBuilder};
use rayon::prelude::*;

/// `x W^T + b` on rows.
#[derive(Debug)]
pub(super) struct Linear(candle_nn::Linear);

impl Linear {
    /// Weight `(output, input)`, and a bias where the file has one.
    pub(super) fn load(input: usize, output: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let weight = vb.get((output, input), "weight")?;
        let bias = if vb.contains_tensor("bias") { Some(vb.get(output, "bias")?) } else { None };
        Ok(Self(candle_nn::Linear::new(weight, bias)))
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

/// Layer normalisation with weight and bias.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    pub(super) fn load(width: usize, eps: f64, vb: VarBuilder<'_>) -> Result<Self> {
        Ok(Self { weight: vb.get(width, "weight")?, bias: vb.get(width, "bias")?, eps: eps as f32 })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::layer_norm(&x.contiguous()?, &self.weight, &self.bias, self.eps)
    }
}

/// Root mean square normalisation.
#[derive(Debug)]
pub(super) struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    pub(super) fn load(width: usize, eps: f64, vb: VarBuilder<'_>) -> Result<Self> {
        Ok(Self { weight: vb.get(width, "weight")?, eps: eps as f32 })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(&x.contiguous()?, &self.weight, self.eps)
    }
}

/// Splits `(texts * length, heads * width)` into `(texts, heads, length, width)`.
pub(super) fn split_heads(x: &Tensor, texts: usize, heads: usize) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    x.reshape((texts, rows / texts, heads, width / heads))?.transpose(1, 2)?.contiguous()
}

/// `softmax(q k^T + masks) v`; scaling is the caller's.
///
/// # Shapes
/// `q`, `k`, `v`: `(texts, heads, length, width)`; each mask broadcasts to `(texts, heads, length,
/// length)`; the result is `(texts * length, heads * width)`.
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, masks: &[&Tensor]) -> Result<Tensor> {
    let (texts, heads, length, width) = q.dims4()?;
    let mut scores = q.matmul(&k.t()?)?;
    for mask in masks {
        scores = scores.broadcast_add(mask)?;
    }
    let weights = candle_nn::ops::softmax_last_dim(&scores)?;
    weights.matmul(v)?.transpose(1, 2)?.contiguous()?.reshape((texts * length, heads * width))
}

/// Rotates `(texts, heads, length, width)` by the angles of its positions; `cos`, `sin`: `(length, width / 2)`.
pub(super) fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    candle_nn::rotary_emb::rope(x, cos, sin)
}

/// `x Phi(x)` with the exact normal distribution function.
pub(super) fn gelu(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() { x.contiguous()?.apply_op1_no_bwd(&FastGelu) } else { x.gelu_erf() }
}

/// GELU in single precision: candle's CPU kernel evaluates erf in double precision, one value at a
/// time, which takes longer than the matrix products around it.
struct FastGelu;

impl CustomOp1 for FastGelu {
    fn name(&self) -> &'static str {
        "fast-gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (start, end) = layout
            .contiguous_offsets()
            .ok_or_else(|| candle_core::Error::RequiresContiguous { op: "fast-gelu" }.bt())?;
        let values = &storage.as_slice::<f32>()?[start..end];
        let mut out = vec![0.0; values.len()];
        out.par_chunks_mut(8192).zip(values.par_chunks(8192)).for_each(|(out, values)| {
            for (out, x) in out.iter_mut().zip(values) {
                *out = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

/// The error function by a rational approximation on `[-4, 4]`, within a few units of the last place; NaN stays NaN.
fn erf(x: f32) -> f32 {
    const P: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const Q: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];
    let square = x * x;
    let horner = |sum: f32, coefficient: &f32| sum * square + coefficient;
    let within = x * P.iter().fold(0.0, horner) / Q.iter().fold(0.0, horner);
    // Exactly one beyond, or a large negative input would not vanish.
    if x.abs() >= 4.0 { x.signum() } else { within }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn fast_gelu_agrees_with_the_double_precision_one() {
        let x: Vec<f32> = (-3000..3000).map(|i| i as f32 * 0.003).chain([1e30, -1e30, 0.0]).collect();
        let x = Tensor::new(x, &Device::Cpu).unwrap();
        let (fast, exact) = (gelu(&x).unwrap(), x.gelu_erf().unwrap());
        for (fast, exact) in fast.to_vec1::<f32>().unwrap().iter().zip(exact.to_vec1::<f32>().unwrap()) {
            assert!((fast - exact).abs() <= 1e-6 * exact.abs().max(1.0), "{fast} and {exact}");
        }
        let nan = gelu(&Tensor::new(&[f32::NAN], &Device::Cpu).unwrap()).unwrap();
        assert!(nan.to_vec1::<f32>().unwrap()[0].is_nan());
    }
}
