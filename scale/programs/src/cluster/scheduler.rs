//! The process that plans.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ballista_core::utils::default_session_builder;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service};
use candle_core::Device;
use genrec_datafusion::{Recommend, SemanticId};

use super::{KEEP_RESULTS, SCHEDULING, check_free, lost, reached};
use crate::BoxError;

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
        let host = reached(self.host, self.bind)?;
        check_free(self.bind)?;
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
            // A result that cannot be fetched ends the job, for the reason in `lost`.
            stage_max_failures: 1,
            executor_timeout_seconds: self.executor_timeout,
            // The client reads the last stage's results one after another while it writes them.
            finished_job_data_clean_up_interval_seconds: KEEP_RESULTS.as_secs(),
            expire_dead_executor_interval_seconds: (self.executor_timeout / 4).max(1),
            override_session_builder: Some(Arc::new(builder)),
            ..SchedulerConfig::default()
        };
        config.validate()?;
        let cluster = BallistaCluster::new_from_config(&config).await?;
        let scheduler = create_scheduler(cluster.clone(), Arc::new(config)).await?;
        let ends = lost::end_jobs(&cluster, &scheduler, self.executor_timeout);
        println!("listens at {}, for executors and clients", self.bind);
        tokio::select! {
            served = start_grpc_service(self.bind, scheduler.clone()) => Ok(served?),
            ended = ends => ended,
        }
    }
}
