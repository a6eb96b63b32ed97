//! What kinds of items share a code, after figure 4 of the TIGER paper (Rajput et al. 2023).

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::ArrayView2;

use super::canvas::{Align, COLOURS, Canvas, FAINT, INK, OTHER};
use crate::{BoxError, categories::Categories};

const WIDTH: i32 = 1280;
const HEIGHT: i32 = 700;
const LEFT: i32 = 64;
/// Where the plots end and the legend begins.
const RIGHT: i32 = 1010;
/// First codes, and second codes inside one of them, that are shown.
const FIRST: usize = 32;
const SECOND: usize = 14;
/// First codes that are opened.
const OPENED: usize = 3;

/// Letters of a category's name in the legend.
const NAME: usize = 24;

/// The items of one code, counted by colour.
struct Column {
    code: u32,
    items: Vec<usize>,
    shares: Vec<usize>,
}

/// Above, a column for each of the most used first codes, as wide as it has items, split by their category; on its left that of
/// all items. Below, the same by second code inside the three most used first codes.
///
/// # Errors
/// When the file cannot be written.
///
/// # Shapes
/// - `codes`: `(items, levels)`
pub fn mosaic(path: &Path, title: &str, codes: ArrayView2<'_, u32>, categories: &Categories) -> Result<(), BoxError> {
    let canvas = Canvas::new(path, WIDTH, HEIGHT)?;
    canvas.title(title)?;
    let all: Vec<usize> = (0..codes.nrows().min(categories.by_item().len())).collect();
    legend(&canvas, &all, categories)?;
    if codes.ncols() == 0 || all.is_empty() {
        return canvas.finish();
    }
    let whole = Column { code: 0, shares: shares(&all, categories), items: all };
    let mut first = columns(&whole.items, codes, 0, categories);
    let used = first.len();
    let opened: Vec<(u32, Vec<usize>)> =
        first.iter().take(OPENED).map(|column| (column.code, column.items.clone())).collect();
    first.truncate(FIRST);

    let (top, bottom) = (84, 350);
    canvas.text("share of each category, by first code", (LEFT, 62), Align::Left, 16, INK)?;
    shares_axis(&canvas, LEFT, top, bottom)?;
    stack(&canvas, &whole, (LEFT, LEFT + 56), (top, bottom))?;
    canvas.text("all", (LEFT + 28, bottom + 12), Align::Centre, 13, INK)?;
    let shown: usize = first.iter().map(|column| column.items.len()).sum();
    let share = 100.0 * shown as f64 / whole.items.len() as f64;
    row(&canvas, first, (LEFT + 76, RIGHT), (top, bottom))?;
    let below = if used > FIRST {
        format!("first code: the {FIRST} most used of {used}, {share:.0} % of the items")
    } else {
        format!("first code: all {used} in use")
    };
    canvas.text(&below, ((LEFT + 76 + RIGHT) / 2, bottom + 32), Align::Centre, 14, INK)?;

    if codes.ncols() > 1 {
        let (top, bottom) = (438, 630);
        shares_axis(&canvas, LEFT, top, bottom)?;
        let width = (RIGHT - LEFT + 24) / OPENED as i32;
        for (place, (code, items)) in (0..).zip(&opened) {
            let from = LEFT + width * place;
            let to = from + width - 24;
            let text = format!("first code {code}: {} items, by second code", items.len());
            canvas.text(&text, (from, top - 16), Align::Left, 15, INK)?;
            let mut second = columns(items, codes, 1, categories);
            let used = second.len();
            second.truncate(SECOND);
            row(&canvas, second, (from, to), (top, bottom))?;
            let below =
                if used > SECOND { format!("the {SECOND} most used of {used}") } else { format!("all {used} in use") };
            canvas.text(&below, ((from + to) / 2, bottom + 32), Align::Centre, 14, INK)?;
        }
    }
    canvas.finish()
}

/// One column a code that some of the items have at a level, that with the most items first.
fn columns(items: &[usize], codes: ArrayView2<'_, u32>, level: usize, categories: &Categories) -> Vec<Column> {
    let mut by_code = BTreeMap::<u32, Vec<usize>>::new();
    for &item in items {
        by_code.entry(codes[(item, level)]).or_default().push(item);
    }
    let column = |(code, items): (u32, Vec<usize>)| Column { code, shares: shares(&items, categories), items };
    let mut columns: Vec<Column> = by_code.into_iter().map(column).collect();
    columns.sort_by_key(|column| std::cmp::Reverse(column.items.len()));
    columns
}

/// Items of each category with a colour, then of all others.
fn shares(items: &[usize], categories: &Categories) -> Vec<usize> {
    let mut counts = vec![0; COLOURS.len() + 1];
    for &item in items {
        counts[(categories.by_item()[item] as usize).min(COLOURS.len())] += 1;
    }
    counts
}

/// Columns side by side: sorted by their main category and how much of it they have, so that blocks of one colour show.
fn row(canvas: &Canvas<'_>, mut columns: Vec<Column>, (from, to): (i32, i32), ys: (i32, i32)) -> Result<(), BoxError> {
    columns.sort_by(|a, b| {
        let main = |column: &Column| (0..column.shares.len()).max_by_key(|&c| (column.shares[c], usize::MAX - c));
        let pure =
            |column: &Column| *column.shares.iter().max().unwrap_or(&0) as f64 / column.items.len().max(1) as f64;
        main(a).cmp(&main(b)).then(pure(b).total_cmp(&pure(a))).then(a.code.cmp(&b.code))
    });
    let total = columns.iter().map(|column| column.items.len()).sum::<usize>().max(1) as f64;
    let mut before = 0;
    for column in &columns {
        let edge = |items: usize| from + (f64::from(to - from) * items as f64 / total).round() as i32;
        let (left, right) = (edge(before), edge(before + column.items.len()));
        before += column.items.len();
        // A gap between columns, where there is room for one.
        let gap = i32::from(right - left > 3);
        stack(canvas, column, (left, right - gap), ys)?;
        let label = column.code.to_string();
        if right - left > 7 * i32::try_from(label.len())? {
            canvas.text(&label, ((left + right) / 2, ys.1 + 12), Align::Centre, 12, INK)?;
        }
    }
    Ok(())
}

fn stack(
    canvas: &Canvas<'_>,
    column: &Column,
    (left, right): (i32, i32),
    (top, bottom): (i32, i32),
) -> Result<(), BoxError> {
    let total = column.items.len().max(1) as f64;
    let mut before = 0;
    for (at, &items) in column.shares.iter().enumerate() {
        let edge = |items: usize| bottom - (f64::from(bottom - top) * items as f64 / total).round() as i32;
        let (low, high) = (edge(before), edge(before + items));
        before += items;
        canvas.rectangle((left, high), (right, low), COLOURS.get(at).copied().unwrap_or(OTHER))?;
    }
    Ok(())
}

fn shares_axis(canvas: &Canvas<'_>, x: i32, top: i32, bottom: i32) -> Result<(), BoxError> {
    for percent in [0, 25, 50, 75, 100] {
        let y = bottom - (bottom - top) * percent / 100;
        canvas.text(&format!("{percent} %"), (x - 10, y), Align::Right, 12, INK)?;
        canvas.rectangle((x - 6, y), (x - 2, y + 1), FAINT)?;
    }
    Ok(())
}

fn legend(canvas: &Canvas<'_>, items: &[usize], categories: &Categories) -> Result<(), BoxError> {
    let counts = shares(items, categories);
    let total = items.len().max(1) as f64;
    let rest = categories.names().len().saturating_sub(COLOURS.len());
    let other = format!("{rest} others");
    let names = categories.names().iter().take(COLOURS.len()).map(String::as_str);
    let named = names.zip(COLOURS).zip(&counts);
    let last = (rest > 0).then_some(((other.as_str(), OTHER), &counts[COLOURS.len()]));
    let x = RIGHT + 28;
    canvas.text("category (share of all items)", (x, 62), Align::Left, 14, INK)?;
    for (place, ((name, colour), &count)) in (0..).zip(named.chain(last)) {
        let y = 90 + 24 * place;
        canvas.rectangle((x, y - 7), (x + 14, y + 7), colour)?;
        let text = format!("{} ({:.1} %)", shortened(name), 100.0 * count as f64 / total);
        canvas.text(&text, (x + 22, y), Align::Left, 13, INK)?;
    }
    Ok(())
}

/// A name that fits into the legend.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}…", name[..end].trim_end()),
        None => name.to_owned(),
    }
}
