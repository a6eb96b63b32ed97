//! Recommends items from a finished run: prints title, score and Semantic ID.
//!
//! ```sh
//! cargo run --release --example recommend -- --run runs/beauty --history 1,2,3 -k 5
//! cargo run --release --example recommend -- --run runs/beauty --history 1,2,3 --search sampling --temperature 1.5,0.5
//! cargo run --release --example recommend -- --run runs/beauty --history 1,2,3 --category Makeup --new-only
//! ```

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use genrec::{
    History, Recommender, Wanted,
    artifacts::RunDir,
    decode::{AnySearch, BeamSearch, ColdStart, DiverseBeamSearch, ExactSearch, PerLevel, Resolve, Sampling, Shape},
    index::{ItemFilter, ItemId},
};
use support::{BoxError, DeviceArg, asked};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Recommends items for a history.
#[derive(Debug, Parser)]
struct Args {
    /// Directory of a finished run.
    #[arg(long)]
    run: PathBuf,
    /// Item ids, oldest first, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    history: Vec<String>,
    /// The user's id, as in the training data.
    #[arg(long)]
    user: Option<String>,
    /// How many items.
    #[arg(short, default_value_t = 10, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    k: usize,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    device: DeviceArg,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    wanted: WantedArgs,
}

/// How sequences are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The most probable, approximately.
    Beam,
    /// Drawn at random, none twice.
    Sampling,
    /// Beams in groups that keep apart.
    Diverse,
    /// The most probable of the whole catalogue.
    Exact,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Search")]
struct SearchArgs {
    /// How sequences are found.
    #[arg(long, value_enum, default_value_t = Kind::Beam)]
    search: Kind,
    /// Sequences kept, as many as items are asked for at least; the run's own number by default.
    #[arg(long)]
    beams: Option<usize>,
    /// Of sampling: one temperature, or one a level separated by commas.
    #[arg(long, value_delimiter = ',')]
    temperature: Vec<f32>,
    /// Of sampling: keeps so many tokens at each step; one number, or one a level.
    #[arg(long, value_delimiter = ',')]
    top_k: Vec<usize>,
    /// Of sampling: keeps the most probable tokens of that share; one number, or one a level.
    #[arg(long, value_delimiter = ',')]
    top_p: Vec<f32>,
    /// Of sampling.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Of the diverse search.
    #[arg(long)]
    groups: Option<usize>,
    /// Of the diverse search: what a token costs that another group has taken, in nats.
    #[arg(long)]
    strength: Option<f32>,
    /// Generates freely, as the paper does, and passes over what is no item.
    #[arg(long)]
    free: bool,
    /// Generates freely; what is no item stands for the items that share so many codes with it.
    #[arg(long, value_name = "CODES")]
    free_prefix: Option<usize>,
    /// Repeats a free search up to so wide for a user who got too few items.
    #[arg(long, default_value_t = 0)]
    widen_to: usize,
    /// Makes room for items that training has not seen: the whole part of this share of the list at most.
    #[arg(long, value_name = "SHARE")]
    epsilon: Option<f64>,
    /// Chooses these by Semantic-KNN, the nearest to the last item of the history, among all that sequences agree with.
    #[arg(long, requires = "epsilon")]
    nearest: bool,
    /// Codes in which such an item must agree; where there are not so many beside the suffix, all of these.
    #[arg(long, default_value_t = 3, requires = "epsilon")]
    cold_prefix: usize,
}

impl SearchArgs {
    /// Refuses options that the search would not ask for.
    fn check(&self) -> Result<(), BoxError> {
        let sampling = [
            ("--temperature", !self.temperature.is_empty()),
            ("--top-k", !self.top_k.is_empty()),
            ("--top-p", !self.top_p.is_empty()),
        ];
        let diverse = [("--groups", self.groups.is_some()), ("--strength", self.strength.is_some())];
        for (options, kind, needed) in
            [(&sampling[..], Kind::Sampling, "--search sampling"), (&diverse[..], Kind::Diverse, "--search diverse")]
        {
            if let Some((option, _)) = options.iter().find(|(_, given)| *given && self.search != kind) {
                return Err(format!("`{option}` needs `{needed}`").into());
            }
        }
        if self.widen_to > 0 && !self.free && self.free_prefix.is_none() {
            return Err("`--widen-to` needs `--free` or `--free-prefix`: other searches pass over nothing".into());
        }
        Ok(())
    }

    fn search(&self, width: usize) -> AnySearch {
        let list = |values: &[f32]| PerLevel::Each(values.to_vec());
        let mut shape = Shape::default();
        if !self.temperature.is_empty() {
            shape.temperature = list(&self.temperature);
        }
        shape.top_k = (!self.top_k.is_empty()).then(|| PerLevel::Each(self.top_k.clone()));
        shape.top_p = (!self.top_p.is_empty()).then(|| list(&self.top_p));
        match self.search {
            Kind::Beam => AnySearch::Beam(BeamSearch::new(width)),
            Kind::Sampling => AnySearch::Sampling(Sampling::new(width, self.seed).with_shape(shape)),
            Kind::Diverse => {
                let search = DiverseBeamSearch::new(width, self.groups.unwrap_or(5));
                AnySearch::Diverse(search.with_strength(self.strength.unwrap_or(0.5)))
            }
            Kind::Exact => AnySearch::Exact(ExactSearch::new(width)),
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Filters")]
struct WantedArgs {
    /// Leaves out the items of the history.
    #[arg(long)]
    new_only: bool,
    /// Leaves out these items, by id.
    #[arg(long, value_delimiter = ',')]
    exclude: Vec<String>,
    /// These items alone, by id.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Items of this category alone, at any level.
    #[arg(long)]
    category: Option<String>,
    /// Items of at most this price alone; those without a price are left out.
    #[arg(long)]
    max_price: Option<f64>,
}

impl WantedArgs {
    /// The filters with their names.
    fn filters(&self, recommender: &Recommender) -> Result<Vec<(String, ItemFilter)>, BoxError> {
        let (index, catalogue) = (recommender.index(), recommender.catalogue());
        let find = |ids: &[String]| ids.iter().map(|id| recommender.find(id.trim())).collect::<Result<Vec<_>, _>>();
        let mut filters = Vec::new();
        if !self.exclude.is_empty() {
            filters.push(("--exclude".to_owned(), ItemFilter::excluding(index, find(&self.exclude)?)?));
        }
        if !self.only.is_empty() {
            filters.push(("--only".to_owned(), ItemFilter::only(index, find(&self.only)?)?));
        }
        if let Some(category) = &self.category {
            let has = |item| {
                let item = catalogue.get(item);
                item.is_some_and(|item| {
                    item.categories.iter().flatten().any(|name| name.eq_ignore_ascii_case(category))
                })
            };
            filters.push((format!("--category {category}"), ItemFilter::matching(index, has)));
        }
        if let Some(most) = self.max_price {
            let cheap = |item| catalogue.get(item).and_then(|item| item.price).is_some_and(|price| price <= most);
            filters.push((format!("--max-price {most}"), ItemFilter::matching(index, cheap)));
        }
        Ok(filters)
    }
}

fn open(args: &Args) -> Result<Recommender, BoxError> {
    args.search.check()?;
    let recommender = asked::load(&args.run, args.device)?;
    let mut config = recommender.config().clone();
    if let Some(beams) = args.search.beams {
        config = config.with_beams(beams);
    }
    if args.search.search != Kind::Beam {
        config = config.clone().with_search(args.search.search(config.beams.max(args.k)));
    }
    if args.search.free {
        config = config.with_free(Resolve::Exact);
    }
    if let Some(at_least) = args.search.free_prefix {
        config = config.with_free(Resolve::LongestPrefix { at_least });
    }
    if args.search.epsilon.is_some() || matches!(args.search.search, Kind::Sampling | Kind::Diverse) {
        // They have an order of their own.
        config = config.with_rerank(None);
    }
    if let Some(epsilon) = args.search.epsilon {
        config = config.with_cold_start(ColdStart::new(epsilon).with_prefix(args.search.cold_prefix));
    }
    let recommender = recommender.with_config(config.with_widen_to(args.search.widen_to))?;
    if !args.search.nearest {
        return Ok(recommender);
    }
    let embeddings = genrec::embed::io::read_safetensors(RunDir::new(&args.run).embeddings())?;
    Ok(recommender.with_semantic_knn(embeddings.view())?)
}

fn run(args: &Args) -> Result<(), BoxError> {
    let recommender = open(args)?;
    let items = args.history.iter().map(|id| recommender.find(id.trim())).collect::<Result<Vec<ItemId>, _>>()?;
    let row = |rank: Option<usize>, item: ItemId, score: Option<f32>| {
        let title = recommender.catalogue().get(item).and_then(|item| item.title.clone()).unwrap_or_default();
        let sid = recommender.index().sid(item).map(|sid| sid.to_string()).unwrap_or_default();
        let id = recommender.catalogue().get(item).map(|item| item.id.clone()).unwrap_or_default();
        let title = if title.chars().count() > 70 { title.chars().take(69).chain(['…']).collect() } else { title };
        let rank = rank.map(|rank| rank.to_string());
        let score = score.map(|score| format!("{score:.3}"));
        rank.into_iter().chain([id, title]).chain(score).chain([sid]).collect::<Vec<_>>()
    };
    let history: Vec<_> = items.iter().map(|&item| row(None, item, None)).collect();
    println!("History, oldest first\n{}", support::table(&["id", "title", "SID"], &history));

    let filters = args.wanted.filters(&recommender)?;
    let mut wanted = Wanted::any();
    for (name, filter) in &filters {
        wanted = wanted.with_filter(name, filter);
    }
    if args.wanted.new_only {
        wanted = wanted.without_history();
    }
    let history = History { user: args.user.as_deref(), items: &items };
    let found = recommender.recommend_wanted(&[history], args.k, &wanted)?;
    let rows: Vec<_> =
        found.iter().flatten().enumerate().map(|(i, item)| row(Some(i + 1), item.item, Some(item.score))).collect();
    println!("Recommended\n{}", support::table(&["rank", "id", "title", "log p", "SID"], &rows));
    if rows.len() < args.k {
        println!("Only {} of {} items were found: filters, catalogue and search leave no more.", rows.len(), args.k);
        if args.search.free || args.search.free_prefix.is_some() {
            println!("A free search is filtered afterwards; `--widen-to` searches on until the list is full.");
        }
    }
    Ok(())
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
