//! Decoding one position at a time, with caches that belong to the caller.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use genrec_kernels::graph;

use super::{
    T5,
    attention::KeyValue,
    dropout::Dropout,
    input::{Padded, check_sources},
    network::Sharing,
};
use crate::{
    batch::RaggedBatch,
    error::InputError,
    seq2seq::{DecodeState, Seq2Seq},
};

/// The caches of one decoding run of a [`T5`].
///
/// The encoded sequences' keys and values are held once a sequence, however many hypotheses it has:
/// [`select_rows`](DecodeState::select_rows) permutes the small caches of the tokens decoded so far and the map from rows
/// to sequences. While every sequence has the same number of consecutive rows, as in beam search, its rows attend to it
/// together; otherwise its keys are gathered at each step. Cloning is cheap, for the tensors are shared.
#[derive(Debug, Clone)]
pub struct T5State {
    /// The sequence of every row.
    users: Vec<u32>,
    /// Source length of every sequence.
    lengths: Arc<Vec<u32>>,
    /// `(sequences, heads, positions, d_kv)`, one a decoder block.
    cross: Arc<Vec<KeyValue>>,
    /// `(rows, heads, decoded, d_kv)`, one a decoder block; empty before the first step.
    own: Vec<KeyValue>,
    device: Device,
}

impl T5State {
    /// The sequence, as a row of the batch that was encoded, that each hypothesis belongs to.
    pub fn sequences(&self) -> &[u32] {
        &self.users
    }

    /// Number of tokens fed so far.
    pub fn position(&self) -> usize {
        self.own.first().and_then(|keys| keys.key.dim(2).ok()).unwrap_or(0)
    }

    /// The largest number of consecutive rows that every group of one sequence divides into.
    fn beams(&self) -> usize {
        let mut beams = 0;
        for run in self.users.chunk_by(|a, b| a == b) {
            beams = gcd(beams, run.len());
        }
        beams
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl DecodeState for T5State {
    fn rows(&self) -> usize {
        self.users.len()
    }

    fn select_rows(&mut self, rows: &Tensor) -> Result<()> {
        let indices = rows.to_vec1::<u32>()?;
        if indices.is_empty() {
            return Err(InputError::EmptyBatch.into());
        }
        let users = indices
            .iter()
            .map(|row| match self.users.get(*row as usize) {
                Some(user) => Ok(*user),
                None => Err(InputError::Row { row: *row, rows: self.users.len() }),
            })
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let unchanged = indices.len() == self.users.len() && (0u32..).zip(&indices).all(|(i, row)| i == *row);
        if !unchanged {
            let rows = rows.to_device(&self.device)?;
            self.own = self.own.iter().map(|keys| keys.select(&rows)).collect::<Result<_>>()?;
        }
        self.users = users;
        Ok(())
    }
}

impl Seq2Seq for T5 {
    type State = T5State;

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn device(&self) -> &Device {
        self.params.device()
    }

    fn decoder_start_token(&self) -> u32 {
        self.config.decoder_start_token_id
    }

    fn start(&self, batch: &RaggedBatch) -> Result<T5State> {
        check_sources(batch, self.config.vocab_size)?;
        let rows: Vec<usize> = (0..batch.len()).collect();
        let padded = Padded::new(batch, &rows, self.config.pad_token_id, self.device())?;
        let encoded = self.detached.encode(&padded.ids, &padded.lengths, &Dropout::off())?;
        Ok(T5State {
            users: rows.into_iter().map(u32::try_from).collect::<std::result::Result<_, _>>()?,
            lengths: Arc::new(padded.lengths),
            cross: Arc::new(self.detached.cross_keys(&encoded)?),
            own: Vec::new(),
            device: self.device().clone(),
        })
    }

    fn step(&self, tokens: &Tensor, state: &mut T5State) -> Result<Tensor> {
        let given = tokens.dims1()?;
        if given != state.rows() {
            return Err(InputError::StepTokens { tokens: given, rows: state.rows() }.into());
        }
        let vocab_size = self.config.vocab_size;
        if let Some(row) = tokens.to_vec1::<u32>()?.iter().position(|token| *token as usize >= vocab_size) {
            let token = tokens.get(row)?.to_scalar::<u32>()?;
            return Err(InputError::Token { row, position: state.position(), token, vocab_size }.into());
        }
        let tokens = tokens.to_device(self.device())?;
        let beams = state.beams();
        let users: Vec<u32> = state.users.iter().step_by(beams).copied().collect();
        let identity = users.len() == state.lengths.len() && (0u32..).zip(&users).all(|(i, user)| i == *user);
        let gathered = if identity { None } else { Some(Tensor::new(users.as_slice(), self.device())?) };
        let lengths: Vec<u32> = users.iter().map(|user| state.lengths[*user as usize]).collect();
        let sharing = Sharing { beams, users: gathered.as_ref(), lengths: &lengths };
        let logits = self.detached.step(&tokens, &mut state.own, &state.cross, sharing)?;
        graph::log_softmax(&logits)
    }
}
