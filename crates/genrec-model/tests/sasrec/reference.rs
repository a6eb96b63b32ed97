//! SASRec once more, by plain loops in double precision: slow, without dropout, and independent of every kernel.

use std::collections::BTreeMap;

use genrec_model::{
    Trainable,
    sasrec::{NormPlacement, SasRec, SasRecConfig, SasRecLoss},
};

use super::values;

type Rows = Vec<Vec<f64>>;

/// A model's weights and shape.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    config: SasRecConfig,
    pub(crate) weights: BTreeMap<String, Vec<f64>>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}

fn log_sum_exp(x: &[f64]) -> f64 {
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    x.iter().map(|x| (x - top).exp()).sum::<f64>().ln() + top
}

impl Reference {
    pub(crate) fn new(model: &SasRec) -> Self {
        let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
        let weights = model.parameters().iter().map(|(name, weight)| (name.to_owned(), wide(values(weight)))).collect();
        Self { config: model.config().clone(), weights }
    }

    fn row(&self, name: &str, index: usize) -> &[f64] {
        &self.weights[name][index * self.config.d_model..][..self.config.d_model]
    }

    fn norm(&self, name: &str, x: &Rows) -> Rows {
        let (w, b) = (&self.weights[&format!("{name}.weight")], &self.weights[&format!("{name}.bias")]);
        let row = |x: &Vec<f64>| -> Vec<f64> {
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            let inverse = (variance + self.config.layer_norm_epsilon).sqrt().recip();
            x.iter().zip(w).zip(b).map(|((x, w), b)| (x - mean) * inverse * w + b).collect()
        };
        x.iter().map(row).collect()
    }

    fn dense(&self, name: &str, x: &Rows) -> Rows {
        let w = &self.weights[&format!("{name}.weight")];
        let row = |x: &Vec<f64>| -> Vec<f64> {
            let mut y: Vec<f64> = w.chunks(x.len()).map(|w| dot(w, x)).collect();
            if let Some(b) = self.weights.get(&format!("{name}.bias")) {
                y.iter_mut().zip(b).for_each(|(y, b)| *y += b);
            }
            y
        };
        x.iter().map(row).collect()
    }

    fn attention(&self, block: usize, x: &Rows) -> Rows {
        let normed = self.norm(&format!("blocks.{block}.attention_norm"), x);
        let (source, base) = match self.config.norm {
            NormPlacement::Queries => (x, &normed),
            _ => (&normed, x),
        };
        let [q, k, v] = [("q", &normed), ("k", source), ("v", source)]
            .map(|(name, x)| self.dense(&format!("blocks.{block}.attention.{name}"), x));
        let width = self.config.d_model / self.config.num_heads;
        let mut out = vec![vec![0.0; self.config.d_model]; x.len()];
        for head in 0..self.config.num_heads {
            let columns = head * width..(head + 1) * width;
            for (i, out) in out.iter_mut().enumerate() {
                let score = |j: usize| dot(&q[i][columns.clone()], &k[j][columns.clone()]) / (width as f64).sqrt();
                let scores: Vec<f64> = (0..=i).map(score).collect();
                let norm = log_sum_exp(&scores);
                for (score, v) in scores.iter().zip(&v) {
                    let p = (score - norm).exp();
                    out[columns.clone()].iter_mut().zip(&v[columns.clone()]).for_each(|(out, v)| *out += p * v);
                }
            }
        }
        add(base, &out)
    }

    fn feed_forward(&self, block: usize, x: &Rows) -> Rows {
        let normed = self.norm(&format!("blocks.{block}.feed_forward_norm"), x);
        let mut hidden = self.dense(&format!("blocks.{block}.feed_forward.input"), &normed);
        hidden.iter_mut().flatten().for_each(|x| *x = x.max(0.0));
        let branch = self.dense(&format!("blocks.{block}.feed_forward.output"), &hidden);
        match self.config.norm {
            NormPlacement::Queries => add(&normed, &branch),
            _ => add(x, &branch),
        }
    }

    /// Scores of all items after each item of a sequence of at most `max_len`.
    pub(crate) fn scores(&self, sequence: &[u32]) -> Rows {
        let scale = (self.config.d_model as f64).sqrt();
        let first = self.config.max_len - sequence.len();
        let embed = |(place, item): (usize, &u32)| -> Vec<f64> {
            let item = self.row("item_embedding.weight", *item as usize);
            let place = self.row("position_embedding.weight", first + place);
            item.iter().zip(place).map(|(item, place)| scale * item + place).collect()
        };
        let mut x: Rows = sequence.iter().enumerate().map(embed).collect();
        for block in 0..self.config.num_layers {
            x = self.attention(block, &x);
            x = self.feed_forward(block, &x);
        }
        let states = self.norm("final_norm", &x);
        let score = |state: &Vec<f64>| -> Vec<f64> {
            (0..self.config.items).map(|item| dot(state, self.row("item_embedding.weight", item))).collect()
        };
        states.iter().map(score).collect()
    }

    /// The mean loss. The negatives of a binary loss must be the same item however they are drawn: each sequence holds all
    /// others.
    pub(crate) fn loss(&self, sequences: &[Vec<u32>]) -> f64 {
        let (mut total, mut count) = (0.0, 0);
        for sequence in sequences.iter().filter(|sequence| sequence.len() > 1) {
            let seen = &sequence[sequence.len().saturating_sub(self.config.max_len + 1)..];
            for (scores, label) in self.scores(&seen[..seen.len() - 1]).iter().zip(&seen[1..]) {
                let right = scores[*label as usize];
                count += 1;
                total += match self.config.loss {
                    SasRecLoss::Bce { negatives } => {
                        let free: Vec<usize> =
                            (0..self.config.items).filter(|item| !sequence.contains(&(*item as u32))).collect();
                        assert_eq!(free.len(), 1);
                        (1.0 + (-right).exp()).ln() + negatives as f64 * (1.0 + scores[free[0]].exp()).ln()
                    }
                    SasRecLoss::FullCrossEntropy { label_smoothing: e } => {
                        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
                        log_sum_exp(scores) - (1.0 - e) * right - e * mean
                    }
                    _ => panic!("a loss that the reference does not know"),
                };
            }
        }
        total / f64::from(count)
    }
}
