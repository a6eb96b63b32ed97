//! What each table of the paper and of the notes is made of: rows by name, shared wherever two tables have one in common.

use std::time::Duration;

use clap::ValueEnum;
use genrec::{
    model::t5::T5Config,
    pipeline::{Precision, TigerConfig},
    quantize::{QuantizerConfig, RqVaeConfig},
};
use serde_json::{Value, json};

use crate::published::{self, Figures};

/// A data set: a directory of `--data` by that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Set {
    Beauty,
    Sports,
    Toys,
}

impl Set {
    pub(crate) const ALL: [Self; 3] = [Self::Beauty, Self::Sports, Self::Toys];

    /// The directory's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Beauty => "beauty",
            Self::Sports => "sports",
            Self::Toys => "toys",
        }
    }

    /// As tables call it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Beauty => "Beauty",
            Self::Sports => "Sports and Outdoors",
            Self::Toys => "Toys and Games",
        }
    }
}

/// What TIGER is in all rows, but for what a row changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// A model that two cores can train, over the paper's RQ-VAE.
    Cpu,
    /// The paper's model and optimiser, for a GPU. The rate falls to zero over the last quarter of the time, and validation asks as
    /// many users as of the other.
    Paper,
}

impl Preset {
    /// What stands in the names of its sections and of the directory of its runs.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Cpu => "",
            Self::Paper => "-paper",
        }
    }

    /// What stands in the title of a section.
    pub(crate) fn remark(self) -> &'static str {
        match self {
            Self::Cpu => "",
            Self::Paper => ", the paper's model",
        }
    }

    /// Where its rows are kept.
    pub(crate) fn results(self) -> &'static str {
        match self {
            Self::Cpu => "docs/results",
            Self::Paper => "docs/results/paper",
        }
    }

    /// Whether a table says something of it: blocks are counted from the two of `cpu`, from which `best` starts too.
    pub(crate) fn makes(self, experiment: Experiment) -> bool {
        self == Self::Cpu || !matches!(experiment, Experiment::Blocks | Experiment::Best)
    }

    /// Whether a line of those tables is of it.
    pub(crate) fn has(self, line: &Line) -> bool {
        self == Self::Cpu || !line.name.starts_with("best")
    }

    /// Its settings, trained for the budget and no longer.
    pub(crate) fn config(self, precision: Precision, budget: Duration, seed: u64) -> TigerConfig {
        let mut cpu = TigerConfig::cpu().with_quantizer(QuantizerConfig::RqVae(RqVaeConfig::default()));
        cpu.train.max_steps = Some(u64::MAX);
        let mut config = match self {
            Self::Cpu => cpu,
            Self::Paper => {
                let mut paper = TigerConfig::paper();
                paper.train.cooldown = cpu.train.cooldown;
                paper.validation_users = cpu.validation_users;
                paper
            }
        };
        config.precision = precision;
        config.train.epochs = None;
        config.train.max_duration = Some(budget);
        config.with_seed(seed)
    }
}

/// Settings by name, laid over those before them one after the other.
pub(crate) type Changes = Vec<Value>;

/// What makes a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    /// TIGER with these settings over those that all tables have in common.
    Tiger(Changes),
    /// The items that most users took.
    Popularity,
    /// The items nearest to the last in content.
    SemanticKnn,
    /// The items that most often followed the last.
    Transitions,
    /// The run `tiger`, lists drawn without replacement at the temperature of each code and suffix; one temperature is for all.
    Sampled(&'static [f32]),
    /// The items that most often came soon after those of the history.
    CoOccurrence,
    /// TIGER over a quantiser that is fitted to the items of all sets.
    Joint,
    /// Runs of the line `of`, whose settings these are, with what they find ranked again by what came near the history.
    Reranked { of: &'static str, changes: Changes },
    /// Runs of the line `of`, whose settings these are, together.
    Ensemble { of: &'static str, changes: Changes },
    /// The run `tiger`: what its codes say of categories.
    Hierarchy,
    /// TIGER trained without some items, and asked for them.
    ColdStart,
    /// SASRec with these settings over those of its defaults.
    SasRec(Value),
}

impl Work {
    /// Whether the items' texts count in it.
    pub(crate) fn reads_embeddings(&self) -> bool {
        !matches!(self, Self::Popularity | Self::Transitions | Self::CoOccurrence | Self::SasRec(_))
    }
}

/// A row of a table.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// As the table calls it.
    pub(crate) label: String,
    /// As files call it; the same name is the same work in every table.
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    /// What was published of it, by set.
    pub(crate) paper: fn(Set) -> Option<Figures>,
    /// The name of the line that it is compared with, if not `tiger`.
    pub(crate) against: Option<&'static str>,
}

impl Line {
    fn against(mut self, name: &'static str) -> Self {
        self.against = Some(name);
        self
    }
}

/// The line that most tables have.
pub(crate) fn tiger_itself() -> Line {
    tiger("TIGER", "tiger", json!({}), published::tiger)
}

fn line(label: &str, name: &'static str, work: Work, paper: fn(Set) -> Option<Figures>) -> Line {
    Line { label: label.to_owned(), name, work, paper, against: None }
}

fn tiger(label: &str, name: &'static str, settings: Value, paper: fn(Set) -> Option<Figures>) -> Line {
    line(label, name, Work::Tiger(vec![settings]), paper)
}

fn sampled(label: &str, name: &'static str, temperatures: &'static [f32]) -> Line {
    line(label, name, Work::Sampled(temperatures), none)
}

fn none(_: Set) -> Option<Figures> {
    None
}

/// A table or figure that can be made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "kebab-case")]
pub(crate) enum Experiment {
    /// TIGER beside other recommenders.
    Table1,
    /// Random, LSH and RQ-VAE Semantic IDs.
    Table2,
    /// Variety of categories by temperature.
    Table3,
    /// The same, of each code's temperature alone.
    Table4,
    /// Three, four and five layers.
    Table5,
    /// The data sets.
    Table6,
    /// With and without the user's token.
    Table8,
    /// Three seeds.
    Table9,
    /// Semantic IDs learnt on all sets together.
    Table10,
    /// The notes' nine quantisers.
    Quantizers,
    /// Categories by code.
    Figure4,
    /// Items that training has not seen.
    Figure5,
    /// Share of invalid IDs by how many are generated.
    Figure6,
    /// Codes an item and codes a codebook.
    Sizes,
    /// Blocks of the transformer against invalid IDs.
    Blocks,
    /// Weight of the RQ-VAE's commitment loss.
    Commitment,
    /// Epochs of the RQ-VAE and perplexity of its codes.
    QuantizerEpochs,
    /// What raises TIGER, one change at a time, and the preset `best`.
    Best,
}

impl Experiment {
    /// As files and sections call it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Table1 => "Table 1: TIGER beside other recommenders",
            Self::Table2 => "Table 2: Semantic IDs by their origin",
            Self::Table3 => "Table 3: temperature",
            Self::Table4 => "Beyond table 4: the temperature of each code alone",
            Self::Table5 => "Table 5: layers",
            Self::Table6 => "Table 6: data sets",
            Self::Table8 => "Table 8: the user's token",
            Self::Table9 => "Table 9: three seeds",
            Self::Table10 => "Table 10: Semantic IDs learnt on three sets together",
            Self::Quantizers => "The notes' quantisers",
            Self::Figure4 => "Figure 4: categories by code",
            Self::Figure5 => "Figure 5: items that training has not seen",
            Self::Figure6 => "Figure 6: invalid IDs",
            Self::Sizes => "Codes an item, codes a codebook",
            Self::Blocks => "Blocks of the transformer",
            Self::Commitment => "Weight of the commitment loss",
            Self::QuantizerEpochs => "Epochs of the quantiser",
            Self::Best => "Past the paper: one change at a time",
        }
    }

    /// The sets that the paper's table has.
    pub(crate) fn sets(self) -> &'static [Set] {
        match self {
            Self::Table1 | Self::Table2 | Self::Table6 | Self::Table9 | Self::Best => &Set::ALL,
            _ => &[Set::Beauty],
        }
    }

    /// Seeds a row, where the command does not say.
    pub(crate) fn seeds(self) -> u64 {
        match self {
            Self::Table9 => 3,
            Self::Best => 2,
            _ => 1,
        }
    }

    /// The name of the line that the others are compared with, but for those that say otherwise.
    pub(crate) fn reference(self) -> &'static str {
        match self {
            Self::Table3 | Self::Table4 => "sampled-1",
            Self::Table5 => "tiger-4-layers",
            _ => "tiger",
        }
    }

    /// Whether its lines differ in their Semantic IDs.
    pub(crate) fn shows_codes(self) -> bool {
        matches!(
            self,
            Self::Table2 | Self::Table10 | Self::Quantizers | Self::Sizes | Self::Commitment | Self::QuantizerEpochs
        )
    }

    /// Rows in the table's order.
    pub(crate) fn lines(self) -> Vec<Line> {
        let rq_vae = |label: &str, name, settings: Value| tiger(label, name, json!({"quantizer": settings}), none);
        match self {
            Self::Table1 => vec![
                line("popularity", "popularity", Work::Popularity, none),
                line("item transitions", "transitions", Work::Transitions, none),
                line("co-occurrences", "co-occurrence", Work::CoOccurrence, none),
                line("Semantic-KNN", "semantic-knn", Work::SemanticKnn, none),
                line("SASRec, binary cross-entropy", "sasrec-bce", sasrec(&json!({"type": "bce"})), published::sasrec),
                line("SASRec, full cross-entropy", "sasrec", sasrec(&json!({"type": "full_cross_entropy"})), none),
                tiger_itself(),
                not_reranked(),
                preset_best().against("sasrec"),
            ],
            Self::Table2 => vec![
                tiger("random", "tiger-random", json!({"quantizer": {"type": "random_ids"}}), published::random_ids)
                    .against("tiger-lsh"),
                tiger("LSH", "tiger-lsh", json!({"quantizer": {"type": "sim_hash_lsh"}}), published::lsh_ids),
                tiger("RQ-VAE", "tiger", json!({}), published::tiger),
                tiger("residual k-means", "tiger-k-means", k_means(json!({})), none),
            ],
            Self::Table3 => vec![
                sampled("1", "sampled-1", &[1.0]),
                sampled("1.5", "sampled-1.5", &[1.5]),
                sampled("2", "sampled-2", &[2.0]),
            ],
            Self::Table4 => vec![
                sampled("1, 1, 1, 1", "sampled-1", &[1.0]),
                sampled("2, 1, 1, 1", "sampled-2-1-1-1", &[2.0, 1.0, 1.0, 1.0]),
                sampled("1, 2, 1, 1", "sampled-1-2-1-1", &[1.0, 2.0, 1.0, 1.0]),
                sampled("1, 1, 2, 1", "sampled-1-1-2-1", &[1.0, 1.0, 2.0, 1.0]),
                sampled("1, 1, 1, 2", "sampled-1-1-1-2", &[1.0, 1.0, 1.0, 2.0]),
            ],
            Self::Table5 => vec![
                layers("3 layers", "tiger-3-layers", 3, published::three_layers),
                layers("4 layers", "tiger-4-layers", 4, published::tiger),
                layers("5 layers", "tiger-5-layers", 5, published::five_layers),
            ],
            Self::Table6 => Vec::new(),
            Self::Table8 => vec![
                tiger("without", "tiger-no-user", json!({"decode": {"user_tokens": 0}}), published::no_user),
                tiger("with", "tiger", json!({}), published::tiger),
            ],
            Self::Table9 => vec![tiger("TIGER", "tiger", json!({}), published::three_seeds)],
            Self::Table10 => vec![
                tiger("of the set alone", "tiger", json!({}), published::tiger),
                line("of all three sets", "tiger-joint", Work::Joint, published::joint),
            ],
            Self::Quantizers => quantizers(),
            Self::Figure4 => vec![line("TIGER", "hierarchy", Work::Hierarchy, none)],
            Self::Figure5 => vec![line("TIGER", "cold-start", Work::ColdStart, none)],
            Self::Figure6 => vec![tiger_itself()],
            Self::Sizes => vec![
                rq_vae("2 x 256", "tiger-2x256", json!({"codebook_sizes": [256, 256]})),
                tiger("3 x 256", "tiger", json!({}), none),
                rq_vae("4 x 256", "tiger-4x256", json!({"codebook_sizes": [256, 256, 256, 256]})),
                rq_vae("6 x 64", "tiger-6x64", json!({"codebook_sizes": [64, 64, 64, 64, 64, 64]})),
            ],
            Self::Blocks => vec![
                layers("1 + 1", "tiger-1-layer", 1, none),
                tiger("2 + 2", "tiger", json!({}), none),
                layers("3 + 3", "tiger-3-layers", 3, none),
                layers("4 + 4", "tiger-4-layers", 4, none),
                layers("5 + 5", "tiger-5-layers", 5, none),
            ],
            Self::Commitment => vec![
                rq_vae("0.05", "tiger-commitment-0.05", json!({"commitment": 0.05})),
                tiger("0.25", "tiger", json!({}), none),
                rq_vae("1", "tiger-commitment-1", json!({"commitment": 1.0})),
            ],
            Self::QuantizerEpochs => vec![
                // More items share their codes than the suffix has values otherwise.
                tiger(
                    "2",
                    "tiger-quantizer-2-epochs",
                    json!({"quantizer": {"epochs": 2}, "suffix_size": 512}),
                    none,
                ),
                rq_vae("10", "tiger-quantizer-10-epochs", json!({"epochs": 10})),
                tiger("default", "tiger", json!({}), none),
                rq_vae("400", "tiger-quantizer-400-epochs", json!({"epochs": 400})),
            ],
            Self::Best => vec![
                tiger_itself(),
                tiger("residual k-means, 2 x 256", "tiger-k-means-2", two(), none),
                best("and behaviour", "tiger-behaviour", json!({"decode": {"user_tokens": 2_000}})).against("tiger-k-means-2"),
                Line { label: "and no user token".to_owned(), ..not_reranked() }.against("tiger-behaviour"),
                Line { label: "preset best: ranked again with co-occurrences".to_owned(), ..preset_best() }.against("best"),
                best(
                    "histories without a fifth of their items",
                    "best-thinned",
                    json!({"windows": {"drop_items": 0.2}}),
                )
                .against("best"),
                best("dropout 0.2", "best-dropout", json!({"model": {"dropout_rate": 0.2}})).against("best"),
                best("histories of 40 items", "best-history-40", history(40)).against("best"),
                best("the paper's layers", "best-paper-layers", papers_layers(true)).against("best"),
                best("and a bidirectional encoder", "best-bidirectional", papers_layers(false)).against("best-paper-layers"),
                best("behaviour in 256 columns", "best-256-columns", json!({"blend": {"behaviour": {"dims": 256}}}))
                    .against("best"),
                best("behaviour by 4 power iterations", "best-4-iterations", iterations(4)).against("best"),
                best(
                    "the same, twelve epochs",
                    "best-4-iterations-12-epochs",
                    json!({"blend": iterations(4)["blend"], "train": {"epochs": 12, "max_steps": null, "max_duration": null}}),
                )
                .against("best-4-iterations"),
                together("two seeds of `best` together", "best-together", not_reranked()).against("best"),
            ],
        }
    }
}

fn sasrec(loss: &Value) -> Work {
    Work::SasRec(json!({"model": {"loss": loss}}))
}

fn k_means(changes: Value) -> Value {
    let mut settings = json!({"type": "residual_k_means"});
    support::overlay(&mut settings, changes);
    json!({ "quantizer": settings })
}

/// The quantiser of the preset `cpu`.
fn two() -> Value {
    json!({"quantizer": TigerConfig::cpu().quantizer})
}

/// Behaviour whose factorisation is so exact.
fn iterations(power_iterations: usize) -> Value {
    json!({"blend": {"behaviour": {"power_iterations": power_iterations}}})
}

/// As many layers as in the paper, as wide inside, over an encoder that looks back alone or both ways.
fn papers_layers(causal_encoder: bool) -> Value {
    let model = T5Config::paper(0);
    json!({"model": {
        "num_layers": model.num_layers,
        "num_decoder_layers": model.num_decoder_layers,
        "num_heads": model.num_heads,
        "d_kv": model.d_kv,
        "d_ff": model.d_ff,
        "causal_encoder": causal_encoder,
    }})
}

/// Histories of so many items.
fn history(items: usize) -> Value {
    json!({"windows": {"max_history": items}, "decode": {"max_history": items}})
}

/// The preset `best`, changed, trained as long as all rows are, its lists not ranked again. Its checkpoint is chosen with own
/// items in the ranking, as those of all rows; it is tested with them and without.
fn best(label: &str, name: &'static str, changes: Value) -> Line {
    let preset = TigerConfig::best();
    let user_tokens = json!({"decode": {"user_tokens": preset.decode.user_tokens}});
    let all = vec![two(), json!({"blend": preset.blend}), user_tokens, changes];
    line(label, name, Work::Tiger(all), none)
}

/// Runs of a line together.
fn together(label: &str, name: &'static str, Line { name: of, work, .. }: Line) -> Line {
    let work = match work {
        Work::Tiger(changes) => Work::Ensemble { of, changes },
        other => other,
    };
    line(label, name, work, none)
}

/// The preset `best`, but for its second ranking.
fn not_reranked() -> Line {
    best("TIGER, preset best, not ranked again", "best", json!({}))
}

fn preset_best() -> Line {
    let (label, name) = ("TIGER, preset best", "best-reranked");
    let Line { name: of, work, paper, .. } = not_reranked();
    match work {
        Work::Tiger(changes) => line(label, name, Work::Reranked { of, changes }, paper),
        other => line(label, name, other, paper),
    }
}

fn layers(label: &str, name: &'static str, layers: usize, paper: fn(Set) -> Option<Figures>) -> Line {
    tiger(label, name, json!({"model": {"num_layers": layers, "num_decoder_layers": layers}}), paper)
}

/// The nine rows of the notes: residual k-means by start and iterations, RQ-VAE by gradient.
fn quantizers() -> Vec<Line> {
    let start = |init: &str, iterations| k_means(json!({"init": init, "iterations": iterations}));
    let rq_vae = |settings: Value| json!({ "quantizer": settings });
    let rotation = json!({"estimator": "rotation_trick", "commitment": 1.0});
    let mut uninitialised = rotation.clone();
    support::overlay(&mut uninitialised, json!({"init": "random", "init_iterations": 0}));
    let named = |label: &'static str, name, settings, paper| tiger(label, name, settings, paper);
    vec![
        named("random", "tiger-random", json!({"quantizer": {"type": "random_ids"}}), none),
        named("k-means, random start, 10 iterations", "tiger-k-means-random-10", start("random", 10), none),
        named("k-means, random start, 100 iterations", "tiger-k-means-random-100", start("random", 100), none),
        named("k-means, points start, 10 iterations", "tiger-k-means-points-10", start("points", 10), none),
        named("k-means, points start, 100 iterations", "tiger-k-means-points-100", start("points", 100), none),
        named("RQ-VAE, straight-through", "tiger", json!({}), none),
        named("RQ-VAE, rotation trick", "tiger-rotation", rq_vae(rotation), none),
        named("RQ-VAE, rotation trick, no k-means start", "tiger-rotation-random", rq_vae(uninitialised), none),
        named("RQ-VAE, SimVQ", "tiger-sim-vq", rq_vae(json!({"codebook": "sim_vq", "restart_after": null})), none),
    ]
}
