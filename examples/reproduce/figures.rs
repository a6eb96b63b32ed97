//! Figures of rows.

use std::path::{Path, PathBuf};

use support::{
    BoxError,
    cold::{self, Measured},
    create_dir,
    figures::{self, Curve, Panel, Point},
};

use crate::{
    plan::{Experiment, Set},
    published::ENTROPY,
    table::{ENTROPY_AT, Rows, mean},
};

/// Where a figure lies among the results.
fn path(results: &Path, name: &str) -> PathBuf {
    results.join("figures").join(format!("{name}.svg"))
}

/// Where that of a set's codes lies, which is drawn with its row.
pub(crate) fn of_codes(results: &Path, set: Set, seed: u64) -> PathBuf {
    path(results, &format!("hierarchy-{}-s{seed}", set.name()))
}

/// Draws an experiment's rows of a set, as SVG and PNG; `None` where they are no figure.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn draw(
    experiment: Experiment,
    set: Set,
    lines: &[Rows],
    results: &Path,
) -> Result<Option<PathBuf>, BoxError> {
    let (title, panels) = match experiment {
        Experiment::Figure4 => {
            let seed = lines.iter().flat_map(|line| &line.rows).map(|row| row.seed).min().unwrap_or(1);
            return Ok(Some(of_codes(results, set, seed)).filter(|path| path.exists()));
        }
        Experiment::Table3 => ("entropy of the categories of a list", vec![entropy(lines)]),
        Experiment::Figure5 => {
            let Some(measured) = lines.iter().flat_map(|line| &line.rows).find_map(|row| row.cold.as_ref()) else {
                return Ok(None);
            };
            ("Recall over users whose item training has not seen", cold_start(measured))
        }
        Experiment::Figure6 | Experiment::Blocks => {
            ("generated Semantic IDs that are no item's, in %", vec![invalid(lines)])
        }
        _ => return Ok(None),
    };
    let path = path(results, &format!("{}-{}", experiment.name(), set.name()));
    path.parent().map_or(Ok(()), create_dir)?;
    figures::lines(&path, &format!("{}: {title}", set.title()), &panels)?;
    figures::png(&path)?;
    Ok(Some(path))
}

fn plain(x: f64, y: f64) -> Point {
    Point { x, y, interval: None }
}

/// Entropy over temperature, ours and the paper's.
fn entropy(lines: &[Rows]) -> Panel {
    let mut curves = Vec::new();
    for (place, depth) in ENTROPY_AT.into_iter().enumerate() {
        let ours = lines.iter().filter_map(|line| {
            let bits = mean(line.rows.iter().map(|row| row.entropy.get(&depth).copied()))?;
            Some(plain(line.label.parse().ok()?, bits))
        });
        curves.push(Curve { name: format!("ours, first {depth}"), points: ours.collect() });
        let theirs = ENTROPY.iter().filter_map(|(label, bits)| Some(plain(label.parse().ok()?, bits[place])));
        curves.push(Curve { name: format!("the paper's, first {depth}"), points: theirs.collect() });
    }
    Panel {
        title: "entropy (bits)".to_owned(),
        setting: "temperature".to_owned(),
        decimals: 1,
        curves,
        ..Panel::default()
    }
}

/// Share of invalid sequences over how many are generated.
fn invalid(lines: &[Rows]) -> Panel {
    let of = |line: &Rows| {
        let depths: Vec<usize> = line.rows.first().map_or_else(Vec::new, |row| row.invalid.keys().copied().collect());
        let point = |k: usize| {
            let share = mean(line.rows.iter().map(|row| row.invalid.get(&k).copied()))?;
            Some(plain(k as f64, 100.0 * share))
        };
        Curve { name: line.label.clone(), points: depths.into_iter().filter_map(point).collect() }
    };
    let curves = lines.iter().map(of).collect();
    Panel {
        title: "invalid (%)".to_owned(),
        setting: "sequences generated".to_owned(),
        decimals: 2,
        curves,
        ..Panel::default()
    }
}

/// Recall over the length of the list, and over the share of unseen items in it.
fn cold_start(measured: &Measured) -> Vec<Panel> {
    let free = [cold::KNN, cold::KNN_MEAN];
    let shared = [cold::HYBRID, cold::BY_CODES, cold::KNN_QUOTA];
    let epsilon = measured.points.first().map_or(0.0, |point| point.epsilon);
    let curves = |methods: &[&str], wanted: &dyn Fn(&cold::Point) -> bool, x: &dyn Fn(&cold::Point) -> f64| {
        let of = |method: &&str| {
            let points = measured.points.iter().filter(|point| point.method == *method && wanted(point));
            let point = |point: &cold::Point| {
                let found = point.held_out;
                Point { x: x(point), y: found.mean, interval: Some((found.low, found.high)) }
            };
            let mut points: Vec<Point> = points.map(point).collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            Curve { name: (*method).to_owned(), points }
        };
        methods.iter().map(of).collect::<Vec<_>>()
    };
    let by_length = curves(
        &[&shared[..], &free].concat(),
        &|point| free.contains(&point.method.as_str()) || (point.epsilon - epsilon).abs() < 1e-9,
        &|point| point.k as f64,
    );
    let by_share = curves(&shared, &|point| point.k == cold::LENGTH, &|point| point.epsilon);
    vec![
        Panel {
            title: format!("Recall@K, at most {epsilon:.1} of the list unseen"),
            setting: "K".to_owned(),
            decimals: 3,
            curves: by_length,
            ..Panel::default()
        },
        Panel {
            title: format!("Recall@{}", cold::LENGTH),
            setting: "share of the list that may be unseen".to_owned(),
            decimals: 3,
            curves: by_share,
            ..Panel::default()
        },
    ]
}
