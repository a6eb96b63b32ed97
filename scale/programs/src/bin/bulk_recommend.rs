//! Recommendations for a table of histories, on this machine or on a cluster.
//!
//! ```sh
//! cargo run --release --bin bulk_recommend -- --run RUN --input HISTORIES --out OUT -k 10
//! cargo run --release --bin bulk_recommend -- --run RUN --input sequences.txt --out OUT -k 10
//! ```
//!
//! The second makes a table of a `sequences.txt` first, without the last two items of each user, which are for validation and test.

use std::path::PathBuf;

use clap::Parser;
use genrec_scale::{
    BoxError, block_on, exit_on_error,
    recommend::{Job, histories_to_parquet},
    start,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Recommends items to every user of a table.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    job: Job,
}

fn run(args: Args) -> Result<(), BoxError> {
    let mut job = args.job;
    if job.input.extension().is_some_and(|extension| extension == "txt") {
        std::fs::create_dir_all(&job.out)?;
        let table: PathBuf = job.out.join("histories.parquet");
        histories_to_parquet(&job.input, 2, &table)?;
        job.input = table;
    }
    block_on(job.run())?;
    Ok(())
}

fn main() {
    start();
    exit_on_error(run(Args::parse()));
}
