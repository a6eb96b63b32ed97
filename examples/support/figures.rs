//! Figures of codes, as SVG: the text is rendered by whoever shows it, so no font is needed here.

mod canvas;
mod comparison;
mod mosaic;
mod usage;

pub use comparison::comparison;
pub use mosaic::mosaic;
pub use usage::usage;

#[cfg(test)]
mod tests;
