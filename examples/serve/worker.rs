//! Decodes batches, on threads of its own: the model's work would hold up whatever shares a thread with it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use genrec::{History, Wanted, index::ItemId};
use tokio::sync::oneshot;

use crate::{
    errors::ApiError,
    metrics::Metrics,
    queue::{Job, Queue},
    request::{OwnedHistory, Settings},
    snapshot::Snapshot,
};

/// Items with their scores, best first, of each history.
pub(crate) type Lists = Vec<Vec<(ItemId, f32)>>;

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) histories: Vec<OwnedHistory>,
    pub(crate) arrived: Instant,
    pub(crate) reply: oneshot::Sender<Result<Lists, ApiError>>,
}

impl Job for Ask {
    fn size(&self) -> usize {
        self.histories.len()
    }

    fn arrived(&self) -> Instant {
        self.arrived
    }

    fn goes_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.snapshot, &other.snapshot) && self.settings == other.settings
    }

    fn abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// Answers what waits until the queue is closed and empty.
pub(crate) fn work(queue: &Queue<Ask>, metrics: &Metrics) {
    while let Some(batch) = queue.take() {
        metrics.decoded(batch.iter().map(Job::size).sum());
        answer(batch);
    }
}

fn answer(batch: Vec<Ask>) {
    match decode(&batch) {
        Ok(mut lists) => {
            for ask in batch {
                let rest = lists.split_off(ask.size().min(lists.len()));
                // Whoever has gone meanwhile needs no answer.
                let _ = ask.reply.send(Ok(std::mem::replace(&mut lists, rest)));
            }
        }
        Err(error) if batch.len() == 1 => {
            batch.into_iter().for_each(|ask| drop(ask.reply.send(Err(error.clone()))));
        }
        // One user may be left no item; the others are.
        Err(_) => batch.into_iter().for_each(|ask| answer(vec![ask])),
    }
}

fn decode(batch: &[Ask]) -> Result<Lists, ApiError> {
    // What a panic leaves behind is dropped; the snapshot is only read.
    catch_unwind(AssertUnwindSafe(|| search(batch))).unwrap_or_else(|_| {
        tracing::error!("a search panicked");
        Err(ApiError::internal("the search failed; this is a fault of the server, whose log says more"))
    })
}

fn search(batch: &[Ask]) -> Result<Lists, ApiError> {
    let Some(Ask { snapshot, settings, .. }) = batch.first() else { return Ok(Vec::new()) };
    let recommender = &snapshot.recommender;
    let run = || {
        let filters = settings.filters(snapshot)?;
        let mut wanted = Wanted::any();
        for (name, filter) in &filters {
            wanted = wanted.with_filter(*name, filter);
        }
        let histories: Vec<History<'_>> =
            batch.iter().flat_map(|ask| &ask.histories).map(OwnedHistory::borrowed).collect();
        let searcher = recommender.searcher().with_config(&settings.config)?;
        searcher.rank_wanted(recommender.model(), &histories, settings.k, &wanted, &mut |_, _| {})
    };
    let ranked = run().map_err(|error| ApiError::of(&error))?;
    Ok(ranked.into_iter().map(|user| user.items.into_iter().take(settings.k).collect()).collect())
}
