//! Serves a finished run over HTTP: recommendations in batches, new items, reloads without a lost request, metrics, a page.
//!
//! ```sh
//! cargo run --release --example serve -- --run runs/beauty --data data/beauty
//! curl -s localhost:8080/recommend -H 'content-type: application/json' -d '{"history": ["1", "2"], "k": 5}'
//! curl -s localhost:8080/items -H 'content-type: application/json' -d '{"id": "new", "title": "Rose soap"}'
//! curl -s localhost:8080/reload -X POST -H 'content-type: application/json'
//! ```
//!
//! On a loopback address it answers to `localhost`, `127.0.0.1` and `[::1]` alone, and to the names of `--host`. What changes the run is
//! refused where `Origin` is another than `Host` and none of these names.

mod browse;
mod by_category;
mod errors;
mod item;
mod metrics;
mod options;
mod origin;
mod page;
mod patient;
mod queue;
mod reply;
mod request;
mod routes;
mod server;
mod snapshot;
mod state;
mod users;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use clap::Parser;
use support::BoxError;
use tokio::net::TcpListener;

use crate::{options::Options, server::serve, state::State};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads that talk to clients; the cores are for the model.
const IO_THREADS: usize = 2;

#[allow(clippy::print_stdout, reason = "a program that says where it listens")]
async fn run(state: Arc<State>) -> Result<(), BoxError> {
    let listener = TcpListener::bind(state.options.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}; choose another `--listen`", state.options.listen))?;
    let items = state.snapshot().recommender.index().len();
    println!("{items} items on http://{}", listener.local_addr()?);
    #[cfg(unix)]
    reload_on_hangup(&state)?;
    match serve(state, listener, stopped()?).await {
        true => Ok(()),
        false => Err("some requests were cut off: they took longer than `--drain-ms`".into()),
    }
}

/// Ends on SIGINT or SIGTERM.
fn stopped() -> Result<impl Future<Output = ()>, BoxError> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(std::future::poll_fn(move |context| {
            let polled = interrupt.poll_recv(context).is_ready() || terminate.poll_recv(context).is_ready();
            if polled { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        }))
    }
    #[cfg(not(unix))]
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// Opens the run anew on each SIGHUP.
#[cfg(unix)]
fn reload_on_hangup(state: &Arc<State>) -> Result<(), BoxError> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut hangup, state) = (signal(SignalKind::hangup())?, Arc::clone(state));
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // A failure is in the log, and the old run serves on. Nobody would ask again: it waits for its turn.
            if let Ok(snapshot) = state.reload(None).await {
                tracing::warn!("opened the run anew: {} items", snapshot.recommender.index().len());
            }
        }
    });
    Ok(())
}

fn start(options: Options) -> Result<(), BoxError> {
    let state = Arc::new(State::open(options)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(IO_THREADS).enable_all().build()?;
    runtime.block_on(run(state))
}

fn main() {
    support::start();
    support::exit_on_error(start(Options::parse()));
}
