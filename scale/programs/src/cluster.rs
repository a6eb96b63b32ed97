//! The processes of a Ballista cluster, with the functions in them.

use std::sync::Arc;
use std::time::Duration;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::extension::EndpointOverrideFn;

mod executor;
mod lost;
mod scheduler;

pub use executor::Executor;
pub use scheduler::Scheduler;

/// How long results of a job stay where they were computed.
const KEEP_RESULTS: Duration = Duration::from_secs(24 * 60 * 60);

/// Executors ask for work when they have room. A scheduler that hands it out counts their room itself, forgets to count what a task gives
/// back whose stage begins anew in the meantime, and in the end waits for ever for room that there is.
const SCHEDULING: TaskSchedulingPolicy = TaskSchedulingPolicy::PullStaged;

/// How long a machine may take to answer before a connection to it is given up. Ballista's connections between executors would wait for
/// ever for one that has vanished.
const ANSWER: Duration = Duration::from_secs(10);

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
