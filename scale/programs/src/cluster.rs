//! The processes of a Ballista cluster, with the functions in them.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::extension::EndpointOverrideFn;

mod executor;
mod lost;
mod scheduler;

pub use executor::Executor;
pub use scheduler::Scheduler;

use crate::BoxError;

/// How long results of a job stay where they were computed.
const KEEP_RESULTS: Duration = Duration::from_secs(24 * 60 * 60);

/// Executors ask for work when they have room. A scheduler that hands it out counts their room itself, forgets to count what a task gives
/// back whose stage begins anew in the meantime, and in the end waits for ever for room that there is.
const SCHEDULING: TaskSchedulingPolicy = TaskSchedulingPolicy::PullStaged;

/// How long a machine may take to answer before a connection to it is given up. Ballista's connections between executors would wait for
/// ever for one that has vanished.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// The name by which others reach a process: one that was given, or the address that it listens at.
fn reached(host: Option<String>, bind: SocketAddr) -> Result<String, BoxError> {
    match host {
        Some(host) => Ok(host),
        // Others would connect to themselves, and the job would wait for ever.
        None if bind.ip().is_unspecified() => {
            Err(format!("others cannot reach `{bind}`: give `--host`, the name of this machine").into())
        }
        None => Ok(bind.ip().to_string()),
    }
}

/// Fails where a process could not listen: Ballista names neither the address nor the remedy, and its executor ends without an error.
fn check_free(bind: SocketAddr) -> Result<(), BoxError> {
    match TcpListener::bind(bind) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("cannot listen at `{bind}`: {error}; give another `--bind`").into()),
    }
}

/// How executors and clients connect to executors, to fetch results.
pub(crate) fn connections() -> EndpointOverrideFn {
    Arc::new(|endpoint| {
        Ok(endpoint
            .connect_timeout(ANSWER)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(ANSWER)
            .keep_alive_timeout(ANSWER)
            .keep_alive_while_idle(true))
    })
}
