//! Operations on rows and elements.

use candle_core::{D, DType, Device, Result, Tensor, bail};

use super::{WIDEST, oracle};
use crate::cuda::{Arg, Launch, Module, address, count, on_device, suffix, uninit};
use crate::dropout::DropoutMask;

/// Threads of a block of the kernels here, and the elements that they take: a warp takes four times its threads.
const THREADS: u32 = 256;
const ELEMENTS: usize = 1024;

/// Rows that a block takes where a warp takes one.
const ROWS: usize = 8;

/// Blocks that share one tensor that is gathered.
const PIECES: usize = 32;

/// Blocks that a gradient which sums over rows is spread over.
const BLOCKS: usize = 264;

fn launch(device: &Device, kernel: &str, grid: (usize, usize), shared: usize, args: &[Arg<'_>]) -> Result<()> {
    let grid = (count(grid.0)?, count(grid.1)?, 1);
    let shared = count(shared)?;
    Launch { module: Module::Rows, kernel, args, grid, threads: THREADS, shared }.on(device)
}

/// Rows of a table, dropped out.
///
/// # Shapes
/// `table`: `(n, d)`, `f32`; `tokens`: `(rows,)`, `u32`, each below `n`, which is not checked on a GPU. Returns `(rows, d)`,
/// `f32`.
///
/// # Errors
/// When the shapes do not fit or a kernel fails.
pub fn embed(table: &Tensor, tokens: &Tensor, mask: Option<&DropoutMask>) -> Result<Tensor> {
    let ((_, d), rows) = (table.dims2()?, tokens.dims1()?);
    if !on_device(table.device()) {
        return oracle::embed(table, tokens, mask);
    }
    let x = uninit(&[rows, d], DType::F32, table.device())?;
    let [key, threshold, scale] = Arg::mask(mask);
    let (d, total) = (Arg::size(d)?, Arg::size(rows * d)?);
    let (table_arg, tokens) = (Arg::of(table, DType::F32)?, Arg::of(tokens, DType::U32)?);
    let args = [table_arg, tokens, Arg::Tensor(&x), d, total, key, threshold, scale];
    launch(table.device(), "embed", (x.elem_count().div_ceil(ELEMENTS), 1), 0, &args)?;
    Ok(x)
}

/// Adds the gradient of [`embed`]'s table to `table_grad`, on a GPU in place, and returns it.
///
/// # Shapes
/// `grad`: `(rows, d)`, `f32`; `table_grad`: `(n, d)`, `f32`.
///
/// # Errors
/// When the shapes do not fit or a kernel fails.
pub fn embed_grad(grad: &Tensor, tokens: &Tensor, mask: Option<&DropoutMask>, table_grad: Tensor) -> Result<Tensor> {
    let ((rows, d), (_, table_d)) = (grad.dims2()?, table_grad.dims2()?);
    if d != table_d || tokens.dims() != [rows] {
        bail!("a gradient {:?} of {:?} tokens does not fit a table {:?}", grad.dims(), tokens.dims(), table_grad.dims())
    }
    if !on_device(grad.device()) {
        let tables = [&table_grad];
        let own = oracle::pullback(&tables, |args| Ok(vec![oracle::embed(&args[0], tokens, mask)?]), &[Some(grad)])?;
        return table_grad + &own[0];
    }
    let [key, threshold, scale] = Arg::mask(mask);
    let (width, total) = (Arg::size(d)?, Arg::size(rows * d)?);
    let (from, tokens) = (Arg::of(grad, DType::F32)?, Arg::of(tokens, DType::U32)?);
    let args = [from, tokens, Arg::of(&table_grad, DType::F32)?, width, total, key, threshold, scale];
    launch(grad.device(), "embed_grad", (grad.elem_count().div_ceil(ELEMENTS), 1), 0, &args)?;
    Ok(table_grad)
}

/// A root-mean-square norm and what follows it.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// `(d,)`, `f32`.
    pub weight: &'a Tensor,
    /// Added to the mean square.
    pub eps: f64,
    /// Multiplies the result.
    pub scale: f64,
    /// Drops from the result.
    pub mask: Option<&'a DropoutMask>,
    /// Type of the result.
    pub dtype: DType,
}

impl Norm<'_> {
    fn check(&self, x: &Tensor) -> Result<(usize, usize)> {
        let (rows, d) = x.dims2()?;
        if self.weight.dims() != [d] {
            bail!("the norm's weight is {:?}, but must be as wide as the rows of {:?}", self.weight.dims(), x.dims())
        }
        Ok((rows, d))
    }

    /// The arguments that both kernels end with; `branch` is the mask of what joins.
    fn args<'a>(&self, rows: usize, d: usize, branch: Option<&DropoutMask>) -> Result<Vec<Arg<'a>>> {
        let mut args = vec![Arg::size(rows)?, Arg::size(d)?, Arg::F32(self.eps as f32), Arg::F32(self.scale as f32)];
        args.extend(Arg::mask(branch));
        args.extend(Arg::mask(self.mask));
        Ok(args)
    }
}

/// `sum = x + dropout(branch)` and `y = scale * dropout(norm(sum))`: what joins two layers of a pre-norm transformer, in one
/// pass. Without a branch `sum` is `x`.
///
/// # Shapes
/// `x`: `(rows, d)`, `f32`; the branch: `(rows, d)` of the norm's type. Returns both `(rows, d)`, in `f32` and in the norm's
/// type.
///
/// # Errors
/// When the shapes do not fit or a kernel fails.
pub fn add_norm(
    x: &Tensor,
    branch: Option<(&Tensor, Option<&DropoutMask>)>,
    norm: &Norm<'_>,
) -> Result<(Tensor, Tensor)> {
    let (rows, d) = norm.check(x)?;
    if !on_device(x.device()) {
        return oracle::add_norm(x, branch, norm.weight, norm);
    }
    if let Some((branch, _)) = branch
        && (branch.dims() != x.dims() || branch.dtype() != norm.dtype)
    {
        bail!("a branch {:?} {:?} does not join rows {:?}", branch.dtype(), branch.dims(), x.dims())
    }
    let sum = if branch.is_some() { uninit(&[rows, d], DType::F32, x.device())? } else { x.clone() };
    let y = uninit(&[rows, d], norm.dtype, x.device())?;
    let mut args = vec![
        Arg::of(x, DType::F32)?,
        Arg::option(branch.map(|(branch, _)| branch), norm.dtype)?,
        Arg::of(norm.weight, DType::F32)?,
        Arg::Tensor(&sum),
        Arg::Tensor(&y),
    ];
    args.extend(norm.args(rows, d, branch.and_then(|(_, mask)| mask))?);
    let kernel = format!("add_norm_{}", suffix(norm.dtype)?);
    launch(x.device(), &kernel, (rows.div_ceil(ROWS), 1), 0, &args)?;
    Ok((sum, y))
}

/// What [`add_norm_grad`] returns.
#[derive(Debug)]
pub struct NormGrads {
    /// Of the residual stream, `(rows, d)`, `f32`.
    pub x: Tensor,
    /// Of the branch, `(rows, d)` in the norm's type, where one is asked for.
    pub branch: Option<Tensor>,
    /// Of the norm's weight, `(d,)`, `f32`.
    pub weight: Tensor,
}

/// Gradients of [`add_norm`], from that of `y` and, where there is one, that of `sum`.
///
/// `branch` asks for the branch's gradient and names its mask.
///
/// # Shapes
/// `sum`: `(rows, d)`, `f32`; `y_grad`: `(rows, d)` of the norm's type; `sum_grad`: `(rows, d)`, `f32`.
///
/// # Errors
/// When the shapes do not fit or a kernel fails.
pub fn add_norm_grad(
    sum: &Tensor,
    norm: &Norm<'_>,
    y_grad: &Tensor,
    sum_grad: Option<&Tensor>,
    branch: Option<Option<&DropoutMask>>,
) -> Result<NormGrads> {
    let (rows, d) = norm.check(sum)?;
    if d > WIDEST && on_device(sum.device()) {
        bail!("rows of {d} are wider than the {WIDEST} that the kernel takes; use the operations of `graph`")
    }
    if y_grad.dims() != sum.dims() || sum_grad.is_some_and(|grad| grad.dims() != sum.dims()) {
        bail!("gradients {:?} do not fit rows {:?}", y_grad.dims(), sum.dims())
    }
    if !on_device(sum.device()) {
        let zeros = sum.zeros_like()?;
        let grads = oracle::pullback(
            &[sum, &zeros, norm.weight],
            |args| {
                let (sum, y) = oracle::add_norm(&args[0], Some((&args[1], branch.flatten())), &args[2], norm)?;
                Ok(vec![y, sum])
            },
            &[Some(y_grad), sum_grad],
        )?;
        let [x, own, weight] = <[Tensor; 3]>::try_from(grads)
            .map_err(|_| candle_core::Error::Msg("three arguments have three gradients".to_owned()))?;
        return Ok(NormGrads { x, branch: branch.map(|_| own), weight });
    }
    let device = sum.device();
    let x = uninit(&[rows, d], DType::F32, device)?;
    let own = branch.map(|_| uninit(&[rows, d], norm.dtype, device)).transpose()?;
    let weight = Tensor::zeros(d, DType::F32, device)?;
    let mut args = vec![
        Arg::of(sum, DType::F32)?,
        Arg::of(norm.weight, DType::F32)?,
        Arg::of(y_grad, norm.dtype)?,
        Arg::option(sum_grad, DType::F32)?,
        Arg::Tensor(&x),
        Arg::option(own.as_ref(), norm.dtype)?,
        Arg::Tensor(&weight),
    ];
    args.extend(norm.args(rows, d, branch.flatten())?);
    let kernel = format!("add_norm_grad_{}", suffix(norm.dtype)?);
    let shared = ROWS * d * size_of::<f32>();
    launch(device, &kernel, (rows.div_ceil(ROWS).min(BLOCKS), 1), shared, &args)?;
    Ok(NormGrads { x, branch: own, weight })
}

/// Dropout of the positive part; on a GPU in place.
///
/// # Errors
/// When a kernel fails.
pub fn relu_dropout(x: Tensor, mask: Option<&DropoutMask>) -> Result<Tensor> {
    if !on_device(x.device()) {
        return oracle::relu_dropout(&x, mask);
    }
    let [key, threshold, scale] = Arg::mask(mask);
    let args = [Arg::Tensor(&x), Arg::size(x.elem_count())?, key, threshold, scale];
    let kernel = format!("relu_dropout_{}", suffix(x.dtype())?);
    launch(x.device(), &kernel, (x.elem_count().div_ceil(ELEMENTS), 1), 0, &args)?;
    Ok(x)
}

/// Gradient of [`relu_dropout`] from its result `y` and the gradient of that, which is overwritten on a GPU.
///
/// # Errors
/// When the shapes do not fit or a kernel fails.
pub fn relu_dropout_grad(y: &Tensor, grad: Tensor, mask: Option<&DropoutMask>) -> Result<Tensor> {
    if y.dims() != grad.dims() || y.dtype() != grad.dtype() {
        bail!("a gradient {:?} does not fit {:?}", grad.dims(), y.dims())
    }
    let factor = mask.map_or(1.0, DropoutMask::scale);
    if !on_device(y.device()) {
        return (grad * y.ne(0.0)?.to_dtype(y.dtype())?)? * f64::from(factor);
    }
    let args = [Arg::Tensor(y), Arg::Tensor(&grad), Arg::size(y.elem_count())?, Arg::F32(factor)];
    let kernel = format!("relu_dropout_grad_{}", suffix(y.dtype())?);
    launch(y.device(), &kernel, (y.elem_count().div_ceil(ELEMENTS), 1), 0, &args)?;
    Ok(grad)
}

/// Mean cross-entropy in nats of one label a row, and its gradient by the logits, which are overwritten on a GPU.
///
/// # Shapes
/// `logits`: `(rows, V)`; `labels`: `(rows,)`, `u32`, each below `V`, which is not checked on a GPU. Returns a scalar, `f32`, and
/// `(rows, V)` of the logits' type.
///
/// # Errors
/// When the shapes do not fit, there is no row, or a kernel fails.
pub fn cross_entropy(logits: Tensor, labels: &Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, vocab) = logits.dims2()?;
    if rows == 0 || labels.dims() != [rows] {
        bail!("{:?} labels for logits {:?}; give one for each of at least one row", labels.dims(), logits.dims())
    }
    if !on_device(logits.device()) {
        let one = Tensor::ones((), DType::F32, logits.device())?;
        let loss = crate::graph::compose::cross_entropy(&logits, labels)?;
        let entropy = |args: &[Tensor]| Ok(vec![crate::graph::compose::cross_entropy(&args[0], labels)?]);
        let mut grads = oracle::pullback(&[&logits], entropy, &[Some(&one)])?;
        return Ok((loss, grads.swap_remove(0)));
    }
    let losses = uninit(&[rows], DType::F32, logits.device())?;
    let args = [
        Arg::Tensor(&logits),
        Arg::of(labels, DType::U32)?,
        Arg::Tensor(&losses),
        Arg::size(vocab)?,
        Arg::F32((rows as f64).recip() as f32),
    ];
    let kernel = format!("cross_entropy_{}", suffix(logits.dtype())?);
    launch(logits.device(), &kernel, (rows, 1), 0, &args)?;
    Ok((losses.mean(D::Minus1)?, logits))
}

/// Tensors of `f32`, one after another as a vector of that type.
///
/// # Errors
/// When a tensor is not contiguous or a kernel fails.
pub fn gather(tensors: &[&Tensor], dtype: DType) -> Result<Tensor> {
    let Some(first) = tensors.first() else { bail!("there is nothing to gather") };
    let device = first.device();
    if !on_device(device) {
        let flat: Vec<Tensor> = tensors.iter().map(|tensor| tensor.flatten_all()).collect::<Result<_>>()?;
        return Tensor::cat(&flat, 0)?.to_dtype(dtype);
    }
    let mut parts = Vec::with_capacity(tensors.len() * 3);
    let mut place = 0;
    for tensor in tensors {
        if tensor.dtype() != DType::F32 {
            bail!("only f32 is gathered, not {:?}", tensor.dtype())
        }
        parts.extend([address(tensor)?, place as u64, tensor.elem_count() as u64].map(u64::cast_signed));
        place += tensor.elem_count();
    }
    let parts = Tensor::new(parts, device)?;
    let out = uninit(&[place], dtype, device)?;
    let kernel = format!("gather_parts_{}", suffix(dtype)?);
    launch(device, &kernel, (tensors.len(), PIECES), 0, &[Arg::Tensor(&parts), Arg::Tensor(&out)])?;
    Ok(out)
}
