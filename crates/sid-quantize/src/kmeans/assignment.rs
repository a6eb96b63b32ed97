//! Where each row belongs, pass by pass.

use candle_core::{Device, Tensor};
use genrec_kernels::nearest::{ClusterSums, Codebook, nearest_codes};
use ndarray::{Array2, ArrayView2};

use super::{Rule, balanced, gather};
use crate::coding::Distance;
use crate::input::to_tensor;
use crate::usage::pass;
use crate::{Result, RowSource};

/// Parts of the sums over the rows, and so the most threads that a pass uses.
const SHARES: usize = 16;

/// Rows that make up a share: few rows have few shares to clear and to add up.
const SHARE_ROWS: usize = 96;

/// Brings each row to length 1; one of length 0 stays.
pub(crate) fn normalize_rows(values: &mut [f32], dim: usize) {
    for row in values.chunks_exact_mut(dim.max(1)) {
        // The squares of what f32 can hold are beyond it.
        let length = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
    }
}

/// The centroids of one pass, prepared on the host, and as they lie on a device.
struct Search {
    codebook: Codebook,
    /// What rows are compared with, where that is not the centroids.
    directions: Option<Codebook>,
    device: Option<Tensor>,
}

impl Search {
    fn new(centroids: &Array2<f32>, distance: Distance, device: &Device) -> Result<Self> {
        let dim = centroids.ncols();
        let values = centroids.as_slice().unwrap_or_default();
        let codebook = |values: &[f32]| Codebook::new(values, dim).map_err(candle_core::Error::wrap);
        let mut compared = values.to_vec();
        if distance == Distance::Cosine {
            normalize_rows(&mut compared, dim);
        }
        let directions = if distance == Distance::Cosine { Some(codebook(&compared)?) } else { None };
        let device = match device.is_cpu() {
            true => None,
            false => Some(Tensor::from_vec(compared, centroids.dim(), device)?),
        };
        Ok(Self { codebook: codebook(values)?, directions, device })
    }

    /// The nearest centroid of each row of a block.
    fn nearest(&self, block: ArrayView2<'_, f32>, codes: &mut [u32]) -> Result<()> {
        match &self.device {
            Some(centroids) => {
                let found = nearest_codes(&to_tensor(block, centroids.device())?, centroids)?.to_vec1::<u32>()?;
                codes.copy_from_slice(&found);
            }
            None => self
                .directions
                .as_ref()
                .unwrap_or(&self.codebook)
                .assign(block.as_slice().unwrap_or_default(), codes, None)
                .map_err(candle_core::Error::wrap)?,
        }
        Ok(())
    }
}

/// Where each row belongs, and what is needed to move the centroids.
pub(super) struct Assignment {
    pub(super) codes: Vec<u32>,
    pub(super) distances: Vec<f32>,
    pub(super) shares: Vec<ClusterSums>,
    pub(super) total: ClusterSums,
    pub(super) inertia: f64,
    pub(super) dim: usize,
}

impl Assignment {
    pub(super) fn new(rows: usize, codes: usize, dim: usize) -> Self {
        let empty = ClusterSums::new(codes, dim);
        Self {
            codes: vec![u32::MAX; rows],
            distances: vec![0.0; rows],
            shares: vec![empty.clone(); rows.div_ceil(SHARE_ROWS).clamp(1, SHARES)],
            total: empty,
            inertia: f64::INFINITY,
            dim,
        }
    }

    /// Gives each row its centroid and returns how many rows changed.
    pub(super) fn assign(
        &mut self,
        rows: &mut dyn RowSource,
        centroids: &Array2<f32>,
        rule: Rule,
        device: &Device,
    ) -> Result<usize> {
        self.shares.iter_mut().for_each(ClusterSums::clear);
        let search = Search::new(centroids, rule.distance, device)?;
        let limited = match rule.capacity(rows.len(), centroids.nrows()) {
            Some(capacity) => Some(balanced::assign(rows, centroids, capacity, rule.distance)?),
            None => None,
        };
        let in_one_pass = limited.is_none() && search.device.is_none() && search.directions.is_none();
        let mut changed = 0;
        pass(self.dim, rows, |first, block| {
            let flat = block.as_slice().unwrap_or_default();
            let range = first..first + block.nrows();
            let (codes, distances) = (&mut self.codes[range.clone()], &mut self.distances[range.clone()]);
            if in_one_pass {
                search.codebook.assign_and_sum(flat, codes, distances, &mut self.shares)
            } else {
                let before = codes.to_vec();
                match &limited {
                    Some(limited) => codes.copy_from_slice(&limited[range]),
                    None => search.nearest(block, codes)?,
                }
                changed += before.iter().zip(&*codes).filter(|(old, new)| old != new).count();
                search.codebook.sum(flat, codes, distances, &mut self.shares)
            }
            .map_err(candle_core::Error::wrap)?;
            Ok(())
        })?;
        self.total.clear();
        for share in &self.shares {
            self.total.merge(share);
        }
        self.inertia = self.total.squared_error() / self.codes.len().max(1) as f64;
        Ok(changed + self.total.changed())
    }

    /// Moves each centroid to the mean of its rows, and each that has none to one of the rows farthest from theirs.
    /// Returns how many were moved so.
    pub(super) fn update(&mut self, rows: &mut dyn RowSource, centroids: &mut Array2<f32>) -> Result<u32> {
        let mut empty = Vec::new();
        for (code, mut centroid) in centroids.outer_iter_mut().enumerate() {
            match self.total.mean(code) {
                Some(mean) => centroid.iter_mut().zip(mean).for_each(|(slot, mean)| *slot = mean),
                None => empty.push(code),
            }
        }
        if empty.is_empty() {
            return Ok(0);
        }
        let far = self.farthest(empty.len());
        let seeds = gather(rows, &far)?;
        for (&code, seed) in empty.iter().zip(seeds.outer_iter()) {
            centroids.row_mut(code).assign(&seed);
        }
        Ok(far.len() as u32)
    }

    /// Up to `count` rows that are not their centroids, those farthest from theirs first.
    pub(super) fn farthest(&self, count: usize) -> Vec<usize> {
        if count == 0 {
            return Vec::new();
        }
        let mut far: Vec<usize> = (0..self.distances.len()).filter(|&row| self.distances[row] > 0.0).collect();
        let order = |a: &usize, b: &usize| self.distances[*b].total_cmp(&self.distances[*a]).then(a.cmp(b));
        if count < far.len() {
            far.select_nth_unstable_by(count, order);
            far.truncate(count);
        }
        far.sort_unstable_by(order);
        far
    }
}
