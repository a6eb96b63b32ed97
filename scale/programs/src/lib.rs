//! What the programs share: sessions of one machine and of a cluster, tables written to Parquet, and the jobs themselves.

#![allow(clippy::print_stdout, reason = "programs talk to a person")]

pub mod cluster;
pub mod fit;
pub mod generate;
pub mod patience;
pub mod plain;
pub mod quantize;
pub mod recommend;
pub mod session;
pub mod sink;

use std::future::Future;

/// Any error, for programs that only print it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Starts a program: settles candle's threads, and logs to standard error what `RUST_LOG` asks for, warnings by default.
///
/// To be called first in `main`, before there is a second thread.
pub fn start() {
    settle_threads();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Gives the cores to rayon's threads, as the example programs do.
#[allow(unsafe_code, reason = "no safe way to set a variable, and candle has no other door")]
fn settle_threads() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (variable, threads) in [("RAYON_NUM_THREADS", cores), ("CANDLE_NUM_THREADS", 1)] {
        if std::env::var_os(variable).is_none() {
            // SAFETY: `start` runs first in `main`, while this is the only thread.
            unsafe { std::env::set_var(variable, threads.to_string()) };
        }
    }
}

/// Runs a job on as many threads as there are cores, with stacks that the planner's recursion fits.
///
/// # Errors
/// Those of the job.
pub fn block_on<T>(job: impl Future<Output = Result<T, BoxError>>) -> Result<T, BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(16 << 20).build()?;
    let result = runtime.block_on(job);
    // A task of an executor may compute for a long time, which nobody waits for any more.
    runtime.shutdown_background();
    result
}

/// Prints an error and everything that caused it, and exits with status 1.
pub fn exit_on_error(result: Result<(), BoxError>) {
    let Err(error) = result else { return };
    let mut message = format!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many errors say what caused them.
        if !message.contains(&cause_text) {
            message.push_str(&format!("\n  because: {cause_text}"));
        }
        source = cause.source();
    }
    #[allow(clippy::print_stderr, reason = "the one place where a program reports its failure")]
    {
        eprintln!("{message}");
    }
    std::process::exit(1);
}

/// The most memory that this process has had at once, in MiB; `None` where the system does not say.
pub fn peak_rss() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// A line about a finished step: rows, seconds, rows a second, peak memory so far.
pub fn report(step: &str, rows: usize, seconds: f64) {
    let rss = peak_rss().map_or_else(String::new, |mib| format!(", peak RSS {mib:.0} MiB"));
    println!("{step}: {rows} rows in {seconds:.2} s, {:.0} rows/s{rss}", rows as f64 / seconds.max(1e-9));
}
