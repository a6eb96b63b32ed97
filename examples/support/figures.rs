//! Figures of codes and lists, as SVG: the text is rendered by whoever shows it, so no font is needed here.

mod canvas;
mod comparison;
mod mosaic;
mod shares;
mod usage;

pub use comparison::comparison;
pub use mosaic::mosaic;
pub use shares::shares;
pub use usage::usage;

#[cfg(test)]
mod tests;
