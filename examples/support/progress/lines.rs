//! What a bar would show, as lines.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What takes no longer is not worth a line.
const FIRST: Duration = Duration::from_secs(5);
/// From one line to the next.
const EVERY: Duration = Duration::from_secs(30);

/// How far something is.
#[derive(Debug, Clone)]
pub(super) struct State {
    name: String,
    started: Instant,
    /// When the first count came, and what it was: what was done before says nothing of the speed.
    base: Option<(Instant, u64)>,
    done: u64,
    total: u64,
    in_percent: bool,
    pub(super) message: String,
}

impl State {
    pub(super) fn new(name: &str) -> Self {
        let (name, message) = (name.to_owned(), String::new());
        Self { name, started: Instant::now(), base: None, done: 0, total: 0, in_percent: false, message }
    }

    /// So many of so many are done; whether this is the first count.
    pub(super) fn counted(&mut self, done: u64, total: u64) -> bool {
        self.put(done, total, false)
    }

    /// The same as a share.
    pub(super) fn shared(&mut self, done: u64, total: u64) -> bool {
        self.put(done, total, true)
    }

    fn put(&mut self, done: u64, total: u64, in_percent: bool) -> bool {
        let first = self.base.is_none();
        // Of several passes each is counted by itself.
        if first || done < self.done {
            self.base = Some((Instant::now(), done));
        }
        (self.done, self.total, self.in_percent) = (done, total, in_percent);
        first
    }

    /// How much longer it takes, where that can be told.
    fn left(&self, now: Instant) -> Option<Duration> {
        let (since, from) = self.base?;
        let (done, rest) =
            (self.done.checked_sub(from).filter(|&done| done > 0)?, self.total.saturating_sub(self.done));
        Duration::try_from_secs_f64((now - since).as_secs_f64() * rest as f64 / done as f64).ok()
    }

    /// What is to be said.
    fn line(&self, now: Instant) -> String {
        let mut parts = Vec::new();
        if self.in_percent {
            parts.push(format!("{:.0} %", 100.0 * self.done as f64 / self.total.max(1) as f64));
        } else if self.total > 0 {
            parts.push(format!("{} of {}", self.done, self.total));
        }
        if !self.message.is_empty() {
            parts.push(self.message.clone());
        }
        parts.push(format!("{} so far", shown(now - self.started)));
        parts.extend(self.left(now).map(|left| format!("{} left", shown(left))));
        format!("{:>9}: {}", self.name, parts.join(", "))
    }
}

/// A time as people say it.
fn shown(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..90 => format!("{seconds} s"),
        seconds @ 90..5_400 => format!("{} min", (seconds + 30) / 60),
        seconds => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// A thread that says from time to time how far it is.
#[derive(Debug)]
pub(super) struct Lines {
    /// `None` when it is to end.
    going: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    pub(super) fn start(state: Arc<Mutex<State>>) -> Self {
        let (going, ended) = channel();
        let say = move |now| {
            let line = state.lock().unwrap_or_else(PoisonError::into_inner).line(now);
            eprintln!("{line}");
        };
        Self { going: Some(going), thread: Some(thread::spawn(move || tell(&ended, FIRST, EVERY, say))) }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.going.take();
        // No line may come after whoever ends it says that it is done.
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Calls `say` after a while and from time to time from then on, until the other end is dropped.
fn tell(ended: &Receiver<()>, first: Duration, every: Duration, mut say: impl FnMut(Instant)) {
    let mut wait = first;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(wait) {
        say(Instant::now());
        wait = every;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_is_known() {
        let mut state = State::new("embed");
        let at = |seconds| state_start(&state) + Duration::from_secs(seconds);
        let (start, later) = (at(0), at(40));
        assert_eq!(state.line(later), "    embed: 40 s so far");
        assert!(state.counted(100, 1_000));
        state.base = Some((start, 100));
        assert_eq!(state.line(later), "    embed: 100 of 1000, 40 s so far", "one count tells no speed");
        assert!(!state.counted(300, 1_000));
        state.message = "loss 0.5".to_owned();
        assert_eq!(state.line(later), "    embed: 300 of 1000, loss 0.5, 40 s so far, 2 min left");
        state.shared(5_000, 10_000);
        state.base = Some((start, 0));
        assert_eq!(state.line(later), "    embed: 50 %, loss 0.5, 40 s so far, 40 s left");
    }

    fn state_start(state: &State) -> Instant {
        state.started
    }

    #[test]
    fn each_pass_is_counted_by_itself() {
        let mut state = State::new("fit");
        state.counted(0, 10);
        state.counted(10, 10);
        state.counted(1, 10);
        assert_eq!(state.base.map(|(_, from)| from), Some(1));
    }

    #[test]
    fn times_are_short() {
        let shown = |seconds| shown(Duration::from_secs(seconds));
        assert_eq!(
            [0, 89, 90, 5_399, 5_400, 90_000].map(shown),
            ["0 s", "89 s", "2 min", "90 min", "1 h 30 min", "25 h 0 min"]
        );
    }

    #[test]
    fn it_is_told_until_the_end_and_not_after() {
        let (going, ended) = channel();
        let mut said = 0;
        let mut going = Some(going);
        tell(&ended, Duration::ZERO, Duration::ZERO, |_| {
            said += 1;
            if said == 3 {
                going.take();
            }
        });
        assert_eq!(said, 3);
    }
}
