//! A run that is replaced again and again while it is asked: no question fails, every answer is that of one generation, and memory
//! does not grow.
//!
//! `GENREC_SOAK_SECONDS` sets for how long: 3 by default, an hour in the long form. From a minute on, what is resident in the last
//! quarter may be no more than 1 % above what it was in the first; from ten minutes on there must have been a thousand replacements.
//! A process of its own does it, so that its memory is not that of other tests.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use candle_core::Device;
use genrec::{
    History, Recommendation, Recommender,
    artifacts::RunDir,
    data::Item,
    index::{ItemId, LiveIndex, SemanticId, SidIndex},
};
use genrec_tests::setting;

use crate::tiny;

const DIR: &str = "GENREC_SOAK_DIR";
const HISTORIES: u32 = 8;

/// A run with so many of its items, what it answers, and where its items are.
struct Generation {
    recommender: Recommender,
    answers: Vec<Vec<Recommendation>>,
    sids: Vec<(ItemId, SemanticId)>,
}

impl Generation {
    fn of(recommender: Recommender) -> Self {
        let answers = (0..HISTORIES).map(|user| answer(&recommender, user)).collect();
        let sids = recommender.index().sids().collect();
        Self { recommender, answers, sids }
    }
}

fn answer(recommender: &Recommender, user: u32) -> Vec<Recommendation> {
    let items = [ItemId(user), ItemId(3 * user + 1)];
    recommender.recommend(&[History { user: Some("someone"), items: &items }], 30).unwrap().remove(0)
}

/// Kilobytes of this process that are in memory.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What was done, by all threads.
#[derive(Default)]
struct Counts {
    answers: AtomicU64,
    opened: AtomicU64,
    swaps: AtomicU64,
}

#[test]
fn every_answer_is_of_one_generation() {
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "soak::child", "--nocapture", "--test-threads", "1"])
        .env(DIR, dir.path())
        .status()
        .unwrap();
    assert!(status.success());
}

/// Not a test of its own: the process that is asked and replaces what it is asked.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let seconds = setting("GENREC_SOAK_SECONDS", 3);
    let old = Generation::of(tiny::run(dir));
    let mut grown = old.recommender.clone();
    for (row, id) in ["newest", "newer", "new"].iter().enumerate() {
        let like = grown.catalogue().items()[7 * row].clone();
        grown.add_item(Item { id: (*id).to_owned(), ..like }).unwrap();
    }
    // The catalogue names all items, and the index says how many of them there are.
    grown.save_catalogue(dir).unwrap();
    let generations = [old, Generation::of(grown)];
    assert!(generations[0].answers != generations[1].answers, "the generations cannot be told apart");

    let load = || Recommender::load(dir, &Device::Cpu).unwrap();
    let published = RwLock::new(Arc::new(load()));
    let index = RunDir::new(dir).index();
    let live = LiveIndex::new(SidIndex::open_mapped(&index).unwrap());
    let (counts, over) = (Counts::default(), AtomicBool::new(false));
    let (start, length) = (Instant::now(), Duration::from_secs(seconds));
    let mut quarters = [0; 4];
    std::thread::scope(|scope| {
        scope.spawn(|| ask(&generations, &over, &counts, || Arc::clone(&published.read().unwrap())));
        scope.spawn(|| {
            ask(&generations, &over, &counts, || {
                // What is on the disk is whole at every moment, and so is what is mapped.
                let opened = SidIndex::open_mapped(&index).unwrap();
                let sids = [live.snapshot().sids().collect::<Vec<_>>(), opened.sids().collect()];
                assert!(sids.iter().all(|sids| generations.iter().any(|generation| generation.sids == *sids)));
                counts.opened.fetch_add(1, Ordering::Relaxed);
                Arc::clone(&published.read().unwrap())
            });
        });
        // Whatever panics here ends the others too.
        let _over = Over(&over);
        while start.elapsed() < length {
            let swap = counts.swaps.fetch_add(1, Ordering::Relaxed);
            generations[(swap % 2) as usize].recommender.index().save(&index).unwrap();
            *published.write().unwrap() = Arc::new(load());
            live.replace(SidIndex::open_mapped(&index).unwrap());
            let quarter = (4.0 * start.elapsed().as_secs_f64() / length.as_secs_f64()) as usize;
            quarters[quarter.min(3)] = resident().max(quarters[quarter.min(3)]);
        }
    });
    let Counts { answers, opened, swaps } = counts;
    let (answers, opened, swaps) = (answers.into_inner(), opened.into_inner(), swaps.into_inner());
    eprintln!(
        "{seconds} s: {answers} answers, {opened} indexes opened, {swaps} generations; resident, the most of each quarter: {quarters:?} KB"
    );
    assert!(answers > 0 && opened > 0 && swaps > 2);
    assert!(seconds < 60 || quarters[3] as f64 <= 1.01 * quarters[0] as f64, "memory grows: {quarters:?} KB");
    assert!(seconds < 600 || swaps >= 1_000, "{swaps} generations in {seconds} s");
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn ask(generations: &[Generation; 2], over: &AtomicBool, counts: &Counts, current: impl Fn() -> Arc<Recommender>) {
    let _over = Over(over);
    let mut user = 0;
    while !over.load(Ordering::Relaxed) {
        let recommender = current();
        let generation = generations.iter().find(|generation| generation.sids.len() == recommender.index().len());
        assert!(generation.unwrap().answers[user as usize] == answer(&recommender, user), "an answer of no generation");
        counts.answers.fetch_add(1, Ordering::Relaxed);
        user = (user + 1) % HISTORIES;
    }
}
