mod errors;
mod resume;
mod semantics;
mod together;
mod toy;
