//! Makes of a finished run a directory for the Hugging Face Hub: what recommending needs, and a model card.
//!
//! ```sh
//! cargo run --release --example export -- --run runs/beauty --out exported --license mit --repo owner/beauty
//! hf upload owner/beauty exported .
//! ```

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::path::PathBuf;

use clap::Parser;
use genrec::Export;
use support::{BoxError, waiting};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Makes of a finished run a directory for the Hugging Face Hub.
#[derive(Debug, Parser)]
struct Args {
    /// Directory of a finished run.
    #[arg(long)]
    run: PathBuf,
    /// An empty or new directory.
    #[arg(long)]
    out: PathBuf,
    /// Licence of weights and catalogue, by the Hub's name for it: `mit`, `apache-2.0`, `cc-by-nc-4.0`, `other`.
    #[arg(long)]
    license: String,
    /// What the model is called; by default the repository's name, or that of the run's directory.
    #[arg(long)]
    name: Option<String>,
    /// Where it will be uploaded to, `owner/name`; the card's examples name it.
    #[arg(long)]
    repo: Option<String>,
    /// A file whose Markdown opens the card: what it is and who made it.
    #[arg(long)]
    description: Option<PathBuf>,
    /// Data sets on the Hub that it was trained on, separated by commas.
    #[arg(long, value_delimiter = ',')]
    dataset: Vec<String>,
    /// Languages of the items' texts by their codes, separated by commas.
    #[arg(long, value_delimiter = ',')]
    language: Vec<String>,
    /// Tags beside those that every export has, separated by commas.
    #[arg(long, value_delimiter = ',')]
    tag: Vec<String>,
    /// What the pretrained model that embedded the texts is called where it was published.
    #[arg(long)]
    embedder: Option<String>,
}

impl Args {
    fn name(&self) -> String {
        let repo = self.repo.as_deref().and_then(|repo| repo.rsplit('/').next());
        let run = || self.run.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.name.clone().unwrap_or_else(|| repo.map_or_else(run, str::to_owned))
    }
}

fn run(args: &Args) -> Result<(), BoxError> {
    let mut export = Export::new(args.name(), &args.license);
    export.repo.clone_from(&args.repo);
    export.embedder.clone_from(&args.embedder);
    (export.datasets, export.languages, export.tags) = (args.dataset.clone(), args.language.clone(), args.tag.clone());
    if let Some(path) = &args.description {
        let text = std::fs::read_to_string(path);
        export.description = Some(text.map_err(|error| format!("cannot read `{}`: {error}", path.display()))?);
    }
    let write = || export.write(&args.run, &args.out);
    let exported = waiting("export", &args.out.display().to_string(), write)?;
    let repo = args.repo.as_deref().unwrap_or("OWNER/NAME");
    let place = exported.root().display();
    println!("{place} can be uploaded as it is: hf upload {repo} {place} .");
    Ok(())
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
