//! An index that is replaced while it is read.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::{error::Result, index::SidIndex};

/// The index that a service answers from: readers take a [`snapshot`](Self::snapshot) and never wait; a writer puts
/// another index in its place at one instant, and can go back.
///
/// A snapshot stays as it is for as long as it is held, whatever is published meanwhile: take one a request, and
/// all that the request asks comes from one state.
///
/// ```
/// use ndarray::array;
/// use sid_index::{CollisionPolicy, ItemId, LiveIndex, SidIndex, SidLayout};
///
/// let index = SidIndex::from_codes(SidLayout::new(vec![4, 4])?, array![[1, 2]].view(), CollisionPolicy::Suffix)?;
/// let live = LiveIndex::new(index);
/// let before = live.snapshot();
/// let item = live.update(|index| index.insert(&[1, 2]))?;
/// assert_eq!((before.len(), live.snapshot().len(), item), (1, 2, ItemId(1)));
/// assert!(live.roll_back());
/// assert_eq!(live.snapshot().len(), 1);
/// # Ok::<(), sid_index::IndexError>(())
/// ```
#[derive(Debug)]
pub struct LiveIndex {
    current: ArcSwap<SidIndex>,
    /// What was current before; held while writing, so that writers take turns.
    previous: Mutex<Option<Arc<SidIndex>>>,
}

impl LiveIndex {
    /// Begins with an index.
    pub fn new(index: SidIndex) -> Self {
        Self { current: ArcSwap::from_pointee(index), previous: Mutex::new(None) }
    }

    /// The current index. Neither waits for a writer nor makes one wait.
    pub fn snapshot(&self) -> Arc<SidIndex> {
        self.current.load_full()
    }

    /// Publishes another index, a newly opened one for instance, and returns the one that it replaces.
    pub fn replace(&self, index: SidIndex) -> Arc<SidIndex> {
        let mut previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.current.swap(Arc::new(index));
        *previous = Some(Arc::clone(&old));
        old
    }

    /// Publishes a changed copy of the current index; the base is not copied. Writers take turns, so no change is lost.
    ///
    /// # Errors
    /// What `change` returns; then nothing is published.
    pub fn update<T>(&self, change: impl FnOnce(&mut SidIndex) -> Result<T>) -> Result<T> {
        let mut previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = SidIndex::clone(&self.current.load());
        let value = change(&mut index)?;
        *previous = Some(self.current.swap(Arc::new(index)));
        Ok(value)
    }

    /// Makes the index current again that the last [`replace`](Self::replace) or [`update`](Self::update) replaced;
    /// `false` when there is none. Once: there is no way back further. Numbers of items that were added meanwhile are given
    /// again, so filters and whatever else has noted them are to be made anew.
    pub fn roll_back(&self) -> bool {
        let mut previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
        match previous.take() {
            Some(index) => {
                self.current.store(index);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests;
