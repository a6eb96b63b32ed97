//! A model for the tests: random but fixed probabilities that depend on the whole history and prefix.

use candle_core::{Device, Result, Tensor};
use genrec_model::{DecodeState, RaggedBatch, Seq2Seq};

pub(crate) const START: u32 = 0;

/// What a toy model gets wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Every log-probability of the token at that step is this value.
    Value(usize, u32, f32),
    /// One row too many in the state.
    Rows,
    /// One token too many in the output.
    Width,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Toy {
    pub(crate) vocab_size: usize,
    pub(crate) seed: u64,
    /// How many different logits there are: few make ties, one makes nothing but ties.
    pub(crate) logits: u64,
    pub(crate) fault: Fault,
    pub(crate) run_size: Option<usize>,
}

pub(crate) struct ToyState {
    /// History and prefix, the start token included, of every row.
    rows: Vec<(Vec<u32>, Vec<u32>)>,
}

impl Toy {
    pub(crate) fn new(vocab_size: usize, seed: u64, logits: u64) -> Self {
        Self { vocab_size, seed, logits, fault: Fault::None, run_size: None }
    }

    /// Log-probabilities after a prefix, which begins with the start token.
    pub(crate) fn log_probs(&self, history: &[u32], prefix: &[u32]) -> Vec<f32> {
        let mut seed = mix(self.seed);
        for &token in history.iter().chain(&[u32::MAX]).chain(prefix) {
            seed = mix(seed ^ u64::from(token));
        }
        let logits: Vec<f64> = (0..self.vocab_size as u64)
            .map(|token| 6.0 * (mix(seed ^ token) % self.logits) as f64 / self.logits as f64)
            .collect();
        let log_sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        logits.into_iter().map(|logit| (logit - log_sum) as f32).collect()
    }

    /// Sum over the tokens of a whole sequence, in the order in which a decoder adds them.
    pub(crate) fn score(&self, history: &[u32], tokens: &[u32]) -> f32 {
        let prefix = [&[START], tokens].concat();
        (0..tokens.len()).fold(0.0, |sum, t| sum + self.log_probs(history, &prefix[..=t])[tokens[t] as usize])
    }
}

fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl DecodeState for ToyState {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn select_rows(&mut self, rows: &Tensor) -> Result<()> {
        let picked: Option<Vec<_>> =
            rows.to_vec1::<u32>()?.into_iter().map(|row| self.rows.get(row as usize).cloned()).collect();
        self.rows = picked.ok_or_else(|| candle_core::Error::Msg("row out of range".to_owned()))?;
        Ok(())
    }
}

impl Seq2Seq for Toy {
    type State = ToyState;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn decoder_start_token(&self) -> u32 {
        START
    }

    fn run_size(&self) -> Option<usize> {
        self.run_size
    }

    fn start(&self, batch: &RaggedBatch) -> Result<ToyState> {
        let mut rows: Vec<_> = batch.sequences().map(|history| (history.to_vec(), Vec::new())).collect();
        if self.fault == Fault::Rows {
            rows.push((Vec::new(), Vec::new()));
        }
        Ok(ToyState { rows })
    }

    fn step(&self, tokens: &Tensor, state: &mut ToyState) -> Result<Tensor> {
        let tokens = tokens.to_vec1::<u32>()?;
        assert_eq!(tokens.len(), state.rows.len(), "one token a row");
        assert!(!tokens.is_empty(), "a step without rows");
        let mut output = Vec::new();
        for ((history, prefix), token) in state.rows.iter_mut().zip(&tokens) {
            prefix.push(*token);
            let mut row = self.log_probs(history, prefix);
            if let Fault::Value(step, token, value) = self.fault
                && prefix.len() == step + 1
            {
                row[token as usize] = value;
            }
            if self.fault == Fault::Width {
                row.push(-1.0);
            }
            output.extend(row);
        }
        let width = output.len() / tokens.len();
        Tensor::from_vec(output, (tokens.len(), width), &Device::Cpu)
    }
}
