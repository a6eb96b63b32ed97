//! One run by several ranks.

use std::{path::Path, time::Instant};

use candle_core::Device;
use genrec_data::{Dataset, LeaveOneOut};
use genrec_train::{Collective, TrainError};
use serde::{Deserialize, Serialize};
use sid_index::SidIndex;

use super::{
    Manifest, Observer, TigerConfig,
    run::{Context, Outcome, checked, first_difference, lead, manifest},
    training,
};
use crate::{Error, Result, artifacts::RunDir};

/// [`run`](super::run()) by several ranks, each of which calls this with the same data, settings and directory.
///
/// Rank 0 embeds, quantises, tests and writes the directory; in between all ranks train together
/// ([`Trainer::fit_with`](genrec_train::Trainer::fit_with)). The others read the index that rank 0 has built from `dir`, which they must
/// be able to see, and return `None` when training is over. Only rank 0's observer hears of anything. A run may be resumed by another
/// number of ranks.
///
/// # Errors
/// As [`run`](super::run()) on rank 0. On the others [`TrainError::Leader`](genrec_train::TrainError::Leader) where rank 0 failed,
/// [`TrainError::RankMismatch`](genrec_train::TrainError::RankMismatch) where settings, data or index are not those of rank 0, and the
/// errors of training. A process of MPI that fails must abort, or the others wait for it.
pub fn run_together(
    collective: &dyn Collective,
    dataset: &Dataset,
    config: &TigerConfig,
    dir: &Path,
    device: &Device,
    resume: bool,
    observer: &mut dyn Observer,
) -> Result<Option<Outcome>> {
    let config = &checked(config, device)?;
    let (split, run) = (LeaveOneOut::new(&dataset.sequences), RunDir::new(dir));
    let start = Instant::now();
    let ctx = Context { dataset, split, config, run, device, start, budget: None, resume, ranks: collective };
    let done = match collective.rank() {
        0 => lead(&ctx, observer).map(Some),
        _ => follow(&ctx).map(|()| None),
    };
    done.inspect_err(|_| collective.leave())
}

/// What rank 0 tells the others before training: its error, or what they must have too.
#[derive(Serialize, Deserialize)]
enum Word {
    Failed(String),
    Ready {
        manifest: Box<Manifest>,
        /// `index.json`, which holds the checksum of all that the index is.
        index: Vec<u8>,
    },
}

/// Tells the other ranks whether the stages before training ended well, and hears whether they can follow.
pub(super) fn announce<T>(ctx: &Context<'_>, prepared: &Result<T>) -> Result<()> {
    if ctx.ranks.ranks() == 1 {
        return Ok(());
    }
    let (word, mine) = match prepared.as_ref().map(|_| word(ctx)) {
        Ok(Ok(word)) => (word, None),
        Ok(Err(error)) => (Word::Failed(described(&error)), Some(error)),
        Err(error) => (Word::Failed(described(error)), None),
    };
    let ready = matches!(word, Word::Ready { .. });
    let bytes = serde_json::to_vec(&word).map_err(|source| json(ctx, source))?;
    let sent = ctx.ranks.broadcast(bytes).map_err(lost);
    if let Some(error) = mine {
        return Err(error);
    }
    if prepared.is_err() {
        // That is the error to report.
        return Ok(());
    }
    sent?;
    if !ready || ctx.ranks.all(true).map_err(lost)? { Ok(()) } else { Err(TrainError::OtherRank.into()) }
}

fn word(ctx: &Context<'_>) -> Result<Word> {
    Ok(Word::Ready { manifest: Box::new(manifest(ctx)?), index: index_json(ctx)? })
}

/// The run as another rank than 0 does it.
fn follow(ctx: &Context<'_>) -> Result<()> {
    let bytes = ctx.ranks.broadcast(Vec::new()).map_err(lost)?;
    let (manifest, index) = match serde_json::from_slice(&bytes).map_err(|source| json(ctx, source))? {
        Word::Failed(reason) => return Err(TrainError::Leader { reason }.into()),
        Word::Ready { manifest, index } => (manifest, index),
    };
    let opened = open(ctx, &manifest, &index);
    let all = ctx.ranks.all(opened.is_ok()).map_err(lost);
    let opened = opened?;
    if !all? {
        return Err(TrainError::OtherRank.into());
    }
    training::follow(ctx, &opened)
}

/// The index of rank 0, where this rank has the same settings and data.
fn open(ctx: &Context<'_>, leading: &Manifest, index: &[u8]) -> Result<SidIndex> {
    let rank = ctx.ranks.rank();
    let value = |manifest: &Manifest| serde_json::to_value(manifest).map_err(|source| json(ctx, source));
    if let Some((field, leading, given)) = first_difference("", &value(leading)?, &value(&manifest(ctx)?)?) {
        return Err(TrainError::RankMismatch { rank, field, leading, given }.into());
    }
    if index_json(ctx)? != index {
        let (leading, given) =
            ("the one it has built".to_owned(), "another; let all ranks see one directory".to_owned());
        return Err(TrainError::RankMismatch { rank, field: "index".to_owned(), leading, given }.into());
    }
    Ok(SidIndex::open(&ctx.run.index())?)
}

fn index_json(ctx: &Context<'_>) -> Result<Vec<u8>> {
    let path = ctx.run.index().join("index.json");
    std::fs::read(&path).map_err(|source| Error::Io { action: "read", path, source })
}

fn json(ctx: &Context<'_>, source: serde_json::Error) -> Error {
    Error::Json { path: ctx.run.manifest(), source }
}

/// An error and its causes in one line.
fn described(error: &Error) -> String {
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

fn lost(source: genrec_train::CollectiveError) -> Error {
    TrainError::Collective { source }.into()
}
