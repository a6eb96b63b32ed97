//! Workers that train one model together, and how they exchange what they computed.
//!
//! Every rank has the model, the data and the configuration, and computes a share of each batch
//! ([`Trainable::share_loss_and_grads`](genrec_model::Trainable::share_loss_and_grads)); the gradients are summed over all ranks, so
//! that all take the same step. The batches, and the seed of each step's dropout, do not depend on the number of ranks.
//!
//! | collective | ranks are | feature |
//! |---|---|---|
//! | [`Alone`] | one | |
//! | [`Threads`] | threads of this process | |
//! | `Mpi` | processes that `mpirun` started, on one machine or many | `mpi` |
//! | `Nccl` | those of another collective, with a GPU each | `nccl` |

#[cfg(feature = "mpi")]
mod mpi;
mod nccl;
mod threads;

use candle_core::Tensor;
use genrec_kernels::nccl::GroupError;

#[cfg(feature = "mpi")]
pub use self::mpi::Mpi;
pub use self::nccl::Nccl;
pub use self::threads::Threads;

/// Why ranks could not exchange something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectiveError {
    /// A rank has ended while others wait for it.
    #[error(
        "rank {lost} has ended while rank {rank} waits for it; see its own error, and resume from the last checkpoint"
    )]
    Lost {
        /// Who waits.
        rank: usize,
        /// Who has ended.
        lost: usize,
    },
    /// The ranks do not do the same thing at the same time.
    #[error(
        "rank {rank} brings {got} where rank 0 brings {expected}; all ranks must run the same program on the same data"
    )]
    Order {
        /// Whose contribution it is.
        rank: usize,
        /// What rank 0 exchanges.
        expected: String,
        /// What this rank exchanges.
        got: String,
    },
    /// No ranks, or more than can be counted.
    #[error("{ranks} ranks are asked for; there must be at least one, and no more than {most}")]
    Ranks {
        /// The number asked for.
        ranks: usize,
        /// The most there can be.
        most: usize,
    },
    /// MPI cannot be used.
    #[error("MPI cannot be started: {reason}")]
    Mpi {
        /// Why.
        reason: &'static str,
    },
    /// The GPUs could not be brought together, or cannot sum.
    #[error("rank {rank} cannot work together with the GPUs of the other ranks")]
    Gpu {
        /// Whose error it is.
        rank: usize,
        /// What NCCL says, or that this build has none.
        #[source]
        source: GroupError,
    },
    /// Another rank brings no GPU, or cannot use it.
    #[error("rank {rank} has a GPU, but another rank has none or cannot use it; see that rank's own error")]
    OtherGpu {
        /// Who was told.
        rank: usize,
    },
    /// A tensor could not be copied.
    #[error("what the ranks exchange cannot be copied")]
    Tensor {
        /// The tensor operation's error.
        #[source]
        source: candle_core::Error,
    },
}

/// One of several ranks, seen from itself. All ranks call the same methods in the same order; each call waits for all.
pub trait Collective {
    /// This rank, from 0. Rank 0 leads: it validates, reports, and writes the checkpoints.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn ranks(&self) -> usize;

    /// The sum over all ranks, the same bytes on each.
    ///
    /// # Shapes
    /// `values`: `(n,)`, `f32`, the same on all ranks. Returns `(n,)`, `f32`, on the same device.
    ///
    /// # Errors
    /// When a rank is lost or values cannot be copied or summed; [`Threads`] find out too when one brings something else.
    fn all_reduce(&self, values: &Tensor) -> Result<Tensor, CollectiveError>;

    /// The bytes of rank 0; what the others bring is ignored.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>, CollectiveError>;

    /// Waits for all ranks.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    fn barrier(&self) -> Result<(), CollectiveError>;

    /// Whether all ranks bring `true`.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    fn all(&self, own: bool) -> Result<bool, CollectiveError> {
        let others = Tensor::new(&[f32::from(u8::from(!own))], &candle_core::Device::Cpu).map_err(tensor)?;
        let sum = self.all_reduce(&others)?.to_vec1::<f32>().map_err(tensor)?;
        Ok(sum.iter().all(|sum| *sum == 0.0))
    }

    /// This rank has failed and makes no further calls: whoever waits for it gets an error, where the ranks can be told. Processes of
    /// MPI cannot; they abort (`Mpi::abort`).
    fn leave(&self) {}
}

/// One rank, which waits for nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn ranks(&self) -> usize {
        1
    }

    fn all_reduce(&self, values: &Tensor) -> Result<Tensor, CollectiveError> {
        Ok(values.clone())
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>, CollectiveError> {
        Ok(bytes)
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        Ok(())
    }
}

impl<C: Collective + ?Sized> Collective for &C {
    fn rank(&self) -> usize {
        (**self).rank()
    }

    fn ranks(&self) -> usize {
        (**self).ranks()
    }

    fn all_reduce(&self, values: &Tensor) -> Result<Tensor, CollectiveError> {
        (**self).all_reduce(values)
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>, CollectiveError> {
        (**self).broadcast(bytes)
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        (**self).barrier()
    }

    fn leave(&self) {
        (**self).leave();
    }
}

fn tensor(source: candle_core::Error) -> CollectiveError {
    CollectiveError::Tensor { source }
}

/// The values of a tensor on the host, for transports that read memory.
fn to_host(values: &Tensor) -> Result<Vec<f32>, CollectiveError> {
    values.to_device(&candle_core::Device::Cpu).and_then(|values| values.to_vec1()).map_err(tensor)
}

/// Values as a tensor where `like` is.
fn to_device(values: Vec<f32>, like: &Tensor) -> Result<Tensor, CollectiveError> {
    Tensor::from_vec(values, like.dims1().map_err(tensor)?, like.device()).map_err(tensor)
}

#[cfg(test)]
mod tests;
