//! The processes of a Ballista cluster, with the functions in them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::serde::protobuf::{JobStatus, job_status};
use ballista_core::utils::{default_config_producer, default_session_builder};
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::{BallistaCluster, ClusterStateEvent, ClusterStateEventStream, JobState};
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service};
use ballista_scheduler::scheduler_server::SchedulerServer;
use candle_core::Device;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use futures::StreamExt;
use genrec_datafusion::{Recommend, SemanticId};

use crate::BoxError;

/// How long results of a job stay where they were computed.
const KEEP_RESULTS: Duration = Duration::from_secs(24 * 60 * 60);

/// Executors ask for work when they have room. A scheduler that hands it out counts their room itself, forgets to count what a task gives
/// back whose stage begins anew in the meantime, and in the end waits for ever for room that there is.
const SCHEDULING: TaskSchedulingPolicy = TaskSchedulingPolicy::PullStaged;

/// A scheduler: it plans, and computes nothing.
#[derive(Debug, Clone, clap::Args)]
pub struct Scheduler {
    /// Address to listen at.
    #[arg(long, default_value = "127.0.0.1:50050")]
    pub bind: SocketAddr,
    /// Name by which executors reach it; the address of `--bind` where that is one.
    #[arg(long)]
    pub host: Option<String>,
    /// Codes of a Semantic ID: all that a plan must know of the quantiser.
    #[arg(long, default_value_t = 3)]
    pub levels: usize,
    /// Directory of a saved quantiser, instead of --levels.
    #[arg(long, conflicts_with = "levels")]
    pub quantizer: Option<PathBuf>,
    /// Seconds without a sign of life after which an executor counts as dead; a busy one gives a sign every five.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(10..))]
    pub executor_timeout: u64,
}

impl Scheduler {
    /// Runs until it is ended.
    ///
    /// # Errors
    /// When the quantiser cannot be loaded, the address is taken, or it is that of all networks and there is no `--host`.
    pub async fn run(self) -> Result<(), BoxError> {
        let host = match self.host {
            Some(host) => host,
            None if self.bind.ip().is_unspecified() => {
                // Executors would report to themselves, and the job would wait for ever.
                return Err(
                    format!("executors cannot reach `{}`: give `--host`, the name of this machine", self.bind).into()
                );
            }
            None => self.bind.ip().to_string(),
        };
        let semantic_id = match &self.quantizer {
            Some(dir) => SemanticId::open(dir, &Device::Cpu)?,
            None => SemanticId::declared(self.levels),
        };
        let builder = move |config| {
            let mut state = default_session_builder(config)?;
            semantic_id.register(&mut state)?;
            Recommend::declared().register(&mut state)?;
            Ok(state)
        };
        let config = SchedulerConfig {
            bind_host: self.bind.ip().to_string(),
            bind_port: self.bind.port(),
            external_host: host,
            scheduling_policy: SCHEDULING,
            // A result that cannot be fetched ends the job, for the reason in `end_jobs`.
            stage_max_failures: 1,
            executor_timeout_seconds: self.executor_timeout,
            // The client reads the last stage's results one after another while it writes them.
            finished_job_data_clean_up_interval_seconds: KEEP_RESULTS.as_secs(),
            no_executors_grace_period_seconds: self.executor_timeout.max(60),
            expire_dead_executor_interval_seconds: (self.executor_timeout / 4).max(1),
            override_session_builder: Some(Arc::new(builder)),
            ..SchedulerConfig::default()
        };
        config.validate()?;
        let cluster = BallistaCluster::new_from_config(&config).await?;
        let jobs = cluster.job_state();
        let events = cluster.cluster_state().cluster_state_events().await?;
        let scheduler = create_scheduler(cluster, Arc::new(config)).await?;
        tokio::select! {
            served = start_grpc_service(self.bind, scheduler.clone()) => Ok(served?),
            ended = end_jobs(events, &*jobs, &scheduler) => ended,
        }
    }
}

/// Ends all jobs when an executor is lost, so that the programs begin them anew.
///
/// Ballista would go on by itself, but a stage that loses a part of what it reads is done again as a whole, and what it had written before
/// stays with what it writes then: rows are there twice, and sums are too large.
async fn end_jobs(
    mut events: ClusterStateEventStream,
    jobs: &dyn JobState,
    scheduler: &SchedulerServer<LogicalPlanNode, PhysicalPlanNode>,
) -> Result<(), BoxError> {
    while let Some(event) = events.next().await {
        let ClusterStateEvent::RemovedExecutor { executor_id } = event else { continue };
        for job in jobs.get_all_jobs().await? {
            if let Some(JobStatus { status: Some(job_status::Status::Running(_)), .. }) =
                jobs.get_job_status(&job).await?
            {
                tracing::warn!(%executor_id, %job, "an executor is lost, and the job ends with it; begin it anew");
                scheduler.cancel_job(job).await?;
            }
        }
    }
    Ok(())
}

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
    /// # Errors
    /// When the quantiser or the run cannot be loaded, an address is taken, or there is no scheduler within a minute.
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
            ..ExecutorProcessConfig::default()
        };
        Ok(start_executor_process(Arc::new(config)).await?)
    }
}
