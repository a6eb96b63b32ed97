//! Rows as tables in Markdown: ours, the paper's, and what the differences are worth.

use std::fmt::Write as _;

use genrec::eval::{
    bootstrap::{BootstrapConfig, paired_difference},
    seeds::{OverSeeds, over_seeds},
    significance::{RandomisationConfig, paired_randomisation},
};
use support::BoxError;

use crate::{
    plan::Set,
    published::{ENTROPY, Figures},
    row::Row,
};

/// Examples that the paper's model saw: 200,000 steps of 256.
const PAPER_EXAMPLES: f64 = 51.2e6;

/// Lengths of the lists of table 3.
pub(crate) const ENTROPY_AT: [usize; 3] = [10, 20, 50];

const METRICS: [&str; 4] = ["recall@5", "ndcg@5", "recall@10", "ndcg@10"];

/// A line of a table: one row a seed.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) name: &'static str,
    /// The name of the line that it is compared with.
    pub(crate) against: Option<&'static str>,
    pub(crate) label: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) paper: Option<Figures>,
}

/// `.0648` for 0.0648.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    match text.strip_prefix('0') {
        Some(rest) => rest.to_owned(),
        None => text.strip_prefix("-0").map_or(text.clone(), |rest| format!("-{rest}")),
    }
}

fn signed(value: f64) -> String {
    if value < 0.0 { short(value) } else { format!("+{}", short(value)) }
}

impl Rows {
    fn over_seeds(&self, metric: &str) -> Result<OverSeeds, BoxError> {
        Ok(over_seeds(&self.rows.iter().map(|row| row.test.value(metric)).collect::<Vec<_>>(), 0.95)?)
    }

    /// The mean over seeds with the items that users have taken left out.
    fn without_own(&self, metric: &str) -> String {
        mean(self.rows.iter().map(|row| Some(row.without_own.value(metric)))).map_or_else(|| "–".to_owned(), short)
    }

    /// The value with its interval: over seeds where there are several, over users where there is one.
    fn with_interval(&self, metric: &str) -> Result<String, BoxError> {
        let value = self.over_seeds(metric)?;
        let bounds = match (value.spread, self.rows.first()) {
            (Some(spread), _) => Some((spread.low, spread.high)),
            (None, Some(row)) => row.test.intervals.get(metric).map(|interval| (interval.low, interval.high)),
            (None, None) => None,
        };
        let mean = short(value.mean);
        Ok(bounds.map_or(mean.clone(), |(low, high)| format!("{mean} [{}, {}]", short(low), short(high))))
    }
}

/// Recall and NDCG beside the paper's, and what training took.
///
/// # Errors
/// When a line has no row.
pub(crate) fn recall_and_ndcg(lines: &[Rows]) -> Result<String, BoxError> {
    let mut text = String::from(
        "| | Recall@5 | NDCG@5 | Recall@10 | NDCG@10 | own items left out | the paper's | seeds | examples | of the paper's | minutes |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for line in lines {
        let [recall_5, ndcg_5, ..] = METRICS;
        let paper = line.paper.map_or_else(
            || "–".to_owned(),
            |paper| paper.map(|value| if value.is_nan() { "–".to_owned() } else { short(value) }).join(" "),
        );
        let examples = mean(line.rows.iter().map(|row| row.train.as_ref().map(|train| train.examples as f64)));
        // Only a TIGER's examples are windows of a history, as the paper's are.
        let windows = examples.filter(|_| line.rows.iter().all(|row| row.sid.is_some()));
        let minutes = mean(line.rows.iter().map(|row| Some(row.manifest.minutes)));
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {paper} | {} | {} | {} | {} |",
            line.label,
            short(line.over_seeds(recall_5)?.mean),
            short(line.over_seeds(ndcg_5)?.mean),
            line.with_interval("recall@10")?,
            line.with_interval("ndcg@10")?,
            METRICS[2..].iter().map(|metric| line.without_own(metric)).collect::<Vec<_>>().join(" "),
            line.rows.len(),
            examples.map_or_else(|| "–".into(), |examples| format!("{:.1} M", examples / 1e6)),
            windows.map_or_else(|| "–".into(), |windows| format!("{:.1} %", 100.0 * windows / PAPER_EXAMPLES)),
            minutes.map_or_else(|| "–".into(), |minutes| format!("{minutes:.0}")),
        )?;
    }
    Ok(text)
}

/// The mean of what is there; none where nothing is.
pub(crate) fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.flatten().collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Each line against the one that it is to be compared with, user by user, over the first seed that both have on the same data.
///
/// # Errors
/// When the two have not the same users.
pub(crate) fn differences(lines: &[Rows]) -> Result<String, BoxError> {
    let mut text = String::new();
    for line in lines {
        let Some(other) = lines.iter().find(|other| Some(other.name) == line.against) else { continue };
        let both = line.rows.iter().find_map(|row| {
            let same = |other: &&Row| other.seed == row.seed && other.manifest.data_crc32 == row.manifest.data_crc32;
            other.rows.iter().find(same).map(|other| (row, other))
        });
        let Some((row, other_row)) = both else { continue };
        let mut parts = Vec::new();
        let [ours, theirs] = [row, other_row].map(|row| {
            let ranks = &row.test.ranks;
            [("Recall@10", ranks.recall(10)), ("NDCG@10", ranks.ndcg(10))]
        });
        for ((metric, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            let interval = paired_difference(ours, theirs, BootstrapConfig::default().with_seed(row.seed))?;
            let test = paired_randomisation(ours, theirs, RandomisationConfig::default().with_seed(row.seed))?;
            parts.push(format!(
                "{metric} {} [{}, {}], p {}",
                signed(interval.mean),
                signed(interval.low),
                signed(interval.high),
                if test.p_value < 0.001 { "< .001".to_owned() } else { format!("= {:.3}", test.p_value) }
            ));
        }
        let trained = unlike(row, other_row).map_or_else(String::new, |examples| format!("; {examples}"));
        writeln!(text, "- {} minus {}: {}{trained}", line.label, other.label, parts.join("; "))?;
    }
    Ok(text)
}

/// Examples of both rows, where one of two that generate Semantic IDs saw a tenth more than the other: the test is of users, and knows
/// nothing of that.
fn unlike(row: &Row, other: &Row) -> Option<String> {
    let [ours, theirs] =
        [row, other].map(|row| row.sid.as_ref().and(row.train.as_ref()).map(|train| train.examples as f64));
    let (ours, theirs) = (ours?, theirs?);
    (ours.max(theirs) > 1.1 * ours.min(theirs))
        .then(|| format!("of {:.1} M examples, against {:.1} M", ours / 1e6, theirs / 1e6))
}

/// Share of invalid sequences by how many are generated.
///
/// # Errors
/// When text cannot be written.
pub(crate) fn invalid(lines: &[Rows]) -> Result<String, BoxError> {
    let depths: Vec<usize> = lines
        .iter()
        .flat_map(|line| &line.rows)
        .find(|row| !row.invalid.is_empty())
        .map_or_else(Vec::new, |row| row.invalid.keys().copied().collect());
    let mut text = String::from("| |");
    depths.iter().try_for_each(|k| write!(text, " at {k} |"))?;
    text.push_str("\n|---|");
    depths.iter().for_each(|_| text.push_str("---|"));
    text.push('\n');
    for line in lines {
        write!(text, "| {} |", line.label)?;
        for k in &depths {
            let rate = mean(line.rows.iter().map(|row| row.invalid.get(k).copied()));
            write!(text, " {} |", rate.map_or_else(|| "–".into(), |rate| format!("{:.3} %", 100.0 * rate)))?;
        }
        text.push('\n');
    }
    Ok(text)
}

/// Variety of categories by temperature, beside the paper's.
///
/// # Errors
/// When text cannot be written.
pub(crate) fn entropy(lines: &[Rows]) -> Result<String, BoxError> {
    let mut text = String::from(
        "| temperature | Entropy@10 | @20 | @50 | the paper's | Recall@10 | NDCG@10 | users |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for line in lines {
        let bits = |depth| mean(line.rows.iter().map(|row| row.entropy.get(&depth).copied()));
        let bits = ENTROPY_AT.map(|depth| bits(depth).map_or_else(|| "–".to_owned(), |bits| format!("{bits:.2}")));
        let paper = ENTROPY.iter().find(|(label, _)| *label == line.label);
        let paper = paper.map_or_else(|| "–".to_owned(), |(_, bits)| bits.map(|bits| format!("{bits:.2}")).join(" "));
        writeln!(
            text,
            "| {} | {} | {paper} | {} | {} | {} |",
            line.label,
            bits.join(" | "),
            line.with_interval("recall@10")?,
            line.with_interval("ndcg@10")?,
            line.rows.first().map_or(0, |row| row.test.ranks.users())
        )?;
    }
    Ok(text)
}

/// What the Semantic IDs are like.
///
/// # Errors
/// When text cannot be written.
pub(crate) fn codes(lines: &[Rows]) -> Result<String, BoxError> {
    let mut text =
        String::from("| | collisions | largest group | codes used | perplexity | error |\n|---|---|---|---|---|---|\n");
    for line in lines {
        let Some(sid) = line.rows.first().and_then(|row| row.sid.as_ref()) else { continue };
        let used: Vec<String> = sid.codes_used.iter().map(u32::to_string).collect();
        let perplexity: Vec<String> = sid.perplexity.iter().map(|value| format!("{value:.0}")).collect();
        writeln!(
            text,
            "| {} | {:.2} % | {} | {} | {} | {} |",
            line.label,
            100.0 * sid.collision_rate,
            sid.largest_group,
            used.join(" / "),
            perplexity.join(" / "),
            sid.reconstruction_error.map_or_else(|| "–".to_owned(), |error| format!("{error:.3}"))
        )?;
    }
    Ok(text)
}

/// What codes say of categories.
///
/// # Errors
/// When text cannot be written.
pub(crate) fn purity(lines: &[Rows]) -> Result<String, BoxError> {
    let mut text = String::from(
        "| codes | distinct | items of their main category | entropy left (bits) | mutual information, normalised |\n\
         |---|---|---|---|---|\n",
    );
    for report in lines.iter().flat_map(|line| &line.rows).filter_map(|row| row.purity.as_ref()).take(1) {
        writeln!(text, "| none | 1 | {:.1} % | {:.2} | – |", 100.0 * report.majority, report.entropy_bits)?;
        for prefix in &report.prefixes {
            writeln!(
                text,
                "| first {} | {} | {:.1} % | {:.2} | {:.2} |",
                prefix.length,
                prefix.distinct,
                100.0 * prefix.purity,
                prefix.entropy_bits,
                prefix.normalized_mutual_information
            )?;
        }
    }
    Ok(text)
}

/// How well items are found that training has not seen: over the length of the list, and over the share they may have.
///
/// # Errors
/// When text cannot be written.
pub(crate) fn cold_start(lines: &[Rows]) -> Result<String, BoxError> {
    let mut text = String::new();
    let measured = lines.iter().flat_map(|line| &line.rows).filter_map(|row| Some((row.seed, row.cold.as_ref()?)));
    for (seed, measured) in measured.take(1) {
        writeln!(
            text,
            "Seed {seed}, {} items held out; Recall over the {} users whose test item is one of them, with 95 % bootstrap over these users; \
             \"others\": over {} whose test item is not.\n\n\
             | method | unseen, at most | K | Recall@K | less Semantic-KNN's with so many unseen | others |\n|---|---|---|---|---|---|",
            measured.held_out_items, measured.users, measured.others
        )?;
        for point in &measured.points {
            let over = point.over_knn.map_or_else(
                || "–".to_owned(),
                |over| format!("{} [{}, {}]", signed(over.mean), signed(over.low), signed(over.high)),
            );
            writeln!(
                text,
                "| {} | {:.1} | {} | {} [{}, {}] | {over} | {} |",
                point.method,
                point.epsilon,
                point.k,
                short(point.held_out.mean),
                short(point.held_out.low),
                short(point.held_out.high),
                short(point.others)
            )?;
        }
    }
    Ok(text)
}

/// Counts of a set beside the paper's.
///
/// # Errors
/// When text cannot be written.
pub(crate) fn statistics(sets: &[(Set, genrec::data::Statistics)]) -> Result<String, BoxError> {
    let mut text = String::from(
        "| | users | items | interactions | mean length | median | the paper's users, items, mean, median |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (set, found) in sets {
        let paper = match set {
            Set::Beauty => "22,363 12,101 8.87 6",
            Set::Sports => "35,598 18,357 8.32 6",
            Set::Toys => "19,412 11,924 8.63 6",
        };
        writeln!(
            text,
            "| {} | {} | {} | {} | {:.2} | {} | {paper} |",
            set.title(),
            found.users,
            found.items,
            found.interactions,
            found.mean_length,
            found.median_length
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0648, -0.002, 0.0, 1.5].map(short), [".0648", "-.0020", ".0000", "1.5000"]);
        assert_eq!([0.01, -0.01].map(signed), ["+.0100", "-.0100"]);
    }
}
