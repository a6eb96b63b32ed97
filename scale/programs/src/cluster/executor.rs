//! The process that computes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballista_core::extension::SessionConfigExt;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::utils::{default_config_producer, default_session_builder};
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_executor::health::ExecutorHealth;
use candle_core::Device;
use genrec_datafusion::{Recommend, SemanticId};
use tokio::signal::unix::{SignalKind, signal};

use super::{KEEP_RESULTS, SCHEDULING, check_free, connections, reached};
use crate::BoxError;

/// How long Ballista's executor waits between two calls to the scheduler when there is nothing to do.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a scheduler may take to start. Ballista's own deadline never passes.
const PATIENCE: Duration = Duration::from_secs(60);

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
        let name = reached(self.host, self.bind)?;
        check_free(self.bind)?;
        let mut state = default_session_builder(default_config_producer())?;
        // Functions without their artifact say so when they are called; how many codes there would be is in the plan.
        let semantic_id = match &self.quantizer {
            Some(dir) => SemanticId::open(dir, &Device::Cpu)?,
            None => SemanticId::declared(1),
        };
        semantic_id.register(&mut state)?;
        let recommend = match &self.run {
            Some(dir) => Recommend::open(dir, &Device::Cpu)?,
            None => Recommend::declared(),
        };
        recommend.register(&mut state)?;
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
            external_host: Some(name),
            port: self.bind.port(),
            scheduler_host: host.to_owned(),
            scheduler_port: port.parse().map_err(|_| format!("`{port}` is no port"))?,
            scheduler_connect_timeout_seconds: u16::MAX,
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
        let listens = format!("works for the scheduler at {}, results are at {}", self.scheduler, self.bind);
        let process = start_executor_process(Arc::new(config));
        tokio::pin!(process);
        tokio::select! {
            biased;
            told = told_to_end() => {
                // Ballista hears the signal too and tells the scheduler, but would go on with tasks that are begun and take new ones.
                let _ = tokio::time::timeout(FAREWELL, process).await;
                Ok(told?)
            }
            ended = &mut process => {
                ended?;
                Err("the executor has ended by itself; its log says why".into())
            }
            silent = silence(&health, &listens) => Err(format!("the scheduler at `{}` {silent}", self.scheduler).into()),
        }
    }
}

/// Waits for the first call to the scheduler that fails, and says what that means. After one Ballista waits for [`PAUSE`].
async fn silence(health: &ExecutorHealth, ready: &str) -> &'static str {
    let begun = Instant::now();
    while !health.is_ready() {
        if begun.elapsed() > PATIENCE {
            return "did not answer within a minute; check `--scheduler`, and that it runs";
        }
        tokio::time::sleep(PAUSE).await;
    }
    println!("{ready}");
    while health.is_ready() {
        tokio::time::sleep(PAUSE / 10).await;
    }
    "did not answer, and results may be lost with the call; start this executor anew, as a supervisor does"
}

/// Waits for a signal to end.
async fn told_to_end() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}
