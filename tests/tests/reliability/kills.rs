//! Processes killed at a random moment of their work: what they leave opens, nothing that they had reported is lost, and whoever
//! goes on ends with the bytes of a process that was not killed, without a temporary file.
//!
//! `GENREC_KILLS` sets how many kills each work gets: 3 by default, 125 in the long form. Moments are drawn evenly from the time
//! that the work takes undisturbed.

mod fit;
mod index;
mod training;

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use genrec::kernels::CounterRng;
use genrec_tests::{assert_same, contents, setting};

const WORK: &str = "GENREC_KILLS_WORK";
const ROOT: &str = "GENREC_KILLS_ROOT";
/// What comes before that which a child reports as done.
const DONE: &str = "done: ";
const SIGKILL: i32 = 9;

/// Not a test of its own: the process that is killed.
#[test]
fn child() {
    let (Ok(work), Ok(root)) = (std::env::var(WORK), std::env::var(ROOT)) else { return };
    let root = Path::new(&root);
    match work.as_str() {
        "fit" => fit::work(root),
        "training" => training::work(root),
        "index" => index::build(root),
        "compaction" => index::compact(root),
        other => panic!("no work `{other}`"),
    }
}

/// Tells the process that started this one what is on the disk now.
#[allow(clippy::print_stdout, reason = "the other process reads it there")]
fn report(done: impl Display) {
    println!("{DONE}{done}");
}

fn process(work: &str, root: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "kills::child", "--nocapture", "--test-threads", "1"])
        .env(WORK, work)
        .env(ROOT, root)
        .stdout(Stdio::piped());
    command
}

/// Does the work to its end, and says what it reported.
fn finish(work: &str, root: &Path) -> Vec<String> {
    let output = process(work, root).output().unwrap();
    assert!(output.status.success(), "{work}: {}", String::from_utf8_lossy(&output.stdout));
    reported(&output.stdout)
}

fn reported(stdout: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stdout);
    // A line that was cut short was not read by anybody.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| Some(line.split_once(DONE)?.1.to_owned())).collect()
}

/// Kills a work on directories that `prepare` fills; `found` checks what a killed one has left against what it had reported, and names
/// where it stood.
fn kill(work: &str, prepare: impl Fn(&Path), found: impl Fn(&Path, &[String]) -> String) {
    let count = setting("GENREC_KILLS", 3);
    let whole = tempfile::tempdir().unwrap();
    prepare(whole.path());
    let start = Instant::now();
    finish(work, whole.path());
    let pace = start.elapsed();
    let expected = contents(whole.path());
    let rng = CounterRng::new(8).named(work);
    let mut stood = BTreeMap::<String, u32>::new();
    let (mut kills, mut draw) = (0, 0);
    while kills < count {
        assert!(draw < 4 * count + 20, "{work}: of {draw} processes only {kills} were killed before they ended");
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let mut child = process(work, dir.path()).spawn().unwrap();
        std::thread::sleep(pace.mul_f64(rng.f64_at(draw)));
        draw += 1;
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            continue;
        }
        assert_eq!(output.status.signal(), Some(SIGKILL), "{work}: {}", String::from_utf8_lossy(&output.stdout));
        kills += 1;
        *stood.entry(found(dir.path(), &reported(&output.stdout))).or_default() += 1;
        finish(work, dir.path());
        assert_same(&expected, &contents(dir.path()));
        assert_eq!(temporary(dir.path()), Vec::<PathBuf>::new());
    }
    eprintln!("{work}: {kills} kills within {:.1} s; found: {stood:?}", pace.as_secs_f64());
}

/// The temporary files in a directory and in those below it.
fn temporary(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if genrec_files::is_temporary(&path) {
                found.push(path.clone());
            }
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    found
}
