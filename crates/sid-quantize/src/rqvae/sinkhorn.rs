//! Assignments that use all codes of a batch alike, by entropic optimal transport.

use candle_core::{DType, Device, Result as TensorResult, Tensor};
use serde::{Deserialize, Serialize};

use crate::{QuantizeError, Result};

/// Uniform assignment while training: of each batch every code gets about as many rows, at the least total distance
/// (Zheng et al. 2023, *Adapting Large Language Models by Integrating Collaborative Semantics for Recommendation*,
/// arXiv 2311.09049, section 3.2, after Cuturi, *Sinkhorn Distances*, NeurIPS 2013). After the training a code is the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Sinkhorn {
    /// Strength of the entropy, in units of half the range of the distances; 0.003 by default, as published. The smaller, the
    /// nearer to the cheapest assignment and the slower it converges.
    pub epsilon: f64,
    /// Rounds of scaling; 50 by default, as published.
    pub iterations: usize,
    /// Whether only the last level is assigned so; on by default, as published: the levels before it keep their meaning.
    pub last_level_only: bool,
}

impl Default for Sinkhorn {
    fn default() -> Self {
        Self { epsilon: 3e-3, iterations: 50, last_level_only: true }
    }
}

impl Sinkhorn {
    /// Sets the strength of the entropy and the rounds of scaling.
    #[must_use]
    pub fn with_epsilon(mut self, epsilon: f64, iterations: usize) -> Self {
        (self.epsilon, self.iterations) = (epsilon, iterations);
        self
    }

    /// Sets whether only the last level is assigned so.
    #[must_use]
    pub fn with_last_level_only(mut self, last_level_only: bool) -> Self {
        self.last_level_only = last_level_only;
        self
    }

    pub(super) fn validate(self) -> Result<()> {
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(QuantizeError::config("epsilon", self.epsilon, "it must be finite and above 0"));
        }
        if self.iterations == 0 {
            return Err(QuantizeError::config("iterations", 0, "at least 1 round is needed"));
        }
        Ok(())
    }

    /// The code of each row, given the distances `(n, codes)`; computed on the host.
    pub(super) fn assign(self, distances: &Tensor) -> TensorResult<Tensor> {
        let (rows, codes) = distances.dims2()?;
        let values = distances.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
        let half = ((high - low) / 2.0).max(f64::MIN_POSITIVE);
        // The plan is diag(u) K diag(v). Each row by its own nearest code: what is far then is 0, never all of it.
        let mut kernel = values;
        for row in kernel.chunks_exact_mut(codes.max(1)) {
            let nearest = row.iter().copied().fold(f64::INFINITY, f64::min);
            row.iter_mut().for_each(|x| *x = (-(*x - nearest) / half / self.epsilon).exp());
        }
        let (mut u, mut v) = (vec![1.0; rows], vec![1.0; codes]);
        let tiny = f64::MIN_POSITIVE;
        // The most of the rows' mass that a code takes. Fewer rows than codes have one each: shares of a row would have to fill
        // codes that are far from it.
        let room = (1.0 / codes as f64).max(1.0 / rows.max(1) as f64);
        for _ in 0..self.iterations {
            let mut sums = vec![0.0; codes];
            for (row, u) in kernel.chunks_exact(codes.max(1)).zip(&u) {
                sums.iter_mut().zip(row).for_each(|(sum, k)| *sum += k * u);
            }
            v.iter_mut().zip(&sums).for_each(|(v, sum)| *v = (room / sum.max(tiny)).min(1.0));
            for (row, u) in kernel.chunks_exact(codes.max(1)).zip(&mut u) {
                let sum: f64 = row.iter().zip(&v).map(|(k, v)| k * v).sum();
                *u = 1.0 / rows as f64 / sum.max(tiny);
            }
        }
        let best = |row: &[f64]| {
            let plan = row.iter().zip(&v).map(|(k, v)| k * v);
            plan.zip(0_u32..)
                .fold((f64::NEG_INFINITY, 0), |best, (mass, code)| if mass > best.0 { (mass, code) } else { best })
                .1
        };
        let found: Vec<u32> = kernel.chunks_exact(codes.max(1)).map(best).collect();
        Tensor::from_vec(found, rows, distances.device())
    }
}
