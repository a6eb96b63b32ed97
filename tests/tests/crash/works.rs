//! What the child processes do, and what must be there whenever one of them was stopped or failed.

mod checkpoints;
mod downloads;
mod events;
mod index;
mod items;
mod outputs;
mod parts;
mod quantizer;
mod run;

use std::path::Path;

pub(super) use genrec::train::BoxError;

pub(super) use self::{
    checkpoints::{CHECKPOINTS, fit},
    downloads::DOWNLOADS,
    events::EVENTS,
    index::{CUT_MAPPED, CUT_OPEN, INDEX, INTERRUPTED},
    items::ITEMS,
    outputs::{CACHE, EXPORT},
    parts::PARTS,
    quantizer::QUANTIZER,
    run::{RESUMED, RUN, finish, results},
};

/// Something that writes into a directory.
pub(super) struct Work {
    pub(super) name: &'static str,
    /// Makes what is there before.
    pub(super) prepare: fn(&Path),
    /// Does it. Done again it completes what was cut short, and leaves as it is what is complete.
    pub(super) run: fn(&Path) -> Result<(), BoxError>,
    /// Opens what is there, which must be of before or of after or, where the work has several results, some of both; says
    /// whether all is of after.
    pub(super) is_done: fn(&Path) -> bool,
    /// Whether files that are saved together are of one save. Only where renaming itself fails need they not be, and that is noticed.
    pub(super) is_whole: fn(&Path) -> bool,
    /// Reads what is there before as somebody would who has it open all the time, and says whether it is as it was.
    pub(super) reader: fn(&Path) -> Box<dyn Fn() -> bool>,
    /// Whether a file, by its path, holds times.
    pub(super) is_timed: fn(&str) -> bool,
    /// Whether a file, by its path, makes room for another of its kind on the way.
    pub(super) is_moved: fn(&str) -> bool,
    /// The path that a file goes by whose name is another each time.
    pub(super) alias: fn(&str) -> &str,
}

impl Work {
    /// A work that begins in an empty directory and leaves the same bytes each time.
    const fn new(name: &'static str, run: fn(&Path) -> Result<(), BoxError>, is_done: fn(&Path) -> bool) -> Self {
        let nobody: fn(&Path) -> Box<dyn Fn() -> bool> = |_| Box::new(|| true);
        let never: fn(&str) -> bool = |_| false;
        let (is_timed, is_moved) = (never, never);
        Self {
            name,
            prepare: |_| (),
            run,
            is_done,
            is_whole: |_| true,
            reader: nobody,
            is_timed,
            is_moved,
            alias: |file| file,
        }
    }
}

pub(super) const ALL: [&Work; 14] = [
    &INDEX,
    &INTERRUPTED,
    &CHECKPOINTS,
    &QUANTIZER,
    &ITEMS,
    &RUN,
    &RESUMED,
    &PARTS,
    &CACHE,
    &EXPORT,
    &EVENTS,
    &DOWNLOADS,
    &CUT_OPEN,
    &CUT_MAPPED,
];
