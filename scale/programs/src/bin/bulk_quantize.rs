//! Semantic IDs for a table of embeddings, on this machine or on a cluster.
//!
//! ```sh
//! cargo run --release --bin bulk_quantize -- --quantizer QUANTIZER --input EMBEDDINGS --out OUT
//! cargo run --release --bin bulk_quantize -- --quantizer QUANTIZER --input EMBEDDINGS --out OUT --cluster df://localhost:50050
//! ```

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use clap::Parser;
use genrec_scale::{
    BoxError, block_on, exit_on_error,
    quantize::{Job, Outcome},
    report, start,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives every item of a table its Semantic ID.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    job: Job,
}

fn run(args: &Args) -> Result<(), BoxError> {
    let outcome = block_on(args.job.run())?;
    report("in all", outcome.rows, outcome.seconds.iter().sum());
    let Outcome { rows, distinct, cells, .. } = outcome;
    let sids = args.job.out.join("sids");
    println!("Semantic IDs of {rows} items are in {}", sids.display());
    if rows < distinct {
        println!("with the {} given before, which are not there again, all are different", distinct - rows);
    }
    println!("{distinct} Semantic IDs have {cells} different tuples of codes");
    Ok(())
}

fn main() {
    start();
    exit_on_error(run(&Args::parse()));
}
