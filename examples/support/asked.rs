//! A finished run and the questions of a data set, to ask one by the other.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use genrec::{
    DecodeConfig, Ensemble, History, Ranked, Recommender, Searcher,
    data::{Dataset, ReadOptions, readers::neutral},
    eval::Suite,
    evaluate::{self, OwnItems, Part, Question, questions},
    index::ItemId,
    model::ItemScorer,
    pipeline::Metrics,
};

use crate::{BoxError, DeviceArg, Progress, waiting};

/// Reads `sequences.txt` and `items.jsonl`.
///
/// # Errors
/// When a file cannot be read.
pub fn dataset(dir: &Path) -> Result<Dataset, BoxError> {
    Ok(waiting("read", &dir.display().to_string(), || neutral::read(dir, &ReadOptions::default()))?.0)
}

/// Opens a run.
///
/// # Errors
/// When there is no such device, or the run is not finished or damaged.
pub fn load(run: &Path, device: DeviceArg) -> Result<Recommender, BoxError> {
    let device = device.open()?;
    Ok(waiting("open", &run.display().to_string(), || Recommender::load(run, &device))?)
}

/// Opens a run, and checks that the data set has its items.
///
/// # Errors
/// When the run is not finished, or was made from other items.
pub fn open(run: &Path, dataset: &Dataset, device: DeviceArg) -> Result<Recommender, BoxError> {
    let recommender = load(run, device)?;
    let ids = |items: &[genrec::data::Item]| items.iter().map(|item| item.id.clone()).collect::<Vec<_>>();
    let (ours, theirs) = (recommender.catalogue().items(), dataset.catalogue.items());
    if ours.len() < theirs.len() || ids(&ours[..theirs.len()]) != ids(theirs) {
        return Err(format!("the run in {} was made from other items than `--data` has", run.display()).into());
    }
    Ok(recommender)
}

/// Where a finished run and its data are.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// Directory of a finished run.
    #[arg(long)]
    run: PathBuf,
    /// The data it was made from: `sequences.txt` and `items.jsonl`.
    #[arg(long)]
    data: PathBuf,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    device: DeviceArg,
}

impl Source {
    /// Reads the data and opens the run.
    ///
    /// # Errors
    /// Those of [`dataset`] and [`open`].
    pub fn open(&self) -> Result<(Dataset, Recommender), BoxError> {
        let dataset = dataset(&self.data)?;
        let recommender = open(&self.run, &dataset, self.device)?;
        Ok((dataset, recommender))
    }
}

/// A beam search under the catalogue, of the same histories and batches as a run's own search.
pub fn beam_search(base: &DecodeConfig, beams: usize) -> DecodeConfig {
    let mut config = DecodeConfig::default().with_beams(beams).with_users_per_batch(base.users_per_batch);
    (config.max_history, config.user_tokens) = (base.max_history, base.user_tokens);
    config
}

/// The test questions of so many users, evenly spaced, or of all.
///
/// # Errors
/// When no user has one.
pub fn test_questions(dataset: &Dataset, users: Option<usize>) -> Result<Vec<Question<'_>>, BoxError> {
    let all = questions(&dataset.sequences, Part::Test)?;
    let users = users.unwrap_or(all.len()).clamp(1, all.len());
    Ok((0..users).map(|user| all[user * all.len() / users]).collect())
}

/// What a search answered.
#[derive(Debug)]
pub struct Answers {
    /// User by user.
    pub ranked: Vec<Ranked>,
    /// Of the search.
    pub seconds: f64,
}

/// Puts questions to a searcher; `name` stands beside its progress bar.
///
/// # Errors
/// The errors of decoding.
pub fn ask(
    recommender: &Recommender,
    config: &DecodeConfig,
    questions: &[Question<'_>],
    k: usize,
    name: &str,
) -> Result<Answers, BoxError> {
    config.validate()?;
    let histories: Vec<History<'_>> = questions.iter().map(|question| question.history).collect();
    let progress = Progress::new(name);
    let start = Instant::now();
    let searcher = Searcher::new(recommender.index(), recommender.vocab(), config);
    let ranked = searcher.rank(recommender.model(), &histories, k, &mut progress.counter())?;
    Ok(Answers { ranked, seconds: start.elapsed().as_secs_f64() })
}

/// Puts questions to a run, by its own search or another.
///
/// # Errors
/// The errors of decoding.
pub fn evaluate(
    recommender: &Recommender,
    config: &DecodeConfig,
    questions: &[Question<'_>],
    name: &str,
) -> Result<Suite<ItemId>, BoxError> {
    let progress = Progress::new(name);
    let recommender = recommender.clone().with_config(config.clone())?;
    let searcher = recommender.searcher();
    Ok(evaluate::evaluate(&searcher, recommender.model(), questions, &mut progress.counter())?)
}

/// Puts questions to several runs together.
///
/// # Errors
/// The errors of decoding.
pub fn evaluate_together(ensemble: &Ensemble, questions: &[Question<'_>]) -> Result<Suite<ItemId>, BoxError> {
    in_pieces("together", questions, |questions| Ok(ensemble.evaluate(questions)?))
}

/// Puts questions to a model that scores all items.
///
/// # Errors
/// As [`evaluate::evaluate_scorer`].
pub fn evaluate_scorer<S: ItemScorer>(
    scorer: &S,
    questions: &[Question<'_>],
    own: OwnItems,
) -> Result<Suite<ItemId>, BoxError> {
    in_pieces("score", questions, |questions| Ok(evaluate::evaluate_scorer(scorer, questions, own)?))
}

/// Answers to some questions after the others: to show how far it is. What one user is answered does not depend on another.
fn in_pieces<'q>(
    name: &str,
    questions: &[Question<'q>],
    mut answer: impl FnMut(&[Question<'q>]) -> Result<Suite<ItemId>, BoxError>,
) -> Result<Suite<ItemId>, BoxError> {
    /// Some batches.
    const PIECE: usize = 2_048;
    let progress = Progress::new(name);
    let mut suite = Suite::standard();
    for (piece, questions_of_it) in questions.chunks(PIECE).enumerate() {
        progress.set(piece * PIECE, questions.len());
        suite.merge(&answer(questions_of_it)?)?;
    }
    Ok(suite)
}

impl Answers {
    /// The items of each user, best first.
    pub fn items(&self, k: usize) -> impl Iterator<Item = Vec<ItemId>> {
        self.ranked.iter().map(move |user| user.items.iter().take(k).map(|&(item, _)| item).collect())
    }

    /// Recall, NDCG and MRR, user by user.
    pub fn suite(&self, questions: &[Question<'_>]) -> Suite<ItemId> {
        let mut suite = Suite::standard();
        for (items, question) in self.items(10).zip(questions) {
            suite.update(&items, &[question.target]);
        }
        suite
    }

    /// Recall, NDCG and MRR.
    pub fn metrics(&self, questions: &[Question<'_>]) -> Metrics {
        self.suite(questions).report()
    }
}
