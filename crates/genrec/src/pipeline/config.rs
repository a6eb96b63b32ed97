//! The settings of a run, and the time it may take.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use candle_core::DType;
use genrec_data::{BatchConfig, WindowConfig};
use genrec_embed::{EmbedderSpec, TextTemplate, TfidfConfig, behaviour::BlendConfig};
use genrec_kernels::optim::{AdafactorConfig, AdamWConfig, OptimizerConfig, Schedule};
use genrec_model::t5::T5Config;
use genrec_train::{Every, TrainConfig};
use serde::{Deserialize, Serialize};
use sid_index::{Reassign, SidLayout, SidVocab};
use sid_quantize::{KMeansInit, QuantizerConfig, ResidualKMeansConfig, RqVaeConfig};

use crate::{
    Error, Result,
    search::{DecodeConfig, Rerank},
};

/// Where content embeddings come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EmbeddingSource {
    /// The items' text, through an encoder.
    Text {
        /// Which encoder.
        embedder: EmbedderSpec,
    },
    /// A `.npy` file of shape `(items, features)`, `f32`, rows in the order of the catalogue.
    Npy {
        /// The file.
        path: PathBuf,
    },
}

impl EmbeddingSource {
    /// Whether new items can be embedded from their text.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text { .. })
    }
}

impl Default for EmbeddingSource {
    fn default() -> Self {
        Self::Text { embedder: EmbedderSpec::Tfidf(TfidfConfig::default()) }
    }
}

/// The floating type of the sequence model's arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Sixteen bits with the exponent of `f32`: half the memory of activations, and the matrix units of a GPU. Norms, softmax and the loss
    /// stay in `f32`; see [`T5::with_compute_dtype`](genrec_model::t5::T5::with_compute_dtype).
    Bf16,
}

impl Precision {
    /// The type of candle's tensors.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// Everything that decides the result of a run: the same settings, data and seed give the same bytes on the CPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TigerConfig {
    /// Every random choice of the run derives from it.
    pub seed: u64,
    /// Fields of an item to the text that is embedded.
    pub text: TextTemplate,
    /// Where content embeddings come from. TF-IDF by default: it needs no weights.
    pub embedder: EmbeddingSource,
    /// Makes Semantic IDs of content and of behaviour, who takes what in the training parts; `None`, the default, of content
    /// alone, as in the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blend: Option<BlendConfig>,
    /// Embeddings to codes. RQ-VAE by default, as in the paper.
    pub quantizer: QuantizerConfig,
    /// Directory of a quantiser of these settings, of any seed, that was fitted elsewhere and saved by
    /// [`AnyQuantizer::save`](sid_quantize::AnyQuantizer::save): to the items of several shops, as in the paper's table 10, or
    /// to those of an earlier season. It is taken as it is; `None`, the default, fits one to this catalogue.
    ///
    /// What it was fitted to must be of the same encoder: the columns of TF-IDF, and those of a `blend`, are learnt from one
    /// catalogue and mean something else in another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fitted_quantizer: Option<PathBuf>,
    /// Items that may share all codes of the quantiser. 256, as in the paper (section 3.1).
    pub suffix_size: u32,
    /// Gives items whose codes collide the next best codes before any suffix; `None`, the default, leaves collisions to the
    /// suffix, as in the paper.
    #[serde(default)]
    pub reassign: Option<Reassign>,
    /// How histories are cut into training examples.
    pub windows: WindowConfig,
    /// The sequence model; its vocabulary size is set by the index.
    pub model: T5Config,
    /// What the sequence model computes in while it is trained and tested; its weights are `f32` all the same, and a
    /// [`Recommender`](crate::Recommender) serves in `f32`. `f32`; another type is an error without a GPU.
    pub precision: Precision,
    /// Examples a step. 256, as in the paper (section 4).
    pub batch_size: usize,
    /// Batches that are sorted by length together: the more, the less padding and the less random the batches; `None` sorts
    /// nothing. 32, for a GPU pads; the CPU's engine does not.
    pub bucketing: Option<usize>,
    /// Whether the examples of a user stand in one batch, or in batches that follow one another, so that a model with a
    /// causal encoder reads them at once. It excludes `bucketing`. No.
    pub by_user: bool,
    /// The most threads that a step takes on the CPU, over all ranks that [train together](super::run_together); sums depend on it in
    /// their last bits. `None`, the default, is that of [`T5::with_shares`](genrec_model::t5::T5::with_shares), 8; at most 4,096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<NonZeroUsize>,
    /// Optimiser, schedule, length of training, checkpoints.
    pub train: TrainConfig,
    /// Users that validation asks, drawn by seed; `None` asks all.
    pub validation_users: Option<usize>,
    /// Users that free generation asks for the invalid-id rate, drawn by seed. 1,000: a standard error of 0.1 % and less.
    pub invalid_rate_users: usize,
    /// Search.
    pub decode: DecodeConfig,
}

impl Default for TigerConfig {
    fn default() -> Self {
        Self::paper()
    }
}

impl TigerConfig {
    /// The paper's model and schedule (sections 3 and 4): 4 + 4 layers of width 128, batch 256, Adafactor with parameter
    /// scaling at 0.01, 200,000 steps. Days on a CPU. The shares of a limited time are those of [`Budget::new`].
    ///
    /// Two settings are not the paper's: the RQ-VAE is trained with standardised inputs and AdamW, since Adagrad at 0.4
    /// collapses the codebooks on unit-norm embeddings; and training stops early on validation NDCG@10.
    pub fn paper() -> Self {
        let train = TrainConfig::default()
            .with_optimizer(OptimizerConfig::Adafactor(AdafactorConfig::default()))
            .with_learning_rate(0.01)
            .with_schedule(Schedule::InverseSqrt { warmup_steps: 10_000 })
            .with_max_steps(Some(200_000))
            .with_validate_every(Every::Epochs(2))
            .with_patience(Some(20));
        Self {
            seed: 42,
            text: TextTemplate::default(),
            embedder: EmbeddingSource::default(),
            blend: None,
            quantizer: QuantizerConfig::RqVae(RqVaeConfig::default()),
            fitted_quantizer: None,
            suffix_size: 256,
            reassign: None,
            windows: WindowConfig::default(),
            model: T5Config::paper(0),
            precision: Precision::F32,
            shares: None,
            batch_size: 256,
            bucketing: Some(32),
            by_user: false,
            train,
            validation_users: None,
            invalid_rate_users: 1_000,
            decode: DecodeConfig::default(),
        }
    }

    /// What learns most in an hour or two of two cores, validated on 2,000 users: a smaller model that reads a user's windows
    /// at once, over two levels of residual k-means and a suffix.
    ///
    /// Each choice was measured on Beauty, 5 epochs of the windows under a cosine with everything else equal (validation
    /// NDCG@10 over all users; `docs/results.md` has the runs and their times). RQ-VAE at three levels .0234, residual k-means
    /// of the plain embeddings .0281 at three levels and .0306 at two. Adafactor with parameter scaling at 0.01, as in the
    /// paper, .0281, AdamW at 0.002 .0247. A causal encoder, which lets the engine encode a user's windows once, .0281; a
    /// bidirectional one .0300 in some three times the time. Batches of 128 give twice as many steps as the paper's 256. The
    /// rate falls as the inverse square root, and to zero over the last quarter of the training, be it limited by epochs or by
    /// time ([`Budget::new`] has the shares), so that a run may be of any length.
    pub fn cpu() -> Self {
        let train = TrainConfig::default()
            .with_optimizer(OptimizerConfig::Adafactor(AdafactorConfig::default()))
            .with_learning_rate(0.01)
            .with_schedule(Schedule::InverseSqrt { warmup_steps: 500 })
            .with_cooldown(0.25)
            .with_epochs(Some(60))
            .with_validate_every(Every::Epochs(2));
        let k_means = ResidualKMeansConfig::default()
            .with_codebook_sizes([256, 256])
            .with_iterations(100)
            .with_init(KMeansInit::PlusPlus);
        Self {
            quantizer: QuantizerConfig::ResidualKMeans(k_means),
            model: T5Config::cpu(0).with_causal_encoder(true),
            windows: WindowConfig::default().with_start_step(10),
            batch_size: 128,
            bucketing: None,
            by_user: true,
            train,
            validation_users: Some(2_000),
            ..Self::paper()
        }
    }

    /// What recommends best of all that was tried on two cores: the preset [`cpu`](Self::cpu) over Semantic IDs of content and of
    /// behaviour, without user tokens, with the items of a history left out and the others ranked once more by what came near
    /// them ([`Rerank`]).
    ///
    /// Each was measured on Beauty, ten epochs, one seed, MiniLM embeddings, own items ranked, validation NDCG@10: content alone
    /// .0343; with behaviour .0439; without user tokens .0451 (`docs/results.md`). Give it a sentence encoder
    /// ([`with_embedder`](Self::with_embedder)): TF-IDF, the default, knows less of items that few have taken.
    pub fn best() -> Self {
        let mut config = Self::cpu().with_blend(Some(BlendConfig::default()));
        config.decode =
            config.decode.with_exclude_history(true).with_user_tokens(0).with_rerank(Some(Rerank::default()));
        config
    }

    /// For the synthetic shop of [`genrec_data::SyntheticConfig`]: a thousand items in a hundred leaves need two levels of codes
    /// and a tiny model, trained in one to two minutes on two cores.
    pub fn quickstart() -> Self {
        let mut config = Self { bucketing: Some(32), by_user: false, windows: WindowConfig::default(), ..Self::cpu() };
        let embedder = EmbedderSpec::Tfidf(TfidfConfig::default().with_dim(256));
        config.embedder = EmbeddingSource::Text { embedder };
        config.text = TextTemplate::default().with_line("Description", "description");
        let rq_vae = RqVaeConfig::default()
            .with_hidden([256, 128])
            .with_codebook_sizes([128, 16])
            .with_batch_size(256)
            .with_optimizer(OptimizerConfig::AdamW(AdamWConfig::default()), 3e-3);
        config.quantizer = QuantizerConfig::RqVae(rq_vae);
        config.suffix_size = 64;
        config.model = config.model.with_layers(1, 1).with_d_model(64).with_heads(4, 16).with_d_ff(128);
        config.model = config.model.with_dropout_rate(0.0).with_causal_encoder(false);
        config.batch_size = 128;
        config.train = config
            .train
            .with_optimizer(OptimizerConfig::Adafactor(AdafactorConfig::default()))
            .with_learning_rate(0.02)
            .with_schedule(Schedule::Cosine { warmup_steps: 100, total_steps: 1_900, final_factor: 0.05 })
            .with_cooldown(0.0)
            .with_epochs(Some(7))
            .with_validate_every(Every::Epochs(1));
        config.validation_users = Some(500);
        config.decode = config.decode.with_user_tokens(0);
        config
    }

    /// Another seed for the whole run.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Another source of embeddings.
    #[must_use]
    pub fn with_embedder(mut self, embedder: EmbeddingSource) -> Self {
        self.embedder = embedder;
        self
    }

    /// Semantic IDs of content and of behaviour.
    #[must_use]
    pub fn with_blend(mut self, blend: Option<BlendConfig>) -> Self {
        self.blend = blend;
        self
    }

    /// Another quantiser.
    #[must_use]
    pub fn with_quantizer(mut self, quantizer: QuantizerConfig) -> Self {
        self.quantizer = quantizer;
        self
    }

    /// A quantiser that was fitted elsewhere.
    #[must_use]
    pub fn with_fitted_quantizer(mut self, dir: impl Into<PathBuf>) -> Self {
        self.fitted_quantizer = Some(dir.into());
        self
    }

    /// Another treatment of items whose codes collide.
    #[must_use]
    pub fn with_reassign(mut self, reassign: Option<Reassign>) -> Self {
        self.reassign = reassign;
        self
    }

    /// Another sequence model.
    #[must_use]
    pub fn with_model(mut self, model: T5Config) -> Self {
        self.model = model;
        self
    }

    /// Another training.
    #[must_use]
    pub fn with_train(mut self, train: TrainConfig) -> Self {
        self.train = train;
        self
    }

    /// Sets the most threads that a step takes on the CPU, over all ranks.
    #[must_use]
    pub fn with_shares(mut self, shares: Option<NonZeroUsize>) -> Self {
        self.shares = shares;
        self
    }

    /// Reads at most the last `items` items of a history, in training as in decoding.
    #[must_use]
    pub fn with_max_history(mut self, items: usize) -> Self {
        self.windows.max_history = items;
        self.windows.start_step = self.windows.start_step.min(items.max(1));
        self.decode.max_history = items;
        self
    }

    /// Checks every bound, of each part too, and that the parts fit together.
    ///
    /// # Errors
    /// The error of the first setting outside its bounds names it: [`Error::Config`] or that of the part.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("batch_size", self.batch_size),
            ("suffix_size", self.suffix_size as usize),
            ("validation_users", self.validation_users.unwrap_or(1)),
            ("invalid_rate_users", self.invalid_rate_users),
        ] {
            if value == 0 {
                return Err(Error::Config { field, value: value.to_string(), expected: "at least 1" });
            }
        }
        if let Some(shares) = self.shares.filter(|shares| shares.get() > 4096) {
            return Err(Error::Config { field: "shares", value: shares.to_string(), expected: "at most 4096" });
        }
        let (trained, decoded) = (self.windows.max_history, self.decode.max_history);
        if trained != decoded {
            return Err(Error::Config {
                field: "decode.max_history",
                value: decoded.to_string(),
                expected: "equal to `windows.max_history`: a model is asked what it was trained on",
            });
        }
        if let EmbeddingSource::Text { embedder: EmbedderSpec::Tfidf(config) } = &self.embedder {
            config.validate()?;
        }
        self.blend.as_ref().map_or(Ok(()), BlendConfig::validate)?;
        self.quantizer.validate()?;
        self.reassign.as_ref().map_or(Ok(()), Reassign::validate)?;
        self.windows.validate()?;
        self.batches().validate()?;
        self.train.validate()?;
        self.decode.validate()?;
        let layout = SidLayout::new(self.quantizer.codebook_sizes())?.with_suffix(self.suffix_size);
        let vocab = SidVocab::new(&layout, self.decode.user_tokens)?;
        Ok(self.model.clone().with_vocab_size(vocab.size()).validate()?)
    }

    /// How examples are grouped into batches.
    pub(crate) fn batches(&self) -> BatchConfig {
        BatchConfig::default()
            .with_batch_size(self.batch_size)
            .with_seed(self.seed)
            .with_bucketing(self.bucketing)
            .with_by_user(self.by_user)
    }

    /// The settings with every seed derived from [`seed`](Self::seed), so that one number decides the run.
    #[must_use]
    pub fn seeded(mut self) -> Self {
        let seed = self.seed;
        if let EmbeddingSource::Text { embedder: EmbedderSpec::Tfidf(config) } = &mut self.embedder {
            config.seed = seed;
        }
        if let Some(blend) = &mut self.blend {
            blend.behaviour.seed = seed;
        }
        self.quantizer = self.quantizer.with_seed(seed);
        self.train.seed = seed;
        self
    }
}

/// How much wall-clock time a run may take, and how its stages share it.
///
/// A run under a budget is not reproducible: how far it gets depends on the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// From start to report.
    pub total: Duration,
    /// Share that fitting the quantiser may take. 0.12.
    pub quantize_share: f64,
    /// Share kept for the test at the end; more is kept when validation shows that the test will need it. 0.1.
    pub evaluate_share: f64,
}

impl Budget {
    /// A budget with the usual shares: up to 12 % for the quantiser, at least 10 % for the test, the rest for embedding
    /// and training.
    pub fn new(total: Duration) -> Self {
        Self { total, quantize_share: 0.12, evaluate_share: 0.1 }
    }

    /// Checks the shares.
    ///
    /// # Errors
    /// [`Error::Config`] when a share is outside 0 to 1, or the two leave no time to train.
    pub fn validate(&self) -> Result<()> {
        let shares = [("quantize_share", self.quantize_share), ("evaluate_share", self.evaluate_share)];
        for (field, share) in shares {
            if !(0.0..1.0).contains(&share) {
                return Err(Error::Config { field, value: share.to_string(), expected: "from 0 to below 1" });
            }
        }
        let both = self.quantize_share + self.evaluate_share;
        if both < 1.0 {
            return Ok(());
        }
        let field = "quantize_share + evaluate_share";
        Err(Error::Config { field, value: both.to_string(), expected: "below 1, to leave time for training" })
    }
}

/// `run.json`: what a run directory was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the run directory's format.
    pub format_version: u32,
    /// The settings.
    pub config: TigerConfig,
    /// Name of the data set.
    pub dataset: String,
    /// CRC-32 over items and sequences, to refuse resuming on other data.
    pub data_crc32: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_are_valid() {
        for config in [TigerConfig::paper(), TigerConfig::cpu(), TigerConfig::best(), TigerConfig::quickstart()] {
            assert!(config.validate().is_ok(), "{:?}", config.validate());
        }
    }

    #[test]
    fn every_part_is_checked() {
        let broken: [fn(&mut TigerConfig); 12] = [
            |config| config.batch_size = 0,
            |config| config.suffix_size = 0,
            |config| config.validation_users = Some(0),
            |config| config.invalid_rate_users = 0,
            |config| config.windows.max_history = 50,
            |config| config.windows.min_history = 0,
            |config| config.train.epochs = Some(0),
            |config| config.model.num_heads = 0,
            |config| config.suffix_size = u32::MAX,
            |config| config.decode.user_tokens = u32::MAX,
            |config| config.decode.format_version += 1,
            |config| config.quantizer = QuantizerConfig::RqVae(RqVaeConfig::default().with_batch_size(0)),
        ];
        for (number, spoil) in broken.iter().enumerate() {
            let mut config = TigerConfig::cpu();
            spoil(&mut config);
            assert!(config.validate().is_err(), "change {number} was accepted");
        }
        assert!(TigerConfig::cpu().with_max_history(50).validate().is_ok());
    }

    #[test]
    fn a_budget_leaves_time_to_train() {
        let budget = Budget::new(Duration::from_secs(60));
        assert!(budget.validate().is_ok());
        for (quantize_share, evaluate_share) in [(-0.1, 0.1), (0.1, f64::NAN), (0.5, 0.5)] {
            assert!(Budget { quantize_share, evaluate_share, ..budget }.validate().is_err());
        }
    }
}
