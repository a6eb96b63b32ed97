//! How well items are found that training has never seen: the measurements of figure 5 of TIGER (arXiv 2305.05065, section 4.3).

use std::sync::Arc;

use genrec::{
    History, Recommender,
    data::Dataset,
    decode::ColdStart,
    eval::bootstrap::{BootstrapConfig, Interval, mean_interval, paired_difference},
    evaluate::{Part, Question, questions},
    index::ItemId,
    model::{
        ItemScorer, RaggedBatch,
        baseline::{KnnHistory, SemanticKnn},
    },
};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use crate::{BoxError, Progress, waiting};

/// Lengths of the lists of figure 5a.
const LENGTHS: [usize; 4] = [5, 10, 15, 20];
/// The longest of them.
const DEPTH: usize = 20;
/// Length of the lists of figure 5b, over the share of unseen items.
pub const LENGTH: usize = 10;
/// Other users that are asked too, evenly spaced, to see what they pay.
const OTHERS: usize = 2_000;
/// Histories that Semantic-KNN scores together.
const BATCH: usize = 256;

/// By its codes alone, an unseen item is one of those that the generated sequences stand for.
pub const BY_CODES: &str = "TIGER";
/// Unseen items by content, with the first code's probability.
pub const HYBRID: &str = "TIGER with Semantic-KNN";
/// The nearest in content, with so many unseen items as there is room for.
pub const KNN_QUOTA: &str = "Semantic-KNN, so many unseen";
/// The nearest in content, seen or not.
pub const KNN: &str = "Semantic-KNN, unbounded";
/// The same, of the history's mean.
pub const KNN_MEAN: &str = "Semantic-KNN, mean of history, unbounded";

/// The weight that suits cosines.
pub const WEIGHT: f32 = 20.0;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Share of unseen items in a list where the length of the list varies.
    pub epsilon: f64,
    /// Weight of content beside the first code's probability, where both choose unseen items.
    pub weight: f32,
    /// Sequences generated for every user.
    pub beams: usize,
    /// Draws the resamples of the intervals.
    pub seed: u64,
}

/// Recall of one way to recommend at one length and share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// One of the names above.
    pub method: String,
    /// Share of the list that unseen items may have; 1 where nothing bounds them.
    pub epsilon: f64,
    /// Length of the list.
    pub k: usize,
    /// Over users whose target is held out, 95 % bootstrap over them.
    pub held_out: Interval,
    /// Over users whose target is not.
    pub others: f64,
    /// [`held_out`](Self::held_out) less that of [`KNN_QUOTA`] at the same share and length, user by user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_knn: Option<Interval>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Items that training has not seen.
    pub held_out_items: usize,
    /// Users whose target is one of them.
    pub users: usize,
    /// Other users asked.
    pub others: usize,
    /// By method, those of [`Settings::epsilon`] by length first, the others by share.
    pub points: Vec<Point>,
}

/// Users whose target is held out, and others.
struct Users<'a>([Vec<Question<'a>>; 2]);

/// For each user of a group whether the target was found.
type Hits = Vec<f64>;

impl<'a> Users<'a> {
    fn of(dataset: &'a Dataset, held_out: &[ItemId]) -> Result<Self, BoxError> {
        let (held, others): (Vec<_>, Vec<_>) = questions(&dataset.sequences, Part::Test)?
            .into_iter()
            .partition(|question| held_out.binary_search(&question.target).is_ok());
        let every = others.len().div_ceil(OTHERS).max(1);
        Ok(Self([held, others.into_iter().step_by(every).collect()]))
    }

    /// Which users' targets are in the lists that `answer` makes of a group, by its place and its questions.
    fn hits(
        &self,
        answer: impl Fn(usize, &[Question<'a>]) -> Result<Vec<Vec<ItemId>>, BoxError>,
    ) -> Result<[Hits; 2], BoxError> {
        let of = |group: usize| -> Result<Hits, BoxError> {
            let found = answer(group, &self.0[group])?;
            let hit = |(items, question): (&Vec<ItemId>, &Question<'_>)| f64::from(items.contains(&question.target));
            Ok(found.iter().zip(&self.0[group]).map(hit).collect())
        };
        Ok([of(0)?, of(1)?])
    }
}

/// The nearest items in content of one history, best first, without those that are in it.
#[derive(Debug, Clone, PartialEq)]
struct Near {
    all: Vec<ItemId>,
    seen: Vec<ItemId>,
    unseen: Vec<ItemId>,
}

impl Near {
    /// Of scores by item.
    fn of(scores: &[f32], history: &[ItemId], seen: &[bool]) -> Self {
        let mut order: Vec<ItemId> = (0..scores.len() as u32).map(ItemId).collect();
        order.retain(|item| !history.contains(item));
        order.sort_by(|a, b| scores[b.index()].total_cmp(&scores[a.index()]));
        let (known, new): (Vec<_>, Vec<_>) = order.iter().partition(|item| seen.get(item.index()) == Some(&true));
        let first = |items: Vec<ItemId>| items.into_iter().take(DEPTH).collect::<Vec<_>>();
        Self { all: first(order), seen: first(known), unseen: first(new) }
    }

    /// A list of so many unseen items, and seen ones for the rest.
    fn list(&self, k: usize, unseen: usize) -> Vec<ItemId> {
        let seen = self.seen.iter().take(k.saturating_sub(unseen));
        self.unseen.iter().take(unseen).chain(seen).copied().collect()
    }
}

/// Of both groups.
fn nearest(knn: &SemanticKnn, users: &Users<'_>, seen: &[bool]) -> Result<[Vec<Near>; 2], BoxError> {
    let of = |questions: &[Question<'_>]| -> Result<Vec<Near>, BoxError> {
        let mut found = Vec::new();
        for questions in questions.chunks(BATCH) {
            let mut batch = RaggedBatch::new();
            for question in questions {
                batch.push(&question.history.items.iter().map(|item| item.0).collect::<Vec<_>>(), &[])?;
            }
            let scores = knn.scores(&batch)?.to_vec2::<f32>()?;
            found.extend(questions.iter().zip(&scores).map(|(one, scores)| Near::of(scores, one.history.items, seen)));
        }
        Ok(found)
    };
    Ok([of(&users.0[0])?, of(&users.0[1])?])
}

/// Where a measurement stands.
struct At<'n> {
    method: &'n str,
    epsilon: f64,
    k: usize,
}

/// What is measured, as it grows.
struct Bench<'a> {
    users: Users<'a>,
    bootstrap: BootstrapConfig,
    points: Vec<Point>,
}

impl Bench<'_> {
    fn put(&mut self, at: &At<'_>, [held_out, others]: [Hits; 2], knn: Option<&Hits>) -> Result<(), BoxError> {
        self.points.push(Point {
            method: at.method.to_owned(),
            epsilon: at.epsilon,
            k: at.k,
            held_out: mean_interval(&held_out, self.bootstrap)?,
            others: others.iter().sum::<f64>() / others.len().max(1) as f64,
            over_knn: knn.map(|knn| paired_difference(&held_out, knn, self.bootstrap)).transpose()?,
        });
        Ok(())
    }
}

/// Measures a run that was trained without some items on the users whose target is one of them, and on others. Items of a
/// user's history are left out of every list.
///
/// # Errors
/// When no user's target is held out, the run has seen one of the items, a setting is out of bounds, or decoding fails.
///
/// # Shapes
/// - `embeddings`: `(items, features)`, of content
pub fn measure(
    mut recommender: Recommender,
    dataset: &Dataset,
    held_out: &[ItemId],
    embeddings: ArrayView2<'_, f32>,
    settings: Settings,
) -> Result<Measured, BoxError> {
    ColdStart::new(settings.epsilon).with_weight(Some(settings.weight)).validate()?;
    if held_out.iter().any(|&item| recommender.seen(item) != Some(false)) {
        return Err(
            "the run was trained with other items held out: give the share and seed that it was made with".into()
        );
    }
    let seen: Vec<bool> =
        (0..embeddings.nrows() as u32).map(|item| recommender.seen(ItemId(item)) == Some(true)).collect();
    let bootstrap = BootstrapConfig::default().with_seed(settings.seed);
    let mut bench = Bench { users: Users::of(dataset, held_out)?, bootstrap, points: Vec::new() };
    let by_last = Arc::new(SemanticKnn::new(embeddings, KnnHistory::LastItem)?);
    let near = waiting("nearest", "by content", || nearest(&by_last, &bench.users, &seen))?;

    let shares = (0..=10).map(|tenths| (f64::from(tenths) / 10.0, LENGTH));
    let mut wanted: Vec<(f64, usize)> = LENGTHS.iter().map(|&k| (settings.epsilon, k)).collect();
    wanted.extend(shares.filter(|&(epsilon, _)| (epsilon - settings.epsilon).abs() > 1e-9));
    let mut with_quota = Vec::new();
    for &(epsilon, k) in &wanted {
        let quota = ColdStart::new(epsilon).quota(k);
        let lists = |group: usize, _: &[Question<'_>]| Ok(near[group].iter().map(|near| near.list(k, quota)).collect());
        with_quota.push(bench.users.hits(lists)?);
    }

    let base = recommender.config().clone().with_rerank(None).with_beams(settings.beams).with_exclude_history(true);
    let progress = Progress::new("cold start");
    let (mut done, all) = (0, 2 * wanted.len());
    progress.set(done, all);
    for method in [BY_CODES, HYBRID] {
        for (&(epsilon, k), knn) in wanted.iter().zip(&with_quota) {
            let cold = ColdStart::new(epsilon).with_weight(Some(settings.weight));
            recommender = recommender.with_config(base.clone().with_cold_start(cold))?;
            let hits = bench.users.hits(|_, questions| generated(&recommender, questions, k))?;
            bench.put(&At { method, epsilon, k }, hits, Some(&knn[0]))?;
            done += 1;
            progress.set(done, all);
        }
        recommender = recommender.with_unseen_scorer(by_last.clone());
    }
    drop(progress);
    for (&(epsilon, k), hits) in wanted.iter().zip(with_quota) {
        bench.put(&At { method: KNN_QUOTA, epsilon, k }, hits, None)?;
    }
    let by_mean = SemanticKnn::new(embeddings, KnnHistory::Mean)?;
    let by_mean = waiting("nearest", "by mean content", || nearest(&by_mean, &bench.users, &seen))?;
    for (method, near) in [(KNN, &near), (KNN_MEAN, &by_mean)] {
        for k in LENGTHS {
            let first = |near: &Near| near.all.iter().take(k).copied().collect();
            let hits = bench.users.hits(|group, _| Ok(near[group].iter().map(first).collect()))?;
            bench.put(&At { method, epsilon: 1.0, k }, hits, None)?;
        }
    }
    Ok(Measured {
        held_out_items: held_out.len(),
        users: bench.users.0[0].len(),
        others: bench.users.0[1].len(),
        points: bench.points,
    })
}

fn generated(recommender: &Recommender, questions: &[Question<'_>], k: usize) -> Result<Vec<Vec<ItemId>>, BoxError> {
    let histories: Vec<History<'_>> = questions.iter().map(|question| question.history).collect();
    let found = recommender.recommend(&histories, k)?;
    Ok(found.into_iter().map(|user| user.into_iter().map(|found| found.item).collect()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use genrec::data::{Catalogue, Item, Sequences, hold_out};

    use super::*;

    #[test]
    fn lists_have_so_many_unseen_items_and_none_of_the_history() {
        let (scores, seen) = ([0.9, 0.8, 0.7, 0.6, 0.5], [true, false, true, false, true]);
        let near = Near::of(&scores, &[ItemId(0)], &seen);
        assert_eq!(near.all, [1, 2, 3, 4].map(ItemId));
        assert_eq!(near.list(3, 1), [1, 2, 4].map(ItemId));
        assert_eq!(near.list(2, 2), [1, 3].map(ItemId));
        assert_eq!(near.list(2, 0), [2, 4].map(ItemId));
        assert_eq!(near.list(1, 3), [1, 3].map(ItemId), "a share above the list is refused before");
    }

    #[test]
    fn users_are_parted_by_their_target() {
        let items = (0..6).map(|item| Item::new(item.to_string())).collect();
        let mut sequences = Sequences::new();
        for user in 0..6_u32 {
            sequences.push(&user.to_string(), &[0, 1, 2, 3 + user % 3].map(ItemId)).unwrap();
        }
        let held_out = hold_out(&sequences, 0.3, 0).unwrap();
        let dataset = Dataset::new("toy", Catalogue::from_items(items).unwrap(), held_out.sequences).unwrap();
        let users = Users::of(&dataset, &held_out.items).unwrap();
        assert_eq!(users.0.each_ref().map(Vec::len), [2, 4]);
        let right = |_: usize, questions: &[Question<'_>]| Ok(questions.iter().map(|one| vec![one.target]).collect());
        assert_eq!(users.hits(right).unwrap(), [vec![1.0; 2], vec![1.0; 4]]);
        let held = |_: usize, questions: &[Question<'_>]| Ok(vec![held_out.items.clone(); questions.len()]);
        assert_eq!(users.hits(held).unwrap(), [vec![1.0; 2], vec![0.0; 4]]);
    }
}
