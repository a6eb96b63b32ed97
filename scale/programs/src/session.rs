//! DataFusion sessions whose queries stay within a bound of memory, on this machine or on a cluster.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;

use ballista::prelude::{SessionConfigExt, SessionContextExt};
use ballista_core::config::{BALLISTA_ADAPTIVE_PLANNER_ENABLED, BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionConfig, SessionContext};

use crate::{
    BoxError,
    cluster::{ANSWER, connections},
};

/// Partitions of a job on a cluster unless it is told otherwise: enough that the loss of one is a small part of the work.
const CLUSTER_PARTITIONS: usize = 16;

/// Where a job runs and with what.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// Memory of the query's operators in MiB, beyond which they write to disk; an executor of a cluster has a bound of its own.
    #[arg(long, default_value_t = 1024)]
    pub memory: usize,
    /// A Ballista scheduler, such as df://localhost:50050; this process alone otherwise. All files must be seen by all machines.
    #[arg(long, value_name = "URL")]
    pub cluster: Option<String>,
    /// Parts that the work is cut into; the number of cores on one machine, 16 on a cluster.
    #[arg(long)]
    pub partitions: Option<usize>,
}

impl Place {
    /// Parts that the work is cut into.
    pub fn partitions(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.partitions.unwrap_or(if self.cluster.is_some() { CLUSTER_PARTITIONS } else { cores }).max(1)
    }

    /// Opens a session; batches have `batch` rows, and what does not fit into memory goes below `scratch`.
    ///
    /// # Errors
    /// When the scheduler's address cannot be read or the session cannot be made.
    pub async fn open(&self, batch: usize, scratch: &Path) -> Result<SessionContext, BoxError> {
        let base = match &self.cluster {
            None => SessionConfig::new(),
            Some(_) => SessionConfig::new_with_ballista()
                .with_ballista_override_create_grpc_client_endpoint(connections())
                // The adaptive planner joins by a hash whatever `prefer_hash_join` says.
                .set_str(BALLISTA_ADAPTIVE_PLANNER_ENABLED, "false")
                // An executor reckons a task of several partitions as one when it asks for more.
                .set_str(BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK, "1"),
        };
        let mut config =
            base.with_target_partitions(self.partitions()).with_batch_size(batch).with_information_schema(false);
        // A hash join holds one side in memory; a merge join sorts, and a sort goes to disk.
        config.options_mut().optimizer.prefer_hash_join = false;
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(self.memory << 20)))
            .with_temp_file_path(scratch)
            .build_arc()?;
        let state =
            SessionStateBuilder::new().with_default_features().with_config(config).with_runtime_env(runtime).build();
        match &self.cluster {
            None => Ok(SessionContext::new_with_state(state)),
            Some(url) => {
                check_answers(url)?;
                Ok(SessionContext::remote_with_state(url, state).await?)
            }
        }
    }
}

/// Fails where nobody listens at a scheduler's address, which a query would only find out at its end.
fn check_answers(url: &str) -> Result<(), BoxError> {
    let address = url
        .strip_prefix("df://")
        .map(|address| address.trim_end_matches('/'))
        .ok_or_else(|| format!("`{url}` is no scheduler; give df://HOST:PORT"))?;
    let unreached =
        |error| format!("no scheduler answers at `{url}`: {error}; check `--cluster`, and that genrec-scheduler runs");
    let mut reached = Err(std::io::ErrorKind::NotFound.into());
    for address in address.to_socket_addrs().map_err(unreached)? {
        reached = TcpStream::connect_timeout(&address, ANSWER);
        if reached.is_ok() {
            break;
        }
    }
    reached.map(drop).map_err(|error| unreached(error).into())
}

/// The table in a Parquet file or a directory of them, which must have some columns: the name of each, and what else names it.
///
/// # Errors
/// Those of [`parquet`], and when a column is not there.
pub async fn with_columns(ctx: &SessionContext, path: &Path, wanted: &[(&str, &str)]) -> Result<DataFrame, BoxError> {
    let table = parquet(ctx, path).await?;
    let has: Vec<&str> = table.schema().fields().iter().map(|field| field.name().as_str()).collect();
    match wanted.iter().find(|(name, _)| !has.contains(name)) {
        Some((name, remedy)) => {
            let (path, has) = (path.display(), has.join("`, `"));
            Err(format!("`{path}` has no column `{name}`, only `{has}`; {remedy}").into())
        }
        None => Ok(table),
    }
}

/// The table in a Parquet file or a directory of them.
///
/// # Errors
/// When there is no such file, when it is not Parquet, or when the directory holds none.
pub async fn parquet(ctx: &SessionContext, path: &Path) -> Result<DataFrame, BoxError> {
    let path = path.canonicalize().map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    let text = path.to_str().ok_or_else(|| format!("`{}` is not UTF-8", path.display()))?;
    // A directory is told by its last character.
    let text = if path.is_dir() { format!("{text}/") } else { text.to_owned() };
    let table = ctx.read_parquet(text, ParquetReadOptions::default()).await.map_err(|error| {
        match error.to_string().contains("No files found") {
            true => format!("`{}` has no file that ends in .parquet", path.display()).into(),
            false => BoxError::from(error),
        }
    })?;
    if table.schema().fields().is_empty() {
        return Err(format!("the Parquet files of `{}` have no columns", path.display()).into());
    }
    Ok(table)
}
