//! The shape of a SASRec, its loss, and their bounds.

use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// The highest number of weights that a configuration may ask for: 16 GiB in `f32`.
const MAX_PARAMETERS: usize = 1 << 32;
/// The most blocks that a configuration may ask for.
const MAX_LAYERS: usize = 256;
/// The most positions: attention over longer sequences would take a gibibyte a head.
const MAX_LEN: usize = 1 << 14;
/// The most negatives of a position.
const MAX_NEGATIVES: usize = 1 << 16;

/// What a [`SasRec`](super::SasRec) is trained to lower. Both are means over all positions of a batch, in nats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum SasRecLoss {
    /// Binary cross-entropy of the next item against items drawn uniformly from those that the sequence does not hold:
    /// $-\log\sigma(r_+) - \sum_- \log(1 - \sigma(r_-))$, section III-E of the paper.
    ///
    /// With few negatives the scores of most items are hardly ever lowered, which is known to leave the model
    /// overconfident ([Petrov and Macdonald 2023](https://arxiv.org/abs/2308.07192)). A sequence that holds every item
    /// has no negatives.
    Bce {
        /// Negatives of each position; the paper draws 1.
        #[serde(default = "one")]
        negatives: usize,
    },
    /// Cross-entropy of the softmax over all items, which leaves no item out and was found to be what SASRec needs to equal
    /// later models ([Klenitskiy and Vasilev 2023](https://arxiv.org/abs/2309.07602)). The cost of a position grows with
    /// the number of items; no more than a block of rows of the scores is held at a time.
    FullCrossEntropy {
        /// Share of the target that is spread evenly over all items
        /// ([Szegedy et al. 2016](https://arxiv.org/abs/1512.00567), section 7); 0 is none.
        #[serde(default)]
        label_smoothing: f64,
    },
}

fn one() -> usize {
    1
}

impl SasRecLoss {
    /// Binary cross-entropy against this many negatives a position.
    pub fn bce(negatives: usize) -> Self {
        Self::Bce { negatives }
    }

    /// Cross-entropy over all items, without smoothing.
    pub fn full_cross_entropy() -> Self {
        Self::FullCrossEntropy { label_smoothing: 0.0 }
    }
}

impl Default for SasRecLoss {
    /// [`FullCrossEntropy`](Self::FullCrossEntropy) without smoothing: at catalogues of some ten thousand items it costs a
    /// CPU seconds an epoch, and ranks better by far.
    fn default() -> Self {
        Self::full_cross_entropy()
    }
}

/// Where the norm of a block stands, and what its branch is added to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NormPlacement {
    /// As in the authors' program: queries are of the normalised stream, keys and values of the stream itself, and each
    /// branch is added to the normalised stream, $x \leftarrow \hat x + f(\hat x)$.
    #[default]
    Queries,
    /// As in section III-C of the paper and in later transformers: all of a branch reads the normalised stream and is added
    /// to the stream itself, $x \leftarrow x + f(\hat x)$.
    Branches,
}

/// The shape of a [`SasRec`](super::SasRec), and how it is trained.
///
/// ```
/// use genrec_model::sasrec::{SasRecConfig, SasRecLoss};
///
/// let config = SasRecConfig::new(12_101).with_heads(2).with_loss(SasRecLoss::bce(1));
/// config.validate()?;
/// assert_eq!((config.max_len, config.d_model, config.num_layers), (50, 64, 2));
/// # Ok::<(), genrec_model::ModelError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SasRecConfig {
    /// Number of items of the catalogue. The default of 0 is to be replaced.
    pub items: usize,
    /// Positions that the model sees: the last items of a history; 50, as in the paper for its sparse data sets. At most
    /// 16,384.
    pub max_len: usize,
    /// Width of the embeddings and of the stream; 64, the multiple of a vector register's width that is nearest to the
    /// paper's 50.
    pub d_model: usize,
    /// Self-attention blocks; 2, as in the paper. At most 256.
    pub num_layers: usize,
    /// Heads of each block, of which each has `d_model / num_heads` columns; 1, as in the paper, which found no gain in
    /// two.
    pub num_heads: usize,
    /// Inner width of the feed-forward network; 64, for in the paper it is that of the stream.
    pub d_ff: usize,
    /// Probability of dropping an embedding, an attention probability or an activation of the feed-forward network in
    /// training, in `[0, 1)`; 0.5, as in the paper for its sparse data sets.
    pub dropout_rate: f64,
    /// Where the norms stand; as in the authors' program.
    pub norm: NormPlacement,
    /// Added to the variance in the norms; 1e-8, as in the authors' program.
    pub layer_norm_epsilon: f64,
    /// What training lowers; cross-entropy over all items.
    pub loss: SasRecLoss,
}

impl Default for SasRecConfig {
    fn default() -> Self {
        Self {
            items: 0,
            max_len: 50,
            d_model: 64,
            num_layers: 2,
            num_heads: 1,
            d_ff: 64,
            dropout_rate: 0.5,
            norm: NormPlacement::default(),
            layer_norm_epsilon: 1e-8,
            loss: SasRecLoss::default(),
        }
    }
}

impl SasRecConfig {
    /// The defaults for a catalogue of that size.
    pub fn new(items: usize) -> Self {
        Self { items, ..Self::default() }
    }

    /// Sets the positions that the model sees.
    #[must_use]
    pub fn with_max_len(mut self, max_len: usize) -> Self {
        self.max_len = max_len;
        self
    }

    /// Sets the width of the stream and the inner width of the feed-forward network to the same.
    #[must_use]
    pub fn with_d_model(mut self, d_model: usize) -> Self {
        (self.d_model, self.d_ff) = (d_model, d_model);
        self
    }

    /// Sets the number of blocks.
    #[must_use]
    pub fn with_layers(mut self, num_layers: usize) -> Self {
        self.num_layers = num_layers;
        self
    }

    /// Sets the number of heads.
    #[must_use]
    pub fn with_heads(mut self, num_heads: usize) -> Self {
        self.num_heads = num_heads;
        self
    }

    /// Sets the inner width of the feed-forward network.
    #[must_use]
    pub fn with_d_ff(mut self, d_ff: usize) -> Self {
        self.d_ff = d_ff;
        self
    }

    /// Sets the probability of dropping an activation in training.
    #[must_use]
    pub fn with_dropout_rate(mut self, dropout_rate: f64) -> Self {
        self.dropout_rate = dropout_rate;
        self
    }

    /// Sets where the norms stand.
    #[must_use]
    pub fn with_norm(mut self, norm: NormPlacement) -> Self {
        self.norm = norm;
        self
    }

    /// Sets the loss.
    #[must_use]
    pub fn with_loss(mut self, loss: SasRecLoss) -> Self {
        self.loss = loss;
        self
    }

    /// Width of a head.
    pub(crate) fn d_head(&self) -> usize {
        self.d_model / self.num_heads.max(1)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ModelError::Config`] names the first field out of its bounds.
    pub fn validate(&self) -> Result<(), ModelError> {
        let bad = |field, value: &dyn ToString, bound: &str| {
            Err(ModelError::Config { field, value: value.to_string(), bound: bound.to_owned() })
        };
        let in_range = |field, value: usize, most: usize| match value {
            0 => bad(field, &value, "at least 1"),
            value if value > most => bad(field, &value, &format!("at most {most}")),
            _ => Ok(()),
        };
        in_range("items", self.items, u32::MAX as usize)?;
        in_range("max_len", self.max_len, MAX_LEN)?;
        in_range("d_model", self.d_model, usize::MAX)?;
        in_range("num_layers", self.num_layers, MAX_LAYERS)?;
        in_range("num_heads", self.num_heads, self.d_model)?;
        in_range("d_ff", self.d_ff, usize::MAX)?;
        if !self.d_model.is_multiple_of(self.num_heads) {
            return bad("num_heads", &self.num_heads, &format!("a divisor of d_model, {}", self.d_model));
        }
        if !(0.0..1.0).contains(&self.dropout_rate) {
            return bad("dropout_rate", &self.dropout_rate, "in [0, 1)");
        }
        if !(self.layer_norm_epsilon.is_finite() && self.layer_norm_epsilon > 0.0) {
            return bad("layer_norm_epsilon", &self.layer_norm_epsilon, "positive and finite");
        }
        match self.loss {
            SasRecLoss::Bce { negatives } => in_range("negatives", negatives, MAX_NEGATIVES)?,
            SasRecLoss::FullCrossEntropy { label_smoothing } => {
                if !(0.0..1.0).contains(&label_smoothing) {
                    return bad("label_smoothing", &label_smoothing, "in [0, 1)");
                }
            }
        }
        match self.count_parameters() {
            Some(count) if count <= MAX_PARAMETERS => Ok(()),
            _ => bad("d_model", &self.d_model, &format!("so small that all weights number at most {MAX_PARAMETERS}")),
        }
    }

    /// Number of weights, or `None` where it overflows.
    fn count_parameters(&self) -> Option<usize> {
        let (d, d_ff) = (self.d_model, self.d_ff);
        let tables = self.items.checked_add(self.max_len)?.checked_mul(d)?;
        let matrices = d.checked_mul(3)?.checked_add(d_ff.checked_mul(2)?)?.checked_mul(d)?;
        let vectors = d.checked_mul(7)?.checked_add(d_ff)?;
        let blocks = matrices.checked_add(vectors)?.checked_mul(self.num_layers)?;
        tables.checked_add(blocks)?.checked_add(d.checked_mul(2)?)
    }
}
