//! Recommendations for a table of histories, on this machine or on a cluster.
//!
//! ```sh
//! cargo run --release --bin bulk_recommend -- --run RUN --input HISTORIES --out OUT -k 10
//! cargo run --release --bin bulk_recommend -- --run RUN --input sequences.txt --out OUT -k 10
//! ```
//!
//! The second makes a table of a `sequences.txt` first, of the columns `id` and `history`.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

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
    /// Of a `sequences.txt`, how many of each user's last items are no history; 2 were held out for validation and test.
    #[arg(long, default_value_t = 0)]
    leave_out: usize,
}

fn run(args: Args) -> Result<(), BoxError> {
    let Args { mut job, leave_out } = args;
    if job.input.extension().is_some_and(|extension| extension == "txt") {
        std::fs::create_dir_all(&job.out)?;
        let table: PathBuf = job.out.join("histories.parquet");
        histories_to_parquet(&job.input, leave_out, &table)?;
        job.input = table;
    }
    let rows = block_on(job.run())?;
    println!("lists for {rows} rows are in {}", job.out.join("recommendations").display());
    Ok(())
}

fn main() {
    start();
    exit_on_error(run(Args::parse()));
}
