//! The codebooks' first codewords.

use std::ops::ControlFlow;

use candle_core::Device;
use genrec_kernels::CounterRng;
use ndarray::{Array2, Axis, concatenate, s};

use super::RqVaeConfig;
use super::codebooks::Codebooks;
use crate::coding::Composition;
use crate::input::to_tensor;
use crate::kmeans::{Clusters, Lloyd, Rule};
use crate::{ArrayRows, Result};

/// Sets each codebook to the centroids of what its level has to code over these latent vectors, `(n, latent)`.
///
/// One that all levels share gets an equal part of its codewords from each level, so that it has codewords of every length
/// that residuals have.
pub(super) fn init_codebooks(
    config: &RqVaeConfig,
    books: &Codebooks,
    latent: Array2<f32>,
    rng: &CounterRng,
) -> Result<()> {
    let levels = config.codebook_sizes.len();
    let columns = config.composition.columns(config.latent_dim, levels);
    let mut residual = latent;
    let mut shared = Vec::new();
    for (level, columns) in columns.into_iter().enumerate() {
        let size = config.codebook_sizes[level] as usize;
        let codes = match config.shared_codebook {
            true => size / levels + usize::from(level < size % levels),
            false => size,
        };
        let part = residual.slice(s![.., columns]).to_owned();
        let Clusters { centroids, codes, .. } = clusters(config, &part, codes, rng.stream(level as u64))?;
        if config.composition == Composition::Residual {
            for (mut row, &code) in residual.outer_iter_mut().zip(&codes) {
                row -= &centroids.row(code as usize);
            }
        }
        if config.shared_codebook {
            shared.push(centroids);
        } else {
            books.set(level, &to_tensor(centroids.view(), books.params.device())?)?;
        }
    }
    if !shared.is_empty() {
        let views: Vec<_> = shared.iter().map(|part| part.view()).collect();
        let all = concatenate(Axis(0), &views).unwrap_or_default();
        books.set(0, &to_tensor(all.view(), books.params.device())?)?;
    }
    Ok(())
}

fn clusters(config: &RqVaeConfig, rows: &Array2<f32>, codes: usize, rng: CounterRng) -> Result<Clusters> {
    let lloyd = Lloyd {
        codes,
        iterations: config.init_iterations,
        tolerance: 0.0,
        batch: None,
        rule: Rule { distance: config.distance, balance: None },
        init: config.init,
        init_rows: rows.nrows(),
        rng,
    };
    lloyd.run(&mut ArrayRows::from(rows.view()), &Device::Cpu, &mut |_| ControlFlow::Continue(()))
}
