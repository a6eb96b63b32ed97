//! Loss and gradients: by the engine, or by candle's autograd over a few rows at a time.

use candle_core::{D, Result, Tensor};
use genrec_kernels::{CounterRng, Gradients, Parameters, graph};

use super::{
    SasRec,
    config::SasRecLoss,
    input::{Example, Negatives, examples, positions},
    network::Network,
};
use crate::{batch::RaggedBatch, dropout::Dropout, seq2seq::Trainable, share::BatchShare};

/// Scores that a device holds at once for training.
const SCORES: usize = 1 << 27;

/// Sequences filled up to the longest, and where in them the positions are that count.
pub(super) struct Padded {
    items: Tensor,
    positions: Tensor,
    /// Which of all `rows * length` places belong to a sequence.
    places: Tensor,
}

impl Padded {
    /// Lays out sequences whose last item has the last position of `max_len`. Of each, all places are kept, or the last
    /// one alone.
    pub(super) fn new(sequences: &[&[u32]], last: bool, model: &SasRec) -> Result<Self> {
        let (rows, device) = (sequences.len(), model.params.device());
        let length = sequences.iter().map(|items| items.len()).max().unwrap_or(0);
        let (mut items, mut positions) = (vec![0u32; rows * length], vec![0u32; rows * length]);
        let mut places = Vec::new();
        for (row, sequence) in sequences.iter().enumerate() {
            let start = row * length;
            items[start..start + sequence.len()].copy_from_slice(sequence);
            let first = (model.config.max_len - sequence.len()) as u32;
            positions[start..].iter_mut().zip(first..).take(sequence.len()).for_each(|(place, at)| *place = at);
            let kept = if last { sequence.len().saturating_sub(1) } else { 0 };
            places.extend((kept..sequence.len()).map(|at| (start + at) as u32));
        }
        let count = places.len();
        Ok(Self {
            items: Tensor::from_vec(items, (rows, length), device)?,
            positions: Tensor::from_vec(positions, (rows, length), device)?,
            places: Tensor::from_vec(places, count, device)?,
        })
    }

    /// The states at the kept places, `(places, d_model)`.
    pub(super) fn states(&self, network: Network<'_>, dropout: &Dropout) -> Result<Tensor> {
        let states = network.forward(&self.items, &self.positions, dropout)?;
        graph::embedding(&states.flatten_to(1)?, &self.places)
    }
}

impl SasRec {
    /// The layers on the graph.
    pub(super) fn network(&self, tracked: bool) -> Network<'_> {
        Network { config: &self.config, params: &self.params, tracked }
    }

    /// Examples that the graph computes at once: one on the CPU, so that masks are those of the engine, and elsewhere as
    /// many as there is room for the scores of.
    fn parts<'e, 'a>(&self, examples: &'e [Example<'a>]) -> Vec<&'e [Example<'a>]> {
        if self.params.device().is_cpu() {
            return examples.chunks(1).collect();
        }
        let per_position = match &self.config.loss {
            SasRecLoss::Bce { negatives } => (1 + negatives) * self.config.d_model,
            SasRecLoss::FullCrossEntropy { .. } => self.config.items,
        };
        let row = per_position.saturating_mul(self.config.max_len);
        examples.chunks((SCORES / row).max(1)).collect()
    }

    /// The sum of the losses of some examples, on the graph.
    fn partial_loss(&self, examples: &[Example<'_>], draws: &Draws, tracked: bool) -> Result<Tensor> {
        let network = self.network(tracked);
        let dropout = match (&draws.dropout, examples) {
            (Some(rng), [first, ..]) => Dropout::on(self.config.dropout_rate, rng.stream(first.row as u64)),
            _ => Dropout::off(),
        };
        let sequences: Vec<&[u32]> = examples.iter().map(|example| example.inputs).collect();
        let states = Padded::new(&sequences, false, self)?.states(network, &dropout)?;
        let count = states.dim(0)?;
        let device = self.params.device();
        if let Some(negatives) = &draws.negatives {
            let mut ids = Vec::new();
            examples.iter().for_each(|example| negatives.append(example, &mut ids));
            let width = negatives.per_position();
            let real: Vec<f32> = ids.iter().map(|id| f32::from((*id as usize) < self.config.items)).collect();
            ids.iter_mut().filter(|id| **id as usize >= self.config.items).for_each(|id| *id = 0);
            let candidates = graph::embedding(&network.table()?, &Tensor::from_vec(ids, (count, width), device)?)?;
            let scores = candidates.broadcast_mul(&states.unsqueeze(1)?)?.sum(D::Minus1)?;
            let mut signs = vec![1f32; width];
            signs[0] = -1.0;
            let signed = scores.broadcast_mul(&Tensor::from_vec(signs, width, device)?)?;
            let softplus = (signed.relu()? + (signed.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
            return (softplus * Tensor::from_vec(real, (count, width), device)?)?.sum_all();
        }
        let labels: Vec<u32> = examples.iter().flat_map(|example| example.labels.iter().copied()).collect();
        let labels = Tensor::from_vec(labels, count, device)?;
        let scores = graph::linear(&states, &network.table()?)?;
        match self.config.loss {
            SasRecLoss::FullCrossEntropy { label_smoothing } if label_smoothing > 0.0 => {
                let logs = graph::log_softmax(&scores)?;
                let right = logs.gather(&labels.unsqueeze(1)?, 1)?.sum_all()?;
                let even = logs.mean(D::Minus1)?.sum_all()?;
                ((right * (label_smoothing - 1.0))? - (even * label_smoothing)?)?.contiguous()
            }
            _ => graph::cross_entropy(&scores, &labels)? * count as f64,
        }
    }
}

/// What a step draws.
struct Draws {
    dropout: Option<CounterRng>,
    negatives: Option<Negatives>,
}

/// Every item of a sequence is predicted from those before it, of which the model sees the last
/// [`max_len`](super::SasRecConfig::max_len); the loss is the mean over all positions of the batch, in nats.
///
/// A batch holds whole sequences of item rows, oldest first, and no labels. Sequences of one item are passed over. Every
/// seed draws other dropout masks and other negatives; [`loss`](Trainable::loss) takes the negatives of seed 0. On the CPU,
/// equal arguments give equal bytes at any number of threads.
impl Trainable for SasRec {
    type Batch = RaggedBatch;

    fn parameters(&self) -> &Parameters {
        &self.params
    }

    fn loss_and_grads(&self, batch: &RaggedBatch, dropout_seed: u64) -> Result<(f32, Gradients)> {
        self.share_loss_and_grads(batch, BatchShare::WHOLE, dropout_seed)
    }

    fn share_loss_and_grads(
        &self,
        batch: &RaggedBatch,
        share: BatchShare,
        dropout_seed: u64,
    ) -> Result<(f32, Gradients)> {
        let mut examples = examples(batch, &self.config)?;
        let negatives = Negatives::new(&self.config, dropout_seed);
        if let Some(engine) = &self.engine {
            return engine.loss_and_grads(&examples, share, negatives, dropout_seed);
        }
        let rng = CounterRng::new(dropout_seed).named("dropout");
        if !self.params.device().is_cpu() && self.config.dropout_rate > 0.0 {
            // There dropout is drawn by the device's own generator. Half of the bits: Metal takes no more.
            self.params.device().set_seed(rng.u64_at(share.rank() as u64) & u64::from(u32::MAX))?;
        }
        let draws = Draws { dropout: Some(rng), negatives };
        let mean = 1.0 / positions(&examples) as f64;
        if !share.is_whole() {
            examples.sort_by_key(|example| std::cmp::Reverse(example.inputs.len()));
            examples = share.every(examples);
        }
        let (mut total, mut sum) = (0.0, Gradients::default());
        for part in self.parts(&examples) {
            let loss = (self.partial_loss(part, &draws, true)? * mean)?;
            total += f64::from(loss.to_scalar::<f32>()?);
            for (name, gradient) in Gradients::from_store(&self.params, &loss.backward()?)?.iter() {
                let gradient = match sum.get(name) {
                    Some(sum) => (sum + gradient)?,
                    None => gradient.clone(),
                };
                sum.insert(name, gradient);
            }
        }
        Ok((total as f32, sum))
    }

    fn loss(&self, batch: &RaggedBatch) -> Result<f32> {
        let examples = examples(batch, &self.config)?;
        let negatives = Negatives::new(&self.config, 0);
        if let Some(engine) = &self.engine {
            return engine.loss(&examples, negatives);
        }
        let draws = Draws { dropout: None, negatives };
        let mut total = 0.0;
        for part in self.parts(&examples) {
            total += f64::from(self.partial_loss(part, &draws, false)?.to_scalar::<f32>()?);
        }
        Ok((total / positions(&examples) as f64) as f32)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::sasrec::{NormPlacement, SasRecConfig};

    /// As other devices compute them, padded to the longest.
    #[test]
    fn the_graph_sums_over_several_sequences_what_each_gives_alone() {
        let mut batch = RaggedBatch::new();
        for sequence in [&[1, 2, 3, 4, 5, 6, 0][..], &[3, 1], &[0], &[6, 6, 2, 1, 0, 3, 3, 5, 1]] {
            batch.push(sequence, &[]).unwrap();
        }
        for (loss, norm) in [
            (SasRecLoss::full_cross_entropy(), NormPlacement::Branches),
            (SasRecLoss::FullCrossEntropy { label_smoothing: 0.3 }, NormPlacement::Queries),
            (SasRecLoss::bce(2), NormPlacement::Queries),
        ] {
            let config =
                SasRecConfig::new(9).with_d_model(8).with_heads(2).with_max_len(6).with_loss(loss).with_norm(norm);
            let model = SasRec::new(config, 1, &Device::Cpu).unwrap();
            let examples = examples(&batch, &model.config).unwrap();
            let draws = Draws { dropout: None, negatives: Negatives::new(&model.config, 4) };
            let sum = |examples| model.partial_loss(examples, &draws, false).unwrap().to_scalar::<f32>().unwrap();
            let alone: f32 = examples.chunks(1).map(sum).sum();
            let together = sum(&examples);
            assert!((together - alone).abs() < 1e-5 * alone, "{together} {alone}");
        }
    }
}
