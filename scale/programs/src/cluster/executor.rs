//! The process that computes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::extension::SessionConfigExt;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::utils::{default_config_producer, default_session_builder};
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_executor::health::ExecutorHealth;
use candle_core::Device;
use genrec_datafusion::{Recommend, SemanticId};
use tokio::signal::unix::{SignalKind, signal};

use super::{KEEP_RESULTS, SCHEDULING, connections};
use crate::BoxError;

/// How long Ballista's executor waits between two calls to the scheduler when there is nothing to do.
const PAUSE: Duration = Duration::from_millis(50);

/// How long it takes at most to tell the scheduler that an executor ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// An executor: it loads the quantiser and the run, and computes.
#[derive(Debug, Clone, clap::Args)]
pub struct Executor {
    /// Host and port of the scheduler.
    #[arg(long, default_value = "localhost:50050")]
    pub scheduler: String,
    /// Address to listen at, whose port serves results to others.
    #[arg(long, default_value = "127.0.0.1:50051")]
    pub bind: SocketAddr,
    /// Name by which others reach it; the address of `--bind` otherwise.
    #[arg(long)]
    pub host: Option<String>,
    /// Tasks at once; the number of cores otherwise.
    #[arg(long)]
    pub tasks: Option<usize>,
    /// Memory in MiB that the tasks share, beyond which they write to disk.
    #[arg(long, default_value_t = 1024)]
    pub memory: u64,
    /// Directory of results that others fetch; a temporary one otherwise.
    #[arg(long)]
    pub work_dir: Option<PathBuf>,
    /// Directory of a saved quantiser, for `semantic_id`.
    #[arg(long)]
    pub quantizer: Option<PathBuf>,
    /// Directory of a finished run, for `recommend`.
    #[arg(long)]
    pub run: Option<PathBuf>,
}

impl Executor {
    /// Runs until it is ended.
    ///
    /// `SIGTERM` and `SIGINT` end it at once, and the jobs that it has a part in: the results of an executor go with it.
    ///
    /// # Errors
    /// When the quantiser or the run cannot be loaded, an address is taken, there is no scheduler within a minute, or it does not answer a
    /// call: what the call carried may be lost, and the job would wait for it.
    pub async fn run(self) -> Result<(), BoxError> {
        let mut state = default_session_builder(default_config_producer())?;
        if let Some(dir) = &self.quantizer {
            SemanticId::open(dir, &Device::Cpu)?.register(&mut state)?;
        }
        if let Some(dir) = &self.run {
            Recommend::open(dir, &Device::Cpu)?.register(&mut state)?;
        }
        let (host, port) = self
            .scheduler
            .rsplit_once(':')
            .ok_or_else(|| format!("`{}` is no scheduler; give HOST:PORT", self.scheduler))?;
        // Held until the end: dropping it deletes the directory.
        let temporary;
        let work_dir = match self.work_dir {
            Some(dir) => dir,
            None => {
                temporary = tempfile::tempdir()?;
                temporary.path().to_owned()
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let health = ExecutorHealth::new();
        let config = ExecutorProcessConfig {
            bind_host: self.bind.ip().to_string(),
            external_host: Some(self.host.unwrap_or_else(|| self.bind.ip().to_string())),
            port: self.bind.port(),
            scheduler_host: host.to_owned(),
            scheduler_port: port.parse().map_err(|_| format!("`{port}` is no port"))?,
            scheduler_connect_timeout_seconds: 60,
            task_scheduling_policy: SCHEDULING,
            vcores: self.tasks.unwrap_or(cores),
            work_dir: Some(work_dir.to_string_lossy().into_owned()),
            memory_pool_size: Some(self.memory << 20),
            job_data_ttl_seconds: KEEP_RESULTS.as_secs(),
            job_data_clean_up_interval_seconds: 60,
            override_function_registry: Some(Arc::new(BallistaFunctionRegistry::from(&state))),
            override_config_producer: Some(Arc::new(|| {
                default_config_producer().with_ballista_override_create_grpc_client_endpoint(connections())
            })),
            health: health.clone(),
            ..ExecutorProcessConfig::default()
        };
        tokio::select! {
            ended = start_executor_process(Arc::new(config)) => Ok(ended?),
            () = silence(&health) => Err(format!(
                "the scheduler at `{}` did not answer, and results may be lost with the call; start this executor anew, as a supervisor does",
                self.scheduler
            )
            .into()),
            ended = told_to_end() => ended,
        }
    }
}

/// Waits for the first call to the scheduler that fails. After one Ballista waits for [`PAUSE`].
async fn silence(health: &ExecutorHealth) {
    let mut heard = false;
    loop {
        match (heard, health.is_ready()) {
            (true, false) => return,
            (_, ready) => heard = ready,
        }
        tokio::time::sleep(PAUSE / 10).await;
    }
}

/// Waits for a signal to end, and then until Ballista, which hears it too, has told the scheduler. It would go on with tasks that are
/// begun and take new ones.
async fn told_to_end() -> Result<(), BoxError> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    tokio::time::sleep(FAREWELL).await;
    Ok(())
}
