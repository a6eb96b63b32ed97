//! Indexes that take the place of older ones, generation after generation.

use std::path::Path;

use genrec::index::{CollisionPolicy, ItemId, SidIndex, SidLayout};
use ndarray::Array2;

use super::{kill, report};

const GENERATIONS: u32 = 12;
/// Items of the first generation, and how many each further one has more.
const ITEMS: u32 = 20_000;
const MORE: u32 = 100;
/// Of the items that are added to a generation so many are taken out of it in the next.
const FEWER: u32 = 40;

fn codes(items: std::ops::Range<u32>) -> Array2<u32> {
    let (first, count) = (items.start, items.len());
    Array2::from_shape_fn((count, 3), |(row, level)| (first + row as u32).wrapping_mul([7, 31, 1_013][level]) / 5 % 64)
}

fn built(generation: u32) -> SidIndex {
    let codes = codes(0..ITEMS + MORE * generation);
    SidIndex::from_codes(SidLayout::new(vec![64; 3]).unwrap(), codes.view(), CollisionPolicy::Suffix).unwrap()
}

/// The next generation of one that is changed rather than built.
fn changed(mut index: SidIndex) -> SidIndex {
    let first = index.id_bound();
    index.extend(codes(first..first + MORE).view()).unwrap();
    for item in first - FEWER..first {
        index.remove(ItemId(item)).unwrap();
    }
    index.compact().unwrap();
    index
}

/// Both works leave it in the number of items ever added.
fn generation(index: &SidIndex) -> u32 {
    (index.id_bound() - ITEMS) / MORE
}

fn go_on(root: &Path, next: impl Fn(SidIndex, u32) -> SidIndex) {
    let mut index = SidIndex::open(root).unwrap();
    // Finishes a save that was cut short after its commit.
    index.save(root).unwrap();
    for number in generation(&index) + 1..=GENERATIONS {
        index = next(index, number);
        index.save(root).unwrap();
        report(number);
    }
}

pub(super) fn build(root: &Path) {
    go_on(root, |_, number| built(number));
}

pub(super) fn compact(root: &Path) {
    go_on(root, |index, _| changed(index));
}

/// Kills a work whose generations should be these.
fn killed(work: &str, generations: &[SidIndex]) {
    let found = |dir: &Path, done: &[String]| {
        let index = SidIndex::open(dir).unwrap();
        SidIndex::open_mapped(dir).unwrap().verify(dir).unwrap();
        let stands = generation(&index);
        assert!(index == generations[stands as usize], "{work}: what was found is no generation");
        let reported = done.iter().map(|number| number.parse().unwrap()).max().unwrap_or(0);
        assert!(reported <= stands && stands <= reported + 1, "{work}: {reported} was reported, {stands} found");
        format!("generation {stands:02}")
    };
    kill(work, |dir| generations[0].save(dir).unwrap(), found);
}

#[test]
fn a_built_index_is_the_old_one_or_the_new_one() {
    killed("index", &(0..=GENERATIONS).map(built).collect::<Vec<_>>());
}

#[test]
fn a_compacted_index_is_the_old_one_or_the_new_one() {
    let generations: Vec<_> =
        std::iter::successors(Some(built(0)), |index| Some(changed(index.clone()))).take(13).collect();
    assert_eq!(generations.len() as u32, GENERATIONS + 1);
    killed("compaction", &generations);
}
