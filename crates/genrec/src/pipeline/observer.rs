//! What a pipeline tells whoever watches it.

use genrec_train::{StepReport, ValidationReport};
use sid_quantize::EpochReport;

/// The stages of a run, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Item text to content embeddings.
    Embed,
    /// Fitting the quantiser and encoding every item.
    Quantize,
    /// Building the index.
    Index,
    /// Training the sequence model.
    Train,
    /// Test metrics and baselines.
    Evaluate,
}

impl Stage {
    /// A short name for logs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Quantize => "quantize",
            Self::Index => "index",
            Self::Train => "train",
            Self::Evaluate => "evaluate",
        }
    }
}

/// One thing that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A stage starts.
    Started {
        /// Which.
        stage: Stage,
    },
    /// A stage is over.
    Finished {
        /// Which.
        stage: Stage,
        /// How long it took.
        seconds: f64,
        /// Whether its result was already in the directory.
        resumed: bool,
    },
    /// Texts embedded so far, or users evaluated so far.
    Progress {
        /// During which stage.
        stage: Stage,
        /// How many are done.
        done: usize,
        /// How many there are.
        total: usize,
    },
    /// The quantiser has passed over the data once more.
    QuantizerEpoch(&'a EpochReport),
    /// The model has taken a step.
    TrainStep(&'a StepReport),
    /// The model was validated.
    Validation(&'a ValidationReport),
}

/// Watches a pipeline. Every closure that takes an [`Event`] is one.
pub trait Observer {
    /// Called as things happen, from the thread that runs the pipeline.
    fn on_event(&mut self, event: &Event<'_>);
}

impl<F: FnMut(&Event<'_>)> Observer for F {
    fn on_event(&mut self, event: &Event<'_>) {
        self(event);
    }
}
