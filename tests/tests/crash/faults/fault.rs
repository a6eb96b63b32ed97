//! What may go wrong with an operation on a file.

use std::{collections::BTreeMap, process::Command};

// The numbers of Linux on every architecture; no crate for them alone.
const EINTR: i32 = 4;
const EIO: i32 = 5;
pub(super) const EACCES: i32 = 13;
pub(super) const ENOSPC: i32 = 28;
pub(super) const EROFS: i32 = 30;

// Kinds of operations, by the letters of `faults.c`.
const ALL: &str = "colkrwsmndty";
const CHANGE: &str = "cwsmndty";
const NEED_ROOM: &str = "cwsmty";
const NEED_PERMISSION: &str = "colkmn";
/// What fails after something could not be read, lest that was taken for what may be replaced.
const RENAME: &str = "n";
/// What is taken up again after a signal.
const GO_ON: &str = "corws";

/// What an operation fails with, and what else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fault {
    pub(super) kind: char,
    pub(super) code: i32,
    /// Kinds that all fail from then on.
    later: &'static str,
    /// The operation is done by half; what follows fails.
    short: bool,
}

/// All that may become of an operation, each alone and with what follows where that is a state that a disk stays in.
fn faults_of(kind: char) -> Vec<Fault> {
    let fault = |code, later| Fault { kind, code, later, short: false };
    let mut faults = vec![fault(EIO, ""), fault(EIO, ALL)];
    if NEED_PERMISSION.contains(kind) {
        faults.push(fault(EACCES, ""));
    }
    if CHANGE.contains(kind) {
        faults.push(fault(EROFS, CHANGE));
    }
    if NEED_ROOM.contains(kind) {
        faults.extend([fault(ENOSPC, ""), fault(ENOSPC, NEED_ROOM)]);
    }
    if GO_ON.contains(kind) {
        faults.push(fault(EINTR, ""));
    }
    if "or".contains(kind) {
        faults.push(fault(EIO, RENAME));
    }
    if "rw".contains(kind) {
        faults.push(Fault { short: true, ..fault(0, "") });
    }
    if kind == 'w' {
        faults.push(Fault { short: true, ..fault(ENOSPC, NEED_ROOM) });
    }
    faults
}

impl Fault {
    /// Nothing that a caller may notice.
    pub(super) fn is_invisible(self) -> bool {
        self.code == EINTR || self.code == 0
    }

    /// Whether the error may be that of a later operation on another file.
    pub(super) fn is_twofold(self) -> bool {
        self.later == RENAME
    }

    /// Whether what was begun can be cleared away.
    pub(super) fn leaves_removal(self) -> bool {
        self.kind != 'd' && !self.later.contains('d')
    }

    /// Has a child meet it at an operation, by its number among those of its kind.
    pub(super) fn on(self, command: &mut Command, at: usize) {
        command.env("GENREC_FAULT_KIND", self.kind.to_string()).env("GENREC_FAULT_AT", at.to_string());
        command.env("GENREC_FAULT_ERRNO", self.code.to_string()).env("GENREC_FAULT_KINDS", self.later);
        if self.short {
            command.env("GENREC_FAULT_SHORT", "1");
        }
    }
}

/// Some of all faults, with the number of the operation among those of its kind: the same each time, of as many sorts as there is room for.
pub(super) fn chosen(operations: &[(char, String)], most: usize) -> Vec<(usize, Fault)> {
    let mixed = |number: usize, fault: Fault| crc32fast::hash(format!("{number} {fault:?}").as_bytes());
    let mut sorts: BTreeMap<Fault, Vec<usize>> = BTreeMap::new();
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for (kind, _) in operations {
        let at = counts.entry(*kind).or_default();
        *at += 1;
        faults_of(*kind).into_iter().for_each(|fault| sorts.entry(fault).or_default().push(*at));
    }
    let mut all = Vec::new();
    for (fault, mut places) in sorts {
        places.sort_by_key(|&at| mixed(at, fault));
        all.extend(places.into_iter().enumerate().map(|(rank, at)| (rank, at, fault)));
    }
    all.sort_by_key(|&(rank, _, fault)| (rank, mixed(rank, fault)));
    all.into_iter().take(most).map(|(_, at, fault)| (at, fault)).collect()
}
