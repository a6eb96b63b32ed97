//! In the place of `device` where the feature `cuda` is off.

use candle_core::{CudaDevice, Result, Tensor, bail};

use super::Launch;

/// Never: there is no such tensor.
pub(crate) fn address(_: &Tensor) -> Result<u64> {
    bail!("this build has no CUDA kernels; turn the feature `cuda` on")
}

/// Never: there is no such device.
pub(super) fn run(_: &CudaDevice, _: &Launch<'_>) -> Result<()> {
    bail!("this build has no CUDA kernels; turn the feature `cuda` on")
}
