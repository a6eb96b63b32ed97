//! Host slices of tensors and the loops over their rows.

use crate::math::vectorized;
use candle_core::{CpuStorage, DType, Device, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

/// Elements that one parallel task of an element-wise pass takes; a whole number of blocks of dropout's hashes.
pub(crate) const BLOCK: usize = 1 << 13;

/// Elements below which a pass stays on the calling thread.
const SERIAL: usize = 1 << 14;

/// Whether the fused form applies: `f32` on the CPU throughout.
pub(crate) fn fused(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| t.device().is_cpu() && t.dtype() == DType::F32)
}

/// The values of contiguous `f32` storage.
pub(crate) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("a fused operation takes contiguous f32 values"),
    }
}

/// The values of contiguous `u32` storage.
pub(crate) fn indices<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [u32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::U32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("a fused operation takes contiguous u32 indices"),
    }
}

/// Calls `f` with the values of an `f32` tensor on the CPU, row-major; they are copied only where the tensor is not
/// contiguous.
///
/// # Errors
/// When the tensor is elsewhere or of another type, or `f` fails.
pub fn read<R>(t: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let t = t.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(values(storage, layout)?),
        _ => bail!("a fused operation takes tensors on the CPU"),
    }
}

/// Calls `f` with the values of a `u32` tensor on the CPU.
pub(crate) fn read_indices<R>(t: &Tensor, f: impl FnOnce(&[u32]) -> Result<R>) -> Result<R> {
    let t = t.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(indices(storage, layout)?),
        _ => bail!("a fused operation takes tensors on the CPU"),
    }
}

/// A tensor on the CPU that owns `values`.
pub(crate) fn tensor(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.dims(), &Device::Cpu)
}

/// Sum of a term a value in double precision, the same at any number of threads and with vectors of any width.
pub(crate) fn sum(values: &[f32], term: impl Fn(f32) -> f64 + Sync) -> f64 {
    const LANES: usize = 16;
    let add = |values: &[f32]| {
        vectorized(
            #[inline(always)]
            || {
                let mut lanes = [0f64; LANES];
                let (whole, rest) = values.as_chunks::<LANES>();
                for values in whole {
                    for (lane, &value) in lanes.iter_mut().zip(values) {
                        *lane += term(value);
                    }
                }
                for (lane, &value) in lanes.iter_mut().zip(rest) {
                    *lane += term(value);
                }
                lanes.iter().sum()
            },
        )
    };
    if values.len() <= SERIAL {
        return add(values);
    }
    let blocks: Vec<f64> = values.par_chunks(BLOCK).map(add).collect();
    blocks.iter().sum()
}

/// Sum of the squares.
pub(crate) fn sum_of_squares(values: &[f32]) -> f64 {
    sum(
        values,
        #[inline(always)]
        |value| f64::from(value) * f64::from(value),
    )
}

/// Calls `f(row, out)` for each row of `width` elements of a new vector of `len`, in parallel.
pub(crate) fn rows(len: usize, width: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = vec![0f32; len];
    if width == 0 {
        return out;
    }
    let per_task = (SERIAL / width).max(1);
    let run = |task: usize, block: &mut [f32]| {
        vectorized(
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

/// Calls `f(start, out)` for each block of [`BLOCK`] elements of a new vector of `len`, in parallel.
pub(crate) fn blocks(len: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = vec![0f32; len];
    let run = |block: usize, values: &mut [f32]| {
        vectorized(
            #[inline(always)]
            || f(block * BLOCK, values),
        );
    };
    if len <= SERIAL {
        out.chunks_mut(BLOCK).enumerate().for_each(|(block, values)| run(block, values));
    } else {
        out.par_chunks_mut(BLOCK).enumerate().for_each(|(block, values)| run(block, values));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_every_value_at_any_number_of_threads() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for len in [0usize, 1, 15, 16, 33, SERIAL, SERIAL + 1, 5 * BLOCK + 7] {
            let values: Vec<f32> = (0..len).map(|i| (i % 97) as f32 - 40.0).collect();
            // Whole numbers this small are added exactly in any order.
            let exact: i64 = (0..len as i64).map(|i| (i % 97 - 40).pow(2)).sum();
            for threads in [1, 2, 5] {
                assert_eq!(pool(threads).install(|| sum_of_squares(&values)), exact as f64, "{len} at {threads}");
            }
        }
    }
}
