//! NCCL, by way of candle's bindings.

use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::safe::{Comm, Id, ReduceOp};
use candle_core::{CpuStorage, CudaStorage, Device, Error, InplaceOp1, Layout, Result, Tensor, bail};

use super::NAME_BYTES;

#[derive(Debug)]
pub(super) struct Group(Comm);

pub(super) fn name() -> Result<[u8; NAME_BYTES]> {
    let id = Id::new().map_err(failed("name a group"))?;
    Ok(id.internal().map(|byte| byte.to_ne_bytes()[0]))
}

pub(super) fn join(device: &Device, rank: usize, ranks: usize, name: [u8; NAME_BYTES]) -> Result<Group> {
    let Device::Cuda(gpu) = device else { bail!("only a CUDA GPU can join a group of GPUs, not {device:?}") };
    let id = Id::uninit(name.map(|byte| std::ffi::c_char::from_ne_bytes([byte])));
    Comm::from_rank(gpu.cuda_stream(), rank, ranks, id).map(Group).map_err(failed("join a group"))
}

/// In the place of a tensor that fills its storage.
pub(super) fn sum(group: &Group, values: &Tensor) -> Result<()> {
    values.inplace_op1(group)
}

impl InplaceOp1 for Group {
    fn name(&self) -> &'static str {
        "nccl-all-reduce"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        bail!("NCCL sums values on a GPU")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let values = storage.as_cuda_slice_mut::<f32>()?;
        if layout.contiguous_offsets() != Some((0, values.len())) {
            bail!("NCCL sums a tensor that fills its storage, not {layout:?}")
        }
        self.0.all_reduce_in_place(values, &ReduceOp::Sum).map(|_| ()).map_err(failed("sum over a group"))
    }
}

fn failed(action: &'static str) -> impl FnOnce(NcclError) -> Error {
    move |error| Error::msg(format!("NCCL cannot {action}: {error:?}"))
}
