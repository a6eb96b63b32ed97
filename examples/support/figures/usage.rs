//! How evenly the codes of each level are used.

use std::path::Path;

use ndarray::{ArrayView1, ArrayView2};
use plotters::{
    prelude::{AreaSeries, ChartBuilder, DrawingArea, PathElement, SVGBackend},
    style::{Color, IntoFont},
};

use super::canvas::{Align, Canvas, FAINT, INK, MAIN};
use crate::BoxError;

const PANEL: i32 = 340;
const HEIGHT: i32 = 330;
/// Points of a curve at most: more than a panel has pixels.
const POINTS: usize = 600;

/// One panel a level: items with each code, the codes sorted by use; the dashed line is where all would be used equally.
///
/// # Errors
/// When the file cannot be written.
///
/// # Shapes
/// - `codes`: `(items, levels)`
pub fn usage(path: &Path, title: &str, codes: ArrayView2<'_, u32>, sizes: &[u32]) -> Result<(), BoxError> {
    let levels = i32::try_from(sizes.len().max(1))?;
    let canvas = Canvas::new(path, 40 + PANEL * levels, HEIGHT)?;
    canvas.title(title)?;
    let (_, below) = canvas.area().split_vertically(64);
    let panels = below.margin(0, 10, 10, 20).split_evenly((1, sizes.len().max(1)));
    for (level, ((panel, column), &size)) in panels.iter().zip(codes.columns()).zip(sizes).enumerate() {
        let counts = sorted_counts(column);
        draw(panel, &counts, size as usize, codes.nrows())?;
        let x = 20 + PANEL * i32::try_from(level)? + 56;
        let text = format!("level {}: {} of {size} codes used", level + 1, counts.len());
        canvas.text(&text, (x, 54), Align::Left, 16, INK)?;
    }
    canvas.finish()
}

/// Items with each code that is used, most first.
fn sorted_counts(column: ArrayView1<'_, u32>) -> Vec<usize> {
    let mut codes = column.to_vec();
    codes.sort_unstable();
    let mut counts: Vec<usize> = codes.chunk_by(|a, b| a == b).map(<[u32]>::len).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts
}

fn draw(
    panel: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    counts: &[usize],
    size: usize,
    items: usize,
) -> Result<(), BoxError> {
    let size = size.max(1);
    let most = counts.first().copied().unwrap_or(0).max(1) as f64;
    let mut chart = ChartBuilder::on(panel)
        .margin(6)
        .x_label_area_size(44)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..size as f64, 0.0..1.08 * most)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(FAINT.mix(0.0))
        .bold_line_style(FAINT.mix(0.3))
        .axis_style(FAINT)
        .x_labels(5)
        .y_labels(6)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .x_desc("codes, most used first; dashed: even use")
        .y_desc("items")
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .draw()?;
    // A step a code, sampled where there are more codes than pixels.
    let step = size.div_ceil(POINTS);
    let curve = (0..size).step_by(step).flat_map(|rank| {
        let items = counts.get(rank).copied().unwrap_or(0) as f64;
        [(rank as f64, items), ((rank + step).min(size) as f64, items)]
    });
    chart.draw_series(AreaSeries::new(curve, 0.0, MAIN.mix(0.75)).border_style(MAIN))?;
    let even = items as f64 / size as f64;
    let dash = size as f64 / 40.0;
    let dashes = (0..40).step_by(2).map(|piece| {
        let start = f64::from(piece) * dash;
        PathElement::new([(start, even), (start + dash, even)], INK)
    });
    chart.draw_series(dashes)?;
    Ok(())
}
