//! Ranks that have a GPU each.

use std::time::Duration;

use candle_core::{Device, Tensor};
use genrec_kernels::nccl::{GpuGroup, GroupError, NAME_BYTES};

use super::{Collective, CollectiveError};

/// Far longer than one rank of a training may be behind another.
const PATIENCE: Duration = Duration::from_secs(600);

/// A rank with a GPU: values on it are summed by NCCL, from GPU to GPU; everything else goes over the collective that brought the ranks
/// together, such as `Mpi`. Without the feature `nccl` none can be made.
///
/// A rank that waits for a GPU for ten minutes gets an error, as it does at once when a connection breaks. Over `Mpi` it does not come to that:
/// `mpirun` ends those that wait when one dies.
#[derive(Debug)]
pub struct Nccl<C> {
    group: GpuGroup,
    ranks: C,
}

impl<C: Collective> Nccl<C> {
    /// Joins the GPUs of all ranks. Each rank gives another device; all wait for each other.
    ///
    /// # Errors
    /// [`CollectiveError::Gpu`] when the device is no GPU or NCCL cannot join them, [`CollectiveError::OtherGpu`] when that of another rank is
    /// none, and those of the other collective.
    pub fn new(device: &Device, ranks: C) -> Result<Self, CollectiveError> {
        Self::with_patience(device, ranks, PATIENCE)
    }

    /// [`new`](Self::new) with another time, after which a rank that waits for others gets an error.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_patience(device: &Device, ranks: C, patience: Duration) -> Result<Self, CollectiveError> {
        let (rank, count) = (ranks.rank(), ranks.ranks());
        let gpu = |source| CollectiveError::Gpu { rank, source };
        // Who cannot join must say so before the others wait for it.
        let own = match device.is_cuda() {
            true => Ok(()),
            false => Err(GroupError::NotCuda { device: format!("{:?}", device.location()) }),
        };
        let all = ranks.all(own.is_ok());
        own.map_err(gpu)?;
        if !all? {
            return Err(CollectiveError::OtherGpu { rank });
        }
        let made = if rank == 0 { GpuGroup::name().map(Vec::from) } else { Ok(Vec::new()) };
        let sent = ranks.broadcast(made.as_ref().map(Clone::clone).unwrap_or_default());
        made.map_err(gpu)?;
        let name = <[u8; NAME_BYTES]>::try_from(sent?).map_err(|_| CollectiveError::OtherGpu { rank })?;
        let group = GpuGroup::join(device, rank, count, name, patience).map_err(gpu)?;
        Ok(Self { group, ranks })
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
        self.group.all_reduce(values).map_err(|source| CollectiveError::Gpu { rank: self.rank(), source })
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
