//! Files that are mapped. That a save disturbs nobody who has the index mapped is held at every fault, in `faults.rs`.

use std::os::unix::process::ExitStatusExt;

use super::{
    child_of,
    works::{CUT_MAPPED, CUT_OPEN},
};

/// SIGBUS on the usual architectures, and on others.
const BUS_ERRORS: [i32; 2] = [7, 10];

/// What `open_mapped` warns of, and that `open` has nothing to fear.
#[test]
fn cutting_a_mapped_file_ends_its_reader_alone() {
    let dir = tempfile::tempdir().unwrap();
    for (work, is_mapped) in [(&CUT_OPEN, false), (&CUT_MAPPED, true)] {
        let root = dir.path().join(work.name);
        (work.prepare)(&root);
        let status = child_of(work, &root).status().unwrap();
        // Where words are big-endian nothing is mapped.
        let is_mapped = is_mapped && cfg!(target_endian = "little");
        assert_eq!(status.success(), !is_mapped, "{}: {status}", work.name);
        assert!(!is_mapped || status.signal().is_some_and(|signal| BUS_ERRORS.contains(&signal)), "{status}");
    }
}
