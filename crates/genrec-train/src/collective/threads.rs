//! Ranks that are threads of one process.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use candle_core::Tensor;

use super::{Collective, CollectiveError, to_device, to_host};

/// Far more than there are threads in any machine; a bound on what is allocated.
const MOST_RANKS: usize = 1 << 12;

/// A rank that is a thread. Sums are made in the order of the ranks, so that they are the same in every run.
///
/// A rank that is dropped, be it by a panic, is lost: whoever waits for it gets an error at once.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use genrec_train::{BoxError, Collective, Threads};
///
/// fn sum(rank: Threads) -> Result<Vec<f32>, BoxError> {
///     let values = Tensor::new(&[1f32, rank.rank() as f32], &Device::Cpu)?;
///     Ok(rank.all_reduce(&values)?.to_vec1()?)
/// }
///
/// # fn main() -> Result<(), BoxError> {
/// let ranks = Threads::new(3)?;
/// let threads: Vec<_> = ranks.into_iter().map(|rank| std::thread::spawn(move || sum(rank))).collect();
/// for thread in threads {
///     assert_eq!(thread.join().expect("no panic")?, [3.0, 3.0]);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    meeting: Arc<Meeting>,
}

/// Where the ranks meet.
#[derive(Debug)]
struct Meeting {
    ranks: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What the ranks have brought to the meeting under way.
    brought: Vec<Option<Message>>,
    arrived: usize,
    /// Meetings that are over.
    meetings: u64,
    /// All that was brought to the last one. It stays until the next is over, and so until everybody has seen it.
    last: Arc<[Message]>,
    lost: Option<usize>,
}

#[derive(Debug, Clone)]
enum Message {
    Values(Vec<f32>),
    /// A part of the values, whose lengths differ.
    Part(Vec<f32>),
    Bytes(Vec<u8>),
    Nothing,
}

impl Message {
    /// What must be equal on all ranks.
    fn describe(&self) -> String {
        match self {
            Self::Values(values) => format!("{} values", values.len()),
            Self::Part(_) => "a sum".to_owned(),
            Self::Bytes(_) => "bytes".to_owned(),
            Self::Nothing => "nothing".to_owned(),
        }
    }
}

impl Threads {
    /// All ranks, one for each thread.
    ///
    /// # Errors
    /// [`CollectiveError::Ranks`] when there are none, or more than 4,096.
    pub fn new(ranks: usize) -> Result<Vec<Self>, CollectiveError> {
        if !(1..=MOST_RANKS).contains(&ranks) {
            return Err(CollectiveError::Ranks { ranks, most: MOST_RANKS });
        }
        let state = State { brought: vec![None; ranks], ..State::default() };
        let meeting = Arc::new(Meeting { ranks, state: Mutex::new(state), changed: Condvar::new() });
        Ok((0..ranks).map(|rank| Self { rank, meeting: Arc::clone(&meeting) }).collect())
    }

    /// Brings a message, and takes what everybody brought, by rank.
    fn exchange(&self, message: Message) -> Result<Arc<[Message]>, CollectiveError> {
        let Meeting { ranks, state, changed } = &*self.meeting;
        let mut state = lock(state);
        let meeting = state.meetings;
        if let Some(lost) = state.lost {
            return Err(CollectiveError::Lost { rank: self.rank, lost });
        }
        if let Some(place) = state.brought.get_mut(self.rank) {
            *place = Some(message);
        }
        state.arrived += 1;
        if state.arrived == *ranks {
            state.last = state.brought.iter_mut().filter_map(Option::take).collect();
            state.arrived = 0;
            state.meetings += 1;
            changed.notify_all();
        }
        while state.meetings == meeting {
            if let Some(lost) = state.lost {
                return Err(CollectiveError::Lost { rank: self.rank, lost });
            }
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let all = Arc::clone(&state.last);
        drop(state);
        let (expected, got) = (all.first().map(Message::describe), all.iter().map(Message::describe));
        match (0..).zip(got).find(|(_, got)| Some(got) != expected.as_ref()) {
            Some((rank, got)) => Err(CollectiveError::Order { rank, expected: expected.unwrap_or_default(), got }),
            None => Ok(all),
        }
    }

    /// The part of `length` values that this rank sums.
    fn part(&self, length: usize) -> Range<usize> {
        let ranks = self.meeting.ranks;
        self.rank * length / ranks..(self.rank + 1) * length / ranks
    }
}

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.meeting.ranks
    }

    fn all_reduce(&self, values: &Tensor) -> Result<Tensor, CollectiveError> {
        let all = self.exchange(Message::Values(to_host(values)?))?;
        let part = self.part(values.elem_count());
        let mut sum = vec![0.0; part.len()];
        for message in all.iter() {
            if let Message::Values(values) = message {
                sum.iter_mut().zip(&values[part.clone()]).for_each(|(sum, value)| *sum += value);
            }
        }
        let all = self.exchange(Message::Part(sum))?;
        let mut whole = Vec::with_capacity(values.elem_count());
        for message in all.iter() {
            if let Message::Part(part) = message {
                whole.extend_from_slice(part);
            }
        }
        to_device(whole, values)
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>, CollectiveError> {
        let all = self.exchange(Message::Bytes(if self.rank == 0 { bytes } else { Vec::new() }))?;
        Ok(match all.first() {
            Some(Message::Bytes(bytes)) => bytes.clone(),
            _ => Vec::new(),
        })
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        self.exchange(Message::Nothing).map(|_| ())
    }

    fn leave(&self) {
        lock(&self.meeting.state).lost.get_or_insert(self.rank);
        self.meeting.changed.notify_all();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.leave();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing is left half done under the lock.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
