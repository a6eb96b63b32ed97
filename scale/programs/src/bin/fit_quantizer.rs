//! Fits a quantiser on the first rows of a table of embeddings.

use std::path::PathBuf;

use clap::Parser;
use genrec_scale::{BoxError, exit_on_error, fit::Sample, start};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fits a quantiser on a sample and saves it.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    sample: Sample,
    /// Directory that gets the quantiser.
    #[arg(long)]
    out: PathBuf,
}

fn run(args: &Args) -> Result<(), BoxError> {
    Ok(args.sample.fit()?.save(&args.out)?)
}

fn main() {
    start();
    exit_on_error(run(&Args::parse()));
}
