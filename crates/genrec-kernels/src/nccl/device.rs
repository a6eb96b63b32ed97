//! NCCL, by way of cudarc's bindings.
//!
//! The communicators do not block. NCCL does in a thread of its own what may have to wait for another GPU, and is asked how far it has come; so a
//! rank that has gone is an error of the others once their patience ends, where a blocking call would never return. That thread also launches the
//! sums, for which it must have a stream of its own: candle's is the default stream of each host thread, a handle that means another stream
//! in another thread.

#![allow(unsafe_code, reason = "NCCL is a library in C; a communicator is called while it is open, by one thread")]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use candle_core::cuda_backend::cudarc::driver::result::stream::{StreamKind, create, destroy};
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaStream, DriverError};
use candle_core::cuda_backend::cudarc::nccl::safe::Id;
use candle_core::cuda_backend::cudarc::nccl::sys::{self, ncclComm, ncclDataType_t, ncclRedOp_t, ncclResult_t};
use candle_core::{CudaDevice, Device, Error, Tensor};

use super::{GroupError, NAME_BYTES, until};
use crate::cuda;

const NAME: &str = "name a group";
const JOIN: &str = "join their GPUs";
const SUM: &str = "sum over their GPUs";
/// How long a GPU may take to leave a sum that was given up.
const GRACE: Duration = Duration::from_secs(10);

/// The first of NCCL's settings, which are all there were in version 2.14. Later versions copy as many bytes as `size` says and have defaults for
/// the rest.
#[repr(C)]
struct Settings {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
}

const SETTINGS: Settings = Settings {
    size: offset_of!(Settings, blocking) + size_of::<c_int>(),
    magic: 0xcafe_beef,
    version: 21_400,
    blocking: 0,
};

/// A stream that candle does not know of. One that cudarc counted would make it record an event at each use of a tensor.
#[derive(Debug)]
struct Stream(Arc<CudaStream>);

impl Stream {
    fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        context.bind_to_thread()?;
        let stream = create(StreamKind::NonBlocking)?;
        // SAFETY: the stream was made in this context, and is destroyed by `drop` alone.
        Ok(Self(unsafe { context.wrap_borrowed_stream(stream) }))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.0.context().bind_to_thread().is_ok() {
            // SAFETY: it was made in `new` and is not used again. CUDA lets what still runs on it end.
            let _: Result<(), DriverError> = unsafe { destroy(self.0.cu_stream()) };
        }
    }
}

#[derive(Debug)]
pub(super) struct Group {
    /// Open; `None` after an error.
    communicator: Cell<Option<NonNull<ncclComm>>>,
    stream: Stream,
    gpu: CudaDevice,
    rank: usize,
    ranks: usize,
    patience: Duration,
}

pub(super) fn name() -> Result<[u8; NAME_BYTES], GroupError> {
    let id = Id::new().map_err(|error| refused(NAME, error.0))?;
    Ok(id.internal().map(|byte| byte.to_ne_bytes()[0]))
}

pub(super) fn join(
    device: &Device,
    rank: usize,
    ranks: usize,
    name: [u8; NAME_BYTES],
    patience: Duration,
) -> Result<Group, GroupError> {
    let Device::Cuda(gpu) = device else { return Err(GroupError::NotCuda { device: place(device) }) };
    let (Ok(number), Ok(count)) = (c_int::try_from(rank), c_int::try_from(ranks)) else {
        return Err(GroupError::Rank { rank, ranks });
    };
    let context = Arc::clone(gpu.cuda_stream().context());
    // This makes the GPU the current one of this thread, which is the one that NCCL takes.
    let stream = Stream::new(&context).map_err(failed(JOIN))?;
    let name = sys::ncclUniqueId { internal: name.map(|byte| c_char::from_ne_bytes([byte])) };
    let (mut settings, mut communicator) = (SETTINGS, std::ptr::null_mut());
    // SAFETY: `communicator` is written here and then, `settings` is only read, both during the call; the settings' size keeps NCCL from reading past
    // their end.
    let code =
        unsafe { sys::ncclCommInitRankConfig(&raw mut communicator, count, name, number, (&raw mut settings).cast()) };
    let communicator = Cell::new(NonNull::new(communicator));
    // From here on `drop` closes it, come what may.
    let group = Group { communicator, stream, gpu: gpu.clone(), rank, ranks, patience };
    if !over(JOIN, code)? {
        group.wait(JOIN, || group.settled(JOIN))?;
    }
    group.check_gpu(context.ordinal())?;
    Ok(group)
}

pub(super) fn sum(group: &Group, values: &Tensor) -> Result<Tensor, GroupError> {
    group.open()?;
    let own = Device::Cuda(group.gpu.clone());
    if !values.device().same_device(&own) {
        let (expected, got) = (place(&own), place(values.device()));
        return Err(GroupError::Elsewhere { rank: group.rank, expected, got });
    }
    if values.elem_count() == 0 {
        return Ok(values.clone());
    }
    let sum = values.force_contiguous().map_err(|source| GroupError::Cuda { action: SUM, source })?;
    match group.sum_in_place(&sum) {
        Ok(()) => Ok(sum),
        Err(error) => {
            group.close();
            if !group.is_idle() {
                // A kernel may still write there.
                std::mem::forget(sum);
            }
            Err(error)
        }
    }
}

impl Group {
    fn open(&self) -> Result<*mut ncclComm, GroupError> {
        self.communicator.get().map(NonNull::as_ptr).ok_or(GroupError::Left { rank: self.rank })
    }

    /// Whether NCCL is done with what it was last asked for.
    fn settled(&self, action: &'static str) -> Result<bool, GroupError> {
        let communicator = self.open()?;
        let mut state = ncclResult_t::ncclSuccess;
        // SAFETY: the communicator is open, and `state` is written during the call.
        let code = unsafe { sys::ncclCommGetAsyncError(communicator, &raw mut state) };
        Ok(over(action, code)? && over(action, state)?)
    }

    fn wait(&self, action: &'static str, ask: impl FnMut() -> Result<bool, GroupError>) -> Result<(), GroupError> {
        let (rank, ranks, waited) = (self.rank, self.ranks, self.patience);
        if until(waited, ask)? { Ok(()) } else { Err(GroupError::Late { rank, ranks, action, waited }) }
    }

    fn check_gpu(&self, expected: usize) -> Result<(), GroupError> {
        let (communicator, mut got) = (self.open()?, -1);
        // SAFETY: the communicator is open, and `got` is written during the call.
        let code = unsafe { sys::ncclCommCuDevice(communicator, &raw mut got) };
        over(JOIN, code)?;
        if usize::try_from(got) == Ok(expected) {
            return Ok(());
        }
        Err(GroupError::OtherGpu { rank: self.rank, expected, got })
    }

    /// Sums values that are contiguous and used by nothing else.
    fn sum_in_place(&self, values: &Tensor) -> Result<(), GroupError> {
        let communicator = self.open()?;
        let first = cuda::address(values).map_err(|source| GroupError::Cuda { action: SUM, source })?;
        let stream = &self.stream.0;
        let computed = self.gpu.cuda_stream().record_event(None).map_err(failed(SUM))?;
        stream.wait(&computed).map_err(failed(SUM))?;
        // SAFETY: the communicator is open and has nothing under way; from `first` on there are as many values of that type, on its GPU, and they stay until
        // the sum is complete or, after an error, until the stream is idle. The stream is of this GPU too.
        let code = unsafe {
            sys::ncclAllReduce(
                first as *const _,
                first as *mut _,
                values.elem_count(),
                ncclDataType_t::ncclFloat32,
                ncclRedOp_t::ncclSum,
                communicator,
                stream.cu_stream().cast(),
            )
        };
        if !over(SUM, code)? {
            self.wait(SUM, || self.settled(SUM))?;
        }
        // The sum is in the stream now. Candle's stream need not wait for it: this thread does.
        let summed = stream.record_event(None).map_err(failed(SUM))?;
        self.wait(SUM, || Ok(self.settled(SUM)? && summed.try_is_complete().map_err(failed(SUM))?))
    }

    /// Gives up what is under way, and does not wait for other ranks.
    fn close(&self) {
        if let Some(communicator) = self.communicator.take() {
            // SAFETY: it is open, and nobody can find it any more. NCCL takes this call at any time; there is no remedy for its errors.
            let _: ncclResult_t = unsafe { sys::ncclCommAbort(communicator.as_ptr()) };
        }
    }

    fn is_idle(&self) -> bool {
        let Ok(event) = self.stream.0.record_event(None) else { return false };
        until(GRACE, || event.try_is_complete()).unwrap_or(false)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Destroying it without an abort would wait for the other ranks of this machine.
        self.close();
    }
}

/// Whether it is done; if not, NCCL is at it.
fn over(action: &'static str, code: ncclResult_t) -> Result<bool, GroupError> {
    match code {
        ncclResult_t::ncclSuccess => Ok(true),
        ncclResult_t::ncclInProgress => Ok(false),
        code => Err(refused(action, code)),
    }
}

fn refused(action: &'static str, code: ncclResult_t) -> GroupError {
    // SAFETY: both give texts that last, or nothing; the second looks at no communicator.
    let (reason, detail) = unsafe { (sys::ncclGetErrorString(code), sys::ncclGetLastError(std::ptr::null_mut())) };
    let text = |text: *const c_char| match text.is_null() {
        true => String::new(),
        // SAFETY: it ends with a zero, and is copied at once.
        false => unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned(),
    };
    let (mut reason, detail) = (text(reason), text(detail));
    if !detail.is_empty() {
        reason = format!("{reason} ({detail})");
    }
    GroupError::Nccl { action, reason }
}

fn failed(action: &'static str) -> impl Fn(DriverError) -> GroupError {
    move |error| GroupError::Cuda { action, source: Error::wrap(error) }
}

fn place(device: &Device) -> String {
    format!("{:?}", device.location())
}
