#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;

use super::*;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_and_nothing_is_left_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for bytes in [&b"first"[..], b"", b"third"] {
        write(&path, bytes).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(names(dir.path()), ["file"]);
    }
}

#[test]
fn what_fails_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    write(&path, b"old").unwrap();
    let full = |file: &mut BufWriter<File>| {
        file.write_all(b"half of the new")?;
        Err(io::Error::from(ErrorKind::StorageFull))
    };
    assert_eq!(write_with(&path, full).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(dir.path()), ["file"]);
    assert_eq!(write(&dir.path().join("none/file"), b"").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(write(Path::new("/"), b"").unwrap_err().kind(), ErrorKind::InvalidInput);
    fs::create_dir(dir.path().join("dir")).unwrap();
    assert!(write(&dir.path().join("dir"), b"").is_err());
    assert_eq!(names(dir.path()), ["dir", "file"]);
}

#[test]
fn a_temporary_name_that_is_taken_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let (path, taken) = (dir.path().join("file"), dir.path().join(".file.0.tmp"));
    let another = File::create(&taken).unwrap();
    another.lock().unwrap();
    write(&path, b"new").unwrap();
    assert_eq!(names(dir.path()), [".file.0.tmp", "file"]);
    assert!(is_temporary(&taken) && !is_temporary(&path));
}

/// A process that ends, however it ends, gives its locks back.
#[cfg(unix)]
#[test]
fn what_a_killed_process_left_is_removed_by_the_next_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(dir.path().join(".file.0.tmp"), "half of the n").unwrap();
    fs::write(dir.path().join(".other.0.tmp"), "of another file").unwrap();
    write(&path, b"new").unwrap();
    assert_eq!(names(dir.path()), [".other.0.tmp", "file"]);
    // What is no file was not left by a write.
    fs::create_dir(dir.path().join(".file.0.tmp")).unwrap();
    std::os::unix::fs::symlink(&path, dir.path().join(".file.1.tmp")).unwrap();
    write(&path, b"newer").unwrap();
    assert_eq!(names(dir.path()), [".file.0.tmp", ".file.1.tmp", ".other.0.tmp", "file"]);
    assert_eq!(fs::read(&path).unwrap(), b"newer");
}

#[cfg(unix)]
#[test]
fn a_file_that_was_replaced_is_told_from_the_one_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("file"), dir.path().join("link"));
    write(&path, b"a").unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let file = File::open(&link).unwrap();
    assert_eq!((still_at(&file, &path), still_at(&file, &link)), (Some(true), Some(true)));
    write(&path, b"a").unwrap();
    assert_eq!((still_at(&file, &path), still_at(&file, &link)), (Some(false), Some(false)));
    fs::remove_file(&path).unwrap();
    assert_eq!(still_at(&file, &path), Some(false));
}

#[test]
fn writers_at_once_take_no_file_from_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::thread::scope(|scope| {
        for byte in b"abcd" {
            let path = &path;
            scope.spawn(move || (0..200).for_each(|_| write(path, &[*byte; 5_000]).unwrap()));
        }
    });
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() == 5_000 && bytes.iter().all(|&byte| byte == bytes[0]));
    assert_eq!(names(dir.path()), ["file"]);
}

#[test]
fn several_files_are_replaced_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
    write_all(&[(&one, b"1"), (&two, b"2")]).unwrap();
    fs::create_dir(dir.path().join("three")).unwrap();
    for unwritable in [dir.path().join("none/three"), PathBuf::from("/")] {
        let (named, _) = write_all(&[(&one, b"new"), (&two, b"new"), (&unwritable, b"new")]).unwrap_err();
        assert_eq!(named, unwritable);
        assert_eq!((fs::read(&one).unwrap(), fs::read(&two).unwrap()), (b"1".to_vec(), b"2".to_vec()));
    }
    // What cannot take its name comes after what could.
    let three = dir.path().join("three");
    assert_eq!(write_all(&[(&one, b"new"), (&three, b"new"), (&two, b"new")]).unwrap_err().0, three);
    assert_eq!((fs::read(&one).unwrap(), fs::read(&two).unwrap()), (b"new".to_vec(), b"2".to_vec()));
    assert_eq!(names(dir.path()), ["one", "three", "two"]);
}

#[test]
fn errors_that_something_helps_against_say_so() {
    for (kind, word) in [
        (ErrorKind::StorageFull, "room"),
        (ErrorKind::QuotaExceeded, "room"),
        (ErrorKind::PermissionDenied, "permission"),
        (ErrorKind::ReadOnlyFilesystem, "another place"),
    ] {
        assert!(remedy(&io::Error::from(kind)).contains(word), "{kind}");
    }
    assert_eq!(remedy(&io::Error::from(ErrorKind::NotFound)), "");
}

#[test]
fn directories_are_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b/c");
    create_dir_all(&deep).unwrap();
    create_dir_all(&deep).unwrap();
    // The parent of a bare file name.
    create_dir_all(Path::new("")).unwrap();
    assert!(deep.is_dir());
    rename(&deep, &dir.path().join("d")).unwrap();
    assert_eq!(names(dir.path()), ["a", "d"]);
    write(&dir.path().join("file"), b"").unwrap();
    assert!(create_dir_all(&dir.path().join("file/below")).is_err());
    assert!(rename(&deep, &dir.path().join("e")).is_err());
}
