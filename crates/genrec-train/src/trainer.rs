//! The trainer, and what it promises.

mod run;
mod team;

use std::path::Path;

use genrec_model::Trainable;

use self::run::Run;
use self::team::Team;
use crate::collective::{Alone, Collective};
use crate::config::TrainConfig;
use crate::error::{BoxError, Result};
use crate::report::{Callback, TrainReport};
use crate::source::BatchSource;

/// Trains any [`Trainable`] model: the optimiser's steps, validation, early stopping, checkpoints, resuming.
///
/// The weights, the optimiser's state and everything in the report but the times are a function of the configuration,
/// the model's initial weights, the data and the validation. In particular they do not depend on where checkpoints
/// fell, nor on whether and where the run was interrupted and resumed. A run with `max_duration` or a callback's deadline
/// depends on the clock besides, and one that a callback ends on the callback.
///
/// See the [crate's page](crate) for an example.
#[derive(Debug, Clone)]
pub struct Trainer {
    config: TrainConfig,
    resume: bool,
}

impl Trainer {
    /// A trainer of checked settings that starts anew.
    ///
    /// # Errors
    /// When a setting is out of range or nothing ends the run.
    pub fn new(config: TrainConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config, resume: false })
    }

    /// Whether [`fit`](Self::fit) continues from the checkpoints in its directory; it does not by default. Without any
    /// checkpoint it starts anew all the same.
    #[must_use]
    pub fn with_resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// The settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Trains the model and leaves the weights of the best validation in it; without any validation, the last ones.
    ///
    /// `validate` judges the model as it stands, higher is better (NDCG@10, say); it has to be deterministic for the
    /// run to be so.
    ///
    /// With `dir`, checkpoints are kept there as `last` and `best`, and a run that was killed is continued after
    /// [`with_resume`](Self::with_resume): it ends with the same bytes as an uninterrupted one. A finished run that is
    /// resumed returns at once. A directory has one run at a time, a second
    /// one is refused.
    ///
    /// # Errors
    /// [`TrainError`](crate::TrainError) says what was wrong, and at which step. The model is then left with the weights
    /// of the last completed step, and the checkpoints on disk are whole. A loss or gradient that is not finite ends the
    /// run before the optimiser sees it.
    pub fn fit<M: Trainable>(
        &self,
        model: &M,
        data: &dyn BatchSource<Batch = M::Batch>,
        validate: &mut dyn FnMut(&M) -> std::result::Result<f64, BoxError>,
        callback: &mut dyn Callback,
        dir: Option<&Path>,
    ) -> Result<TrainReport> {
        self.fit_with(&Alone, model, data, validate, callback, dir)
    }

    /// [`fit`](Self::fit) by several ranks, each of which calls this with the same configuration and data and its own copy of the
    /// model.
    ///
    /// All ranks go through the same batches and compute a [share](genrec_model::BatchShare) of each. They start from the weights of
    /// rank 0, take the same steps, and return the same weights and, but for the times, the same report. Rank 0 alone calls `validate` and `callback`, reads the
    /// clock, and keeps `dir`; the other ranks need no access to it. A run may be resumed by another number of ranks.
    ///
    /// The result does not depend on the number of ranks but for the order in which gradients are summed: with the CPU's engine two ranks
    /// take the very steps of one ([`T5::with_shares`](genrec_model::t5::T5::with_shares)). On a GPU dropout differs too, and ranks whose
    /// last bits differ are made equal before each validation.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), and the other ranks are told in the next exchange. A rank that fails where there is none
    /// [leaves](Collective::leave); a process of MPI must abort. On the others it is [`TrainError::Leader`](crate::TrainError::Leader) and
    /// [`TrainError::OtherRank`](crate::TrainError::OtherRank) where another one failed,
    /// [`TrainError::Collective`](crate::TrainError::Collective) where one is gone,
    /// [`TrainError::RankMismatch`](crate::TrainError::RankMismatch) where they were given different things.
    pub fn fit_with<M: Trainable>(
        &self,
        collective: &dyn Collective,
        model: &M,
        data: &dyn BatchSource<Batch = M::Batch>,
        validate: &mut dyn FnMut(&M) -> std::result::Result<f64, BoxError>,
        callback: &mut dyn Callback,
        dir: Option<&Path>,
    ) -> Result<TrainReport> {
        let team = Team(collective);
        let mut fit = || {
            let mut run = Run::begin(team, &self.config, self.resume, model, data, dir)?;
            let stopped = run.train(validate, callback)?;
            run.finish(stopped)
        };
        fit().inspect_err(|_| collective.leave())
    }
}

#[cfg(test)]
mod tests;
