//! Attention of sequences that lie end to end.

use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Result, Tensor, bail};

use super::{FARTHEST, oracle};
use crate::cuda::{Arg, Launch, Module, count, on_device, suffix, uninit};
use crate::dropout::DropoutMask;

/// Threads of a block, and the keys that it looks at together.
const THREADS: u32 = 128;

/// Queries for each unit of a kernel's last number: eight groups of threads have that many each.
const GROUPS: usize = 8;

/// Where each of some sequences lies among rows that are theirs end to end.
#[derive(Debug, Clone)]
pub struct Spans {
    /// First row and length of each.
    host: Vec<(u32, u32)>,
    /// The same, `(2 * sequences,)`, `u32`.
    device: Tensor,
    rows: usize,
    longest: usize,
    /// Whether some rows may belong to no sequence, or to several.
    selected: bool,
}

impl Spans {
    /// The spans of sequences of these lengths.
    ///
    /// # Errors
    /// When the lengths do not fit in 32 bits together or the device has no room.
    pub fn new(lengths: impl IntoIterator<Item = usize>, device: &Device) -> Result<Self> {
        let (mut host, mut end) = (Vec::new(), 0usize);
        for length in lengths {
            host.push((count(end)?, count(length)?));
            end += length;
        }
        count(end)?;
        Self::made(host, end, device, false)
    }

    fn made(host: Vec<(u32, u32)>, rows: usize, device: &Device, selected: bool) -> Result<Self> {
        let flat: Vec<u32> = host.iter().flat_map(|(first, length)| [*first, *length]).collect();
        let longest = host.iter().map(|(_, length)| *length as usize).max().unwrap_or(0);
        Ok(Self { host, device: Tensor::new(flat, device)?, rows, longest, selected })
    }

    /// Some of the sequences among the same rows, in any order and any number of times: keys of [`attention`], whose gradient
    /// would not know where to go.
    ///
    /// # Errors
    /// When there is no such sequence or the device has no room.
    pub fn select(&self, sequences: &[u32]) -> Result<Self> {
        let at = |sequence: &u32| match self.host.get(*sequence as usize) {
            Some(span) => Ok(*span),
            None => bail!("there is no sequence {sequence} among {}", self.len()),
        };
        let host = sequences.iter().map(at).collect::<Result<_>>()?;
        Self::made(host, self.rows, self.device.device(), true)
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.host.len()
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.host.is_empty()
    }

    /// The rows that the sequences lie among.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows of the longest sequence.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// First row and length of each.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (usize, usize)> {
        self.host.iter().map(|(first, length)| (*first as usize, *length as usize))
    }
}

/// Some neighbouring columns of a matrix, from `first` on: queries, keys and values of one product lie side by side. On a GPU
/// `first` and the matrix's columns are multiples of four.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// `(rows, columns)`, contiguous.
    pub tensor: &'a Tensor,
    /// The first of the columns.
    pub first: usize,
}

/// Who sees whom.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The sequences of the queries.
    pub queries: &'a Spans,
    /// The sequences of the keys, one for each of the queries'.
    pub keys: &'a Spans,
    /// Heads, all of one width.
    pub heads: usize,
    /// Whether a query sees no later key; with fewer queries than keys they are the last. A bias goes by the positions within
    /// each one's own sequence all the same.
    pub causal: bool,
    /// Drops from the probabilities: of query row `r`, head `h` and key `k` the element is `(r * heads + h) * w + k`, where `w`
    /// is the longest sequence of keys rounded up to a multiple of 128.
    pub mask: Option<&'a DropoutMask>,
}

impl Sight<'_> {
    pub(super) fn mask_width(&self) -> usize {
        self.keys.longest.next_multiple_of(128)
    }

    /// Width of a head, of queries, keys and values that fit.
    fn check(&self, inner: usize, parts: [Columns<'_>; 3], bias: Option<&Tensor>) -> Result<usize> {
        /// Neighbours that a kernel reads at once.
        const AT_ONCE: usize = 4;
        let [q, k, v] = parts;
        if self.queries.selected {
            bail!("the sequences of queries are all that lie among their rows, not some of them")
        }
        for part in parts {
            let fits = part.first.is_multiple_of(AT_ONCE) && part.tensor.dim(1)?.is_multiple_of(AT_ONCE);
            if on_device(part.tensor.device()) && !fits {
                bail!(
                    "columns from {} on in rows of {:?} do not begin at multiples of {AT_ONCE}",
                    part.first,
                    part.tensor.dims()
                )
            }
            if part.tensor.dtype() != q.tensor.dtype() {
                bail!("queries are {:?}, but keys or values {:?}", q.tensor.dtype(), part.tensor.dtype())
            }
        }
        for (what, part, spans) in [("queries", q, self.queries), ("keys", k, self.keys), ("values", v, self.keys)] {
            let (rows, columns) = part.tensor.dims2()?;
            if rows != spans.rows() || part.first + inner > columns {
                bail!(
                    "{what} {:?} from column {} on are not {inner} columns of {} rows",
                    (rows, columns),
                    part.first,
                    spans.rows()
                )
            }
        }
        if self.heads == 0 || !inner.is_multiple_of(self.heads) || self.queries.len() != self.keys.len() {
            bail!(
                "{} heads of {inner} columns, {} and {} sequences do not fit",
                self.heads,
                self.queries.len(),
                self.keys.len()
            )
        }
        if let Some(bias) = bias {
            let (span, heads) = bias.dims2()?;
            if heads != self.heads || span % 2 == 0 {
                bail!("the bias is {:?}, but must be an odd number of distances of {} heads", bias.dims(), self.heads)
            }
        }
        if k.tensor.dim(1)? != v.tensor.dim(1)? {
            bail!("keys and values lie in rows of one width")
        }
        Ok(inner / self.heads)
    }

    /// The kernel's arguments between values and results.
    fn args<'a>(
        &'a self,
        q: Columns<'a>,
        k: Columns<'a>,
        v: Columns<'a>,
        bias: Option<&'a Tensor>,
    ) -> Result<Vec<Arg<'a>>> {
        let part = |columns: Columns<'a>| Arg::Part(columns.tensor, columns.first);
        let span = bias.map_or(Ok(0), |bias| bias.dim(0))?;
        let mut args = vec![
            part(q),
            part(k),
            part(v),
            Arg::Tensor(&self.queries.device),
            Arg::Tensor(&self.keys.device),
            Arg::option(bias, DType::F32)?,
            Arg::size(self.heads)?,
            Arg::size(q.tensor.dim(1)?)?,
            Arg::size(k.tensor.dim(1)?)?,
            Arg::size(span / 2)?,
            Arg::size(span)?,
            Arg::U32(u32::from(self.causal)),
            Arg::size(self.mask_width())?,
        ];
        args.extend(Arg::mask(self.mask));
        Ok(args)
    }

    /// Queries that a group of threads has: few where sequences are short.
    fn per_group(&self) -> usize {
        if self.queries.longest <= GROUPS { 1 } else { 4 }
    }
}

/// The result of [`attention`] and what its gradient needs.
#[derive(Debug, Clone)]
pub struct Attended {
    /// `(query rows, heads * width)`.
    pub out: Tensor,
    /// Logarithm of the sum of the exponentials of the scores, `(query rows, heads)`, `f32`; unset on the CPU.
    logs: Tensor,
}

/// Multi-head attention without a scale, $\mathrm{dropout}(\mathrm{softmax}(QK^\top + \text{bias}))V$, each sequence of queries over its
/// sequence of keys; a query that sees no key gets zero.
///
/// # Shapes
/// Queries, keys and values have `inner` columns, `heads` times a width that [`supports`](super::supports) knows; `bias`: `(2 c + 1,
/// heads)`, `f32`, by the key's position less the query's, from `-c` to `c`, beyond which the outermost count.
///
/// # Errors
/// When the shapes do not fit or a kernel fails.
pub fn attention(
    q: Columns<'_>,
    k: Columns<'_>,
    v: Columns<'_>,
    inner: usize,
    bias: Option<&Tensor>,
    sight: &Sight<'_>,
) -> Result<Attended> {
    let width = sight.check(inner, [q, k, v], bias)?;
    let (device, dtype, rows) = (q.tensor.device(), q.tensor.dtype(), sight.queries.rows());
    if !on_device(device) {
        let [q, k, v] = [oracle::columns(q, inner)?, oracle::columns(k, inner)?, oracle::columns(v, inner)?];
        let out = oracle::attention(&q, &k, &v, bias, sight)?;
        return Ok(Attended { out, logs: Tensor::zeros((rows, sight.heads), DType::F32, device)? });
    }
    let out = uninit(&[rows, inner], dtype, device)?;
    let logs = uninit(&[rows, sight.heads], DType::F32, device)?;
    let mut args = sight.args(q, k, v, bias)?;
    args.extend([Arg::Tensor(&out), Arg::Tensor(&logs)]);
    let per_group = sight.per_group();
    let kernel = format!("attention_{}_{width}_{per_group}", suffix(dtype)?);
    let tiles = sight.queries.longest.div_ceil(GROUPS * per_group);
    let grid = (count(sight.queries.len())?, count(sight.heads)?, count(tiles)?);
    Launch { module: Module::Attention(dtype, width), kernel: &kernel, args: &args, grid, threads: THREADS, shared: 0 }
        .on(device)?;
    Ok(Attended { out, logs })
}

/// What [`attention`] was given, and where the gradients of queries, keys and values go: tensors of the same shapes, overwritten
/// in those columns.
#[derive(Debug, Clone, Copy)]
pub struct Pull<'a> {
    /// Queries, keys, values.
    pub inputs: [Columns<'a>; 3],
    /// Their gradients.
    pub grads: [Columns<'a>; 3],
}

/// Gradients of [`attention`]: writes those of queries, keys and values, adds that of the bias to `bias_grad` and returns it.
///
/// # Errors
/// When the shapes do not fit or a kernel fails.
pub fn attention_grad(
    pull: &Pull<'_>,
    bias: Option<(&Tensor, Tensor)>,
    sight: &Sight<'_>,
    attended: &Attended,
    out_grad: &Tensor,
) -> Result<Option<Tensor>> {
    let [q, k, v] = pull.inputs;
    let (rows, inner) = attended.out.dims2()?;
    let (bias, bias_grad) = bias.map_or((None, None), |(bias, grad)| (Some(bias), Some(grad)));
    let width = sight.check(inner, pull.inputs, bias)?;
    sight.check(inner, pull.grads, bias_grad.as_ref())?;
    for (input, grad) in pull.inputs.iter().zip(&pull.grads) {
        if input.tensor.dims() != grad.tensor.dims() || input.tensor.dtype() != grad.tensor.dtype() {
            bail!("a gradient {:?} does not lie as its input {:?} does", grad.tensor.dims(), input.tensor.dims())
        }
    }
    let fits = |grad: &Tensor, of: &Tensor| grad.dims() == of.dims() && grad.dtype() == of.dtype();
    if !fits(out_grad, &attended.out) || rows != sight.queries.rows() {
        bail!("a gradient {:?} does not fit {:?}", out_grad.dims(), attended.out.dims())
    }
    if !bias.zip(bias_grad.as_ref()).is_none_or(|(bias, grad)| fits(grad, bias)) {
        bail!("the bias's gradient does not fit it")
    }
    if sight.keys.selected {
        bail!("selected sequences of keys have no gradient: some may be selected twice")
    }
    if on_device(out_grad.device()) && bias.is_some_and(|bias| bias.dims()[0] > 2 * FARTHEST + 1) {
        bail!("a bias of more than {FARTHEST} distances has no gradient here; use the operations of `graph`")
    }
    let (device, dtype) = (q.tensor.device(), q.tensor.dtype());
    if !on_device(device) {
        return on_host(pull, inner, bias.zip(bias_grad), sight, out_grad);
    }
    let delta = uninit(&[rows, sight.heads], DType::F32, device)?;
    let warps = 8;
    let args = [
        Arg::Tensor(&attended.out),
        Arg::Tensor(out_grad),
        Arg::Tensor(&delta),
        Arg::size(rows * sight.heads)?,
        Arg::size(width)?,
    ];
    let kernel = format!("attention_delta_{}", suffix(dtype)?);
    let grid = (count((rows * sight.heads).div_ceil(warps))?, 1, 1);
    Launch { module: Module::Rows, kernel: &kernel, args: &args, grid, threads: 256, shared: 0 }.on(device)?;

    let mut args = sight.args(q, k, v, bias)?;
    args.extend([Arg::Tensor(&attended.logs), Arg::Tensor(&delta), Arg::Tensor(out_grad)]);
    args.extend(pull.grads.map(|columns| Arg::Part(columns.tensor, columns.first)));
    args.push(Arg::option(bias_grad.as_ref(), DType::F32)?);
    let kernel = format!("attention_grad_{}_{width}_{}", suffix(dtype)?, sight.per_group());
    let shared = count(bias.map_or(Ok(0), |bias| bias.dim(0))? * size_of::<f32>())?;
    let grid = (count(sight.queries.len())?, count(sight.heads)?, 1);
    Launch { module: Module::Attention(dtype, width), kernel: &kernel, args: &args, grid, threads: THREADS, shared }
        .on(device)?;
    Ok(bias_grad)
}

fn on_host(
    pull: &Pull<'_>,
    inner: usize,
    bias: Option<(&Tensor, Tensor)>,
    sight: &Sight<'_>,
    out_grad: &Tensor,
) -> Result<Option<Tensor>> {
    let parts = pull.inputs.iter().map(|part| oracle::columns(*part, inner)).collect::<Result<Vec<_>>>()?;
    let mut args: Vec<&Tensor> = parts.iter().collect();
    args.extend(bias.as_ref().map(|(bias, _)| *bias));
    let attend = |args: &[Tensor]| Ok(vec![oracle::attention(&args[0], &args[1], &args[2], args.get(3), sight)?]);
    let grads = oracle::pullback(&args, attend, &[Some(out_grad)])?;
    for (to, grad) in pull.grads.iter().zip(&grads) {
        to.tensor.inplace_op2(grad, &Overwrite { first: to.first })?;
    }
    match (bias, grads.get(3)) {
        (Some((_, sum)), Some(grad)) => Ok(Some((sum + grad)?)),
        _ => Ok(None),
    }
}

/// Writes a matrix over some columns of another.
struct Overwrite {
    first: usize,
}

impl InplaceOp2 for Overwrite {
    fn name(&self) -> &'static str {
        "overwrite-columns"
    }

    fn cpu_fwd(&self, to: &mut CpuStorage, to_layout: &Layout, from: &CpuStorage, from_layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(to), CpuStorage::F32(from)) = (to, from) else { bail!("columns are f32 on the CPU") };
        let (Some((start, end)), Some((first, last))) =
            (to_layout.contiguous_offsets(), from_layout.contiguous_offsets())
        else {
            bail!("columns are those of contiguous matrices")
        };
        let ((_, columns), (_, width)) = (to_layout.shape().dims2()?, from_layout.shape().dims2()?);
        for (to, from) in to[start..end].chunks_mut(columns).zip(from[first..last].chunks(width)) {
            to[self.first..self.first + width].copy_from_slice(from);
        }
        Ok(())
    }
}
