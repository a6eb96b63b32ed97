mod errors;
mod resume;
mod semantics;
mod toy;
