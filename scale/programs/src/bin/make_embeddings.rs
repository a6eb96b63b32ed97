//! Made-up embeddings in Parquet, the same bytes for the same settings.

use clap::Parser;
use genrec_scale::{exit_on_error, generate::Table, start};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Writes a table of embeddings that lie in clusters.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    table: Table,
}

fn main() {
    start();
    exit_on_error(Args::parse().table.write());
}
