//! Launches of the CUDA kernels.

use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg};
use candle_core::{CudaDevice, DType, Device, Result, Storage, Tensor, bail};

use super::{Arg, Launch, Module};

macro_rules! ptx {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/", $name, ".ptx"))
    };
}

/// The name of a module and its code.
fn code(module: Module) -> Result<(&'static str, &'static str)> {
    Ok(match module {
        Module::Rows => ("genrec_packed", ptx!("packed")),
        Module::Decode => ("genrec_decode", ptx!("decode")),
        Module::Optim => ("genrec_optim", ptx!("optim")),
        Module::Attention(DType::F32, 16) => ("genrec_attention_f32_16", ptx!("attention_f32_16")),
        Module::Attention(DType::F32, 32) => ("genrec_attention_f32_32", ptx!("attention_f32_32")),
        Module::Attention(DType::F32, 64) => ("genrec_attention_f32_64", ptx!("attention_f32_64")),
        Module::Attention(DType::BF16, 16) => ("genrec_attention_bf16_16", ptx!("attention_bf16_16")),
        Module::Attention(DType::BF16, 32) => ("genrec_attention_bf16_32", ptx!("attention_bf16_32")),
        Module::Attention(DType::BF16, 64) => ("genrec_attention_bf16_64", ptx!("attention_bf16_64")),
        Module::Attention(dtype, width) => bail!("no kernel attends in {dtype:?} with heads of width {width}"),
    })
}

/// Where the values of a contiguous tensor begin on its device.
pub(crate) fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { bail!("a CUDA kernel takes tensors on a GPU") };
    let stream = storage.device.cuda_stream();
    let first = match &storage.slice {
        CudaStorageSlice::F32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::BF16(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::U32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::I64(slice) => slice.device_ptr(&stream).0,
        _ => bail!("no CUDA kernel takes values of type {:?}", tensor.dtype()),
    };
    if !tensor.is_contiguous() {
        bail!("a CUDA kernel takes contiguous values, not {:?} with strides {:?}", tensor.dims(), tensor.stride())
    }
    Ok(first + (layout.start_offset() * tensor.dtype().size_in_bytes()) as u64)
}

enum Value {
    U64(u64),
    U32(u32),
    F32(f32),
}

/// Starts a kernel on the device's stream.
pub(super) fn run(device: &CudaDevice, launch: &Launch<'_>) -> Result<()> {
    let (name, ptx) = code(launch.module)?;
    let function = device.get_or_load_custom_func(launch.kernel, name, ptx)?;
    let values = launch
        .args
        .iter()
        .map(|arg| {
            if let Arg::Tensor(tensor) | Arg::Part(tensor, _) = arg
                && !tensor.device().same_device(&Device::Cuda(device.clone()))
            {
                bail!("{} takes tensors on one GPU, not on {:?} too", launch.kernel, tensor.device().location())
            }
            Ok(match *arg {
                Arg::Tensor(tensor) => Value::U64(address(tensor)?),
                Arg::Part(tensor, first) => {
                    Value::U64(address(tensor)? + (first * tensor.dtype().size_in_bytes()) as u64)
                }
                Arg::Null => Value::U64(0),
                Arg::U64(value) => Value::U64(value),
                Arg::U32(value) => Value::U32(value),
                Arg::F32(value) => Value::F32(value),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut builder = function.builder();
    for value in &values {
        match value {
            Value::U64(value) => builder.arg(value),
            Value::U32(value) => builder.arg(value),
            Value::F32(value) => builder.arg(value),
        };
    }
    let config =
        LaunchConfig { grid_dim: launch.grid, block_dim: (launch.threads, 1, 1), shared_mem_bytes: launch.shared };
    // SAFETY: the arguments are those of the kernel's declaration, in its order and of its types; every address is that of a
    // live tensor on this device whose size the callers checked against the sizes that they pass. What one host thread
    // launches runs in order, on candle's stream for it.
    #[allow(unsafe_code, reason = "kernels are launched by raw addresses")]
    unsafe { builder.launch(config) }.map_err(candle_core::Error::wrap)?;
    Ok(())
}
