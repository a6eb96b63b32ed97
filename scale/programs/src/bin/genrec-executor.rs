//! An executor of Ballista that computes `semantic_id` and `recommend`.

use clap::Parser;
use genrec_scale::{block_on, cluster::Executor, exit_on_error, start};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Computes parts of queries by a quantiser and a run.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    settings: Executor,
}

fn main() {
    start();
    let Args { settings } = Args::parse();
    exit_on_error(block_on(settings.run()));
}
