//! A crash at any moment.

use std::{
    collections::BTreeSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
};

use genrec::artifacts::RunDir;
use genrec_tests::setting;

use super::{
    child_of, library,
    replay::{self, Disk, Unsynced},
    tree,
    works::{CHECKPOINTS, INDEX, ITEMS, QUANTIZER, RESUMED, RUN, Work, finish, fit, results},
};

/// Records a work and opens what a crash would leave after each of its operations; `at_most` so many states, evenly spaced, where
/// that is a number. Each beginning of the sequence of operations is written out as a disk would have it then, once with all that
/// was written and once without what was not synced.
fn replay(work: &Work, at_most: Option<usize>, mut open: impl FnMut(&Path)) {
    let temporary = tempfile::tempdir().unwrap();
    // As the kernel names it, since the recorder asks the kernel.
    let dir = temporary.path().canonicalize().unwrap();
    let Some(library) = library("recorder.c", &dir) else { return };
    let (root, log, work_name) = (dir.join("root"), dir.join("log"), work.name);
    fs::create_dir(&root).unwrap();
    (work.prepare)(&root);
    let mut disk = Disk::of(&root);
    let status = child_of(work, &root).env("LD_PRELOAD", library).env("GENREC_CRASH_LOG", &log).status().unwrap();
    assert!(status.success());
    let records = replay::read(&log);
    // Odd, so that both variants are taken in turn.
    let every = at_most.map_or(1, |most| (2 * records.len()).div_ceil(most.max(1)) | 1);
    let (mut moment, mut taken, mut opened, mut seen) = (0, [0, 0], 0, BTreeSet::new());
    for record in &records {
        if !disk.apply(record) {
            continue;
        }
        for (variant, unsynced) in [Unsynced::Kept, Unsynced::Dropped].into_iter().enumerate() {
            moment += 1;
            if moment % every != 0 {
                continue;
            }
            taken[variant] += 1;
            let state = dir.join("state");
            disk.write(&root, &state, unsynced);
            // Many moments leave the same: above all those whose bytes were not synced and had no name yet.
            if seen.insert(digest(&state)) {
                open(&state);
                opened += 1;
            }
            fs::remove_dir_all(&state).unwrap();
        }
    }
    eprintln!("{work_name}: {} operations, {opened} states after a crash opened", records.len());
    assert!(opened > 0 && taken[0] > 0 && taken[1] > 0, "{work_name}: was anything recorded?");
    // What was reported as done must not be undone by a crash a moment later.
    let lost: Vec<_> = disk.dirty().iter().filter(|dir| dir.starts_with(&root)).collect();
    assert!(lost.is_empty(), "{work_name}: these directories were changed and not synced: {lost:?}");
    disk.write(&root, &dir.join("end"), Unsynced::Kept);
    assert!(tree(&root) == tree(&dir.join("end")), "{work_name}: the replay does not end where the work did");
}

fn digest(dir: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    tree(dir).hash(&mut hasher);
    hasher.finish()
}

/// Every state opens, some as that before and some as that after.
fn one_or_the_other(work: &Work) {
    let mut found = [0, 0];
    replay(work, None, |state| found[usize::from((work.is_done)(state))] += 1);
    assert!(found[0] > 0 && found[1] > 0 || found == [0, 0], "{found:?}");
}

#[test]
fn an_index_is_the_old_one_or_the_new_one() {
    one_or_the_other(&INDEX);
}

#[test]
fn a_quantizer_is_there_or_it_is_not() {
    one_or_the_other(&QUANTIZER);
}

#[test]
fn added_items_are_all_there_or_none_is() {
    one_or_the_other(&ITEMS);
}

#[test]
fn training_goes_on_from_whatever_checkpoints_are_left() {
    let expected = fit(None).unwrap();
    replay(&CHECKPOINTS, None, |state| {
        assert_eq!(fit(Some(state)).unwrap(), expected);
        let names: BTreeSet<_> = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [".lock", "best", "last"].map(Into::into).into(), "something is left over");
    });
}

/// Some states alone: each is a run of seconds. `GENREC_CRASH_STATES` sets how many.
#[test]
fn a_run_goes_on_from_whatever_is_left() {
    let states = setting("GENREC_CRASH_STATES", 8) as usize;
    let whole = tempfile::tempdir().unwrap();
    finish(whole.path());
    let expected = results(whole.path());
    let goes_on = |state: &Path| {
        (RUN.is_done)(state);
        (RUN.run)(state).unwrap();
        assert!(results(state) == expected);
        RunDir::new(state).verify().unwrap();
    };
    replay(&RUN, Some(states), goes_on);
    // Of a finished run that is resumed everything is there until it is finished again.
    replay(&RESUMED, Some(states.div_ceil(2)), goes_on);
}
