use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use ndarray::Array2;

use super::*;
use crate::{CollisionPolicy, ItemId, SidLayout};

/// An index all of whose Semantic IDs say which version it is: one code, the same in every item.
fn version(number: u32) -> SidIndex {
    let layout = SidLayout::new(vec![1024, 64]).unwrap();
    let codes = Array2::from_shape_fn((40, 2), |(item, level)| if level == 0 { number % 1024 } else { item as u32 });
    SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix).unwrap()
}

#[test]
fn readers_of_a_thousand_swaps_see_no_mixture() {
    let (live, done, read) = (LiveIndex::new(version(0)), AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let index = live.snapshot();
                    let first = index.sid(ItemId(0)).unwrap()[0];
                    assert!(index.sids().all(|(_, sid)| sid[0] == first));
                    assert_eq!(index.items_with_prefix(&[first]).len(), index.len());
                    assert_eq!(index.item(&[first, 7, 0]), Some(ItemId(7)));
                    read.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 1..=1000 {
            match number % 5 {
                0 => assert!(live.roll_back()),
                1 => {
                    let code = live.snapshot().sid(ItemId(0)).unwrap()[0];
                    live.update(|index| index.insert(&[code, 63])).unwrap();
                }
                2 => {
                    live.update(|index| index.compact()).unwrap();
                }
                _ => drop(live.replace(version(number))),
            }
        }
        while read.load(Ordering::Relaxed) < 30 {
            thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_failed_update_publishes_nothing_and_there_is_one_way_back() {
    let live = LiveIndex::new(version(1));
    assert!(!live.roll_back());
    let before = live.snapshot();
    assert!(live.update(|index| index.insert(&[1]).map(drop)).is_err());
    assert!(Arc::ptr_eq(&before, &live.snapshot()));
    assert!(Arc::ptr_eq(&before, &live.replace(version(2))));
    assert!(live.roll_back());
    assert!(Arc::ptr_eq(&before, &live.snapshot()));
    assert!(!live.roll_back());
}

/// Writers take turns: of many insertions none is lost.
#[test]
fn updates_from_many_threads_all_arrive() {
    let live = LiveIndex::new(version(3));
    thread::scope(|scope| {
        for thread in 0..4 {
            let live = &live;
            scope.spawn(move || {
                for _ in 0..50 {
                    live.update(|index| index.insert(&[thread, 0])).unwrap();
                }
            });
        }
    });
    assert_eq!(live.snapshot().len(), 240);
}
