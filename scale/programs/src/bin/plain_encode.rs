//! The yardstick of `bulk_quantize`: reads and encodes the same files without DataFusion, and keeps nothing.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::time::Instant;

use clap::Parser;
use genrec_scale::{BoxError, exit_on_error, plain, report, start};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Encodes a table of embeddings block by block.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    job: plain::Job,
}

fn run(args: &Args) -> Result<(), BoxError> {
    let begun = Instant::now();
    let mut sum = 0_u64;
    let take = |codes: &ndarray::Array2<u32>| sum += codes.iter().map(|&code| u64::from(code)).sum::<u64>();
    let rows = plain::encode(&args.job.quantizer, &args.job.input, args.job.embedding.as_deref(), take)?;
    report("encoded", rows, begun.elapsed().as_secs_f64());
    println!("the codes sum up to {sum}");
    Ok(())
}

fn main() {
    start();
    exit_on_error(run(&Args::parse()));
}
