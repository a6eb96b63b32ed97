//! Dropout on candle's graph, at sites that each have a random stream of its own.

use std::cell::Cell;

use candle_core::{Result, Tensor};
use genrec_kernels::CounterRng;
use genrec_kernels::graph;

/// The dropout of one forward pass.
#[derive(Debug)]
pub(crate) struct Dropout {
    rate: f64,
    rng: Option<CounterRng>,
    /// Sites passed so far. The forward pass visits them in a fixed order, which makes the count a name.
    site: Cell<u64>,
}

impl Dropout {
    /// No dropout: inference and validation.
    pub(crate) fn off() -> Self {
        Self { rate: 0.0, rng: None, site: Cell::new(0) }
    }

    /// Dropout drawn from `rng`; none where `rate` is zero.
    pub(crate) fn on(rate: f64, rng: CounterRng) -> Self {
        Self { rate, rng: (rate > 0.0).then_some(rng), site: Cell::new(0) }
    }

    /// The rate and the random stream of the next site, or `None` where nothing is dropped.
    pub(crate) fn next_site(&self) -> Option<(f64, CounterRng)> {
        let rng = self.rng.as_ref()?;
        let site = self.site.get();
        self.site.set(site + 1);
        Some((self.rate, rng.stream(site)))
    }

    /// Zeroes entries with the rate's probability and scales the rest by `1 / (1 - rate)`.
    pub(crate) fn apply(&self, xs: Tensor) -> Result<Tensor> {
        match self.next_site() {
            Some((rate, rng)) => graph::dropout(&xs, rate, &rng),
            None => Ok(xs),
        }
    }
}
