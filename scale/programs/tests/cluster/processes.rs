//! A cluster of processes on the loopback, which end with the value.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long a process may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process that is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program and waits until it listens at `address`; `None` when it ends before, as it does when another process has taken
    /// the port in the meantime.
    fn start(program: &str, name: &str, dir: &Path, args: &[String], address: SocketAddr) -> Option<Self> {
        let log = dir.join(format!("{name}.log"));
        let child = Command::new(program)
            .args(args)
            .env("RUST_LOG", "warn,ballista_scheduler=info,ballista_executor=info")
            .stdout(File::create(dir.join(format!("{name}.out"))).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut process = Self { child, name: name.to_owned(), log };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
                return Some(process);
            }
            if process.child.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{name} does not listen:\n{}", process.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `SIGTERM`, and how it ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        self.ended()
    }

    /// How it ends by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{} does not end:\n{}", self.name, self.log());
    }

    /// `SIGKILL`: it has no time to say farewell.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of {}'s log\n{}", self.name, lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// A port that nobody listens at now.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// One scheduler and its executors.
pub(crate) struct Cluster {
    // Dropped first, so that they do not look for a scheduler that is gone.
    pub(crate) executors: Vec<Process>,
    pub(crate) scheduler: Process,
    pub(crate) url: String,
    dir: PathBuf,
    port: u16,
    options: [String; 2],
}

impl Cluster {
    /// Starts a scheduler that has no files, and executors of one task at once, each with these options.
    pub(crate) fn start(dir: &Path, options: &[String; 2], executors: usize) -> Self {
        let text = |text: &str| text.to_owned();
        let (scheduler, port) = retried(|| {
            let port = free_port();
            let args = [text("--bind"), local(port).to_string(), text("--executor-timeout"), text("10")];
            let program = env!("CARGO_BIN_EXE_genrec-scheduler");
            Process::start(program, "scheduler", dir, &args, local(port)).map(|process| (process, port))
        });
        let url = format!("df://127.0.0.1:{port}");
        let mut cluster =
            Self { executors: Vec::new(), scheduler, url, dir: dir.to_owned(), port, options: options.clone() };
        cluster.executors = (0..executors).map(|number| cluster.executor(number)).collect();
        cluster
    }

    /// Starts an executor, in the directory of an earlier one of its number.
    fn executor(&self, number: usize) -> Process {
        let name = format!("executor-{number}");
        let work_dir = self.dir.join(&name);
        std::fs::create_dir_all(&work_dir).unwrap();
        retried(|| {
            let data = free_port();
            let args = [
                ["--scheduler".to_owned(), format!("127.0.0.1:{}", self.port)],
                ["--bind".to_owned(), local(data).to_string()],
                ["--tasks".to_owned(), "1".to_owned()],
                ["--work-dir".to_owned(), work_dir.display().to_string()],
                self.options.clone(),
            ]
            .concat();
            Process::start(env!("CARGO_BIN_EXE_genrec-executor"), &name, &self.dir, &args, local(data))
        })
    }

    /// Starts one in the place of an executor that has been killed.
    pub(crate) fn restart(&mut self, number: usize) {
        self.executors[number] = self.executor(number);
    }

    /// The results that an executor holds.
    pub(crate) fn results(&self, executor: usize) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut left = vec![self.dir.join(format!("executor-{executor}"))];
        while let Some(dir) = left.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    left.push(path);
                } else if entry.metadata().is_ok_and(|data| data.len() > 0) {
                    found.insert(path);
                }
            }
        }
        found
    }
}

/// A port may be taken between the choice and the start.
fn retried<T>(mut start: impl FnMut() -> Option<T>) -> T {
    (0..5).find_map(|_| start()).expect("a process ends as soon as it is started")
}
