//! The stage that trains the sequence model.

use std::{
    cell::{Cell, RefCell},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use genrec_data::Windows;
use genrec_model::t5::T5;
use genrec_train::{BoxError, Callback, StepReport, TrainReport, Trainer, ValidationReport};
use sid_index::{SidIndex, SidVocab};

use super::{Event, Observer, Stage, TigerConfig, TrainSummary, run::Context};
use crate::{
    Result,
    evaluate::{self, Question},
    search::Searcher,
    tokens::{SequenceTokenizer, WindowBatches},
};

/// A trained model and how it was trained.
pub(super) struct Trained {
    pub(super) model: T5,
    pub(super) report: TrainReport,
    examples_per_epoch: usize,
}

impl Trained {
    pub(super) fn summary(&self) -> TrainSummary {
        TrainSummary {
            parameters: self.model.num_parameters(),
            examples_per_epoch: self.examples_per_epoch,
            examples: self.report.examples_seen,
            steps: self.report.steps,
            epochs: self.report.epochs,
            best_epoch: self.report.best_epoch,
            best_ndcg_at_10: self.report.best_metric,
            stopped: self.report.stopped,
        }
    }
}

/// Trains on every window, keeps the weights of best validation NDCG@10.
pub(super) fn train(
    ctx: &Context<'_>,
    index: &SidIndex,
    validation: &[Question<'_>],
    test_users: usize,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    let config = ctx.config;
    let users = users(ctx);
    let vocab = SidVocab::new(index.layout(), config.decode.user_tokens)?;
    let windows = Windows::new(&ctx.split, config.windows.clone())?;
    let tokenizer = SequenceTokenizer::new(index, &vocab, config.windows.max_history);
    let batches = WindowBatches::new(&windows, &users, tokenizer, config.batches());
    let model = model(ctx, &vocab)?;
    // The model alone is judged, whatever else is to rank with it.
    let decode = config.decode.clone().with_rerank(None);
    let searcher = Searcher::new(index, &vocab, &decode);
    let users_per_second = Cell::new(None);
    // Validation and training take turns in telling it.
    let observer = RefCell::new(observer);
    let tell = |event: &Event<'_>| observer.borrow_mut().on_event(event);
    if ctx.budget.is_some() {
        // Before the first validation a few users foretell how long the test will take.
        const PROBE: usize = 256;
        let probe = &validation[..validation.len().min(PROBE)];
        if !ctx.device.is_cpu() {
            // The first search on a GPU loads its kernels, which takes seconds and says nothing of the others.
            evaluate::evaluate(&searcher, &model, probe, &mut |_, _| {})?;
        }
        let start = Instant::now();
        evaluate::evaluate(&searcher, &model, probe, &mut |_, _| {})?;
        users_per_second.set(Some(probe.len() as f64 / start.elapsed().as_secs_f64()));
    }
    let mut validate = |model: &T5| -> Result<f64, BoxError> {
        let start = Instant::now();
        let mut progress = |done, total| tell(&Event::Progress { stage: Stage::Train, done, total });
        let suite = evaluate::evaluate(&searcher, model, validation, &mut progress)?;
        users_per_second.set(Some(validation.len() as f64 / start.elapsed().as_secs_f64()));
        Ok(suite.value("ndcg@10").unwrap_or(0.0))
    };
    let mut watch = Watch {
        ctx,
        tell: &tell,
        // The last weights are validated, one validation may just have begun, and the test asks every user and those of
        // the validation once more.
        questions: wider(config, test_users + validation.len()) + 2 * validation.len() + config.invalid_rate_users,
        users_per_second: &users_per_second,
    };
    let trainer = Trainer::new(config.train.clone())?.with_resume(ctx.resume);
    let dir = ctx.run.train();
    let report = trainer.fit_with(ctx.ranks, &model, &batches, &mut validate, &mut watch, Some(&dir))?;
    model.save(ctx.run.model())?;
    Ok(Trained { model, report, examples_per_epoch: windows.len() })
}

/// The training as another rank than 0 does it, which neither validates nor writes.
pub(super) fn follow(ctx: &Context<'_>, index: &SidIndex) -> Result<()> {
    let config = ctx.config;
    let users = users(ctx);
    let vocab = SidVocab::new(index.layout(), config.decode.user_tokens)?;
    let windows = Windows::new(&ctx.split, config.windows.clone())?;
    let tokenizer = SequenceTokenizer::new(index, &vocab, config.windows.max_history);
    let batches = WindowBatches::new(&windows, &users, tokenizer, config.batches());
    let trainer = Trainer::new(config.train.clone())?;
    let mut validate = |_: &T5| -> Result<f64, BoxError> { Err("rank 0 validates".into()) };
    trainer.fit_with(ctx.ranks, &model(ctx, &vocab)?, &batches, &mut validate, &mut (), None)?;
    Ok(())
}

fn users(ctx: &Context<'_>) -> Vec<String> {
    ctx.dataset.sequences.iter().map(|(user, _)| user.to_owned()).collect()
}

fn model(ctx: &Context<'_>, vocab: &SidVocab) -> Result<T5> {
    let config = ctx.config.model.clone().with_vocab_size(vocab.size());
    let model = T5::new(config, ctx.config.seed, ctx.device)?.with_compute_dtype(ctx.config.precision.dtype())?;
    Ok(match ctx.config.shares {
        Some(shares) => model.with_shares(shares),
        None => model,
    })
}

/// As many questions as take as long in training's validations: what is ranked again is searched for more widely.
fn wider(config: &TigerConfig, questions: usize) -> usize {
    let beams = config.decode.beams.max(1);
    let candidates = config.decode.rerank.map_or(0, |rerank| rerank.candidates);
    questions.saturating_mul(candidates.max(beams).div_ceil(beams))
}

/// Passes training's reports on, and ends it in time for the test.
struct Watch<'a, 'c> {
    ctx: &'a Context<'c>,
    tell: &'a dyn Fn(&Event<'_>),
    questions: usize,
    users_per_second: &'a Cell<Option<f64>>,
}

impl Callback for Watch<'_, '_> {
    fn on_step(&mut self, step: &StepReport) -> ControlFlow<()> {
        (self.tell)(&Event::TrainStep(step));
        ControlFlow::Continue(())
    }

    fn on_validation(&mut self, validation: &ValidationReport) -> ControlFlow<()> {
        (self.tell)(&Event::Validation(validation));
        ControlFlow::Continue(())
    }

    /// The budget's end less what the test will need; none without a budget.
    fn deadline(&self) -> Option<Instant> {
        // For the baselines and a busy machine.
        const MARGIN: f64 = 1.3;
        let foretold = self.users_per_second.get().map_or(0.0, |speed| MARGIN * self.questions as f64 / speed);
        self.ctx.deadline(Duration::try_from_secs_f64(foretold).unwrap_or(Duration::MAX))
    }
}
