//! Training windows and the batches of an epoch.

use serde::{Deserialize, Serialize};
use sid_index::ItemId;

use crate::rng::Rng;
use crate::{DataError, LeaveOneOut, Result};

/// How training sequences are cut into windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct WindowConfig {
    /// Items of history at most; older ones are cut off. Default: 20, as in the TIGER paper (section 4).
    pub max_history: usize,
    /// Items of history at least: the first `min_history` items of a user are never a target. Default: 1.
    pub min_history: usize,
    /// Items by which the start of a history moves on once the history is longer than `max_history`: with 1 it holds the
    /// last `max_history` items, with more it is up to that many items less one shorter, and histories of a user that
    /// start at the same item begin alike. Default: 1.
    pub start_step: usize,
    /// Share of the items that histories are trained without, from 0 to below 1: [`Windows::thinned`] draws them anew in every
    /// epoch, so that a model learns from items that lie further back too. Default: 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub drop_items: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(share: &f64) -> bool {
    *share == 0.0
}

impl Default for WindowConfig {
    fn default() -> Self {
        Self { max_history: 20, min_history: 1, start_step: 1, drop_items: 0.0 }
    }
}

impl WindowConfig {
    /// Sets [`max_history`](Self::max_history).
    #[must_use]
    pub fn with_max_history(mut self, max_history: usize) -> Self {
        self.max_history = max_history;
        self
    }

    /// Sets [`min_history`](Self::min_history).
    #[must_use]
    pub fn with_min_history(mut self, min_history: usize) -> Self {
        self.min_history = min_history;
        self
    }

    /// Sets [`start_step`](Self::start_step).
    #[must_use]
    pub fn with_start_step(mut self, start_step: usize) -> Self {
        self.start_step = start_step;
        self
    }

    /// Sets [`drop_items`](Self::drop_items).
    #[must_use]
    pub fn with_drop_items(mut self, share: f64) -> Self {
        self.drop_items = share;
        self
    }

    /// The first item of the history of the item at `at`.
    fn start(&self, at: usize) -> usize {
        at.saturating_sub(self.max_history).next_multiple_of(self.start_step)
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// [`DataError::Config`] unless `1 <= min_history <= max_history`,
    /// `1 <= start_step <= max_history - min_history + 1` and `0 <= drop_items < 1`.
    pub fn validate(&self) -> Result<()> {
        if self.min_history == 0 {
            return Err(DataError::config(
                "WindowConfig::min_history",
                0,
                "a window needs at least one item of history",
            ));
        }
        if self.max_history < self.min_history {
            return Err(DataError::config(
                "WindowConfig::max_history",
                self.max_history,
                "it must not be below `min_history`; raise it or lower `min_history`",
            ));
        }
        if self.start_step == 0 || self.start_step > self.max_history - self.min_history + 1 {
            return Err(DataError::config(
                "WindowConfig::start_step",
                self.start_step,
                "a step is at least one item and leaves at least `min_history` items of `max_history`",
            ));
        }
        if !(0.0..1.0).contains(&self.drop_items) {
            return Err(DataError::config(
                "WindowConfig::drop_items",
                self.drop_items,
                "a share from 0 to below 1 of the items is left out",
            ));
        }
        Ok(())
    }
}

/// One training example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Window<'a> {
    /// Number of the user in the sequences.
    pub user: usize,
    /// The items before the target, oldest first, at most the last [`WindowConfig::max_history`] of them.
    pub history: &'a [ItemId],
    /// The item that follows.
    pub target: ItemId,
}

/// Every prefix of every training sequence as a window: its last item is the target, the others the history.
///
/// A user with `n` training items gives `n - min_history` windows. Nothing is copied: 8 bytes a user are kept.
///
/// ```
/// use genrec_data::{ItemId, LeaveOneOut, Sequences, WindowConfig, Windows};
///
/// let mut sequences = Sequences::new();
/// sequences.push("ada", &[5, 6, 7, 8, 9].map(ItemId))?;
/// let windows = Windows::new(&LeaveOneOut::new(&sequences), WindowConfig::default())?;
/// assert_eq!(windows.len(), 2); // 5 -> 6 and 5, 6 -> 7; 8 and 9 are held out
/// let last = windows.get(1).ok_or("no window")?;
/// assert_eq!((last.history, last.target), (&[5, 6].map(ItemId)[..], ItemId(7)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Windows<'a> {
    split: LeaveOneOut<'a>,
    config: WindowConfig,
    /// `starts[u]` windows belong to the users before `u`; one entry more than there are users.
    starts: Vec<u32>,
}

impl<'a> Windows<'a> {
    /// Lays the windows of the training part out, user by user, oldest first.
    ///
    /// # Errors
    /// [`DataError::Config`] for bounds that do not fit, [`DataError::TooMany`] beyond `u32::MAX` windows.
    pub fn new(split: &LeaveOneOut<'a>, config: WindowConfig) -> Result<Self> {
        config.validate()?;
        let mut starts = Vec::with_capacity(split.len() + 1);
        let mut total = 0u64;
        starts.push(0);
        for user in 0..split.len() {
            total += split.train(user).len().saturating_sub(config.min_history) as u64;
            starts
                .push(u32::try_from(total).map_err(|_| DataError::TooMany { what: "training windows", count: total })?);
        }
        Ok(Self { split: *split, config, starts })
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.starts.last().map_or(0, |&n| n as usize)
    }

    /// Whether there is no window.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How the windows were cut.
    pub fn config(&self) -> &WindowConfig {
        &self.config
    }

    /// Window `i`, in the order of users and time.
    pub fn get(&self, i: usize) -> Option<Window<'a>> {
        Some(self.locate(i)?.0)
    }

    /// Window `i` and where in the user's sequence its history starts.
    fn locate(&self, i: usize) -> Option<(Window<'a>, usize)> {
        let i = u32::try_from(i).ok().filter(|&i| (i as usize) < self.len())?;
        let user = self.starts.partition_point(|&start| start <= i) - 1;
        let at = self.config.min_history + (i - self.starts[user]) as usize;
        let (items, start) = (self.split.train(user), self.config.start(at));
        Some((Window { user, history: &items[start..at], target: items[at] }, start))
    }

    /// Window `i` with the history that an epoch trains it with: without the items that [`WindowConfig::drop_items`] leaves out,
    /// or with the last item alone where all would be.
    ///
    /// Which items of a user are left out is drawn from `seed` and `epoch`, alike for all windows of the user, so that their
    /// histories still begin alike. Targets are never left out. Written to `history`, which is emptied first.
    pub fn thinned(&self, i: usize, seed: u64, epoch: u32, history: &mut Vec<ItemId>) -> Option<Window<'a>> {
        let (window, start) = self.locate(i)?;
        history.clear();
        if self.config.drop_items == 0.0 {
            history.extend_from_slice(window.history);
            return Some(window);
        }
        // Streams of their own beside those of the epochs' batches; users fit u32, as their windows do.
        let mut rng = Rng::new(seed, 1 << 63 | u64::from(epoch) << 32 | window.user as u64);
        (0..start).for_each(|_| _ = rng.unit());
        history.extend(window.history.iter().filter(|_| rng.unit() >= self.config.drop_items));
        if history.is_empty() {
            history.extend(window.history.last());
        }
        Some(window)
    }

    /// All windows, in the order of users and time.
    pub fn iter(&self) -> impl Iterator<Item = Window<'a>> {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    /// The batches of one epoch: numbers of windows, every window exactly once, at most `batch_size` a batch.
    ///
    /// A pure function of the windows, `config` and `epoch`: an interrupted run that starts an epoch again sees the
    /// same batches. Only one batch may be short. Without bucketing it is the last; with it, batches come in random
    /// order and it may stand anywhere.
    ///
    /// A `batch_size` or pool of zero, which [`BatchConfig::validate`] refuses, is taken as one.
    #[must_use]
    pub fn batches(&self, config: BatchConfig, epoch: u32) -> Vec<Vec<u32>> {
        let batch_size = config.batch_size.max(1);
        // `len` fits: `new` has checked it.
        let mut rng = Rng::new(config.seed, u64::from(epoch));
        let mut order: Vec<u32>;
        if config.by_user {
            let mut users: Vec<&[u32]> = self.starts.windows(2).collect();
            rng.shuffle(&mut users);
            order = users.into_iter().flat_map(|user| user[0]..user[1]).collect();
        } else {
            order = (0..self.starts.last().copied().unwrap_or(0)).collect();
            rng.shuffle(&mut order);
        }
        if let Some(pool) = config.bucketing {
            let length = |&i: &u32| self.get(i as usize).map_or(0, |window| window.history.len());
            for pool in order.chunks_mut(pool.max(1).saturating_mul(batch_size)) {
                pool.sort_by_cached_key(length);
            }
        }
        let mut batches: Vec<Vec<u32>> = order.chunks(batch_size).map(<[u32]>::to_vec).collect();
        if config.bucketing.is_some() {
            rng.shuffle(&mut batches);
        }
        batches
    }
}

/// How windows are grouped into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BatchConfig {
    /// Windows a batch. Default: 256, as in the TIGER paper (section 4).
    pub batch_size: usize,
    /// Seed of the shuffling. Default: 0.
    pub seed: u64,
    /// Batches a pool: the windows of a pool are sorted by the length of their history before they are cut into
    /// batches, so that one batch holds like lengths; the batches are then shuffled. Default: none, a plain shuffle.
    pub bucketing: Option<usize>,
    /// Whether users are shuffled rather than windows, so that the windows of a user stand together, in one batch or in
    /// two that follow one another. It excludes `bucketing`. Default: no.
    pub by_user: bool,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { batch_size: 256, seed: 0, bucketing: None, by_user: false }
    }
}

impl BatchConfig {
    /// Sets [`batch_size`](Self::batch_size).
    #[must_use]
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// Sets [`seed`](Self::seed).
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets [`bucketing`](Self::bucketing).
    #[must_use]
    pub fn with_bucketing(mut self, pool: Option<usize>) -> Self {
        self.bucketing = pool;
        self
    }

    /// Sets [`by_user`](Self::by_user).
    #[must_use]
    pub fn with_by_user(mut self, by_user: bool) -> Self {
        self.by_user = by_user;
        self
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// [`DataError::Config`] when `batch_size` or `bucketing` is zero, or `bucketing` would tear users apart.
    pub fn validate(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(DataError::config("BatchConfig::batch_size", 0, "a batch holds at least one window"));
        }
        if self.bucketing == Some(0) {
            return Err(DataError::config(
                "BatchConfig::bucketing",
                0,
                "a pool holds at least one batch; use `None` for no pools",
            ));
        }
        if let (true, Some(pool)) = (self.by_user, self.bucketing) {
            return Err(DataError::config(
                "BatchConfig::bucketing",
                pool,
                "windows sorted by length cannot stand together by user; use `None`, or leave `by_user` out",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
