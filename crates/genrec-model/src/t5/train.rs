//! Loss and gradients: by the engine, or by candle's autograd over micro-batches of similar length.

use candle_core::{DType, Device, Result, Tensor};
use genrec_kernels::graph;
use genrec_kernels::{CounterRng, Gradients, Parameters};
use rayon::prelude::*;

use super::{
    T5,
    input::{Padded, check_labels, check_sources},
    network::Network,
    packed,
};
use crate::{
    batch::RaggedBatch,
    dropout::Dropout,
    seq2seq::{Seq2Seq, Trainable},
    share::BatchShare,
};

/// The loss of a micro-batch, as its share of the whole batch's, and its gradients.
type Part = (f64, Gradients);

impl T5 {
    /// A worker's rows of the batch in the order of their lengths, cut into micro-batches.
    fn micro_batches(&self, batch: &RaggedBatch, share: BatchShare) -> Vec<Vec<usize>> {
        let mut rows: Vec<usize> = (0..batch.len()).collect();
        rows.sort_by_key(|row| batch.sequence(*row).map_or(0, <[u32]>::len));
        let rows = share.every(rows);
        let size = self.micro_batch.unwrap_or(batch.len()).max(1);
        rows.chunks(size).map(<[usize]>::to_vec).collect()
    }

    /// Sum over the rows' tokens of the cross-entropy, over the number of target tokens of the whole batch.
    fn partial_loss(
        &self,
        network: &Network,
        batch: &RaggedBatch,
        rows: &[usize],
        dropout: &Dropout,
    ) -> Result<Tensor> {
        let targets = batch.target_len();
        let device = self.params.device();
        let source = Padded::new(batch, rows, self.config.pad_token_id, device)?;
        let mut labels = Vec::with_capacity(rows.len() * targets);
        let mut inputs = Vec::with_capacity(rows.len() * targets);
        for row in rows {
            let target = &batch.labels()[row * targets..(row + 1) * targets];
            labels.extend_from_slice(target);
            inputs.push(self.config.decoder_start_token_id);
            inputs.extend_from_slice(&target[..targets - 1]);
        }
        let inputs = Tensor::from_vec(inputs, (rows.len(), targets), device)?;
        let labels = Tensor::from_vec(labels, rows.len() * targets, device)?;
        let encoded = network.encode(&source.ids, &source.lengths, dropout)?;
        let logits = network.decode(&inputs, &encoded, &source.lengths, dropout)?;
        let loss = graph::cross_entropy(&logits.flatten_to(1)?, &labels)?;
        if rows.len() == batch.len() {
            return Ok(loss);
        }
        loss.affine(rows.len() as f64 / batch.len() as f64, 0.0)
    }

    /// Loss and, if `backward`, gradients of some rows by the packed layers, as their share of the whole batch's.
    fn packed_part(
        &self,
        batch: &RaggedBatch,
        rows: &[usize],
        rng: Option<CounterRng>,
        backward: bool,
    ) -> Result<Part> {
        let layers = self.packed_layers()?;
        if rows.len() == batch.len() {
            let (loss, gradients) = packed::loss(&self.config, &self.params, &layers, batch, rng, backward)?;
            return Ok((f64::from(loss), gradients));
        }
        let mut some = RaggedBatch::new();
        let targets = batch.target_len();
        for row in rows {
            let labels = &batch.labels()[row * targets..(row + 1) * targets];
            some.push(batch.sequence(*row).unwrap_or_default(), labels).map_err(candle_core::Error::wrap)?;
        }
        let share = rows.len() as f64 / batch.len() as f64;
        let (loss, mut gradients) = packed::loss(&self.config, &self.params, &layers, &some, rng, backward)?;
        gradients.scale(share)?;
        Ok((f64::from(loss) * share, gradients))
    }

    fn part(&self, batch: &RaggedBatch, rows: &[usize], rng: CounterRng) -> Result<Part> {
        if self.packed() {
            return self.packed_part(batch, rows, Some(rng), true);
        }
        let dropout = Dropout::on(self.config.dropout_rate, rng);
        let loss = self.partial_loss(&*self.network(true)?, batch, rows, &dropout)?;
        let gradients = Gradients::from_store(&self.params, &loss.backward()?)?;
        Ok((f64::from(loss.to_scalar::<f32>()?), gradients))
    }

    /// Applies `work` to every micro-batch, a few at a time, and hands the results to `sum` in the order of the
    /// micro-batches, so that they do not depend on the number of threads.
    fn for_each_part<P: Send>(
        &self,
        parts: &[Vec<usize>],
        work: impl Fn(&[usize]) -> Result<P> + Sync,
        mut sum: impl FnMut(P) -> Result<()>,
    ) -> Result<()> {
        let at_once = if matches!(self.params.device(), Device::Cpu) { rayon::current_num_threads() } else { 1 };
        for chunk in parts.chunks(at_once) {
            if let [rows] = chunk {
                sum(work(rows)?)?;
                continue;
            }
            let done: Vec<Result<P>> = chunk.par_iter().map(|rows| work(rows)).collect();
            for part in done {
                sum(part?)?;
            }
        }
        Ok(())
    }

    /// Logits of every target token given those before it, without dropout.
    ///
    /// # Shapes
    /// Returns `(rows, target length, vocabulary)`, `f32`, in the order of the batch.
    ///
    /// # Errors
    /// When the batch is empty or has no labels, a token is outside the vocabulary, or a tensor operation fails.
    pub fn logits(&self, batch: &RaggedBatch) -> Result<Tensor> {
        self.check(batch)?;
        let targets = batch.target_len();
        let rows: Vec<usize> = (0..batch.len()).collect();
        let off = Dropout::off();
        let source = Padded::new(batch, &rows, self.config.pad_token_id, self.params.device())?;
        let start = self.config.decoder_start_token_id;
        let inputs = batch
            .labels()
            .chunks(targets)
            .flat_map(|target| std::iter::once(start).chain(target[..targets - 1].iter().copied()))
            .collect::<Vec<_>>();
        let inputs = Tensor::from_vec(inputs, (batch.len(), targets), self.params.device())?;
        let network = self.network(false)?;
        let encoded = network.encode(&source.ids, &source.lengths, &off)?;
        network.decode(&inputs, &encoded, &source.lengths, &off)?.to_dtype(DType::F32)
    }

    fn check(&self, batch: &RaggedBatch) -> Result<()> {
        check_sources(batch, self.config.vocab_size)?;
        Ok(check_labels(batch, self.config.vocab_size)?)
    }
}

/// Teacher forcing: the decoder reads the target shifted right behind the start token; the loss is the mean
/// cross-entropy over all target tokens, in nats.
///
/// Every seed draws other dropout masks (by seeding the device's generator where candle's graph trains on a GPU), at each place where T5 has dropout: embeddings, attention probabilities, the
/// inside of the feed-forward network, every residual branch and both stacks' outputs. With the CPU's engine a row's masks do not
/// depend on which worker computes it; on the graph and on a GPU they are drawn for the rows that a worker computes together.
impl Trainable for T5 {
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
        self.check(batch)?;
        if let Some(engine) = &self.engine {
            return engine.loss_and_grads(batch, share, dropout_seed);
        }
        let rng = CounterRng::new(dropout_seed).named("dropout");
        if !self.device().is_cpu() && self.config.dropout_rate > 0.0 && !self.packed() {
            // There dropout is drawn by the device's own generator. Half of the bits: Metal takes no more.
            self.device().set_seed(rng.u64_at(share.rank() as u64) & u64::from(u32::MAX))?;
        }
        let parts = self.micro_batches(batch, share);
        let mut total: Option<Part> = None;
        self.for_each_part(
            &parts,
            |rows| self.part(batch, rows, rng.stream(rows.first().map_or(0, |row| *row as u64))),
            |(loss, gradients)| {
                total = Some(match total.take() {
                    None => (loss, gradients),
                    Some((sum, summed)) => (sum + loss, add(&summed, &gradients)?),
                });
                Ok(())
            },
        )?;
        let (loss, gradients) = total.unwrap_or_default();
        Ok((loss as f32, gradients))
    }

    fn loss(&self, batch: &RaggedBatch) -> Result<f32> {
        self.check(batch)?;
        if let Some(engine) = &self.engine {
            return engine.loss(batch);
        }
        let parts = self.micro_batches(batch, BatchShare::WHOLE);
        let mut total = 0.0;
        let mut sum = |loss| {
            total += loss;
            Ok(())
        };
        if self.packed() {
            self.for_each_part(&parts, |rows| Ok(self.packed_part(batch, rows, None, false)?.0), &mut sum)?;
        } else {
            let network = self.network(false)?;
            let loss = |rows: &[usize]| self.partial_loss(&network, batch, rows, &Dropout::off())?.to_scalar::<f32>();
            self.for_each_part(&parts, |rows| Ok(f64::from(loss(rows)?)), &mut sum)?;
        }
        Ok(total as f32)
    }
}

fn add(sum: &Gradients, part: &Gradients) -> Result<Gradients> {
    let mut out = Gradients::default();
    for ((name, a), (_, b)) in sum.iter().zip(part.iter()) {
        out.insert(name, (a + b)?);
    }
    Ok(out)
}
