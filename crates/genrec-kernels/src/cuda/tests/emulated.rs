//! For tests: launches on the processor, by a translation of the kernels' own source (`tests/emulator`). What is tested is
//! everything but the device: the kernels, their arguments and their grids.

use std::{
    cell::Cell,
    ffi::{CString, c_char, c_int},
    path::Path,
    process::Command,
    sync::OnceLock,
};

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};

use super::{Arg, Launch};

type Emulate = unsafe extern "C" fn(*const c_char, *const u64, *const u32, u32) -> c_int;

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn active() -> bool {
    ACTIVE.get()
}

/// Compiles the kernels for this processor; `None`, said aloud, without a C++ compiler.
fn library() -> Option<&'static libloading::Library> {
    static LIBRARY: OnceLock<Option<libloading::Library>> = OnceLock::new();
    let load = || {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let folder = tempfile::tempdir().unwrap();
        let (source, to) = (
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulator/kernels.cpp"),
            folder.path().join("kernels.so"),
        );
        let run = || {
            Command::new(&compiler)
                .args(["-std=c++20", "-O2", "-w", "-shared", "-fPIC", "-ffp-contract=off", "-o"])
                .arg(&to)
                .arg(source)
                .output()
        };
        // Fibers are the GNU library's; elsewhere a compiler is no help.
        let run = match cfg!(all(target_os = "linux", target_env = "gnu")) {
            true => run(),
            false => Err(std::io::Error::other("there are no fibers on this system")),
        };
        match run {
            Err(error) => {
                eprintln!("NOT RUN: the CUDA kernels on a processor ({compiler}: {error})");
                None
            }
            Ok(run) => {
                assert!(run.status.success(), "{compiler}: {}", String::from_utf8_lossy(&run.stderr));
                // SAFETY: the library was just compiled from sources of this crate, and starts nothing when it is loaded.
                #[allow(unsafe_code, reason = "a library runs code when it is loaded")]
                Some(unsafe { libloading::Library::new(&to) }.unwrap())
            }
        }
    };
    LIBRARY.get_or_init(load).as_ref()
}

/// Calls `work` with tensors on the CPU taken for a device's; not at all, said aloud, without a C++ compiler.
pub(crate) fn with<R>(work: impl FnOnce() -> R) -> Option<R> {
    library()?;
    ACTIVE.set(true);
    let result = work();
    ACTIVE.set(false);
    Some(result)
}

/// A tensor of values that no test can take for results.
pub(super) fn spoilt(dims: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    match dtype {
        DType::U32 => Tensor::full(u32::MAX, dims, device),
        _ => Tensor::full(f32::NAN, dims, device)?.to_dtype(dtype)?.contiguous(),
    }?
    .copy()
}

/// Where the values of a contiguous tensor begin.
pub(super) fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("tensors are emulated on the CPU") };
    let first = match storage {
        CpuStorage::F32(values) => values.as_ptr() as u64,
        CpuStorage::BF16(values) => values.as_ptr() as u64,
        CpuStorage::U32(values) => values.as_ptr() as u64,
        CpuStorage::I64(values) => values.as_ptr() as u64,
        _ => bail!("no kernel takes values of type {:?}", tensor.dtype()),
    };
    if !tensor.is_contiguous() {
        bail!("a kernel takes contiguous values, not {:?} with strides {:?}", tensor.dims(), tensor.stride())
    }
    Ok(first + (layout.start_offset() * tensor.dtype().size_in_bytes()) as u64)
}

pub(super) fn run(launch: &Launch<'_>) -> Result<()> {
    let Some(library) = library() else { bail!("there is no emulator") };
    let args = launch
        .args
        .iter()
        .map(|arg| {
            Ok(match *arg {
                Arg::Tensor(tensor) => address(tensor)?,
                Arg::Part(tensor, first) => address(tensor)? + (first * tensor.dtype().size_in_bytes()) as u64,
                Arg::Null => 0,
                Arg::U64(value) => value,
                Arg::U32(value) => u64::from(value),
                Arg::F32(value) => u64::from(value.to_bits()),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let name = CString::new(launch.kernel).unwrap();
    let (x, y, z) = launch.grid;
    // SAFETY: the arguments are those of the kernel's declaration, as on a device. It writes where `uninit` made tensors that
    // nothing else holds while it runs, on this thread; the emulator's state is one, so calls take turns.
    #[allow(unsafe_code, reason = "the emulator is C++")]
    let status = unsafe {
        static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let emulate: libloading::Symbol<'_, Emulate> = library.get(b"emulate").unwrap();
        emulate(name.as_ptr(), args.as_ptr(), [x, y, z].as_ptr(), launch.threads)
    };
    assert_eq!(status, 0, "the emulator has no kernel {}", launch.kernel);
    Ok(())
}
