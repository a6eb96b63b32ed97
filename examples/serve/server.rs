//! Connections: accepted up to a number, given up when the client is too slow, ended in good order.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{patient::Patient, routes::router, state::State, worker::work};

/// How long those who are told that the server ends may take to hear it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves until `stop` ends; then answers what was asked and returns whether all of it was in time.
pub(crate) async fn serve(state: Arc<State>, listener: TcpListener, stop: impl Future<Output = ()>) -> bool {
    let workers: Vec<_> = (0..state.options.batching.workers)
        .map(|_| {
            let state = Arc::clone(&state);
            std::thread::spawn(move || work(&state.queue, &state.metrics))
        })
        .collect();
    let router = router(Arc::clone(&state));
    let (graceful, room) = (GracefulShutdown::new(), Arc::new(Semaphore::new(state.options.limits.connections)));
    let mut stop = pin!(stop);
    loop {
        let next = pin!(accept(&listener, &room));
        match first(stop.as_mut(), next).await {
            None => break,
            Some((stream, permit)) => connect(&state, &router, &graceful, stream, permit),
        }
    }
    drop(listener);
    state.stop();
    state.queue.hurry();
    let mut answered = pin!(graceful.shutdown());
    let in_time = tokio::time::timeout(state.options.limits.drain_ms, answered.as_mut()).await.is_ok();
    if !in_time {
        state.queue.discard();
    }
    state.queue.close();
    let ended = tokio::task::spawn_blocking(|| workers.into_iter().all(|worker| worker.join().is_ok())).await;
    if !ended.unwrap_or(false) {
        tracing::error!("a decoder ended early");
    }
    if !in_time {
        let _ = tokio::time::timeout(LAST_WORDS, answered).await;
    }
    in_time
}

/// `None` when `stop` ends first.
async fn first<T>(
    mut stop: Pin<&mut impl Future<Output = ()>>,
    mut next: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    poll_fn(|context| match stop.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => next.as_mut().poll(context).map(Some),
    })
    .await
}

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = Arc::clone(room).acquire_owned().await else {
            // The semaphore is never closed.
            std::future::pending::<()>().await;
            continue;
        };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            // A client that has gone, or no file left: the next may go better, but not at once.
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn connect(
    state: &Arc<State>,
    router: &Router,
    graceful: &GracefulShutdown,
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
) {
    let time = state.options.limits.client_timeout_ms;
    // Answers are small and written at once: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Patient::new(stream, time));
    let service = TowerToHyperService::new(router.clone());
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(time).serve_connection(io, service);
    let connection = graceful.watch(connection);
    let state = Arc::clone(state);
    state.metrics.connected();
    tokio::spawn(async move {
        let _permit = permit;
        if let Err(error) = connection.await {
            tracing::debug!("a connection ended: {error}");
        }
        state.metrics.disconnected();
    });
}
