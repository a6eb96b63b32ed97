//! What a pipeline tells whoever watches it.

use genrec_train::{StepReport, ValidationReport};
use ndarray::ArrayView2;
use sid_quantize::EpochReport;

use super::Report;

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
    /// Texts embedded so far, users asked so far in the validation under way, or users evaluated so far.
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
    /// Every item has its codes, new or of an earlier run.
    Encoded {
        /// Codes (items, levels), before any suffix or re-assignment.
        codes: ArrayView2<'a, u32>,
        /// Codes that each level has.
        codebook_sizes: &'a [u32],
        /// Whether the quantiser was in the directory already.
        resumed: bool,
    },
    /// The model has taken a step.
    TrainStep(&'a StepReport),
    /// The model was validated.
    Validation(&'a ValidationReport),
    /// The run is over, and its report written.
    Reported(&'a Report),
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

/// Both watch, the first one first.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn on_event(&mut self, event: &Event<'_>) {
        self.0.on_event(event);
        self.1.on_event(event);
    }
}

/// Watches if there is one.
impl<O: Observer> Observer for Option<O> {
    fn on_event(&mut self, event: &Event<'_>) {
        if let Some(observer) = self {
            observer.on_event(event);
        }
    }
}
