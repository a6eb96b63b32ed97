//! Mini-batch k-means (Sculley, *Web-Scale K-Means Clustering*, WWW 2010).

use std::ops::ControlFlow;

use candle_core::Device;
use genrec_kernels::CounterRng;
use ndarray::Array2;

use super::{Assignment, Iteration, Lloyd, gather, index};
use crate::{ArrayRows, Result, RowSource};

/// Iterations that a centroid may go without a row before it is moved onto one.
const IDLE: u32 = 10;

/// Share of the newest batch in the running mean of the squared distance, by which the end is decided.
const NEWEST: f64 = 0.1;

impl Lloyd {
    /// Moves the centroids towards the means of `batch` rows drawn anew in each iteration, each by the share of the rows it
    /// has ever had. A centroid that got none for ten iterations takes the place of the row that lies farthest from its
    /// own.
    pub(super) fn mini_batches(
        &self,
        rows: &mut dyn RowSource,
        batch: usize,
        device: &Device,
        centroids: &mut Array2<f32>,
        watch: &mut dyn FnMut(Iteration) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut weights = vec![0_u64; self.codes];
        let mut idle = vec![0_u32; self.codes];
        let mut running: Option<f64> = None;
        for number in 1..=self.iterations {
            let picked = draw(self.rng.named("batch").stream(number as u64), index(rows.len())?, batch);
            let sample = gather(rows, &picked)?;
            let mut assignment = Assignment::new(batch, self.codes, rows.dim());
            assignment.assign(&mut ArrayRows::from(sample.view()), centroids, self.rule, device)?;
            let mut dead = Vec::new();
            for (code, mut centroid) in centroids.outer_iter_mut().enumerate() {
                let Some(mean) = assignment.total.mean(code) else {
                    idle[code] += 1;
                    if idle[code] >= IDLE {
                        dead.push(code);
                    }
                    continue;
                };
                idle[code] = 0;
                let count = assignment.total.counts()[code];
                weights[code] += count;
                let share = count as f32 / weights[code] as f32;
                centroid.iter_mut().zip(mean).for_each(|(slot, mean)| *slot += share * (mean - *slot));
            }
            let far = assignment.farthest(dead.len());
            for (&code, &row) in dead.iter().zip(&far) {
                centroids.row_mut(code).assign(&sample.row(row));
                (weights[code], idle[code]) = (1, 0);
            }
            let used = self.codes - idle.iter().filter(|&&idle| idle > 0).count();
            let step = Iteration { inertia: assignment.inertia, used: used as u32, reseeded: far.len() as u32 };
            tracing::trace!(
                number,
                inertia = step.inertia,
                used,
                reseeded = step.reseeded,
                "mini-batch k-means iteration"
            );
            super::check_inertia(number, step.inertia)?;
            let before = running.unwrap_or(step.inertia);
            let now = before + NEWEST * (step.inertia - before);
            running = Some(now);
            let settled = number as u32 > IDLE && far.is_empty() && (before - now).abs() <= self.tolerance * before;
            if watch(step).is_break() || settled {
                break;
            }
        }
        Ok(())
    }
}

/// Rows drawn uniformly, with repetition, in ascending order: a file is then read forwards.
fn draw(rng: CounterRng, rows: u32, count: usize) -> Vec<usize> {
    let mut picked: Vec<usize> = (0..count as u64).map(|i| rng.below(i, u64::from(rows)) as usize).collect();
    picked.sort_unstable();
    picked
}
