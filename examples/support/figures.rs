//! Figures of codes and lists, as SVG, whose text is rendered by whoever shows it, and as PNG.

mod canvas;
mod comparison;
mod lines;
mod mosaic;
mod png;
mod shares;
mod usage;

pub use comparison::comparison;
pub use lines::{Curve, Panel, Point, lines};
pub use mosaic::mosaic;
pub use png::png;
pub use shares::shares;
pub use usage::usage;

#[cfg(test)]
mod tests;
