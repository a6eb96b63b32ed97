//! Recommendations of a saved run, in batches: what a server over the same run is held to.

use std::{path::PathBuf, time::Instant};

use candle_core::Device;
use genrec::{History, Recommender, index::ItemId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::BoxError;

#[derive(Debug, Deserialize)]
pub(crate) struct Load {
    run: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Recommend {
    /// Outside ids of each user's items, oldest first.
    histories: Vec<Vec<String>>,
    k: usize,
    /// Users handed over at a time.
    batch: usize,
}

pub(crate) fn load(load: &Load) -> Result<Recommender, BoxError> {
    Ok(Recommender::load(&load.run, &Device::Cpu)?)
}

pub(crate) fn recommend(recommender: &Recommender, request: &Recommend) -> Result<Value, BoxError> {
    let ids = request.histories.iter().map(|ids| ids.iter().map(|id| recommender.find(id)).collect());
    let items: Vec<Vec<ItemId>> = ids.collect::<Result<_, _>>()?;
    let histories: Vec<History<'_>> = items.iter().map(|items| History { user: None, items }).collect();
    let start = Instant::now();
    for batch in histories.chunks(request.batch.max(1)) {
        recommender.recommend(batch, request.k)?;
    }
    Ok(json!({ "seconds": start.elapsed().as_secs_f64(), "users": histories.len() }))
}
