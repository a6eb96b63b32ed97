//! Methods side by side.

use std::path::Path;

use super::canvas::{Align, COLOURS, Canvas, FAINT, INK};
use crate::{BoxError, report::MethodReport};

const TOP: i32 = 100;
const ROW: i32 = 26;
const PANEL: i32 = 300;
/// Room for the number behind the longest bar.
const NUMBER: i32 = 64;

/// One quantity of a method.
struct Panel {
    title: &'static str,
    better: &'static str,
    value: fn(&MethodReport) -> Option<f64>,
    text: fn(f64) -> String,
}

const PANELS: [Panel; 3] = [
    Panel {
        title: "collision rate",
        better: "less is better",
        value: |method| Some(method.measures.collision_rate),
        text: |value| format!("{:.1} %", 100.0 * value),
    },
    Panel {
        title: "reconstruction error",
        better: "share of the variance, less is better",
        value: |method| method.measures.reconstruction,
        text: |value| format!("{value:.3}"),
    },
    Panel {
        title: "purity of the first code",
        better: "items of its main category, more is better",
        value: |method| method.measures.purity.first().copied(),
        text: |value| format!("{value:.3}"),
    },
];

/// A row a method and a column of bars for each of collision rate, reconstruction error and purity; a quantity that no method has
/// is left out.
///
/// # Errors
/// When the file cannot be written.
pub fn comparison(path: &Path, title: &str, methods: &[MethodReport]) -> Result<(), BoxError> {
    let panels: Vec<&Panel> =
        PANELS.iter().filter(|panel| methods.iter().any(|method| (panel.value)(method).is_some())).collect();
    let longest = methods.iter().map(|method| method.name.len()).max().unwrap_or(0);
    let names = 40 + 8 * i32::try_from(longest)?;
    let rows = i32::try_from(methods.len())?;
    let width = names + PANEL * i32::try_from(panels.len())? + 20;
    let canvas = Canvas::new(path, width.max(480), TOP + ROW * rows + 24)?;
    canvas.title(title)?;
    for (row, method) in (0..).zip(methods) {
        canvas.text(&method.name, (names - 14, middle(row)), Align::Right, 15, INK)?;
    }
    for ((place, panel), colour) in (0..).zip(panels).zip(COLOURS) {
        let left = names + PANEL * place;
        canvas.text(panel.title, (left, TOP - 38), Align::Left, 16, INK)?;
        canvas.text(panel.better, (left, TOP - 18), Align::Left, 12, FAINT)?;
        let values: Vec<Option<f64>> =
            methods.iter().map(|method| (panel.value)(method).filter(|value| value.is_finite())).collect();
        let most = values.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
        for (row, value) in (0..).zip(&values) {
            let y = middle(row);
            let length = f64::from(PANEL - NUMBER) * value.unwrap_or(0.0).max(0.0) / most;
            let end = left + length.round() as i32;
            canvas.rectangle((left, y - 8), (end, y + 8), colour)?;
            let (text, ink) = value.map_or_else(|| ("-".to_owned(), FAINT), |value| ((panel.text)(value), INK));
            canvas.text(&text, (end + 6, y), Align::Left, 13, ink)?;
        }
        canvas.rectangle((left - 1, TOP), (left, TOP + ROW * rows), FAINT)?;
    }
    canvas.finish()
}

/// The middle of a row.
fn middle(row: i32) -> i32 {
    TOP + ROW * row + ROW / 2
}
