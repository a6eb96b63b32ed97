//! Quantities that change with a setting.

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::{ChartBuilder, Circle, DrawingArea, LineSeries, PathElement, SVGBackend},
    style::{Color, IntoFont},
};

use super::canvas::{Align, COLOURS, Canvas, FAINT, INK, OTHER};
use crate::BoxError;

const PANEL: i32 = 480;
const HEIGHT: i32 = 420;
const TOP: i32 = 76;
/// Points of a curve are as wide.
const DOT: i32 = 3;
/// A curve of more points has none.
const DOTS: usize = 60;

/// One point of a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The setting.
    pub x: f64,
    /// What was measured.
    pub y: f64,
    /// Ends of its interval, where there is one.
    pub interval: Option<(f64, f64)>,
}

/// A curve by the name that the legend gives it; the same name has the same colour in every panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// In the legend.
    pub name: String,
    /// By setting, ascending.
    pub points: Vec<Point>,
}

/// Axes and the curves between them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Panel {
    /// Above the axes.
    pub title: String,
    /// Beside the vertical axis; empty where the title says it.
    pub measure: String,
    /// Below the horizontal axis.
    pub setting: String,
    /// Ends of the horizontal axis; those of the points where there are none.
    pub range: Option<(f64, f64)>,
    /// Decimals of the vertical axis' numbers.
    pub decimals: usize,
    /// Drawn in this order.
    pub curves: Vec<Curve>,
}

/// Panels side by side with one legend for all; points without finite values are left out.
///
/// # Errors
/// When the file cannot be written.
pub fn lines(path: &Path, title: &str, panels: &[Panel]) -> Result<(), BoxError> {
    let mut names: Vec<&str> = Vec::new();
    for curve in panels.iter().flat_map(|panel| &panel.curves) {
        if !names.contains(&curve.name.as_str()) {
            names.push(&curve.name);
        }
    }
    let longest = i32::try_from(names.iter().map(|name| name.chars().count()).max().unwrap_or(0))?;
    let right = 20 + PANEL * i32::try_from(panels.len())?;
    let canvas = Canvas::new(path, right + 64 + 8 * longest, HEIGHT)?;
    canvas.title(title)?;
    let colour = |name: &str| names.iter().position(|other| *other == name).and_then(|at| COLOURS.get(at));
    for (place, panel) in (0..).zip(panels) {
        let left = 20 + PANEL * place;
        let indent = if panel.measure.is_empty() { 64 } else { 80 };
        canvas.text(&panel.title, (left + indent, TOP - 20), Align::Left, 15, INK)?;
        let area = canvas.area().clone().shrink((left, TOP), (PANEL - 16, HEIGHT - TOP - 12));
        draw(&area, panel, |name| colour(name).copied().unwrap_or(OTHER))?;
    }
    for (place, name) in (0..).zip(&names) {
        let (x, y) = (right + 12, TOP + 24 + 24 * place);
        canvas.rectangle((x, y - 2), (x + 22, y + 2), colour(name).copied().unwrap_or(OTHER))?;
        canvas.text(name, (x + 30, y), Align::Left, 13, INK)?;
    }
    canvas.finish()
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    panel: &Panel,
    colour: impl Fn(&str) -> plotters::style::RGBColor,
) -> Result<(), BoxError> {
    let finite = |point: &&Point| point.x.is_finite() && point.y.is_finite();
    let points = || panel.curves.iter().flat_map(|curve| &curve.points).filter(finite);
    let most = points().map(|point| point.interval.map_or(point.y, |(_, high)| high)).fold(0.0, f64::max);
    let first = points().map(|point| point.x).fold(f64::INFINITY, f64::min);
    let last = points().map(|point| point.x).fold(f64::NEG_INFINITY, f64::max);
    let (first, last) = panel.range.map_or((first, last), |(from, to)| (from.min(first), to.max(last)));
    if first > last || points().next().is_none() {
        return Ok(());
    }
    let room = if last > first { 0.03 * (last - first) } else { 1.0 };
    let decimals = panel.decimals;
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .x_label_area_size(44)
        .y_label_area_size(if panel.measure.is_empty() { 58 } else { 74 })
        .build_cartesian_2d(first - room..last + room, 0.0..1.06 * most.max(f64::MIN_POSITIVE))?;
    let y_label = move |y: &f64| format!("{y:.decimals$}");
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh()
        .light_line_style(FAINT.mix(0.0))
        .bold_line_style(FAINT.mix(0.3))
        .axis_style(FAINT)
        .x_labels(6)
        .y_labels(7)
        .x_label_formatter(&|x| format!("{x:.1}").trim_end_matches(".0").to_owned())
        .y_label_formatter(&y_label)
        .x_desc(panel.setting.as_str())
        .label_style(("sans-serif", 13).into_font().color(&INK));
    if !panel.measure.is_empty() {
        mesh.y_desc(panel.measure.as_str());
    }
    mesh.draw()?;
    drop(mesh);
    for curve in &panel.curves {
        let colour = colour(&curve.name);
        let points: Vec<&Point> = curve.points.iter().filter(finite).collect();
        chart.draw_series(LineSeries::new(points.iter().map(|point| (point.x, point.y)), colour.stroke_width(2)))?;
        let dots = points
            .iter()
            .filter(|_| points.len() <= DOTS)
            .map(|point| Circle::new((point.x, point.y), DOT, colour.filled()));
        chart.draw_series(dots)?;
        let bars = points.iter().filter_map(|point| point.interval.map(|ends| (point.x, ends)));
        chart.draw_series(bars.map(|(x, (low, high))| PathElement::new([(x, low), (x, high)], colour.mix(0.6))))?;
    }
    Ok(())
}
