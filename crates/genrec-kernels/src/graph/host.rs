//! Host slices of tensors, the loops over their rows, and arithmetic that vectorises.

use candle_core::{CpuStorage, DType, Device, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

/// Elements below which a pass stays on the calling thread.
const SERIAL: usize = 1 << 14;

/// Whether the fused form applies: `f32` on the CPU throughout.
pub(super) fn fused(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| t.device().is_cpu() && t.dtype() == DType::F32)
}

/// The values of contiguous `f32` storage.
pub(super) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("a fused operation takes contiguous f32 values"),
    }
}

/// The values of contiguous `u32` storage.
pub(super) fn indices<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [u32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::U32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("a fused operation takes contiguous u32 indices"),
    }
}

/// Calls `f` with the values of an `f32` tensor on the CPU.
pub(super) fn read<R>(t: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let t = t.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(values(storage, layout)?),
        _ => bail!("a fused operation takes tensors on the CPU"),
    }
}

/// Calls `f` with the values of a `u32` tensor on the CPU.
pub(super) fn read_indices<R>(t: &Tensor, f: impl FnOnce(&[u32]) -> Result<R>) -> Result<R> {
    let t = t.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(indices(storage, layout)?),
        _ => bail!("a fused operation takes tensors on the CPU"),
    }
}

/// A tensor on the CPU that owns `values`.
pub(super) fn tensor(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.dims(), &Device::Cpu)
}

/// Calls `f(row, out)` for each row of `width` elements of a new vector of `len`, in parallel.
pub(super) fn rows(len: usize, width: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = vec![0f32; len];
    if width == 0 {
        return out;
    }
    let per_task = (SERIAL / width).max(1);
    let run = |task: usize, block: &mut [f32]| {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for (i, row) in block.chunks_mut(width).enumerate() {
                    f(task * per_task + i, row);
                }
            },
        );
    };
    if len <= SERIAL {
        run(0, &mut out);
    } else {
        out.par_chunks_mut(per_task * width).enumerate().for_each(|(task, block)| run(task, block));
    }
    out
}

/// Calls `f(start, out)` for each block of [`BLOCK`](super::BLOCK) elements of a new vector of `len`, in parallel.
pub(super) fn blocks(len: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = vec![0f32; len];
    let run = |block: usize, values: &mut [f32]| {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || f(block * super::BLOCK, values),
        );
    };
    if len <= SERIAL {
        out.chunks_mut(super::BLOCK).enumerate().for_each(|(block, values)| run(block, values));
    } else {
        out.par_chunks_mut(super::BLOCK).enumerate().for_each(|(block, values)| run(block, values));
    }
    out
}

const LANES: usize = 16;

/// Sum of `f` over pairs of elements, in sixteen running sums: one order, whatever the processor.
#[inline(always)]
pub(super) fn sum_by(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += f(a[lane], b[lane]);
        }
    }
    let mut total: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f(a, b)).sum();
    for sum in sums {
        total += sum;
    }
    total
}

/// The largest element; negative infinity when there is none.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            best[lane] = if chunk[lane] > best[lane] { chunk[lane] } else { best[lane] };
        }
    }
    best.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
}

/// The exponential, to about 2 units in the last place, without a branch or a table (the polynomial of Cephes'
/// `expf`). Below -87.3 it is 0, above 88.3 it stands still.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding and taking off 1.5 * 2^23 rounds to the nearest integer, which then sits in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let y = p * r * r + r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.3 { 0.0 } else { y * power }
}

/// The hyperbolic tangent, by [`exp`].
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_tanh_are_accurate() {
        let mut worst = 0f64;
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / want - 1.0).abs());
            let t = f64::from(x * 0.1);
            assert!((f64::from(tanh(x * 0.1)) - t.tanh()).abs() < 3e-7, "{x}");
        }
        assert!(worst < 2.5e-7, "{worst}");
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
    }
}
