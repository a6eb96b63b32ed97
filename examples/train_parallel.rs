//! TIGER as `tiger` trains it, by several ranks at once: threads, processes under `mpirun`, GPUs.
//!
//! ```sh
//! cargo run --release --example train_parallel -- --data DIR --out runs/beauty --threads 2
//!
//! cargo build --release --features mpi --example train_parallel
//! mpirun -n 2 target/release/examples/train_parallel --mpi --data DIR --out runs/beauty
//! ```
//!
//! Two ranks train the weights of one; those of other numbers differ in their last bits at first (docs/scale.md). A run may be resumed
//! (`--resume`) by another number. Each rank uses as
//! many threads as there are processors, or `RAYON_NUM_THREADS`: with several on one machine give each its part. With the features `nccl`
//! and `mpi`, and `--device cuda`, rank N of a machine takes its GPU N; threads do so with `nccl` alone.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints its result")]

use std::{fs::File, io::Write, path::PathBuf, time::Instant};

use candle_core::Device;
use clap::Parser;
use genrec::{
    data::Dataset,
    pipeline::{self, EmbeddingSource, Event, Observer, TigerConfig},
    train::{Collective, CollectiveError, Nccl, Threads, TrainError},
};
use support::{BoxError, DeviceArg, ProgressView, asked};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Trains and tests TIGER by several ranks.
#[derive(Debug, Parser)]
struct Args {
    /// Directory with `sequences.txt` and `items.jsonl`.
    #[arg(long)]
    data: PathBuf,
    /// Directory that the run is written to; all ranks must see it.
    #[arg(long)]
    out: PathBuf,
    /// Content embeddings: `tfidf`, `bert:DIR`, `sentence-t5:DIR`, `llm:DIR`, or `npy:FILE` of shape (items, features).
    #[arg(long, value_parser = support::parse_embedder)]
    embedder: Option<EmbeddingSource>,
    /// Settings as JSON, or the `run.json` of another run; what the file leaves out is that of the preset `cpu`.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Passes over the training windows.
    #[arg(long)]
    epochs: Option<u32>,
    /// Steps after which training ends, whatever the epochs.
    #[arg(long)]
    max_steps: Option<u64>,
    /// Sequences of a step, over all ranks.
    #[arg(long)]
    batch_size: Option<usize>,
    /// Goes on with the run in `--out`.
    #[arg(long)]
    resume: bool,
    /// Every random choice derives from it.
    #[arg(long)]
    seed: Option<u64>,
    /// Reads only the first users; for a quick look.
    #[arg(long)]
    limit_users: Option<usize>,
    /// Writes the loss of every step to that file, a line each.
    #[arg(long)]
    losses: Option<PathBuf>,
    /// Ranks that are threads of this process.
    #[arg(long, default_value_t = 1, conflicts_with = "mpi")]
    threads: usize,
    /// Ranks that are the processes of `mpirun`; needs the feature `mpi`.
    #[arg(long)]
    mpi: bool,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    device: DeviceArg,
}

fn config(args: &Args) -> Result<TigerConfig, BoxError> {
    let mut config = support::config_or(args.config.as_deref(), TigerConfig::cpu)?;
    if let Some(embedder) = &args.embedder {
        config.embedder = embedder.clone();
    }
    config.seed = args.seed.unwrap_or(config.seed);
    if args.epochs.is_some() {
        (config.train.epochs, config.train.max_steps) = (args.epochs, None);
    }
    config.train.max_steps = args.max_steps.or(config.train.max_steps);
    config.batch_size = args.batch_size.unwrap_or(config.batch_size);
    Ok(config)
}

/// Writes the losses.
struct Losses {
    file: Option<File>,
    failed: Option<std::io::Error>,
}

impl Observer for Losses {
    fn on_event(&mut self, event: &Event<'_>) {
        if let (Event::TrainStep(step), Some(file)) = (event, &mut self.file)
            && let Err(error) = writeln!(file, "{}", step.loss)
        {
            self.failed.get_or_insert(error);
        }
    }
}

/// The number of this rank's GPU: its own number among the ranks of its machine, which the launcher of processes says.
fn gpu(args: &Args, ranks: &dyn Collective) -> Result<usize, BoxError> {
    if !args.mpi || ranks.ranks() == 1 {
        return Ok(ranks.rank());
    }
    // A launcher may show each rank no GPU but its own.
    if std::env::var("CUDA_VISIBLE_DEVICES").is_ok_and(|seen| !seen.is_empty() && !seen.contains(',')) {
        return Ok(0);
    }
    let names = ["MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "PALS_LOCAL_RANKID"];
    let Some((name, number)) = names.iter().find_map(|name| Some((name, std::env::var(name).ok()?))) else {
        let names = names.join(", ");
        return Err(format!("no variable tells this rank's number on its machine ({names}); set one of them").into());
    };
    number.parse().map_err(|error| format!("{name} is `{number}`, which is no number of a GPU: {error}").into())
}

/// What one rank does.
fn run(args: &Args, dataset: &Dataset, ranks: &dyn Collective) -> Result<(), BoxError> {
    let device = match args.device {
        DeviceArg::Cuda => {
            let number = gpu(args, ranks)?;
            Device::new_cuda(number).map_err(|error| {
                let (rank, ranks) = (ranks.rank(), ranks.ranks());
                format!("rank {rank} of {ranks} cannot open GPU {number}, and each needs one of its own: {error}")
            })?
        }
        other => other.open()?,
    };
    if device.is_cuda() && ranks.ranks() > 1 {
        return train(args, dataset, &Nccl::new(&device, ranks)?, &device);
    }
    train(args, dataset, ranks, &device)
}

fn train(args: &Args, dataset: &Dataset, ranks: &dyn Collective, device: &Device) -> Result<(), BoxError> {
    let config = config(args)?;
    let leads = ranks.rank() == 0;
    let file = args.losses.as_ref().filter(|_| leads).map(File::create).transpose()?;
    let view = leads.then(|| ProgressView::new(&config.train, None));
    let mut watch = (view, Losses { file, failed: None });
    let start = Instant::now();
    let outcome = pipeline::run_together(ranks, dataset, &config, &args.out, device, args.resume, &mut watch)?;
    let Some(outcome) = outcome else { return Ok(()) };
    support::print_report(&outcome.report, &Default::default());
    if let Some(error) = watch.1.failed {
        println!("The losses are not whole: {error}");
    }
    let (ranks, speed) = (ranks.ranks(), outcome.report.timing.examples_per_second);
    println!(
        "{ranks} ranks: {speed:.0} examples a second while training; {:.0} s in all",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Ranks as threads; an error is that of a rank that has failed itself, where there is one.
fn with_threads(args: &Args, dataset: &Dataset) -> Result<(), BoxError> {
    let ranks = Threads::new(args.threads)?;
    let results: Vec<Result<(), BoxError>> = std::thread::scope(|scope| {
        let work = |rank: Threads| scope.spawn(move || run(args, dataset, &rank));
        let threads: Vec<_> = ranks.into_iter().map(work).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a rank panicked".into()))).collect()
    });
    let (secondhand, own): (Vec<_>, Vec<_>) = results.into_iter().filter_map(Result::err).partition(tells_of_another);
    own.into_iter().chain(secondhand).next().map_or(Ok(()), Err)
}

/// Whether it is not this rank that has failed.
fn tells_of_another(error: &BoxError) -> bool {
    if let Some(error) = error.downcast_ref() {
        return matches!(error, CollectiveError::Lost { .. } | CollectiveError::OtherGpu { .. });
    }
    let Some(genrec::Error::Train(error)) = error.downcast_ref() else { return false };
    matches!(**error, TrainError::OtherRank | TrainError::Leader { .. } | TrainError::Collective { .. })
}

#[cfg(feature = "mpi")]
fn with_mpi(args: &Args, dataset: &Dataset) -> Result<(), BoxError> {
    let ranks = genrec::train::Mpi::new()?;
    if let Err(error) = run(args, dataset, &ranks) {
        eprintln!("rank {} of {}: {}", ranks.rank(), ranks.ranks(), support::explained(error.as_ref()));
        if tells_of_another(&error) {
            // Who has failed may have something to say.
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        // The others must not wait for this one.
        ranks.abort(1);
    }
    Ok(())
}

#[cfg(not(feature = "mpi"))]
fn with_mpi(_: &Args, _: &Dataset) -> Result<(), BoxError> {
    Err("this program was built without MPI; build it with `--features mpi`".into())
}

fn start(args: &Args) -> Result<(), BoxError> {
    let mut dataset = asked::dataset(&args.data)?;
    if let Some(users) = args.limit_users {
        dataset.sequences = dataset.sequences.truncated(users);
    }
    if args.mpi { with_mpi(args, &dataset) } else { with_threads(args, &dataset) }
}

fn main() {
    support::start();
    support::exit_on_error(start(&Args::parse()));
}
