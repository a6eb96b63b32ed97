//! Ranks that have a GPU each.

use candle_core::{Device, Tensor};
use genrec_kernels::nccl::{GpuGroup, NAME_BYTES};

use super::{Collective, CollectiveError};

/// A rank with a GPU: values on it are summed by NCCL, from GPU to GPU; everything else goes over the collective that brought the ranks
/// together, such as `Mpi`. Without the feature `nccl` none can be made.
///
/// A sum waits for all GPUs, whatever becomes of a rank: over `Mpi`, `mpirun` ends those that wait when one dies.
#[derive(Debug)]
pub struct Nccl<C> {
    group: GpuGroup,
    ranks: C,
}

impl<C: Collective> Nccl<C> {
    /// Joins the GPUs of all ranks. Each rank gives another device; all wait for each other.
    ///
    /// # Errors
    /// [`CollectiveError::Gpu`] when the device is no GPU or NCCL cannot join them, and those of the other collective.
    pub fn new(device: &Device, ranks: C) -> Result<Self, CollectiveError> {
        // Who cannot join must say so before the others wait for it.
        let usable = device.is_cuda();
        if !ranks.all(usable)? {
            let whose = if usable { "the device of another rank" } else { "the device of this rank" };
            let source = candle_core::Error::msg(format!("{whose} is no CUDA GPU"));
            return Err(CollectiveError::Gpu { source });
        }
        let made = if ranks.rank() == 0 { Some(GpuGroup::name()) } else { None };
        let sent = made.as_ref().and_then(|name| name.as_ref().ok()).map(|name| name.to_vec()).unwrap_or_default();
        let sent = ranks.broadcast(sent)?;
        if let Some(Err(source)) = made {
            return Err(CollectiveError::Gpu { source });
        }
        let name: [u8; NAME_BYTES] =
            sent.try_into().map_err(|_| CollectiveError::Lost { rank: ranks.rank(), lost: 0 })?;
        let group = GpuGroup::join(device, ranks.rank(), ranks.ranks(), name);
        Ok(Self { group: group.map_err(|source| CollectiveError::Gpu { source })?, ranks })
    }
}

impl<C: Collective> Collective for Nccl<C> {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn ranks(&self) -> usize {
        self.ranks.ranks()
    }

    fn all_reduce(&self, values: &Tensor) -> Result<Tensor, CollectiveError> {
        if values.device().is_cpu() {
            return self.ranks.all_reduce(values);
        }
        self.group.all_reduce(values).map_err(|source| CollectiveError::Gpu { source })
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>, CollectiveError> {
        self.ranks.broadcast(bytes)
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        self.ranks.barrier()
    }

    fn leave(&self) {
        self.ranks.leave();
    }
}
