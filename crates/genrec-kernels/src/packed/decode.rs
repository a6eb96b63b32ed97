//! Decoding: one query a row, and the best continuations in a trie.

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::cuda::{Arg, Launch, Module, address, count, on_device, suffix, uninit};
use crate::graph::compose;

/// Threads of a block, and the rows it takes where a warp takes one.
const THREADS: u32 = 256;
const WARPS: usize = 8;

/// Columns of a head that a warp holds.
const WIDEST_HEAD: usize = 128;

/// Most continuations that [`best_children`] keeps: their sort fits in the memory that a block's threads share.
const MOST: usize = 2_048;

fn launch(device: &Device, kernel: &str, blocks: usize, threads: u32, shared: usize, args: &[Arg<'_>]) -> Result<()> {
    let (grid, shared) = ((count(blocks)?, 1, 1), count(shared)?);
    Launch { module: Module::Decode, kernel, args, grid, threads, shared }.on(device)
}

/// What a decoding step left for the later ones.
#[derive(Debug, Clone)]
pub struct Past {
    /// Queries, keys and values side by side, `(rows of that step, 3 * inner)`: one a layer.
    pub projected: Vec<Tensor>,
    /// The row there from which each of the present rows goes on, `(rows,)`, `u32`; `None` where it is the same row.
    pub rows: Option<Tensor>,
}

/// All that earlier steps left, with its addresses sent once for all layers.
#[derive(Debug)]
pub struct PastTable<'a> {
    steps: &'a [Past],
    /// A row a layer, then a row a step; `None` where there is nothing to send.
    table: Option<Tensor>,
}

impl<'a> PastTable<'a> {
    /// Sends the addresses of the layers of `steps`, of which all have the same number.
    ///
    /// # Errors
    /// When a step lacks a layer or the device has no room.
    pub fn new(steps: &'a [Past], device: &Device) -> Result<Self> {
        if !on_device(device) || steps.is_empty() {
            return Ok(Self { steps, table: None });
        }
        let layers = steps.first().map_or(0, |step| step.projected.len());
        let mut table = Vec::with_capacity(2 * layers * steps.len());
        for layer in 0..layers {
            for step in steps {
                let Some(projected) = step.projected.get(layer) else { bail!("a step has no layer {layer}") };
                let rows = step.rows.as_ref().map_or(Ok(0), address)?;
                table.extend([address(projected)?.cast_signed(), rows.cast_signed()]);
            }
        }
        Ok(Self { steps, table: Some(Tensor::new(table, device)?) })
    }

    /// Attention of one query a row over its own key and those of the earlier steps, in one layer.
    ///
    /// # Shapes
    /// `projected`: `(rows, 3 * inner)`, queries, keys and values of this step; `bias`: `(earlier steps + 1, heads)`, `f32`. Returns
    /// `(rows, inner)`.
    ///
    /// # Errors
    /// When the shapes do not fit or a kernel fails.
    pub fn attend(&self, layer: usize, projected: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let ((rows, columns), (steps, heads)) = (projected.dims2()?, bias.dims2()?);
        let (inner, earlier) = (columns / 3, self.steps.len());
        let has = |step: &Past| {
            let rows_fit = step.rows.as_ref().is_none_or(|of| of.dims() == [rows] && of.dtype() == DType::U32);
            step.projected.get(layer).is_some_and(|past| {
                let fits = past.dims().get(1) == Some(&columns) && past.dtype() == projected.dtype();
                fits && rows_fit && (step.rows.is_some() || past.dims()[0] == rows)
            })
        };
        if heads == 0 || !columns.is_multiple_of(3 * heads) || steps != earlier + 1 || !self.steps.iter().all(has) {
            bail!(
                "biases {:?} and {columns} columns do not fit {earlier} earlier steps with a layer {layer}",
                bias.dims()
            )
        }
        let width = inner / heads;
        if width > WIDEST_HEAD && on_device(projected.device()) {
            bail!("heads of {width} are wider than the {WIDEST_HEAD} that the kernel takes")
        }
        if !on_device(projected.device()) {
            return self.on_host(layer, projected, bias, width);
        }
        let out = uninit(&[rows, inner], projected.dtype(), projected.device())?;
        let args = [
            Arg::Tensor(projected),
            self.table.as_ref().map_or(Arg::Null, |table| Arg::Part(table, 2 * layer * earlier)),
            Arg::of(bias, DType::F32)?,
            Arg::size(steps)?,
            Arg::size(rows)?,
            Arg::size(heads)?,
            Arg::size(width)?,
            Arg::Tensor(&out),
        ];
        let kernel = format!("attend_past_{}", suffix(projected.dtype())?);
        launch(projected.device(), &kernel, (rows * heads).div_ceil(WARPS), THREADS, 0, &args)?;
        Ok(out)
    }

    fn on_host(&self, layer: usize, projected: &Tensor, bias: &Tensor, width: usize) -> Result<Tensor> {
        let mut all = Vec::with_capacity(self.steps.len() + 1);
        for step in self.steps {
            all.push(match &step.rows {
                Some(rows) => step.projected[layer].index_select(rows, 0)?,
                None => step.projected[layer].clone(),
            });
        }
        all.push(projected.clone());
        let (rows, (steps, heads)) = (projected.dim(0)?, bias.dims2()?);
        // (rows, steps, 3, heads, width), from which (rows, heads, steps, width).
        let all = Tensor::stack(&all, 1)?.reshape((rows, steps, 3, heads, width))?;
        let part = |i: usize| all.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let query = part(0)?.narrow(2, steps - 1, 1)?.contiguous()?;
        let scores = query.matmul(&part(1)?.t()?.contiguous()?)?;
        let scores = scores.broadcast_add(&bias.t()?.contiguous()?.reshape((1, heads, 1, steps))?)?;
        compose::softmax(&scores)?.matmul(&part(2)?)?.reshape((rows, heads * width))
    }
}

/// Logarithm of the softmax of each row, in nats.
///
/// # Shapes
/// `logits`: `(rows, V)`. Returns the same, in `f32`.
///
/// # Errors
/// When a kernel fails.
pub fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let (rows, width) = logits.dims2()?;
    if !on_device(logits.device()) {
        return compose::log_softmax(&logits.to_dtype(DType::F32)?);
    }
    let out = uninit(&[rows, width], DType::F32, logits.device())?;
    let kernel = format!("log_softmax_{}", suffix(logits.dtype())?);
    launch(logits.device(), &kernel, rows, THREADS, 0, &[Arg::Tensor(logits), Arg::Tensor(&out), Arg::size(width)?])?;
    Ok(out)
}

/// A trie as tables: nodes are numbered so that the children of one follow one another.
#[derive(Debug, Clone, Copy)]
pub struct TrieTables<'a> {
    /// `(nodes + 1,)`, `u32`: a node's first child; its last is before the next node's first.
    pub first_child: &'a Tensor,
    /// `(nodes,)`, `u32`: the token that leads to a node.
    pub tokens: &'a Tensor,
    /// `(nodes,)`, `f32`: added to the score of whoever goes there.
    pub penalty: Option<&'a Tensor>,
}

/// The prefixes of every user, each `(users, beams)`.
#[derive(Debug, Clone)]
pub struct Prefixes {
    /// Log-probabilities, `f32`; negative infinity where there is no prefix.
    pub scores: Tensor,
    /// Where they are in the trie, `u32`.
    pub nodes: Tensor,
    /// The token each ends with, `u32`.
    pub tokens: Tensor,
    /// The row, among the rows of all users, that each goes on from, `u32`; its user's first where there is no prefix.
    pub rows: Tensor,
    /// `(users,)`, `u32`: 1 where a log-probability was no number below infinity.
    pub broken: Tensor,
}

/// Whether [`best_children`] can keep that many on a device.
pub fn finds_children(device: &Device, beams: usize) -> bool {
    on_device(device) && beams <= MOST
}

/// The best continuations of every user's prefixes by the children of their nodes, best first, of equal ones that with the lower
/// node first: one step of a beam search in one launch.
///
/// # Shapes
/// `log_probs`: `(users * width, V)`, `f32`, where `width` is the number of prefixes a user has: one, at the root, without
/// `prefixes`. No two prefixes of a user are at one node.
///
/// # Errors
/// When the shapes do not fit, the device is none that [`finds_children`], or a kernel fails.
pub fn best_children(
    log_probs: &Tensor,
    prefixes: Option<&Prefixes>,
    trie: TrieTables<'_>,
    users: usize,
    beams: usize,
) -> Result<Prefixes> {
    let ((rows, vocab), device) = (log_probs.dims2()?, log_probs.device());
    if !finds_children(device, beams) {
        bail!("no kernel keeps {beams} continuations on {:?}", device.location())
    }
    let width = match prefixes {
        Some(prefixes) => prefixes.scores.dims2()?.1,
        None => 1,
    };
    if users == 0 || rows != users * width || log_probs.dtype() != DType::F32 {
        bail!("log-probabilities {:?} are not those of {width} prefixes of {users} users", log_probs.dims())
    }
    let nodes = trie.tokens.dims1()?;
    let penalties = trie.penalty.map_or(Ok(nodes), Tensor::dims1)?;
    if trie.first_child.dims() != [nodes + 1] || penalties != nodes {
        bail!("a trie of {nodes} nodes has {:?} first children and {penalties} penalties", trie.first_child.dims())
    }
    if prefixes.is_some_and(|prefixes| prefixes.nodes.dims() != prefixes.scores.dims()) {
        bail!("prefixes have a node each")
    }
    let new = |dtype| uninit(&[users, beams], dtype, device);
    let found = Prefixes {
        scores: new(DType::F32)?,
        nodes: new(DType::U32)?,
        tokens: new(DType::U32)?,
        rows: new(DType::U32)?,
        broken: uninit(&[users], DType::U32, device)?,
    };
    let sorted = beams.next_power_of_two();
    let args = [
        Arg::Tensor(log_probs),
        Arg::option(prefixes.map(|prefixes| &prefixes.scores), DType::F32)?,
        Arg::option(prefixes.map(|prefixes| &prefixes.nodes), DType::U32)?,
        Arg::of(trie.first_child, DType::U32)?,
        Arg::of(trie.tokens, DType::U32)?,
        Arg::option(trie.penalty, DType::F32)?,
        Arg::size(width)?,
        Arg::size(vocab)?,
        Arg::size(beams)?,
        Arg::size(sorted)?,
        Arg::Tensor(&found.scores),
        Arg::Tensor(&found.nodes),
        Arg::Tensor(&found.tokens),
        Arg::Tensor(&found.rows),
        Arg::Tensor(&found.broken),
    ];
    let shared = sorted * (size_of::<u64>() + size_of::<u32>());
    launch(device, "best_children", users, 512, shared, &args)?;
    Ok(found)
}
