//! How far something is, and how much longer it takes: a bar on a terminal, a line from time to time elsewhere.

#![allow(clippy::print_stderr, reason = "where there is no terminal to draw bars on, lines are printed")]

mod lines;
mod view;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

pub use self::view::ProgressView;
use lines::{Lines, State};

/// Nobody knows yet how long it takes.
const WAITING: &str = "{prefix:>9} [{elapsed_precise}] {spinner} {msg}";
/// So many of so many are done.
const COUNTED: &str = "{prefix:>9} [{elapsed_precise}] {wide_bar} {pos}/{len} {msg} (ETA {eta})";
/// A share is done.
const SHARED: &str = "{prefix:>9} [{elapsed_precise}] {wide_bar} {percent} % {msg} (ETA {eta})";

/// A share of 1, as a position of a bar.
const WHOLE: f64 = 10_000.0;

/// Shows how far something is, and how much longer it takes, until it is dropped.
///
/// On a terminal it is a bar. Where standard error is none, what lasts is told there in lines: after five seconds, and every
/// thirty seconds from then on.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    state: Arc<Mutex<State>>,
    /// Dropped with the value, which ends their thread.
    _lines: Option<Lines>,
}

impl Progress {
    /// Begins; how long it will take is not known until [`set`](Self::set) or [`share`](Self::share) tell.
    pub fn new(name: &str) -> Self {
        let bar = ProgressBar::new(0).with_prefix(name.to_owned());
        style(&bar, WAITING);
        bar.enable_steady_tick(Duration::from_millis(500));
        let state = Arc::new(Mutex::new(State::new(name)));
        let lines = bar.is_hidden().then(|| Lines::start(Arc::clone(&state)));
        Self { bar, state, _lines: lines }
    }

    /// So many of so many are done.
    pub fn set(&self, done: usize, total: usize) {
        let (done, total) = (done as u64, total as u64);
        if self.lock().counted(done, total) {
            self.begin(COUNTED, done);
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// A share is done, from 0 to 1.
    pub fn share(&self, share: f64) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 10,000")]
        let done = (share.clamp(0.0, 1.0) * WHOLE) as u64;
        if self.lock().shared(done, WHOLE as u64) {
            self.begin(SHARED, done);
        }
        self.bar.set_length(WHOLE as u64);
        self.bar.set_position(done);
    }

    /// What is said beside.
    pub fn message(&self, text: impl Into<String>) {
        let text = text.into();
        self.bar.set_message(text.clone());
        self.lock().message = text;
    }

    /// A line that stays, on standard error.
    pub fn say(&self, line: &str) {
        if self.bar.is_hidden() { eprintln!("{line}") } else { self.bar.println(line) }
    }

    /// Told by whoever counts what is done and what there is.
    pub fn counter(&self) -> impl FnMut(usize, usize) + '_ {
        |done, total| self.set(done, total)
    }

    fn begin(&self, template: &str, done: u64) {
        style(&self.bar, template);
        self.bar.set_position(done);
        // What was done before, by an interrupted run, says nothing of the speed.
        self.bar.reset_eta();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

/// Shows that something is under way that does not tell how far it is.
pub fn waiting<T>(name: &str, what: &str, work: impl FnOnce() -> T) -> T {
    let progress = Progress::new(name);
    progress.message(what);
    work()
}
