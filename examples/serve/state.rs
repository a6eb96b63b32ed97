//! What all requests share: the run served now, the queue, and who may replace the run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use candle_core::Device;
use genrec::{
    artifacts::RunDir,
    data::Item,
    embed::EmbedderSpec,
    index::{ItemId, SidIndex},
    pipeline::EmbeddingSource,
};
use support::waiting;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore, oneshot};

use crate::{
    errors::{ApiError, chain},
    metrics::Metrics,
    options::Options,
    queue::{Queue, Refusal},
    request::Asked,
    snapshot::{Shown, Snapshot},
    users::Users,
    worker::{Ask, Lists},
};

/// Look-ups of titles and prefixes at once: they go through the catalogue.
pub(crate) const BROWSING: usize = 4;

/// One server.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: Options,
    device: Device,
    current: ArcSwap<Snapshot>,
    pub(crate) queue: Queue<Ask>,
    pub(crate) metrics: Metrics,
    pub(crate) users: Users,
    pub(crate) browsing: Arc<Semaphore>,
    stopping: AtomicBool,
    /// Held by whoever makes the next snapshot.
    pub(crate) writing: Arc<Mutex<()>>,
}

impl State {
    /// Opens the run, and the users of the data where there are some.
    pub(crate) fn open(options: Options) -> Result<Self, support::BoxError> {
        options.check()?;
        let device = options.device.open()?;
        let open = || Snapshot::open(&options.run, &device, embedder(&options), 0);
        let snapshot = waiting("open", &options.run.display().to_string(), open)?;
        let users = match &options.data {
            Some(data) => {
                let read = || Users::read(data, snapshot.recommender.catalogue());
                waiting("read", &data.display().to_string(), read)?
            }
            None => Users::default(),
        };
        let batching = &options.batching;
        Ok(Self {
            queue: Queue::new(batching.queue, batching.max_batch, batching.max_wait_ms),
            options,
            device,
            current: ArcSwap::from_pointee(snapshot),
            metrics: Metrics::new(),
            users,
            browsing: Arc::new(Semaphore::new(BROWSING)),
            stopping: AtomicBool::new(false),
            writing: Arc::default(),
        })
    }

    /// The run as it is now. Whoever takes it once answers from one state, whatever comes meanwhile.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Has a request decoded with its like.
    pub(crate) async fn recommend(&self, asked: Asked) -> Result<(Arc<Snapshot>, bool, Lists), ApiError> {
        let (snapshot, arrived, limit) = (self.snapshot(), Instant::now(), self.options.limits.timeout_ms);
        let (settings, histories) = asked.check(&snapshot, &self.options.limits)?;
        let (reply, answer) = oneshot::channel();
        let drawn = settings.drawn();
        let ask = Ask { snapshot: Arc::clone(&snapshot), settings: Arc::new(settings), histories, arrived, reply };
        self.queue.push(ask).map_err(|refusal| match refusal {
            Refusal::Full { waiting, capacity } => ApiError::full(waiting, capacity),
            Refusal::Closed => ApiError::stopping(),
        })?;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(lists)) => Ok((snapshot, drawn, lists?)),
            // What waited too long for the server to end is dropped.
            Ok(Err(_)) if self.is_stopping() => Err(ApiError::stopping()),
            Ok(Err(_)) => {
                tracing::error!("a search ended without an answer");
                Err(ApiError::internal("the search ended without an answer; the server's log says more"))
            }
            Err(_) => Err(ApiError::timed_out(limit)),
        }
    }

    /// Adds an item, writes it to the run's directory, and serves it from then on.
    pub(crate) async fn add(self: &Arc<Self>, item: Item) -> Result<(Shown, usize), ApiError> {
        self.replace(Some(self.options.limits.timeout_ms), |state| {
            let (mut next, row) = state.snapshot().with_item(item).map_err(|error| ApiError::of(&error))?;
            if let Err(error) = next.recommender.save_catalogue(&state.options.run) {
                next = state.kept(&next, row).ok_or_else(|| ApiError::of(&error))?;
                tracing::error!("an item is kept, but the run's directory is not as it should be: {}", chain(&error));
            }
            let shown = next.show(row).ok_or_else(|| ApiError::internal("the item was added and is not there"))?;
            let items = next.recommender.index().len();
            state.current.store(Arc::new(next));
            state.metrics.added();
            Ok((shown, items))
        })
        .await
    }

    /// The run in its directory, if it holds the new item of a snapshot although that could not be saved to the end: what is to be
    /// had there after a restart is served from now on.
    fn kept(&self, next: &Snapshot, row: ItemId) -> Option<Snapshot> {
        let (run, wanted) = (&self.options.run, &next.recommender);
        let bound = SidIndex::open(&RunDir::new(run).index()).ok()?.id_bound();
        if bound != wanted.index().id_bound() {
            return None;
        }
        let opened = Snapshot::open(run, &self.device, embedder(&self.options), next.generation).ok()?;
        let found = &opened.recommender;
        let same = found.catalogue().items() == wanted.catalogue().items()
            && found.index().sid(row) == wanted.index().sid(row)
            && found.index().sid(row).is_some();
        same.then_some(opened)
    }

    /// Opens the run's directory anew, once nobody else changes it, for which it waits as long as it is given. What was asked
    /// before is answered from the old run; if the new one cannot be opened, everything is, and the log says why.
    pub(crate) async fn reload(self: &Arc<Self>, patience: Option<Duration>) -> Result<Arc<Snapshot>, ApiError> {
        let reloaded = self.replace(patience, |state| {
            let (run, generation) = (&state.options.run, state.snapshot().generation + 1);
            let opened = Snapshot::open(run, &state.device, embedder(&state.options), generation);
            state.metrics.reloaded(opened.is_ok());
            let next = Arc::new(opened.map_err(|error| {
                let message = format!("the run was not opened anew, the old one still serves: {}", chain(&error));
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "reload_failed", message)
            })?);
            state.current.store(Arc::clone(&next));
            Ok(next)
        });
        reloaded.await.inspect_err(|error| tracing::error!("a reload failed: {error}"))
    }

    /// Lets one at a time make the next snapshot. Once begun it is ended, even if whoever asked has gone.
    async fn replace<T: Send + 'static>(
        self: &Arc<Self>,
        patience: Option<Duration>,
        change: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = Arc::clone(&self.writing).lock_owned();
        let turn: OwnedMutexGuard<()> = match patience {
            Some(limit) => tokio::time::timeout(limit, turn).await.map_err(|_| ApiError::timed_out(limit))?,
            None => turn.await,
        };
        let state = Arc::clone(self);
        let changed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            change(&state)
        });
        changed.await.unwrap_or_else(|error| {
            tracing::error!("changing the run panicked: {error}");
            Err(ApiError::internal("the change failed; this is a fault of the server, whose log says more"))
        })
    }

    /// Goes through the catalogue without holding up other requests. A look that has begun is ended, and counts until then, even if
    /// whoever asked has gone.
    pub(crate) async fn browse<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Snapshot) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let limit = self.options.limits.timeout_ms;
        let turn = tokio::time::timeout(limit, Arc::clone(&self.browsing).acquire_owned()).await;
        let turn = turn.map_err(|_| ApiError::timed_out(limit))?.map_err(|_| ApiError::stopping())?;
        let snapshot = self.snapshot();
        let looked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            look(&snapshot)
        });
        looked.await.map_err(|error| {
            tracing::error!("looking through the catalogue panicked: {error}");
            ApiError::internal("looking through the catalogue failed; the server's log says more")
        })
    }
}

fn embedder(options: &Options) -> Option<&EmbedderSpec> {
    match &options.embedder {
        Some(EmbeddingSource::Text { embedder }) => Some(embedder),
        _ => None,
    }
}
