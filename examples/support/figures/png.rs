//! Figures for those who show no SVG.

use std::{path::Path, sync::Arc};

use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree, fontdb::Database},
};

use crate::BoxError;

/// Pixels a pixel of the SVG: sharp on a dense screen.
const SCALE: f32 = 2.0;

/// Renders an SVG to a PNG of the same name beside it, its text in Noto Sans, which is part of the program: the same bytes on
/// every machine.
///
/// # Errors
/// When the SVG cannot be read or the PNG not be written.
pub fn png(svg: &Path) -> Result<(), BoxError> {
    let text = std::fs::read_to_string(svg).map_err(|error| format!("cannot read `{}`: {error}", svg.display()))?;
    let mut fonts = Database::new();
    fonts.load_font_data(notosans::REGULAR_TTF.to_vec());
    fonts.load_font_data(notosans::BOLD_TTF.to_vec());
    fonts.set_sans_serif_family("Noto Sans");
    let options = Options { fontdb: Arc::new(fonts), ..Options::default() };
    let tree = Tree::from_str(&text, &options)?;
    let size = tree.size().to_int_size().scale_by(SCALE).ok_or("a figure without a size")?;
    let mut pixels = Pixmap::new(size.width(), size.height()).ok_or("a figure too large to render")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    let path = svg.with_extension("png");
    Ok(pixels.save_png(&path).map_err(|error| format!("cannot write `{}`: {error}", path.display()))?)
}
