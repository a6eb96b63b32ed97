//! Content and behaviour side by side in one embedding.

#![allow(clippy::needless_pass_by_value, reason = "views are passed by value, as ndarray does")]

mod persist;

use std::sync::OnceLock;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::BehaviourConfig;
use crate::error::{EmbedError, Result};

/// How content and behaviour are blended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BlendConfig {
    /// How behaviour becomes embeddings.
    pub behaviour: BehaviourConfig,
    /// Behaviour's share of the variance of the blended rows, from 0, content alone, to 1. 0.5.
    pub share: f64,
    /// Items nearest in content whose mean behaviour is taken for an item that has none of its own, at least 1. 10.
    pub neighbours: usize,
}

impl Default for BlendConfig {
    fn default() -> Self {
        Self { behaviour: BehaviourConfig::default(), share: 0.5, neighbours: 10 }
    }
}

impl BlendConfig {
    /// Sets [`behaviour`](Self::behaviour).
    #[must_use]
    pub fn with_behaviour(mut self, behaviour: BehaviourConfig) -> Self {
        self.behaviour = behaviour;
        self
    }

    /// Sets [`share`](Self::share).
    #[must_use]
    pub fn with_share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Sets [`neighbours`](Self::neighbours).
    #[must_use]
    pub fn with_neighbours(mut self, neighbours: usize) -> Self {
        self.neighbours = neighbours;
        self
    }

    /// Checks every bound but those that the number of items sets.
    ///
    /// # Errors
    /// [`EmbedError::Config`] names the first setting outside its bounds.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.share) {
            let value = self.share.to_string();
            return Err(EmbedError::Config { field: "BlendConfig::share", value, bound: "from 0 to 1" });
        }
        if self.neighbours == 0 {
            let value = self.neighbours.to_string();
            return Err(EmbedError::Config { field: "BlendConfig::neighbours", value, bound: "at least 1" });
        }
        self.behaviour.validate()
    }
}

/// Rows of content and of behaviour side by side, so that Semantic IDs made of them say both what an item is and who takes
/// it. A Semantic ID of content alone holds no collaborative signal, a limit of TIGER that its successors share.
///
/// Each side is centred and divided by the root of its total variance, then weighed by the root of its share: squared
/// distances, which quantisers go by, are `(1 - share)` parts content and `share` parts behaviour. An item without behaviour of
/// its own, which nobody has taken or which is new, is given that of the items nearest in content (cosine).
///
/// ```
/// use genrec_embed::behaviour::{BehaviourConfig, Blend, BlendConfig};
/// use ndarray::array;
///
/// // Four items of two kinds; users take 0 with 1, and 2 with 3.
/// let content = array![[1.0_f32, 0.0], [0.9, 0.1], [0.1, 0.9], [0.0, 1.0], [0.05, 0.95]];
/// let config = BlendConfig::default().with_neighbours(1).with_behaviour(BehaviourConfig::default().with_dims(2));
/// let blend = Blend::fit(content.view(), [[0, 1], [1, 0], [2, 3], [3, 2]], config)?;
/// let rows = blend.rows(content.view())?;
/// assert_eq!(rows.dim(), (5, blend.dim()));
/// // The last item has been taken by nobody: it lies where the one most like it does.
/// assert!((rows[(4, 2)] - rows[(3, 2)]).abs() < 1e-6);
/// # Ok::<(), genrec_embed::EmbedError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Blend {
    config: BlendConfig,
    content: Side,
    behaviour: Side,
    /// `(items, dims)`, of length 1, or zeros for an item without behaviour.
    rows: Array2<f32>,
}

/// What brings one side to mean 0 and variance 1.
#[derive(Debug, Clone, PartialEq)]
struct Side {
    mean: Array1<f32>,
    /// One over the root of the total variance; 0 where all rows are alike.
    factor: f32,
}

impl Side {
    #[allow(clippy::cast_possible_truncation, reason = "means and factors of f32 rows")]
    fn of<'a>(rows: impl Iterator<Item = ArrayView1<'a, f32>> + Clone, dim: usize) -> Self {
        let mut mean = Array1::<f64>::zeros(dim);
        let mut count = 0.0_f64;
        for row in rows.clone() {
            mean.zip_mut_with(&row, |sum, value| *sum += f64::from(*value));
            count += 1.0;
        }
        mean /= count.max(1.0);
        let square = |row: ArrayView1<'_, f32>| -> f64 {
            row.iter().zip(&mean).map(|(value, mean)| (f64::from(*value) - mean).powi(2)).sum()
        };
        let variance = rows.map(square).sum::<f64>() / count.max(1.0);
        let factor = if variance > 0.0 { 1.0 / variance.sqrt() } else { 0.0 };
        Self { mean: mean.mapv(|value| value as f32), factor: factor as f32 }
    }

    /// Writes a row, brought to mean 0 and variance `weight`, to `out`.
    fn write(&self, row: ArrayView1<'_, f32>, weight: f32, out: &mut [f32]) {
        let factor = self.factor * weight;
        for ((out, value), mean) in out.iter_mut().zip(row).zip(&self.mean) {
            *out = (value - mean) * factor;
        }
    }
}

fn known(row: ArrayView1<'_, f32>) -> bool {
    row.iter().any(|value| *value != 0.0)
}

impl Blend {
    /// Learns from the content of all items and from sequences of training alone.
    ///
    /// # Shapes
    /// - `content`: `(items, features)`
    /// - `sequences`: rows of `content`, oldest first
    ///
    /// # Errors
    /// [`EmbedError::Config`] when a setting is out of bounds, [`EmbedError::UnknownItem`] when a sequence has an item that is no
    /// row of `content`.
    pub fn fit<S>(content: ArrayView2<'_, f32>, sequences: S, config: BlendConfig) -> Result<Self>
    where
        S: IntoIterator,
        S::Item: IntoIterator<Item = u32>,
    {
        config.validate()?;
        let rows = super::embed(sequences, content.nrows(), &config.behaviour)?;
        let (features, dims) = (content.ncols(), rows.ncols());
        let content = Side::of(content.outer_iter(), features);
        let behaviour = Side::of(rows.outer_iter().filter(|row| known(*row)), dims);
        Ok(Self { config, content, behaviour, rows })
    }

    /// The settings it was fitted with.
    pub fn config(&self) -> &BlendConfig {
        &self.config
    }

    /// Columns of a blended row.
    pub fn dim(&self) -> usize {
        self.content.mean.len() + self.rows.ncols()
    }

    /// Columns of content.
    pub fn content_dim(&self) -> usize {
        self.content.mean.len()
    }

    /// Items that it was fitted on.
    pub fn items(&self) -> usize {
        self.rows.nrows()
    }

    /// Blends the items that it was fitted on.
    ///
    /// # Shapes
    /// - `content`: `(items, features)`, as it was fitted on
    /// - result: `(items, dim)`
    ///
    /// # Errors
    /// [`EmbedError::Shape`] when `content` has another shape.
    pub fn rows(&self, content: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        self.check(content, self.items())?;
        let neighbours = OnceLock::new();
        self.blend(content, |item| match self.rows.row(item) {
            row if known(row) => row.to_owned(),
            _ => neighbours.get_or_init(|| Neighbours::new(self, content)).behaviour(content.row(item)),
        })
    }

    /// Blends items that it was not fitted on.
    ///
    /// # Shapes
    /// - `content`: `(items, features)`, as it was fitted on
    /// - `new`: `(new items, features)`
    /// - result: `(new items, dim)`
    ///
    /// # Errors
    /// [`EmbedError::Shape`] when one of the two has another shape.
    pub fn new_rows(&self, content: ArrayView2<'_, f32>, new: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        self.check(content, self.items())?;
        self.check(new, new.nrows())?;
        let neighbours = Neighbours::new(self, content);
        self.blend(new, |item| neighbours.behaviour(new.row(item)))
    }

    fn check(&self, content: ArrayView2<'_, f32>, rows: usize) -> Result<()> {
        let (expected, got) = ((rows, self.content_dim()), content.dim());
        if expected == got { Ok(()) } else { Err(EmbedError::Shape { expected, got }) }
    }

    #[allow(clippy::cast_possible_truncation, reason = "shares from 0 to 1")]
    fn blend(
        &self,
        content: ArrayView2<'_, f32>,
        behaviour: impl Fn(usize) -> Array1<f32> + Sync,
    ) -> Result<Array2<f32>> {
        let (features, dim) = (self.content_dim(), self.dim());
        let weights = [(1.0 - self.config.share).sqrt() as f32, self.config.share.sqrt() as f32];
        let mut values = vec![0.0; content.nrows() * dim];
        values.par_chunks_mut(dim).enumerate().for_each(|(item, out)| {
            let (left, right) = out.split_at_mut(features);
            self.content.write(content.row(item), weights[0], left);
            self.behaviour.write(behaviour(item).view(), weights[1], right);
        });
        Array2::from_shape_vec((content.nrows(), dim), values)
            .map_err(|_| EmbedError::Shape { expected: (content.nrows(), dim), got: (0, dim) })
    }
}

/// The items with behaviour of their own, by content of unit length.
struct Neighbours<'a> {
    blend: &'a Blend,
    items: Vec<usize>,
    content: Array2<f32>,
}

impl<'a> Neighbours<'a> {
    fn new(blend: &'a Blend, content: ArrayView2<'_, f32>) -> Self {
        let items: Vec<usize> = (0..blend.items()).filter(|&item| known(blend.rows.row(item))).collect();
        let mut content = content.select(Axis(0), &items);
        content.outer_iter_mut().for_each(|mut row| {
            let length = row.dot(&row).sqrt();
            row.mapv_inplace(|value| if length > 0.0 { value / length } else { 0.0 });
        });
        Self { blend, items, content }
    }

    /// The mean behaviour of the nearest, of length 1; the mean of all where there is none.
    fn behaviour(&self, content: ArrayView1<'_, f32>) -> Array1<f32> {
        let cosines = self.content.dot(&content);
        let mut nearest: Vec<usize> = (0..self.items.len()).collect();
        let best_first = |a: &usize, b: &usize| cosines[*b].total_cmp(&cosines[*a]).then(a.cmp(b));
        let count = self.blend.config.neighbours.min(nearest.len());
        if count < nearest.len() {
            nearest.select_nth_unstable_by(count, best_first);
            nearest.truncate(count);
        }
        // In the order of the items, whatever the selection did to them: sums are the same bytes.
        nearest.sort_unstable();
        let mut mean = Array1::<f32>::zeros(self.blend.rows.ncols());
        nearest.iter().for_each(|&at| mean += &self.blend.rows.row(self.items[at]));
        let length = mean.dot(&mean).sqrt();
        if length > 0.0 { mean / length } else { self.blend.behaviour.mean.clone() }
    }
}

#[cfg(test)]
mod tests;
