//! A scheduler of Ballista that plans queries that call `semantic_id` and `recommend`.

use clap::Parser;
use genrec_scale::{block_on, cluster::Scheduler, exit_on_error, start};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Plans the queries of clients and hands their parts to executors.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    settings: Scheduler,
}

fn main() {
    start();
    let Args { settings } = Args::parse();
    exit_on_error(block_on(settings.run()));
}
