//! What a disk holds after a crash at any moment of a recorded work.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

/// One thing that a process did to a file, as `recorder.c` wrote it.
#[derive(Debug)]
pub(super) struct Record {
    operation: String,
    fd: i64,
    number: u64,
    path: PathBuf,
    bytes: Vec<u8>,
}

/// Reads a recording.
pub(super) fn read(log: &Path) -> Vec<Record> {
    let bytes = fs::read(log).unwrap();
    let (mut rest, mut records) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap();
        let line = std::str::from_utf8(&rest[..end]).unwrap();
        let fields: Vec<&str> = line.split(' ').collect();
        let &[operation, fd, number, path_length, length] = &fields[..] else { panic!("{line}") };
        let (path_length, length): (usize, usize) = (path_length.parse().unwrap(), length.parse().unwrap());
        let (path, after) = rest[end + 1..].split_at(path_length);
        let (bytes, after) = after.split_at(length);
        records.push(Record {
            operation: operation.to_owned(),
            fd: fd.parse().unwrap(),
            number: number.parse().unwrap(),
            path: std::str::from_utf8(path).unwrap().into(),
            bytes: bytes.to_vec(),
        });
        rest = after;
    }
    records
}

#[derive(Debug, Clone, PartialEq)]
enum Entry {
    Dir,
    File(usize),
}

/// What is in a file, and what of it the disk is sure to have: nothing before the first sync.
#[derive(Debug, Clone, Default)]
struct Contents {
    now: Vec<u8>,
    synced: Vec<u8>,
}

/// The tree below a root.
#[derive(Debug, Default)]
pub(super) struct Disk {
    names: BTreeMap<PathBuf, Entry>,
    files: Vec<Contents>,
    /// By descriptor: the file and the place in it.
    open: HashMap<i64, (usize, usize)>,
    /// Directories with new names since they were last synced.
    dirty: BTreeSet<PathBuf>,
}

/// What becomes of bytes that were written and not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsynced {
    Kept,
    Dropped,
}

impl Disk {
    /// What lies in a directory now, all of it safe.
    pub(super) fn of(root: &Path) -> Self {
        let mut disk = Self::default();
        let mut open = vec![root.to_path_buf()];
        while let Some(dir) = open.pop() {
            for path in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
                let entry = if path.is_dir() {
                    open.push(path.clone());
                    Entry::Dir
                } else {
                    let now = fs::read(&path).unwrap();
                    disk.files.push(Contents { synced: now.clone(), now });
                    Entry::File(disk.files.len() - 1)
                };
                disk.names.insert(path, entry);
            }
        }
        disk
    }

    /// Does what a record says, and says whether that changed anything.
    pub(super) fn apply(&mut self, record: &Record) -> bool {
        let Record { operation, fd, number, path, bytes } = record;
        match operation.as_str() {
            "truncate" | "write-open" => {
                let file = self.file(path);
                if operation == "truncate" {
                    self.files[file].now.clear();
                }
                let at = if *number == 1 { self.files[file].now.len() } else { 0 };
                self.open.insert(*fd, (file, at));
            }
            "read-open" => return false,
            "write" => {
                let (file, at) = self.open.get_mut(fd).unwrap();
                let now = &mut self.files[*file].now;
                now.resize(now.len().max(*at + bytes.len()), 0);
                now[*at..*at + bytes.len()].copy_from_slice(bytes);
                *at += bytes.len();
            }
            "resize" => {
                let (file, _) = self.open[fd];
                self.files[file].now.resize(*number as usize, 0);
            }
            "sync" => {
                let file = self.file(path);
                assert!(self.files[file].now == *bytes, "`{}` was written past the recorder", path.display());
                self.files[file].synced.clone_from(bytes);
            }
            "sync-dir" => drop(self.dirty.remove(path)),
            "mkdir" => self.set(path.clone(), Entry::Dir),
            "remove" => {
                // A crash may bring it back, which loses nothing.
                self.names.remove(path);
                self.dirty.remove(path);
            }
            "rename" => self.rename(path, Path::new(std::str::from_utf8(bytes).unwrap())),
            other => panic!("`{}` was changed by an operation that no replay knows: {other}", path.display()),
        }
        true
    }

    /// Directories with names that a crash may undo.
    pub(super) fn dirty(&self) -> &BTreeSet<PathBuf> {
        &self.dirty
    }

    /// Writes the tree, which lies below `root`, to another directory.
    pub(super) fn write(&self, root: &Path, to: &Path, unsynced: Unsynced) {
        fs::create_dir_all(to).unwrap();
        for (path, entry) in &self.names {
            let path = to.join(path.strip_prefix(root).unwrap());
            match entry {
                Entry::Dir => fs::create_dir_all(path).unwrap(),
                Entry::File(file) => {
                    let Contents { now, synced } = &self.files[*file];
                    fs::write(path, if unsynced == Unsynced::Kept { now } else { synced }).unwrap();
                }
            }
        }
    }

    fn file(&mut self, path: &Path) -> usize {
        if let Some(Entry::File(file)) = self.names.get(path) {
            return *file;
        }
        self.files.push(Contents::default());
        self.set(path.to_path_buf(), Entry::File(self.files.len() - 1));
        self.files.len() - 1
    }

    fn set(&mut self, path: PathBuf, entry: Entry) {
        self.touch(&path);
        self.names.insert(path, entry);
    }

    fn touch(&mut self, path: &Path) {
        if let Some(parent) = path.parent() {
            self.dirty.insert(parent.to_path_buf());
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let moved: Vec<PathBuf> = self.names.keys().filter(|name| name.starts_with(from)).cloned().collect();
        for old in moved {
            let new = if old == from { to.to_path_buf() } else { to.join(old.strip_prefix(from).unwrap()) };
            if let Some(entry) = self.names.remove(&old) {
                self.names.insert(new.clone(), entry);
            }
            if self.dirty.remove(&old) {
                self.dirty.insert(new);
            }
        }
        self.touch(to);
    }
}
