//! What waits to be decoded: bounded, taken in batches.

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What can wait and be decoded together with its like.
pub(crate) trait Job {
    /// Histories in it.
    fn size(&self) -> usize;
    /// When it was asked for.
    fn arrived(&self) -> Instant;
    /// Whether one search can answer both.
    fn goes_with(&self, other: &Self) -> bool;
    /// Whether nobody waits for its answer any more.
    fn abandoned(&self) -> bool;
}

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many histories wait as may.
    Full { waiting: usize, capacity: usize },
    /// The server ends.
    Closed,
}

/// Jobs in the order of their arrival. A batch is begun by the oldest, takes what goes with it, and is given out when it is full
/// or the oldest has waited long enough; while decoders are busy nobody waits for company on top.
#[derive(Debug)]
pub(crate) struct Queue<J> {
    inner: Mutex<Inner<J>>,
    changed: Condvar,
    capacity: usize,
    max_batch: usize,
    max_wait: Duration,
}

#[derive(Debug)]
struct Inner<J> {
    jobs: VecDeque<J>,
    hurried: bool,
    closed: bool,
}

impl<J: Job> Inner<J> {
    fn waiting(&self) -> usize {
        self.jobs.iter().map(Job::size).sum()
    }
}

impl<J: Job> Queue<J> {
    pub(crate) fn new(capacity: NonZeroUsize, max_batch: NonZeroUsize, max_wait: Duration) -> Self {
        let inner = Mutex::new(Inner { jobs: VecDeque::new(), hurried: false, closed: false });
        let (capacity, max_batch) = (capacity.get(), max_batch.get());
        Self { inner, changed: Condvar::new(), capacity, max_batch, max_wait }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<J>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job, unless there is no room for all of it.
    pub(crate) fn push(&self, job: J) -> Result<(), Refusal> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Refusal::Closed);
        }
        let fits = |inner: &Inner<J>| inner.waiting() + job.size() <= self.capacity;
        if !fits(&inner) {
            inner.jobs.retain(|job| !job.abandoned());
            if !fits(&inner) {
                return Err(Refusal::Full { waiting: inner.waiting(), capacity: self.capacity });
            }
        }
        inner.jobs.push_back(job);
        drop(inner);
        self.changed.notify_all();
        Ok(())
    }

    /// The next batch, waited for; `None` once the queue is closed and empty.
    pub(crate) fn take(&self) -> Option<Vec<J>> {
        let mut inner = self.lock();
        loop {
            inner.jobs.retain(|job| !job.abandoned());
            let Some(first) = inner.jobs.front() else {
                if inner.closed {
                    return None;
                }
                inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let ready: usize = inner.jobs.iter().filter(|job| job.goes_with(first)).map(Job::size).sum();
            let left = self.max_wait.saturating_sub(first.arrived().elapsed());
            if ready >= self.max_batch || left.is_zero() || inner.hurried || inner.closed {
                return Some(self.pick(&mut inner.jobs));
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The oldest job and those behind it that go with it and for which there is room.
    fn pick(&self, jobs: &mut VecDeque<J>) -> Vec<J> {
        let mut batch: Vec<J> = jobs.pop_front().into_iter().collect();
        let mut size: usize = batch.iter().map(Job::size).sum();
        for job in std::mem::take(jobs) {
            let goes = batch.first().is_some_and(|first| job.goes_with(first));
            if goes && size + job.size() <= self.max_batch {
                size += job.size();
                batch.push(job);
            } else {
                jobs.push_back(job);
            }
        }
        batch
    }

    /// Histories that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// Lets no job wait for company any more.
    pub(crate) fn hurry(&self) {
        self.lock().hurried = true;
        self.changed.notify_all();
    }

    /// Drops all that waits.
    pub(crate) fn discard(&self) {
        self.lock().jobs.clear();
    }

    /// Takes no more jobs; those that wait are still given out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Fake {
        name: u32,
        kind: u32,
        size: usize,
        arrived: Instant,
        abandoned: bool,
    }

    impl Job for Fake {
        fn size(&self) -> usize {
            self.size
        }
        fn arrived(&self) -> Instant {
            self.arrived
        }
        fn goes_with(&self, other: &Self) -> bool {
            self.kind == other.kind
        }
        fn abandoned(&self) -> bool {
            self.abandoned
        }
    }

    fn fake(name: u32, kind: u32, size: usize) -> Fake {
        Fake { name, kind, size, arrived: Instant::now(), abandoned: false }
    }

    fn queue(capacity: usize, batch: usize, wait: Duration) -> Queue<Fake> {
        Queue::new(NonZeroUsize::new(capacity).unwrap(), NonZeroUsize::new(batch).unwrap(), wait)
    }

    fn names(batch: Option<Vec<Fake>>) -> Vec<u32> {
        batch.into_iter().flatten().map(|job| job.name).collect()
    }

    #[test]
    fn what_goes_together_is_taken_together_and_nothing_is_lost() {
        let queue = queue(100, 4, Duration::ZERO);
        for (name, kind, size) in [(0, 1, 1), (1, 2, 1), (2, 1, 2), (3, 1, 3), (4, 1, 1), (5, 2, 9)] {
            queue.push(fake(name, kind, size)).unwrap();
        }
        assert_eq!(queue.waiting(), 17);
        assert_eq!(names(queue.take()), [0, 2, 4], "3 has no room");
        assert_eq!(names(queue.take()), [1], "5 is too large to join");
        assert_eq!(names(queue.take()), [3]);
        assert_eq!(names(queue.take()), [5], "a job larger than a batch is a batch");
        queue.close();
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn a_full_queue_refuses_and_those_who_left_make_room() {
        let queue = queue(3, 2, Duration::ZERO);
        queue.push(Fake { abandoned: true, ..fake(0, 1, 2) }).unwrap();
        queue.push(fake(1, 1, 1)).unwrap();
        queue.push(fake(2, 1, 2)).unwrap();
        assert_eq!(queue.push(fake(3, 1, 1)), Err(Refusal::Full { waiting: 3, capacity: 3 }));
        assert_eq!(names(queue.take()), [1], "2 would be a third");
        queue.close();
        assert_eq!(queue.push(fake(4, 1, 1)), Err(Refusal::Closed));
        assert_eq!(names(queue.take()), [2]);
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn a_job_waits_for_company_until_the_batch_is_full() {
        // Long enough that the test would not end by waiting.
        let queue = Arc::new(queue(100, 2, Duration::from_secs(3600)));
        queue.push(fake(0, 1, 1)).unwrap();
        let taken = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || names(queue.take())
        });
        queue.push(fake(1, 2, 1)).unwrap();
        queue.push(fake(2, 1, 1)).unwrap();
        assert_eq!(taken.join().unwrap(), [0, 2]);
        queue.hurry();
        assert_eq!(names(queue.take()), [1], "an end waits for nobody");
    }
}
