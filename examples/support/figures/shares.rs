//! What several lists are made of.

use std::path::Path;

use super::canvas::{Align, COLOURS, Canvas, FAINT, INK, OTHER};
use crate::BoxError;

const TOP: i32 = 90;
const ROW: i32 = 26;
const BAR: i32 = 720;
const LEGEND: i32 = 260;

/// A bar a row, cut into the shares of each name; names without a colour of their own are drawn together.
///
/// # Errors
/// When the file cannot be written.
pub fn shares(path: &Path, title: &str, names: &[String], rows: &[(String, Vec<f64>)]) -> Result<(), BoxError> {
    let longest = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let left = 40 + 8 * i32::try_from(longest)?;
    let drawn = i32::try_from(rows.len().max(names.len().min(COLOURS.len() + 1)))?;
    let canvas = Canvas::new(path, left + BAR + LEGEND, TOP + ROW * drawn + 24)?;
    canvas.title(title)?;
    for percent in [0, 25, 50, 75, 100] {
        let x = left + BAR * percent / 100;
        canvas.text(&format!("{percent} %"), (x, TOP - 18), Align::Centre, 12, FAINT)?;
    }
    for (row, (name, shares)) in (0..).zip(rows) {
        let middle = TOP + ROW * row + ROW / 2;
        canvas.text(name, (left - 14, middle), Align::Right, 14, INK)?;
        let edge = |share: f64| left + (f64::from(BAR) * share).round() as i32;
        let mut before = 0.0;
        for (place, &share) in shares.iter().enumerate() {
            let colour = COLOURS.get(place).copied().unwrap_or(OTHER);
            canvas.rectangle((edge(before), middle - 9), (edge(before + share), middle + 9), colour)?;
            before += share;
        }
    }
    let x = left + BAR + 24;
    let rest = names.len().saturating_sub(COLOURS.len());
    let others = (rest > 0).then(|| (format!("{rest} others"), OTHER));
    let named = names.iter().cloned().zip(COLOURS).chain(others);
    for (place, (name, colour)) in (0..).zip(named) {
        let y = TOP + 24 * place + ROW / 2;
        canvas.rectangle((x, y - 7), (x + 14, y + 7), colour)?;
        canvas.text(&name, (x + 22, y), Align::Left, 13, INK)?;
    }
    canvas.finish()
}
