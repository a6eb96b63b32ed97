//! Sums over several GPUs. Without the feature `nccl` there are none to join.

#[cfg(feature = "nccl")]
mod device;
#[cfg(not(feature = "nccl"))]
#[path = "nccl/no_device.rs"]
mod device;

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};

/// Bytes of the name under which the GPUs of a group find each other.
pub const NAME_BYTES: usize = 128;

/// Ranks ask whether the others are there, at first without a pause, then after naps.
const BUSY: Duration = Duration::from_micros(200);
const NAP: Duration = Duration::from_micros(50);

/// Why GPUs cannot be brought together, or cannot sum.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The feature `nccl` is off.
    #[error("this build has no sums over GPUs; build it with the feature `nccl`")]
    NotBuilt,
    /// The device is no CUDA GPU.
    #[error("{device} cannot join a group of GPUs; open a CUDA GPU (`Device::new_cuda`)")]
    NotCuda {
        /// What it is.
        device: String,
    },
    /// No rank of that group.
    #[error("rank {rank} of {ranks} cannot be; ranks count from 0, and there are fewer than 2^31")]
    Rank {
        /// The rank asked for.
        rank: usize,
        /// How many there are to be.
        ranks: usize,
    },
    /// Values that are not summed.
    #[error("GPUs sum values of type f32, not {dtype:?}; convert them first")]
    Type {
        /// Their type.
        dtype: DType,
    },
    /// Values that are not on the GPU of this rank.
    #[error("rank {rank} sums on {expected}, but the values are on {got}; move them first")]
    Elsewhere {
        /// Who was asked.
        rank: usize,
        /// The GPU that joined.
        expected: String,
        /// Where the values are.
        got: String,
    },
    /// NCCL has joined a GPU that is not this rank's.
    #[error("rank {rank} asked NCCL for GPU {expected} and got GPU {got}; let nothing else choose GPUs in this thread")]
    OtherGpu {
        /// Whose GPU it is.
        rank: usize,
        /// The GPU that was to join.
        expected: usize,
        /// The one that did.
        got: i32,
    },
    /// NCCL says no, be it because another rank has gone.
    #[error("NCCL cannot {action}: {reason}; with NCCL_DEBUG=INFO in the environment it says more")]
    Nccl {
        /// What was to be done.
        action: &'static str,
        /// What NCCL says.
        reason: String,
    },
    /// Other ranks did not come.
    #[error(
        "rank {rank} of {ranks} has waited {waited:?} for the others to {action}; one has ended or is stuck: see its own error, and \
         resume from the last checkpoint"
    )]
    Late {
        /// Who has waited.
        rank: usize,
        /// How many there are.
        ranks: usize,
        /// What all were to do.
        action: &'static str,
        /// How long it has waited.
        waited: Duration,
    },
    /// An earlier error has ended the group.
    #[error("rank {rank} has left its group of GPUs after an error; start all ranks again")]
    Left {
        /// Who was asked.
        rank: usize,
    },
    /// CUDA fails.
    #[error("the GPU cannot be made ready to {action}")]
    Cuda {
        /// What was to be done.
        action: &'static str,
        /// What CUDA says.
        #[source]
        source: candle_core::Error,
    },
}

/// A GPU that is one of a group: each rank has another GPU, and is a process or a thread of its own.
#[derive(Debug)]
pub struct GpuGroup {
    group: device::Group,
    /// NCCL is called by the thread that joined, whose stream candle uses; with the feature or without.
    _not_send: PhantomData<*const ()>,
}

impl GpuGroup {
    /// A name for a new group, which its first rank makes and sends to the others.
    ///
    /// # Errors
    /// When NCCL cannot make one, or without the feature `nccl`.
    pub fn name() -> Result<[u8; NAME_BYTES], GroupError> {
        device::name()
    }

    /// Joins a group as member `rank` of `ranks`, and waits for all of them. A wait lasts `patience` at most, of
    /// which a sum has two, and after an error ten seconds more; it must be longer than one rank may be behind another.
    ///
    /// # Errors
    /// When the device is no CUDA GPU, NCCL cannot join it, others do not come, or without the feature `nccl`.
    pub fn join(
        device: &Device,
        rank: usize,
        ranks: usize,
        name: [u8; NAME_BYTES],
        patience: Duration,
    ) -> Result<Self, GroupError> {
        if i32::try_from(ranks).is_err() || rank >= ranks {
            return Err(GroupError::Rank { rank, ranks });
        }
        let group = device::join(device, rank, ranks, name, patience)?;
        Ok(Self { group, _not_send: PhantomData })
    }

    /// The sum of a tensor over the group, the same on all its GPUs. All members call it in the same order, with tensors of one length.
    /// It is complete when this returns.
    ///
    /// After an error this rank has left the group, and the others hear of it at the latest when their patience ends. A group is to be dropped when
    /// all members have their last sum: whoever drops it takes its memory away.
    ///
    /// # Shapes
    /// `values`: any, `f32`. Returns the same shape, `f32`, contiguous.
    ///
    /// # Errors
    /// When the tensor has another type or is elsewhere, NCCL fails, or others do not come.
    pub fn all_reduce(&self, values: &Tensor) -> Result<Tensor, GroupError> {
        if values.dtype() != DType::F32 {
            return Err(GroupError::Type { dtype: values.dtype() });
        }
        device::sum(&self.group, values)
    }
}

/// Asks until the answer is yes; no, when `patience` is over.
#[cfg_attr(not(feature = "nccl"), allow(dead_code, reason = "there is nothing to wait for"))]
fn until<E>(patience: Duration, mut ask: impl FnMut() -> Result<bool, E>) -> Result<bool, E> {
    let start = Instant::now();
    loop {
        if ask()? {
            return Ok(true);
        }
        let waited = start.elapsed();
        if waited >= patience {
            return Ok(false);
        }
        if waited < BUSY { std::thread::yield_now() } else { std::thread::sleep(NAP) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_an_answer_an_error_or_the_patience() {
        let mut asked = 0;
        let third = until::<()>(Duration::from_secs(60), || {
            asked += 1;
            Ok(asked == 3)
        });
        assert_eq!((third, asked), (Ok(true), 3));
        assert_eq!(until(Duration::from_secs(60), || Err("gone")), Err("gone"));
        let start = Instant::now();
        assert_eq!(until::<()>(Duration::from_millis(20), || Ok(false)), Ok(false));
        assert!(start.elapsed() >= Duration::from_millis(20));
        // Who has no patience asks once.
        assert_eq!(until::<()>(Duration::ZERO, || Ok(true)), Ok(true));
    }

    #[test]
    fn what_cannot_be_a_rank_or_a_gpu_joins_nothing() {
        let join =
            |rank, ranks| GpuGroup::join(&Device::Cpu, rank, ranks, [0; NAME_BYTES], Duration::ZERO).unwrap_err();
        assert!(matches!(join(2, 2), GroupError::Rank { rank: 2, ranks: 2 }));
        assert!(matches!(join(0, 0), GroupError::Rank { rank: 0, ranks: 0 }));
        assert!(matches!(join(0, usize::MAX), GroupError::Rank { .. }));
        let error = join(0, 1);
        match cfg!(feature = "nccl") {
            true => assert!(matches!(&error, GroupError::NotCuda { device } if device == "Cpu"), "{error:?}"),
            false => assert!(matches!(error, GroupError::NotBuilt), "{error:?}"),
        }
    }
}
