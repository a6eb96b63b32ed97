//! A white page measured in pixels, and the marks that every figure is made of.

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::{DrawingArea, IntoDrawingArea, Rectangle, SVGBackend},
    style::{
        Color, FontStyle, IntoFont, RGBColor, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use crate::BoxError;

/// Text and axes.
pub(super) const INK: RGBColor = RGBColor(40, 44, 52);
/// Lines and labels that stand back.
pub(super) const FAINT: RGBColor = RGBColor(150, 155, 165);
/// What there is one kind of.
pub(super) const MAIN: RGBColor = RGBColor(0x3b, 0x6e, 0xa8);
/// Everything that has no colour of its own.
pub(super) const OTHER: RGBColor = RGBColor(0xc9, 0xcc, 0xd1);

/// Colours that can be told apart, by rank.
pub(super) const COLOURS: [RGBColor; 9] = [
    RGBColor(0x4e, 0x79, 0xa7),
    RGBColor(0xf2, 0x8e, 0x2b),
    RGBColor(0x59, 0xa1, 0x4f),
    RGBColor(0xe1, 0x57, 0x59),
    RGBColor(0xb0, 0x7a, 0xa1),
    RGBColor(0xed, 0xc9, 0x48),
    RGBColor(0x76, 0xb7, 0xb2),
    RGBColor(0xff, 0x9d, 0xa7),
    RGBColor(0x9c, 0x75, 0x5f),
];

/// Where a text ends that is placed at a point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Align {
    Left,
    Centre,
    Right,
}

/// The page.
pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(path: &'a Path, width: i32, height: i32) -> Result<Self, BoxError> {
        let area = SVGBackend::new(path, (width.unsigned_abs(), height.unsigned_abs())).into_drawing_area();
        area.fill(&RGBColor(255, 255, 255))?;
        Ok(Self { area })
    }

    /// The whole page, for charts with axes.
    pub(super) fn area(&self) -> &DrawingArea<SVGBackend<'a>, Shift> {
        &self.area
    }

    pub(super) fn title(&self, text: &str) -> Result<(), BoxError> {
        let style = TextStyle::from(("sans-serif", 20).into_font().style(FontStyle::Bold)).color(&INK);
        Ok(self.area.draw_text(text, &style.pos(Pos::new(HPos::Left, VPos::Top)), (20, 16))?)
    }

    /// A line of text with its middle at `y`.
    pub(super) fn text(
        &self,
        text: &str,
        (x, y): (i32, i32),
        align: Align,
        size: i32,
        colour: RGBColor,
    ) -> Result<(), BoxError> {
        let side = match align {
            Align::Left => HPos::Left,
            Align::Centre => HPos::Center,
            Align::Right => HPos::Right,
        };
        let style = TextStyle::from(("sans-serif", size).into_font()).color(&colour);
        Ok(self.area.draw_text(text, &style.pos(Pos::new(side, VPos::Center)), (x, y))?)
    }

    /// A filled rectangle, the corners included; nothing where it would be empty.
    pub(super) fn rectangle(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Result<(), BoxError> {
        if to.0 > from.0 && to.1 > from.1 {
            self.area.draw(&Rectangle::new([from, to], colour.filled()))?;
        }
        Ok(())
    }

    /// Writes the file.
    pub(super) fn finish(self) -> Result<(), BoxError> {
        Ok(self.area.present()?)
    }
}
