//! What becomes of jobs when an executor is lost.
//!
//! Ballista would go on by itself, but a stage that loses a part of what it reads is done again as a whole, and what it had written before
//! stays with what it writes then: rows are there twice, and sums are too large. So the jobs end, and the programs begin them anew.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ballista_core::serde::protobuf::{JobStatus, RunningJob, job_status};
use ballista_scheduler::cluster::{BallistaCluster, ClusterStateEvent};
use ballista_scheduler::scheduler_server::SchedulerServer;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use futures::StreamExt;

use crate::BoxError;

/// How often signs of life are read.
const LOOK: Duration = Duration::from_secs(1);

/// Seconds that a job waits for an executor where there is none, or the timeout of executors where that is longer.
const NONE: u64 = 60;

/// Ends the jobs that an executor may have had a part in when it is lost, those that began before its last sign of life; and all that
/// wait for executors where there are none.
///
/// # Errors
/// When the cluster's state cannot be read, or tells nothing more.
pub(super) async fn end_jobs(
    cluster: &BallistaCluster,
    scheduler: &SchedulerServer<LogicalPlanNode, PhysicalPlanNode>,
    timeout: u64,
) -> Result<(), BoxError> {
    let executors = cluster.cluster_state();
    let mut events = executors.cluster_state_events().await?;
    let mut looks = tokio::time::interval(LOOK);
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut some = now();
    loop {
        tokio::select! {
            event = events.next() => match event.ok_or("the scheduler tells no more of its executors; start it anew")? {
                ClusterStateEvent::RemovedExecutor { executor_id } => {
                    // One that says farewell has been alive until now, whatever was seen of it.
                    let last = seen.remove(&executor_id).filter(|last| last + timeout <= now()).unwrap_or_else(now);
                    end(cluster, scheduler, last, &format!("executor {executor_id} is lost")).await?;
                }
                ClusterStateEvent::RegisteredExecutor { .. } => {}
            },
            _ = looks.tick() => {
                let alive = executors.executor_heartbeats();
                seen.extend(alive.iter().map(|(id, heartbeat)| (id.clone(), heartbeat.timestamp)));
                if !alive.is_empty() {
                    some = now();
                }
                let waits = timeout.max(NONE);
                if some + waits <= now() {
                    end(cluster, scheduler, now() - waits, "there is no executor").await?;
                }
            }
        }
    }
}

/// Ends the jobs that began until then, in seconds. One that is over in the same moment loses its results, and is begun anew too.
async fn end(
    cluster: &BallistaCluster,
    scheduler: &SchedulerServer<LogicalPlanNode, PhysicalPlanNode>,
    until: u64,
    reason: &str,
) -> Result<(), BoxError> {
    let jobs = cluster.job_state();
    for job in jobs.get_all_jobs().await? {
        if let Some(JobStatus { status: Some(job_status::Status::Running(RunningJob { started_at, .. })), .. }) =
            jobs.get_job_status(&job).await?
            && started_at / 1000 <= until
        {
            tracing::warn!(%job, reason, "a job is ended; begin it anew");
            scheduler.cancel_job(job).await?;
        }
    }
    Ok(())
}

/// Seconds since 1970, which heartbeats and jobs count by.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
