//! Beam search that stays on the model's device.

use candle_core::{D, DType, Device, Tensor};
use genrec_kernels::packed::{Prefixes, TrieTables, best_children, finds_children};
use genrec_model::{DecodeState, RaggedBatch, Seq2Seq};

use crate::{
    catalogue::Catalogue,
    decoder::Hypothesis,
    error::{DecodeError, Result},
};

/// The trie of a [`Catalogue`] as tensors on a device.
///
/// Eight bytes a node, four more where items are left out. The tables are made once and serve any number of searches; items
/// that are added to the index later are not in them.
#[derive(Debug, Clone)]
pub struct DeviceCatalogue {
    /// `(nodes + 1,)`, `u32`: the node's first child; its last is before the next node's first.
    first_child: Tensor,
    /// `(nodes,)`, `u32`: the token that leads to the node.
    tokens: Tensor,
    /// `(nodes,)`, `f32`: zero, or negative infinity where no item below may be generated.
    penalty: Option<Tensor>,
    /// The most children of a node at each depth.
    widths: Vec<usize>,
    /// Greatest token of a Semantic ID.
    last_token: u32,
    device: Device,
}

impl DeviceCatalogue {
    /// Where the tables are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Copies the trie of the items that `catalogue` allows to a device.
    ///
    /// # Errors
    /// [`DecodeError::Tensor`] when the device has no room, [`DecodeError::BrokenIndex`] when the index was mapped from a damaged
    /// file.
    pub fn new(catalogue: &Catalogue<'_>, device: &Device) -> Result<Self> {
        let (index, vocab) = (catalogue.index(), catalogue.vocab());
        let nodes = (0..=index.layout().positions()).map(|length| index.count_prefixes(length)).sum::<usize>();
        let (mut first_child, mut tokens, mut penalty) = (Vec::with_capacity(nodes + 1), vec![0u32], vec![0f32]);
        let (mut widths, mut last_token, mut filtered) = (Vec::new(), 0, false);
        let mut level = vec![index.root()];
        // Nodes are numbered by depth, then by prefix: children follow one another in the order of their parents.
        while !level.is_empty() {
            let depth = widths.len();
            let (mut next, mut width) = (Vec::new(), 0);
            for &node in &level {
                first_child.push(tokens.len() as u32);
                let first = tokens.len();
                for (code, child) in index.children(node) {
                    let token = vocab.position_range(depth).start + code;
                    let allowed = catalogue.allows_below(child);
                    last_token = last_token.max(token);
                    filtered |= !allowed;
                    tokens.push(token);
                    penalty.push(if allowed { 0.0 } else { f32::NEG_INFINITY });
                    next.push(child);
                }
                width = width.max(tokens.len() - first);
                if tokens.len() > nodes {
                    return Err(DecodeError::BrokenIndex { prefixes: nodes });
                }
            }
            if !next.is_empty() {
                widths.push(width);
            }
            level = next;
        }
        first_child.push(tokens.len() as u32);
        Ok(Self {
            first_child: Tensor::new(first_child, device)?,
            tokens: Tensor::new(tokens, device)?,
            penalty: if filtered { Some(Tensor::new(penalty, device)?) } else { None },
            widths,
            last_token,
            device: device.clone(),
        })
    }
}

/// [`BeamSearch`](crate::BeamSearch) whose scores, choices and caches never leave the model's device: nothing is
/// read until the end, when the hypotheses are. Made for GPUs.
///
/// The same search over the same [`Catalogue`], with two differences: among hypotheses of equal score any may be kept, and
/// every user has all beams from the first step on, those that no prefix fills included, so that the shapes are fixed.
/// Constraints other than a catalogue, or one for each user, are [`BeamSearch`](crate::BeamSearch)'s.
///
/// ```
/// # use candle_core::Device;
/// # use genrec_decode::{BeamSearch, Catalogue, Decoder, DeviceBeamSearch, DeviceCatalogue};
/// # use genrec_model::{RaggedBatch, t5::{T5, T5Config}};
/// # use ndarray::array;
/// # use sid_index::{CollisionPolicy, SidIndex, SidLayout, SidVocab};
/// # let layout = SidLayout::new(vec![4, 4])?;
/// # let vocab = SidVocab::new(&layout, 1)?;
/// # let index = SidIndex::from_codes(layout, array![[1, 0], [1, 2], [3, 3]].view(), CollisionPolicy::Suffix)?;
/// # let model = T5::new(T5Config::cpu(vocab.size()), 7, &Device::Cpu)?;
/// # let mut batch = RaggedBatch::new();
/// # batch.push(&Vec::from_iter(vocab.user("ada")), &[])?;
/// let catalogue = Catalogue::new(&index, &vocab)?;
/// let found = DeviceBeamSearch::new(2).decode(&model, &batch, &DeviceCatalogue::new(&catalogue, &Device::Cpu)?)?;
/// let expected = BeamSearch::new(2).decode(&model, &batch, &[catalogue])?;
/// assert_eq!(found[0][0].tokens, expected[0][0].tokens);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceBeamSearch {
    /// Prefixes kept, and at most as many hypotheses returned, for every user; up to [`max_beams`](Self::max_beams).
    pub beams: usize,
}

/// Values that candle sorts at once: what fits in the memory that a block of CUDA's threads shares, or as many as a group of
/// Metal's has threads.
fn sorted(device: &Device) -> usize {
    if device.is_metal() { 1_024 } else { 8_192 }
}

/// The prefixes of all users after some steps, each `(users, beams)`.
struct Beams {
    scores: Tensor,
    nodes: Tensor,
    /// `(users * beams, tokens so far)`.
    tokens: Vec<Tensor>,
}

impl DeviceBeamSearch {
    /// The most beams that a search on that device can have, half of what it sorts at once: 4,096, and 512 on Metal.
    pub fn max_beams(device: &Device) -> usize {
        sorted(device) / 2
    }

    /// A search with that many beams, which [`decode`](Self::decode) checks.
    pub fn new(beams: usize) -> Self {
        Self { beams }
    }

    /// Sequences for every row of the batch, in its order: at most `beams` a row, the most probable first, each with its
    /// log-probability in nats.
    ///
    /// # Errors
    /// [`DecodeError::EmptyBatch`]; [`NoBeams`](DecodeError::NoBeams) and [`TooManyBeams`](DecodeError::TooManyBeams);
    /// [`CatalogueDevice`](DecodeError::CatalogueDevice) when the catalogue is on another device than the model, and
    /// [`UnknownToken`](DecodeError::UnknownToken) when it has tokens that the model does not have;
    /// [`StateRows`](DecodeError::StateRows), [`OutputShape`](DecodeError::OutputShape) and
    /// [`NotLogProbs`](DecodeError::NotLogProbs) when the model breaks its contract; and when a tensor operation fails.
    pub fn decode<M: Seq2Seq>(
        &self,
        model: &M,
        batch: &RaggedBatch,
        catalogue: &DeviceCatalogue,
    ) -> Result<Vec<Vec<Hypothesis>>> {
        let device = model.device();
        self.check(model, batch, catalogue)?;
        let (users, beams, vocab_size) = (batch.len(), self.beams, model.vocab_size());
        let mut state = model.start(batch)?;
        if state.rows() != users {
            return Err(DecodeError::StateRows { expected: users, got: state.rows() });
        }
        if finds_children(device, beams) {
            return self.decode_in_kernels(model, state, catalogue, users);
        }
        let first_rows = Tensor::arange_step(0, (users * beams) as u32, beams as u32, device)?.reshape((users, 1))?;
        let mut found: Option<Beams> = None;
        let mut sums = Vec::with_capacity(catalogue.widths.len());
        for &width in &catalogue.widths {
            let rows = if found.is_some() { users * beams } else { users };
            let last = match &found {
                Some(beams) => beams.tokens.last().map(Tensor::flatten_all).transpose()?,
                None => None,
            };
            let last = match last {
                Some(last) => last,
                None => Tensor::full(model.decoder_start_token(), users, device)?,
            };
            let output = model.step(&last, &mut state)?;
            if output.dims() != [rows, vocab_size] {
                let got = output.dims().to_vec();
                return Err(DecodeError::OutputShape { expected: [rows, vocab_size], got });
            }
            let grown = Grown::new(catalogue, &output.to_dtype(DType::F32)?, found.as_ref(), width)?;
            sums.push(grown.sum.clone());
            let per_row = grown.scores.dim(1)?;
            let scores = grown.scores.reshape((users, rows / users * per_row))?;
            let (scores, places) = top(&scores, beams)?;
            let pick = |values: &Tensor| values.reshape((users, rows / users * per_row))?.gather(&places, 1);
            let (nodes, next) = (pick(&grown.nodes)?, pick(&grown.tokens)?);
            let scores = filled(&scores, beams, f32::NEG_INFINITY)?;
            let (nodes, next) = (filled(&nodes, beams, 0u32)?, filled(&next, beams, 0u32)?);
            let mut tokens = Vec::new();
            match &found {
                None => {
                    let widened: Vec<u32> = (0..users as u32).flat_map(|user| vec![user; beams]).collect();
                    // On the host, where the state may look at it.
                    state.select_rows(&Tensor::from_vec(widened, users * beams, &Device::Cpu)?)?;
                }
                Some(found) => {
                    let parents: Vec<u32> = (0..beams as u32).flat_map(|beam| vec![beam; per_row]).collect();
                    let parents = Tensor::from_vec(parents, beams * per_row, device)?;
                    let parents = parents.index_select(&places.flatten_all()?, 0)?.reshape((users, beams))?;
                    let from = parents.broadcast_add(&first_rows)?.flatten_all()?;
                    state.reorder(&from)?;
                    for earlier in &found.tokens {
                        tokens.push(earlier.flatten_all()?.index_select(&from, 0)?.reshape((users, beams))?);
                    }
                }
            }
            tokens.push(next);
            found = Some(Beams { scores, nodes, tokens });
        }
        if !sums.is_empty() {
            let sums = Tensor::stack(&sums, 0)?.to_vec1::<f32>()?;
            if let Some(step) = sums.iter().position(|sum| sum.is_nan() || *sum == f32::INFINITY) {
                return Err(DecodeError::NotLogProbs { step });
            }
        }
        collect(found, users)
    }

    /// The same where one kernel finds the continuations of all prefixes.
    fn decode_in_kernels<M: Seq2Seq>(
        &self,
        model: &M,
        mut state: M::State,
        catalogue: &DeviceCatalogue,
        users: usize,
    ) -> Result<Vec<Vec<Hypothesis>>> {
        let (device, vocab_size) = (model.device(), model.vocab_size());
        let trie = TrieTables {
            first_child: &catalogue.first_child,
            tokens: &catalogue.tokens,
            penalty: catalogue.penalty.as_ref(),
        };
        let mut found: Option<Prefixes> = None;
        let (mut tokens, mut broken): (Vec<Tensor>, Vec<Tensor>) = (Vec::new(), Vec::new());
        for _ in &catalogue.widths {
            let last = match &found {
                Some(found) => found.tokens.flatten_all()?,
                None => Tensor::full(model.decoder_start_token(), users, device)?,
            };
            let (rows, output) = (last.dim(0)?, model.step(&last, &mut state)?);
            if output.dims() != [rows, vocab_size] {
                return Err(DecodeError::OutputShape { expected: [rows, vocab_size], got: output.dims().to_vec() });
            }
            let output = output.to_dtype(DType::F32)?.contiguous()?;
            let next = best_children(&output, found.as_ref(), trie, users, self.beams)?;
            let from = next.rows.flatten_all()?;
            match &found {
                None => {
                    let widened: Vec<u32> = (0..users as u32).flat_map(|user| vec![user; self.beams]).collect();
                    // On the host, where the state may look at it.
                    state.select_rows(&Tensor::from_vec(widened, users * self.beams, &Device::Cpu)?)?;
                }
                Some(_) => {
                    state.reorder(&from)?;
                    for earlier in &mut tokens {
                        *earlier = earlier.flatten_all()?.index_select(&from, 0)?.reshape((users, self.beams))?;
                    }
                }
            }
            tokens.push(next.tokens.clone());
            broken.push(next.broken.clone());
            found = Some(next);
        }
        let broken = match broken.is_empty() {
            true => Vec::new(),
            false => Tensor::stack(&broken, 0)?.to_vec2::<u32>()?,
        };
        if let Some(step) = broken.iter().position(|users| users.contains(&1)) {
            return Err(DecodeError::NotLogProbs { step });
        }
        collect(found.map(|found| Beams { scores: found.scores, nodes: found.nodes, tokens }), users)
    }

    fn check<M: Seq2Seq>(&self, model: &M, batch: &RaggedBatch, catalogue: &DeviceCatalogue) -> Result<()> {
        if self.beams == 0 {
            return Err(DecodeError::NoBeams);
        }
        let most = Self::max_beams(model.device());
        if self.beams > most {
            return Err(DecodeError::TooManyBeams { beams: self.beams, most });
        }
        if batch.is_empty() {
            return Err(DecodeError::EmptyBatch);
        }
        if !catalogue.device.same_device(model.device()) {
            return Err(DecodeError::CatalogueDevice {
                catalogue: format!("{:?}", catalogue.device.location()),
                model: format!("{:?}", model.device().location()),
            });
        }
        if catalogue.last_token as usize >= model.vocab_size() {
            return Err(DecodeError::UnknownToken { token: catalogue.last_token, vocab_size: model.vocab_size() });
        }
        Ok(())
    }
}

/// All continuations of all prefixes, each `(rows, children)`.
struct Grown {
    /// Negative infinity where there is no such child.
    scores: Tensor,
    nodes: Tensor,
    tokens: Tensor,
    /// Sum of the log-probabilities that were looked at: no number if one of them is none.
    sum: Tensor,
}

impl Grown {
    fn new(catalogue: &DeviceCatalogue, log_probs: &Tensor, beams: Option<&Beams>, width: usize) -> Result<Self> {
        let (rows, device) = (log_probs.dim(0)?, log_probs.device());
        let nodes = match beams {
            Some(beams) => beams.nodes.flatten_all()?,
            None => Tensor::zeros(rows, DType::U32, device)?,
        };
        let one = Tensor::new(&[1u32], device)?;
        let first = catalogue.first_child.index_select(&nodes, 0)?.unsqueeze(1)?;
        let end = catalogue.first_child.index_select(&nodes.broadcast_add(&one)?, 0)?.unsqueeze(1)?;
        let children = first.broadcast_add(&Tensor::arange(0, width as u32, device)?.unsqueeze(0)?)?;
        let exists = children.broadcast_lt(&end)?;
        // A child that does not exist is looked up as the root, which is one of nobody.
        let children = exists.where_cond(&children, &children.zeros_like()?)?;
        let flat = children.flatten_all()?;
        let tokens = catalogue.tokens.index_select(&flat, 0)?.reshape((rows, width))?;
        let picked = log_probs.contiguous()?.gather(&tokens, D::Minus1)?;
        let nowhere = Tensor::full(f32::NEG_INFINITY, (rows, width), device)?;
        let mut before = exists.where_cond(&picked.zeros_like()?, &nowhere)?;
        if let Some(beams) = beams {
            before = before.broadcast_add(&beams.scores.reshape((rows, 1))?)?;
        }
        if let Some(penalty) = &catalogue.penalty {
            before = (before + penalty.index_select(&flat, 0)?.reshape((rows, width))?)?;
        }
        let allowed = before.gt(&nowhere)?;
        let sum = allowed.where_cond(&picked, &picked.zeros_like()?)?.sum_all()?;
        // What is no number would spoil the order; the sum tells of it.
        let number = picked.eq(&picked)?;
        let scores = number.where_cond(&(before + picked)?, &nowhere)?;
        Ok(Self { scores: allowed.where_cond(&scores, &nowhere)?, nodes: children, tokens, sum })
    }
}

/// The greatest `k` values of every row, or all of them if they are fewer, in descending order, and where they were.
fn top(values: &Tensor, k: usize) -> Result<(Tensor, Tensor)> {
    let ((_, width), sorted) = (values.dims2()?, sorted(values.device()));
    if width <= sorted {
        let places = values.contiguous()?.arg_sort_last_dim(false)?.narrow(1, 0, k.min(width))?.contiguous()?;
        return Ok((values.contiguous()?.gather(&places, 1)?, places));
    }
    let (mut best, mut places) = (Vec::new(), Vec::new());
    for first in (0..width).step_by(sorted) {
        let (values, at) = top(&values.narrow(1, first, sorted.min(width - first))?, k)?;
        best.push(values);
        places.push(at.broadcast_add(&Tensor::new(&[first as u32], at.device())?)?);
    }
    let (best, chosen) = top(&Tensor::cat(&best, 1)?, k)?;
    Ok((best, Tensor::cat(&places, 1)?.gather(&chosen, 1)?))
}

/// Widens `(users, some)` to `(users, beams)`.
fn filled<T: candle_core::WithDType>(values: &Tensor, beams: usize, with: T) -> Result<Tensor> {
    let (users, width) = values.dims2()?;
    if width >= beams {
        return Ok(values.clone());
    }
    Ok(Tensor::cat(&[values, &Tensor::full(with, (users, beams - width), values.device())?], 1)?)
}

/// Brings the hypotheses to the host.
fn collect(found: Option<Beams>, users: usize) -> Result<Vec<Vec<Hypothesis>>> {
    let Some(Beams { scores, tokens, .. }) = found else {
        return Ok(vec![Vec::new(); users]);
    };
    let scores = scores.to_vec2::<f32>()?;
    let tokens = Tensor::stack(&tokens, 2)?.to_vec3::<u32>()?;
    let user = |(scores, tokens): (Vec<f32>, Vec<Vec<u32>>)| {
        let hypotheses = scores.into_iter().zip(tokens).map(|(log_prob, tokens)| Hypothesis { tokens, log_prob });
        hypotheses.filter(|hypothesis| hypothesis.log_prob > f32::NEG_INFINITY).collect()
    };
    Ok(scores.into_iter().zip(tokens).map(user).collect())
}

#[cfg(test)]
mod tests;
