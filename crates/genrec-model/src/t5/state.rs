//! Decoding one position at a time, with caches that belong to the caller.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use genrec_kernels::{Parameters, graph};

use super::{
    T5,
    attention::KeyValue,
    engine::Caches,
    input::{Padded, check_sources},
    network::{Network, Sharing},
    packed,
};
use crate::{
    batch::RaggedBatch,
    dropout::Dropout,
    error::InputError,
    seq2seq::{DecodeState, Seq2Seq},
};

/// The caches of one decoding run of a [`T5`].
///
/// The encoded sequences' keys and values are held once a sequence, however many hypotheses it has;
/// [`select_rows`](DecodeState::select_rows) permutes what belongs to the hypotheses. On the CPU that is an index of
/// ancestors alone: what a beam decoded stays where it was computed; so it is on a GPU, where the packed layers run. On candle's graph the small caches of the tokens decoded so
/// far are gathered, and while every sequence has the same number of consecutive rows, as in beam search, its rows attend
/// to it together. Cloning is cheap, for everything large is shared.
#[derive(Debug, Clone)]
pub struct T5State {
    /// The sequence of every row.
    users: Vec<u32>,
    cache: Cache,
}

#[derive(Debug, Clone)]
enum Cache {
    Fused(Caches),
    Packed(packed::Caches),
    Graph(GraphCache),
}

/// The caches as tensors.
#[derive(Debug, Clone)]
struct GraphCache {
    /// Whose caches they are, over the weights as they were at the start.
    params: Parameters,
    network: Arc<Network>,
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
        match &self.cache {
            Cache::Fused(caches) => caches.position(),
            Cache::Packed(caches) => caches.position(),
            Cache::Graph(cache) => cache.own.first().and_then(|keys| keys.key.dim(2).ok()).unwrap_or(0),
        }
    }
}

/// The largest number of consecutive rows that every group of one sequence divides into.
fn beams(users: &[u32]) -> usize {
    users.chunk_by(|a, b| a == b).fold(0, |beams, run| gcd(beams, run.len()))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl DecodeState for T5State {
    fn rows(&self) -> usize {
        self.users.len()
    }

    fn reorder(&mut self, rows: &Tensor) -> Result<()> {
        match &mut self.cache {
            Cache::Fused(_) => self.select_rows(rows),
            Cache::Packed(caches) => caches.select(rows, false),
            Cache::Graph(cache) => {
                cache.own = cache.own.iter().map(|keys| keys.select(rows)).collect::<Result<_>>()?;
                Ok(())
            }
        }
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
            .collect::<std::result::Result<_, _>>()?;
        let unchanged = indices.len() == self.users.len() && (0u32..).zip(&indices).all(|(i, row)| i == *row);
        match &mut self.cache {
            _ if unchanged => {}
            Cache::Fused(caches) => caches.select(&indices),
            Cache::Packed(caches) => caches.select(rows, true)?,
            Cache::Graph(cache) => {
                let rows = rows.to_device(&cache.device)?;
                cache.own = cache.own.iter().map(|keys| keys.select(&rows)).collect::<Result<_>>()?;
            }
        }
        self.users = users;
        Ok(())
    }
}

impl GraphCache {
    fn new(model: &T5, batch: &RaggedBatch) -> Result<Self> {
        let rows: Vec<usize> = (0..batch.len()).collect();
        let padded = Padded::new(batch, &rows, model.config.pad_token_id, model.device())?;
        let network = Arc::new(model.network(false)?.into_owned());
        let encoded = network.encode(&padded.ids, &padded.lengths, &Dropout::off())?;
        Ok(Self {
            lengths: Arc::new(padded.lengths),
            cross: Arc::new(network.cross_keys(&encoded)?),
            params: model.params.clone(),
            network,
            own: Vec::new(),
            device: model.device().clone(),
        })
    }

    fn step(&mut self, users: &[u32], tokens: &Tensor) -> Result<Tensor> {
        let beams = beams(users);
        let users: Vec<u32> = users.iter().step_by(beams).copied().collect();
        let identity = users.len() == self.lengths.len() && (0u32..).zip(&users).all(|(i, user)| i == *user);
        let gathered = if identity { None } else { Some(Tensor::new(users.as_slice(), &self.device)?) };
        let lengths: Vec<u32> = users.iter().map(|user| self.lengths[*user as usize]).collect();
        let sharing = Sharing { beams, users: gathered.as_ref(), lengths: &lengths };
        let tokens = tokens.to_device(&self.device)?;
        graph::log_softmax(&self.network.step(&tokens, &mut self.own, &self.cross, sharing)?.to_dtype(DType::F32)?)
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

    fn run_size(&self) -> Option<usize> {
        /// Users whose beams' activations and keys stay in a second-level cache.
        const USERS: usize = 8;
        self.engine.is_some().then_some(USERS)
    }

    fn start(&self, batch: &RaggedBatch) -> Result<T5State> {
        check_sources(batch, self.config.vocab_size)?;
        let users = (0..batch.len()).map(u32::try_from).collect::<std::result::Result<_, _>>()?;
        let cache = match &self.engine {
            Some(engine) => Cache::Fused(engine.start(batch)?),
            None if self.packed() => Cache::Packed(packed::Caches::new(self, batch)?),
            None => Cache::Graph(GraphCache::new(self, batch)?),
        };
        Ok(T5State { users, cache })
    }

    fn step(&self, tokens: &Tensor, state: &mut T5State) -> Result<Tensor> {
        let given = tokens.dims1()?;
        if given != state.rows() {
            return Err(InputError::StepTokens { tokens: given, rows: state.rows() }.into());
        }
        let vocab_size = self.config.vocab_size;
        // Tokens that are on the model's GPU are not looked at: to read them is to wait for it.
        let on_host = tokens.device().is_cpu() || self.device().is_cpu();
        let fed = if on_host { tokens.to_vec1::<u32>()? } else { Vec::new() };
        if let Some(row) = fed.iter().position(|token| *token as usize >= vocab_size) {
            return Err(InputError::Token { row, position: state.position(), token: fed[row], vocab_size }.into());
        }
        match (&mut state.cache, &self.engine) {
            (Cache::Fused(caches), Some(engine)) => engine.step(caches, &state.users, &fed),
            (Cache::Packed(caches), None) if caches.belong_to(&self.params) => caches.step(&state.users, tokens),
            (Cache::Graph(cache), None) if cache.params.shares_with(&self.params) => cache.step(&state.users, tokens),
            _ => {
                candle_core::bail!("the state was started by another model; start one with this model")
            }
        }
    }
}
