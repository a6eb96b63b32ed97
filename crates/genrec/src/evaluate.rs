//! Leave-one-out evaluation of a recommender and of item scorers, over the same users.

use candle_core::DType;
use genrec_data::{LeaveOneOut, Sequences};
use genrec_eval::{InvalidRate, Metric, Suite};
use genrec_model::{ItemScorer, RaggedBatch, Seq2Seq};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sid_index::ItemId;

use crate::{Error, Result, search::Searcher, tokens::History};

/// Which held-out item is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The last item but one: chooses checkpoints.
    Validation,
    /// The last item: reported.
    Test,
}

/// One question put to a recommender: what does this user do next?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// The user's outside id and everything before the target.
    pub history: History<'a>,
    /// What the user did.
    pub target: ItemId,
}

/// The questions of one part, in the order of the users.
///
/// # Errors
/// [`Error::NoTargets`] when no user has one.
pub fn questions<'a>(sequences: &'a Sequences, part: Part) -> Result<Vec<Question<'a>>> {
    let split = LeaveOneOut::new(sequences);
    let questions: Vec<_> = (0..sequences.len())
        .filter_map(|user| {
            let target = match part {
                Part::Validation => split.valid(user)?,
                Part::Test => split.test(user)?,
            };
            Some(Question {
                history: History { user: sequences.user(user), items: target.history },
                target: target.item,
            })
        })
        .collect();
    if questions.is_empty() {
        let what = match part {
            Part::Validation => "validation item",
            Part::Test => "test item",
        };
        return Err(Error::NoTargets { what });
    }
    Ok(questions)
}

/// Depth of the lists that metrics are computed on: the deepest cut-off of the paper's tables.
pub const DEPTH: usize = 10;

/// Puts the questions to a model, decoding under the catalogue.
///
/// # Errors
/// The errors of decoding.
pub fn evaluate<M: Seq2Seq>(
    searcher: &Searcher<'_>,
    model: &M,
    questions: &[Question<'_>],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Suite<ItemId>> {
    let histories: Vec<_> = questions.iter().map(|question| question.history).collect();
    let ranked = searcher.rank(model, &histories, DEPTH, progress)?;
    let mut suite = Suite::standard();
    for (question, ranked) in questions.iter().zip(&ranked) {
        let items: Vec<_> = ranked.items.iter().take(DEPTH).map(|(item, _)| *item).collect();
        suite.update(&items, &[question.target]);
    }
    Ok(suite)
}

/// Share of the `k` best freely generated sequences that are no item, over all questions (TIGER, section 4.5).
///
/// # Errors
/// The errors of decoding.
pub fn invalid_rate<M: Seq2Seq>(
    searcher: &Searcher<'_>,
    model: &M,
    questions: &[Question<'_>],
    k: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<f64> {
    let histories: Vec<_> = questions.iter().map(|question| question.history).collect();
    let mut rate = InvalidRate::new(k)?;
    for user in searcher.rank_unconstrained(model, &histories, k, progress)? {
        rate.update(&user.generated, &[]);
    }
    Ok(Metric::<Option<ItemId>>::value(&rate).unwrap_or(0.0))
}

/// What becomes of the items that a user has taken already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnItems {
    /// They are ranked with the others. Of TIGER the paper does not say; its published figures are compared with this.
    #[default]
    Ranked,
    /// They are left out, as S3-Rec's protocol has it, from which the paper took its baselines' figures.
    LeftOut,
}

/// Puts the questions to a model that scores all items. Ties go to the lower row.
///
/// # Errors
/// When a history names an item that the scorer does not know, or a tensor operation fails.
pub fn evaluate_scorer<S: ItemScorer>(scorer: &S, questions: &[Question<'_>], own: OwnItems) -> Result<Suite<ItemId>> {
    const QUESTIONS_PER_BATCH: usize = 512;
    let mut suite = Suite::standard();
    for chunk in questions.chunks(QUESTIONS_PER_BATCH) {
        let mut batch = RaggedBatch::new();
        let mut rows = Vec::new();
        for question in chunk {
            rows.clear();
            rows.extend(question.history.items.iter().map(|item| item.0));
            batch.push(&rows, &[])?;
        }
        let mut scores = scorer.scores(&batch)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        if own == OwnItems::LeftOut {
            for (question, row) in chunk.iter().zip(&mut scores) {
                for item in question.history.items {
                    if let Some(score) = row.get_mut(item.index()) {
                        *score = f32::NEG_INFINITY;
                    }
                }
            }
        }
        for (question, items) in chunk.iter().zip(top_items(&scores, DEPTH)) {
            suite.update(&items, &[question.target]);
        }
    }
    Ok(suite)
}

/// The `k` items of highest score in each row; none with a score of minus infinity.
fn top_items(scores: &[Vec<f32>], k: usize) -> Vec<Vec<ItemId>> {
    scores
        .par_iter()
        .map(|row| {
            let best_first = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
            let mut order: Vec<u32> = (0..row.len() as u32).collect();
            if k < order.len() {
                order.select_nth_unstable_by(k, best_first);
                order.truncate(k);
            }
            order.sort_unstable_by(best_first);
            order.into_iter().filter(|&item| row[item as usize] > f32::NEG_INFINITY).map(ItemId).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use genrec_model::baseline::Popularity;

    use super::*;

    #[test]
    fn the_best_items_come_first_and_ties_go_to_the_lower_row() {
        let scores = [vec![0.5_f32, 2.0, 2.0, -1.0], vec![0.0, 0.0, 0.0, 1.0]];
        let best = top_items(&scores, 3);
        assert_eq!(best[0], [1, 2, 0].map(ItemId));
        assert_eq!(best[1], [3, 0, 1].map(ItemId));
        assert_eq!(top_items(&scores, 9)[0].len(), 4);
    }

    #[test]
    fn own_items_are_left_out_where_that_is_asked_for() -> Result<()> {
        let popular = Popularity::fit(vec![9, 8, 7, 6])?;
        let (own, target) = ([ItemId(0), ItemId(1)], ItemId(2));
        let question = Question { history: History { user: None, items: &own }, target };
        let ndcg = |question: Question<'_>, own| -> Result<Option<f64>> {
            Ok(evaluate_scorer(&popular, &[question], own)?.value("mrr@10"))
        };
        assert_eq!(ndcg(question, OwnItems::Ranked)?, Some(1.0 / 3.0));
        assert_eq!(ndcg(question, OwnItems::LeftOut)?, Some(1.0));
        let again = Question { target: ItemId(1), ..question };
        assert_eq!(ndcg(again, OwnItems::LeftOut)?, Some(0.0), "what is taken again is not found");
        Ok(())
    }
}
