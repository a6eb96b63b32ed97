//! Valid files of every kind, format and shape, in the form that each fuzz target takes them.

mod config;
mod data;
mod index;
mod weights;

use std::error::Error;

/// Inputs of one target, each with a name.
pub type Seeds = Vec<(String, Vec<u8>)>;

pub fn all() -> Result<[(&'static str, Seeds); 4], Box<dyn Error>> {
    Ok([
        ("config", config::seeds()?),
        ("data", data::seeds()),
        ("index", index::seeds()?),
        ("weights", weights::seeds()?),
    ])
}
