//! Ranks that are processes which `mpirun` started.

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use candle_core::Tensor;
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::request::{Request, Scope, scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};

use super::{Collective, CollectiveError, to_device, to_host};

/// MPI counts what it sends in 31 bits.
const CHUNK: usize = 1 << 30;
/// Naps are for what lasts: a validation, another rank's share of a batch.
const PATIENCE: Duration = Duration::from_micros(200);
const NAP: Duration = Duration::from_micros(50);

/// A rank that is a process; without `mpirun`, the only one.
///
/// A process that dies takes the others with it: `mpirun` ends them and says who died, and the run resumes from its last checkpoint. A
/// process that ends otherwise while others wait must call [`abort`](Self::abort), or they wait for ever; a panic does.
///
/// # Example
/// ```no_run
/// use genrec_train::{Collective, Mpi};
///
/// let rank = Mpi::new()?;
/// println!("rank {} of {}", rank.rank(), rank.ranks());
/// # Ok::<(), genrec_train::CollectiveError>(())
/// ```
pub struct Mpi {
    world: SimpleCommunicator,
    /// MPI is called by one thread at a time.
    _not_sync: PhantomData<Cell<()>>,
    /// Ends MPI when it is dropped.
    _universe: Universe,
}

impl Mpi {
    /// Starts MPI, once a process.
    ///
    /// # Errors
    /// [`CollectiveError::Mpi`] when it was started before, or cannot be called by one thread at a time.
    pub fn new() -> Result<Self, CollectiveError> {
        let failed = |reason| CollectiveError::Mpi { reason };
        let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)
            .ok_or_else(|| failed("it was started before in this process"))?;
        if threading < Threading::Serialized {
            return Err(failed("this build of MPI can be called by the first thread alone"));
        }
        Ok(Self { world: universe.world(), _not_sync: PhantomData, _universe: universe })
    }

    /// Ends this process and all other ranks; what is to be said is said before.
    pub fn abort(&self, code: i32) -> ! {
        self.world.abort(code)
    }
}

impl std::fmt::Debug for Mpi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mpi").field("rank", &self.rank()).field("ranks", &self.ranks()).finish()
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.world.rank().unsigned_abs() as usize
    }

    fn ranks(&self) -> usize {
        self.world.size().unsigned_abs() as usize
    }

    fn all_reduce(&self, values: &Tensor) -> Result<Tensor, CollectiveError> {
        let own = to_host(values)?;
        let mut sum = vec![0.0; own.len()];
        self.barrier()?;
        for (own, sum) in own.chunks(CHUNK).zip(sum.chunks_mut(CHUNK)) {
            self.world.all_reduce_into(own, sum, SystemOperation::sum());
        }
        to_device(sum, values)
    }

    fn broadcast(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>, CollectiveError> {
        let leader = self.world.process_at_rank(0);
        let mut length = bytes.len() as u64;
        scope(|scope| wait(leader.immediate_broadcast_into(scope, &mut length)));
        if self.rank() > 0 {
            bytes = vec![0; length as usize];
        }
        bytes.chunks_mut(CHUNK).for_each(|chunk| leader.broadcast_into(chunk));
        Ok(bytes)
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        wait(self.world.immediate_barrier());
        Ok(())
    }
}

/// Waits without keeping a processor busy, as MPI itself does: other ranks may need it. Where all have come, what is sent is sent by calls
/// that do keep it busy: MPI moves large messages piece by piece, each time that it is called.
fn wait<'a, D: ?Sized, S: Scope<'a>>(mut request: Request<'a, D, S>) {
    let start = Instant::now();
    while let Err(unfinished) = request.test() {
        request = unfinished;
        if start.elapsed() < PATIENCE {
            std::thread::yield_now();
        } else {
            std::thread::sleep(NAP);
        }
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // The others would wait for ever for a process that ends MPI, and so would it for them.
        if std::thread::panicking() {
            self.abort(101);
        }
    }
}
