//! Any operation on a file fails: the disk is full or read-only, a permission is missing, a signal comes.

mod fault;

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use genrec_tests::setting;

use fault::{EACCES, ENOSPC, EROFS, Fault, chosen};

use super::{
    ENDED, Tree, child_of, difference, library, plant, tree,
    works::{
        CACHE, CHECKPOINTS, DOWNLOADS, EVENTS, EXPORT, INDEX, INTERRUPTED, ITEMS, PARTS, QUANTIZER, RESUMED, RUN, Work,
    },
};

/// What an error says that helps against it.
const REMEDIES: [(i32, &str); 3] = [(ENOSPC, "free "), (EACCES, "permission"), (EROFS, "choose another place")];

/// A work and where its child does it.
struct Bench<'a> {
    work: &'a Work,
    dir: PathBuf,
    root: PathBuf,
    library: PathBuf,
    before: Tree,
    after: Tree,
    /// Kinds and paths, when nothing fails.
    operations: Vec<(char, String)>,
}

impl Bench<'_> {
    /// Does the work on what was there before; the error, if there was one.
    fn run(&self, fault: Option<(usize, Fault)>) -> Option<String> {
        let (ended, log) = (self.dir.join("ended"), self.dir.join("log"));
        let _ = fs::remove_file(&log);
        let mut child = child_of(self.work, &self.root);
        child.env("LD_PRELOAD", &self.library).env("GENREC_CRASH_LOG", log).env(ENDED, &ended);
        if let Some((at, fault)) = fault {
            fault.on(&mut child, at);
        }
        let status = child.status().unwrap();
        assert!(status.success(), "{}: {fault:?}: the process ended by {status}", self.work.name);
        Some(fs::read_to_string(ended).unwrap()).filter(|error| !error.is_empty())
    }

    /// Does the work with a fault, and once more without; whether the fault was an error. `None` where there were not
    /// so many operations of the kind this time, as a file that comes over a network is written in pieces of any size.
    fn strike(&self, at: usize, fault: Fault) -> Option<bool> {
        let Self { work, root, after, .. } = self;
        let is_undisturbed = (work.reader)(root);
        let error = self.run(Some((at, fault)));
        let (_, struck) = self.logged().into_iter().filter(|(kind, _)| *kind == fault.kind).nth(at - 1)?;
        let found = tree(root);
        match &error {
            None => {
                let wrong = difference(work, after, &found);
                assert!(wrong.is_empty(), "a silent loss of {wrong:?}");
                assert!((work.is_done)(root), "done, and not there");
            }
            Some(error) => {
                assert!(!fault.is_invisible(), "{error}");
                let near = if fault.is_twofold() { root.clone() } else { named(Path::new(&struck)) };
                assert!(error.contains(near.to_str().unwrap()), "not {near:?} in {error}");
                let reason = io::Error::from_raw_os_error(fault.code).to_string();
                assert!(error.contains(&reason), "no {reason} in {error}");
                let remedy = REMEDIES.iter().find(|(code, _)| *code == fault.code);
                assert!(remedy.is_none_or(|(_, remedy)| error.contains(remedy)), "no remedy in {error}");
                let wrong = self.is_intact(&found);
                assert!(wrong.is_empty(), "{wrong:?} are neither old nor new after {error}");
                let is_done = (work.is_done)(root);
                assert!(fault.kind == 'n' || (work.is_whole)(root), "files of two saves after {error}");
                // A payload that no description names.
                let next = (work.name == INDEX.name && !is_done).then_some(Path::new("index.safetensors.next"));
                let is_litter = |path: &&PathBuf| genrec_files::is_temporary(path) || Some(path.as_path()) == next;
                let litter: Vec<_> = found.keys().filter(is_litter).collect();
                assert!(!fault.leaves_removal() || litter.is_empty(), "{litter:?} after {error}");
            }
        }
        assert!(is_undisturbed(), "a reader was disturbed");
        (work.run)(root).unwrap();
        let wrong = difference(work, after, &tree(root));
        assert!(wrong.is_empty(), "done again, {wrong:?} are not as they should be; before: {error:?}");
        assert!(is_undisturbed(), "a reader was disturbed");
        Some(error.is_some())
    }

    /// What was done since the log was begun.
    fn logged(&self) -> Vec<(char, String)> {
        let log = fs::read_to_string(self.dir.join("log")).unwrap();
        log.lines().map(|line| (line.chars().next().unwrap(), line[2..].to_owned())).collect()
    }

    /// Whatever has its right name is what it was or what it was to become.
    fn is_intact(&self, found: &Tree) -> Vec<PathBuf> {
        let is_timed = |path: &Path| {
            let path = path.to_str().unwrap();
            (self.work.is_timed)(path) || (self.work.is_moved)(path)
        };
        let kept = self.before.iter().filter(|(path, _)| !is_timed(path));
        kept.filter(|(path, bytes)| {
            let now = found.get(*path);
            now != Some(bytes) && now != self.after.get(*path)
        })
        .map(|(path, _)| path.clone())
        .collect()
    }
}

/// Does a work once for each of `at_most` faults, and once more after it.
fn fail(work: &Work, at_most: usize) {
    let temporary = tempfile::tempdir().unwrap();
    // As the kernel names it, since the library asks the kernel.
    let dir = temporary.path().canonicalize().unwrap();
    let Some(library) = library("faults.c", &dir) else { return };
    let (first, root) = (dir.join("first"), dir.join("root"));
    fs::create_dir(&first).unwrap();
    (work.prepare)(&first);
    let (before, after, operations) = (tree(&first), Tree::new(), Vec::new());
    let mut bench = Bench { work, before, after, operations, dir, library, root };
    plant(&bench.before, &bench.root);
    assert_eq!(bench.run(None), None);
    bench.after = tree(&bench.root);
    bench.operations = bench.logged();
    assert!((work.is_done)(&bench.root) && !bench.operations.is_empty());

    let (mut errors, mut succeeded, mut missed, mut wrong) = (0, 0, 0, Vec::new());
    let faults = chosen(&bench.operations, at_most);
    for &(at, fault) in &faults {
        fs::remove_dir_all(&bench.root).unwrap();
        plant(&bench.before, &bench.root);
        match catch_unwind(AssertUnwindSafe(|| bench.strike(at, fault))) {
            Ok(Some(true)) => errors += 1,
            Ok(Some(false)) => succeeded += 1,
            Ok(None) => missed += 1,
            Err(_) => wrong.push(format!("{fault:?} at the {at}th of its kind")),
        }
    }
    let (operations, count) = (bench.operations.len(), faults.len());
    eprintln!(
        "{}: {operations} operations; {count} faults: {errors} errors, {succeeded} without effect, {missed} missed",
        work.name
    );
    assert!(wrong.is_empty(), "{}: {} of {count} faults:\n{}", work.name, wrong.len(), wrong.join("\n"));
    assert!(missed <= 2 + count / 20, "{missed} of {count} faults struck nothing");
    assert!(errors > 0 || faults.iter().all(|(_, fault)| fault.is_invisible()));
}

/// What an error says of a path: the file that a temporary one is to become, and of another at least the directory.
fn named(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    let own = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")).and_then(|name| name.rsplit_once('.'));
    own.map_or_else(|| path.parent().unwrap().to_owned(), |(own, _)| path.with_file_name(own))
}

/// How many faults of each work are tried; of a whole run, which takes seconds, half as many.
fn faults() -> usize {
    setting("GENREC_FAULTS", 8) as usize
}

macro_rules! each_fault {
    ($($name:ident: $work:ident, $share:expr;)*) => {
        $(#[test]
        fn $name() {
            fail(&$work, faults().div_ceil($share));
        })*
    };
}

each_fault! {
    an_index: INDEX, 1;
    an_interrupted_index: INTERRUPTED, 1;
    checkpoints: CHECKPOINTS, 1;
    a_quantizer: QUANTIZER, 1;
    added_items: ITEMS, 1;
    a_run: RUN, 2;
    a_resumed_run: RESUMED, 2;
    parts: PARTS, 1;
    a_cache: CACHE, 1;
    an_export: EXPORT, 1;
    events: EVENTS, 1;
    downloads: DOWNLOADS, 1;
}
