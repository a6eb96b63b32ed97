//! Steps of all parameters at once on a GPU: a few launches in place of some for every parameter.

use candle_core::{DType, Device, Result, Tensor};

use crate::cuda::{Arg, Launch, Module, address, count, uninit};

/// Threads of a block, and the blocks that share one parameter.
const THREADS: u32 = 256;
const PIECES: u32 = 32;

/// One parameter's part of a step.
pub(super) struct Slot<'a> {
    pub(super) param: &'a Tensor,
    /// Contiguous.
    pub(super) grad: Tensor,
    /// The moments before the step, and where those after it go.
    pub(super) old: Vec<Tensor>,
    pub(super) new: Vec<Tensor>,
}

/// Rows of addresses and sizes, as the kernels read them.
pub(super) struct Table {
    rows: Tensor,
    len: u32,
    device: Device,
}

impl Table {
    pub(super) fn new<const N: usize>(rows: &[[u64; N]], device: &Device) -> Result<Self> {
        // Bits are kept: a kernel reads them as it likes.
        let flat: Vec<i64> = rows.iter().flatten().map(|value| value.cast_signed()).collect();
        Ok(Self { rows: Tensor::new(flat, device)?, len: count(rows.len())?, device: device.clone() })
    }

    /// Starts a kernel whose first argument is the table, over `pieces` blocks a row.
    fn launch(&self, kernel: &str, args: &[Arg<'_>], pieces: u32, shared: usize) -> Result<()> {
        let args: Vec<Arg<'_>> = std::iter::once(Arg::Tensor(&self.rows)).chain(args.iter().copied()).collect();
        let grid = (self.len, pieces, 1);
        let shared = count(shared)?;
        Launch { module: Module::Optim, kernel, args: &args, grid, threads: THREADS, shared }.on(&self.device)
    }

    pub(super) fn adamw(&self, factors: [f64; 6]) -> Result<()> {
        self.launch("adamw", &factors.map(|factor| Arg::F32(factor as f32)), PIECES, 0)
    }

    /// Adafactor's four passes over rows of at most `widest` columns.
    pub(super) fn adafactor(&self, widest: usize, factors: &AdafactorFactors) -> Result<()> {
        let zeros = |width: usize| Tensor::zeros(self.len as usize * width.max(1), DType::F32, &self.device);
        let (columns, sums) = (zeros(widest)?, zeros(3)?);
        let (stride, beta2) = (Arg::size(widest)?, Arg::F32(factors.beta2 as f32));
        let (columns, sums) = (Arg::Tensor(&columns), Arg::Tensor(&sums));
        let eps = Arg::F32(factors.eps_square as f32);
        self.launch("adafactor_rows", &[columns, stride, beta2, eps], PIECES, widest * size_of::<f32>())?;
        self.launch("adafactor_columns", &[columns, sums, stride, beta2], 1, 0)?;
        self.launch("adafactor_squares", &[sums], PIECES, 0)?;
        let [rate, least, clip, decay] =
            [factors.rate, factors.eps_scale, factors.clip, factors.decay].map(|factor| Arg::F32(factor as f32));
        let scaled = Arg::U32(u32::from(factors.scaled));
        self.launch("adafactor_apply", &[sums, rate, least, scaled, clip, decay], PIECES, 0)
    }
}

/// Adafactor's numbers of one step.
pub(super) struct AdafactorFactors {
    pub(super) beta2: f64,
    pub(super) eps_square: f64,
    pub(super) rate: f64,
    pub(super) eps_scale: f64,
    pub(super) scaled: bool,
    pub(super) clip: f64,
    pub(super) decay: f64,
}

/// The addresses of tensors on a GPU.
pub(super) fn addresses<const N: usize>(tensors: [&Tensor; N]) -> Result<[u64; N]> {
    let mut found = [0; N];
    for (address_of, tensor) in found.iter_mut().zip(tensors) {
        *address_of = address(tensor)?;
    }
    Ok(found)
}

/// New tensors of those shapes, side by side in one allocation, to be written over.
pub(super) fn blank(shapes: &[&[usize]], device: &Device) -> Result<Vec<Tensor>> {
    let size = |dims: &[usize]| dims.iter().product::<usize>();
    let flat = uninit(&[shapes.iter().map(|dims| size(dims)).sum()], DType::F32, device)?;
    let mut start = 0;
    shapes
        .iter()
        .map(|dims| {
            let part = flat.narrow(0, start, size(dims))?.reshape(*dims)?;
            start += size(dims);
            Ok(part)
        })
        .collect()
}

/// Sums of squares of the values of `f32` tensors on a GPU, for the host to add up.
pub(crate) fn squares<'a>(tensors: impl Iterator<Item = &'a Tensor>, device: &Device) -> Result<Tensor> {
    // Contiguous copies live as long as their addresses are used.
    let tensors: Vec<Tensor> = tensors.map(Tensor::contiguous).collect::<Result<_>>()?;
    let rows: Vec<[u64; 2]> =
        tensors.iter().map(|tensor| Ok([address(tensor)?, tensor.elem_count() as u64])).collect::<Result<_>>()?;
    let out = uninit(&[rows.len() * PIECES as usize], DType::F32, device)?;
    Table::new(&rows, device)?.launch("squares", &[Arg::Tensor(&out)], PIECES, 0)?;
    Ok(out)
}
