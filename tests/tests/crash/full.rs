//! Disks that are really too small, and directories that really may not be written.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use genrec_tests::not_run;

use super::{
    ENDED, ROOT, WORK, child_of, difference, plant, tree,
    works::{CHECKPOINTS, DOWNLOADS, EXPORT, INDEX, ITEMS, PARTS, RUN, Work},
};

/// Bytes that a disk in memory has of a file, at least.
fn page() -> usize {
    let said = Command::new("getconf").arg("PAGESIZE").output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().parse().unwrap()
}

/// Makes a disk of `$1` bytes at `$2` with what is in `$3`, does a work there, makes the disk large, does the work again and
/// copies what is there to `$4`.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs -o "size=$1,mode=755" none "$2"
cp -R "$3/." "$2"
GENREC_CRASH_ENDED="$4.first" "$0" --exact child --test-threads 1
mount -o "remount,size=1g" "$2"
GENREC_CRASH_ENDED="$4.second" "$0" --exact child --test-threads 1
cp -R "$2/." "$4"
"#;

/// Whether this process may mount something that no other sees.
fn can_mount(dir: &Path) -> bool {
    let mut try_it = Command::new("unshare");
    try_it.args(["-rm", "mount", "-t", "tmpfs", "none"]).arg(dir).stderr(Stdio::null());
    try_it.status().is_ok_and(|status| status.success())
}

/// Bytes that a disk needs for these files.
fn size(dir: &Path) -> usize {
    let page = page();
    let pages = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, |bytes| bytes.len().div_ceil(page));
    tree(dir).values().map(pages).sum::<usize>() * page
}

/// Does works on disks that have room for a part of what they write.
fn fill(work: &Work, quarters: &[usize]) {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().canonicalize().unwrap();
    if !can_mount(&dir) {
        not_run(work.name, "on a small disk: nothing can be mounted here");
        return;
    }
    let [root, before, whole] = ["root", "before", "whole"].map(|name| dir.join(name));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&before).unwrap();
    (work.prepare)(&before);
    plant(&tree(&before), &whole);
    (work.run)(&whole).unwrap();
    let (least, most) = (size(&before), size(&whole));
    for quarter in quarters {
        let out = dir.join(format!("out-{quarter}"));
        fs::create_dir(&out).unwrap();
        let room = (least + (most - least) * quarter / 4).next_multiple_of(page()).max(page());
        let mut child = Command::new("unshare");
        child.args(["-rm", "sh", "-c", SCRIPT]).arg(std::env::current_exe().unwrap()).arg(room.to_string());
        child.args([&root, &before, &out]).env(ROOT, &root).env(WORK, work.name).env_remove(ENDED);
        let status = child.stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "{} in {room} bytes: {status}", work.name);
        let [first, second] = ["first", "second"].map(|which| fs::read_to_string(out.with_extension(which)).unwrap());
        let full = "No space left on device";
        assert!(first.contains(full) && first.contains(root.to_str().unwrap()), "{} in {room}: {first}", work.name);
        assert!(first.contains("free "), "{}: {first}", work.name);
        assert_eq!(second, "", "{} in {room}, then with room enough", work.name);
        let wrong = difference(work, &tree(&whole), &tree(&out));
        assert!(wrong.is_empty(), "{} in {room}: {wrong:?} after {first}", work.name);
    }
    eprintln!("{}: {} small disks, filled and made large", work.name, quarters.len());
}

#[test]
fn what_a_small_disk_cut_short_goes_on_with_more_room() {
    for work in [&INDEX, &CHECKPOINTS, &PARTS, &ITEMS, &EXPORT] {
        fill(work, &[0, 3]);
    }
    // Whose files are there by two names each: half of what is counted is needed.
    fill(&DOWNLOADS, &[0, 1]);
    fill(&RUN, &[1, 3]);
}

/// The user and group that nothing belongs to.
const NOBODY: u32 = 65534;

/// Gives all of a directory to somebody else.
fn give(dir: &Path, to: u32) -> io::Result<()> {
    let mut paths = tree(dir).into_keys().map(|path| dir.join(path)).chain([dir.to_path_buf()]);
    paths.try_for_each(|path| chown(path, Some(to), Some(to)))
}

fn allow(dir: &Path, mode: u32) {
    for path in tree(dir).into_iter().filter(|(_, bytes)| bytes.is_none()).map(|(path, _)| dir.join(path)) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
}

/// Directories that may be read and not written. Root may do everything, and does the work as nobody.
#[test]
fn a_directory_that_may_not_be_written_is_named_and_left_alone() {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    for work in [&INDEX, &ITEMS, &PARTS, &EXPORT, &DOWNLOADS] {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        let (root, out) = (dir.join("root"), dir.join("out"));
        for made in [&root, &out] {
            fs::create_dir(made).unwrap();
        }
        (work.prepare)(&root);
        let program = dir.join("program");
        if is_root {
            fs::hard_link(std::env::current_exe().unwrap(), &program)
                .or_else(|_| fs::copy(std::env::current_exe().unwrap(), &program).map(drop))
                .unwrap();
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
            fs::set_permissions(&out, fs::Permissions::from_mode(0o777)).unwrap();
            // In a container without other users there is nobody to give it to.
            if let Err(error) = give(&root, NOBODY) {
                not_run(work.name, &format!("in a directory without permission, as nobody ({error})"));
                continue;
            }
        }
        let before = tree(&root);
        let end = |name: &str| -> io::Result<String> {
            let mut child = child_of(work, &root);
            if is_root {
                let mut as_nobody = Command::new(&program);
                as_nobody.args(child.get_args()).stdout(Stdio::null()).uid(NOBODY).gid(NOBODY);
                as_nobody.env(WORK, work.name).env(ROOT, &root);
                child = as_nobody;
            }
            let status = child.env(ENDED, out.join(name)).status()?;
            assert!(status.success(), "{}: {status}", work.name);
            Ok(fs::read_to_string(out.join(name)).unwrap())
        };
        allow(&root, 0o555);
        match end("first") {
            Err(error) if is_root => {
                not_run(work.name, &format!("in a directory without permission, as nobody ({error})"));
                allow(&root, 0o755);
                continue;
            }
            error => {
                let error = error.unwrap();
                assert!(error.contains(root.to_str().unwrap()), "{}: {error}", work.name);
                assert!(error.contains("Permission denied") && error.contains("get the permission"), "{error}");
            }
        }
        assert!(tree(&root) == before, "{}", work.name);
        allow(&root, 0o755);
        assert_eq!(end("second").unwrap(), "", "{}", work.name);
        assert!((work.is_done)(&root));
    }
}
