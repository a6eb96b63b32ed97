//! Launches of this crate's CUDA kernels. What a launch is made of compiles everywhere; without the feature `cuda` there is
//! nothing to launch on.

#[cfg(cuda_kernels)]
mod device;
#[cfg(not(cuda_kernels))]
#[path = "cuda/no_device.rs"]
mod device;
#[cfg(test)]
#[path = "cuda/tests/emulated.rs"]
pub(crate) mod emulated;

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::dropout::DropoutMask;

/// Whether tensors there are the kernels' affair.
pub(crate) fn on_device(device: &Device) -> bool {
    #[cfg(test)]
    if emulated::active() {
        return true;
    }
    cfg!(cuda_kernels) && device.is_cuda()
}

/// Where the values of a contiguous tensor begin on its device.
pub(crate) fn address(tensor: &Tensor) -> Result<u64> {
    #[cfg(test)]
    if emulated::active() {
        return emulated::address(tensor);
    }
    device::address(tensor)
}

/// Compiled code that is loaded at once.
#[cfg_attr(not(cuda_kernels), allow(dead_code, reason = "there is nothing to launch on"))]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Module {
    /// Operations on rows and elements.
    Rows,
    /// Optimisers.
    Optim,
    /// Decoding.
    Decode,
    /// Attention in a type, over heads of a width.
    Attention(DType, usize),
}

/// One argument of a kernel.
#[cfg_attr(not(cuda_kernels), allow(dead_code, reason = "there is nothing to launch on"))]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg<'a> {
    Tensor(&'a Tensor),
    /// A tensor from some element on.
    Part(&'a Tensor, usize),
    Null,
    U64(u64),
    U32(u32),
    F32(f32),
}

impl<'a> Arg<'a> {
    pub(crate) fn option(tensor: Option<&'a Tensor>, dtype: DType) -> Result<Self> {
        tensor.map_or(Ok(Self::Null), |tensor| Self::of(tensor, dtype))
    }

    /// A size; kernels count in 32 bits.
    pub(crate) fn size(value: usize) -> Result<Self> {
        Ok(Self::U32(count(value)?))
    }

    /// A tensor of that type.
    pub(crate) fn of(tensor: &'a Tensor, dtype: DType) -> Result<Self> {
        if tensor.dtype() != dtype {
            bail!("a kernel takes {dtype:?} here, not {:?} {:?}", tensor.dtype(), tensor.dims())
        }
        Ok(Self::Tensor(tensor))
    }

    /// The three arguments that a mask is.
    pub(crate) fn mask(mask: Option<&DropoutMask>) -> [Self; 3] {
        let (key, threshold, scale) = mask.map_or((0, 0, 1.0), DropoutMask::parts);
        [Self::U64(key), Self::U32(threshold), Self::F32(scale)]
    }
}

/// A kernel, its arguments and its shape.
#[cfg_attr(not(cuda_kernels), allow(dead_code, reason = "there is nothing to launch on"))]
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) module: Module,
    pub(crate) kernel: &'a str,
    pub(crate) args: &'a [Arg<'a>],
    pub(crate) grid: (u32, u32, u32),
    /// Threads of a block.
    pub(crate) threads: u32,
    /// Bytes of shared memory that the launch asks for.
    pub(crate) shared: u32,
}

pub(crate) fn count(value: usize) -> Result<u32> {
    // So much below the limit that a thread beyond the last element can be numbered too.
    const MOST: u32 = u32::MAX - 4_096;
    match u32::try_from(value) {
        Ok(value) if value <= MOST => Ok(value),
        _ => bail!("{value} elements are too many for a kernel that counts in 32 bits; make the batch smaller"),
    }
}

/// How a kernel's name ends for values of that type.
pub(crate) fn suffix(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::BF16 => Ok("bf16"),
        _ => bail!("the packed operations compute in f32 and bf16, not {dtype:?}"),
    }
}

impl Launch<'_> {
    pub(crate) fn on(&self, device: &Device) -> Result<()> {
        // What a grid may have along its later axes, and a block's memory beside what kernels declare themselves.
        const LATER: u32 = 65_535;
        const SHARED: u32 = 48 << 10;
        if self.grid.1 > LATER || self.grid.2 > LATER || self.shared > SHARED {
            bail!("{} cannot run over a grid {:?} with {} bytes of shared memory", self.kernel, self.grid, self.shared)
        }
        match device {
            // A kernel over nothing is an error to the driver.
            Device::Cuda(_) if self.grid.0 == 0 || self.grid.1 == 0 || self.grid.2 == 0 => Ok(()),
            Device::Cuda(device) => device::run(device, self),
            #[cfg(test)]
            Device::Cpu if emulated::active() => emulated::run(self),
            _ => bail!("a CUDA kernel takes tensors on a GPU"),
        }
    }
}

/// A new tensor, to be written in full by the next kernel; zeros on the CPU.
pub(crate) fn uninit(dims: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    #[cfg(test)]
    if emulated::active() {
        return emulated::spoilt(dims, dtype, device);
    }
    if !device.is_cuda() {
        return Tensor::zeros(dims, dtype, device);
    }
    // SAFETY: on a GPU, whatever bits the memory holds are a value of every type used here; the caller writes all of it.
    #[allow(unsafe_code, reason = "zeros would be written over at once")]
    unsafe {
        Tensor::empty(dims, dtype, device)
    }
}
