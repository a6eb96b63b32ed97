//! Sums over several GPUs. Without the feature `nccl` there are none to join.

#[cfg(feature = "nccl")]
mod device;
#[cfg(not(feature = "nccl"))]
#[path = "nccl/no_device.rs"]
mod device;

use candle_core::{DType, Device, Result, Tensor, bail};

/// Bytes of the name under which the GPUs of a group find each other.
pub const NAME_BYTES: usize = 128;

/// A GPU that is one of a group, each of another process.
#[derive(Debug)]
pub struct GpuGroup(device::Group);

impl GpuGroup {
    /// A name for a new group, which its first process makes and sends to the others.
    ///
    /// # Errors
    /// When NCCL cannot make one, or without the feature `nccl`.
    pub fn name() -> Result<[u8; NAME_BYTES]> {
        device::name()
    }

    /// Joins a group as member `rank` of `ranks`, and waits for all of them.
    ///
    /// # Errors
    /// When the device is no CUDA GPU, NCCL cannot join it, or without the feature `nccl`.
    pub fn join(device: &Device, rank: usize, ranks: usize, name: [u8; NAME_BYTES]) -> Result<Self> {
        if i32::try_from(ranks).is_err() || rank >= ranks {
            bail!("rank {rank} is not one of {ranks}")
        }
        device::join(device, rank, ranks, name).map(Self)
    }

    /// The sum of a tensor over the group, the same on all its GPUs. All members call it in the same order, with tensors of one length.
    ///
    /// # Shapes
    /// `values`: `(n,)`, `f32`. Returns `(n,)`, `f32`.
    ///
    /// # Errors
    /// When the tensor has another type or is elsewhere, or NCCL fails.
    pub fn all_reduce(&self, values: &Tensor) -> Result<Tensor> {
        if values.dtype() != DType::F32 {
            bail!("sums over GPUs are of f32, not of {:?}", values.dtype())
        }
        let sum = values.copy()?;
        device::sum(&self.0, &sum)?;
        Ok(sum)
    }
}
