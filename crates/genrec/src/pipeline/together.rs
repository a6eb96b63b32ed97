//! One run by several ranks.

use std::{path::Path, time::Instant};

use candle_core::Device;
use genrec_data::{Dataset, LeaveOneOut};
use genrec_train::{Collective, TrainError};
use sid_index::SidIndex;

use super::{
    Observer, TigerConfig,
    run::{Context, Outcome, checked, lead},
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
/// As [`run`](super::run()) on rank 0. On the others [`TrainError::Leader`](genrec_train::TrainError::Leader) where rank 0 failed, and
/// the errors of training. A rank that fails must end its part in the collective, or the others wait for it: `Threads` is dropped, an
/// `Mpi` process aborts.
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
    if collective.rank() == 0 {
        return lead(&ctx, observer).map(Some);
    }
    let error = collective.broadcast(Vec::new()).map_err(lost)?;
    if !error.is_empty() {
        return Err(TrainError::Leader { reason: String::from_utf8_lossy(&error).into_owned() }.into());
    }
    training::follow(&ctx, &SidIndex::open(&ctx.run.index())?)?;
    Ok(None)
}

/// Tells the other ranks whether the stages before training ended well.
pub(super) fn announce<T>(collective: &dyn Collective, prepared: &Result<T>) -> Result<()> {
    let error = prepared.as_ref().err().map(Error::to_string).unwrap_or_default();
    match collective.broadcast(error.into_bytes()) {
        // The first error is the one to report.
        Err(error) if prepared.is_ok() => Err(lost(error)),
        _ => Ok(()),
    }
}

fn lost(source: genrec_train::CollectiveError) -> Error {
    TrainError::Collective { source }.into()
}
