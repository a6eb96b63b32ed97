//! What codes cost by a quantiser, for the repair of collisions.

use candle_core::{DType, Tensor};
use ndarray::{Array2, Axis};
use sid_index::CodeCosts;
use sid_quantize::{QuantizeError, RankCodes, RowSource};

/// Rows that are measured together.
const BLOCK: usize = 4_096;

/// The costs that a quantiser names for the codes of embeddings: the bridge between [`RankCodes`] and
/// [`index::Reassign`](sid_index::Reassign).
///
/// ```
/// use genrec::QuantizerCosts;
/// use genrec::index::{Reassign, SidLayout};
/// use genrec::quantize::{ArrayRows, Fit, Quantizer, ResidualKMeansConfig};
/// use ndarray::Array2;
///
/// // Sixty-four items, and tuples for as many.
/// let embeddings = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 23) as f32);
/// let config = ResidualKMeansConfig::default().with_codebook_sizes([8, 8]);
/// let quantizer = config.fit(&mut ArrayRows::from(embeddings.view()))?;
/// let codes = quantizer.encode_array(embeddings.view(), 64)?;
///
/// let layout = SidLayout::new(vec![8, 8])?;
/// let mut rows = ArrayRows::from(embeddings.view());
/// let mut costs = QuantizerCosts::new(&quantizer, &mut rows);
/// let repaired = Reassign::default().repair(&layout, codes.view(), &mut costs)?;
/// assert_eq!(repaired.report.left, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct QuantizerCosts<'a> {
    quantizer: &'a dyn RankCodes,
    embeddings: &'a mut dyn RowSource,
}

impl std::fmt::Debug for QuantizerCosts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuantizerCosts").field("embeddings", &self.embeddings.len()).finish_non_exhaustive()
    }
}

impl<'a> QuantizerCosts<'a> {
    /// Costs by the quantiser that gave the codes. Of the embeddings only those of items that may move are read.
    ///
    /// # Shapes
    /// - `embeddings`: `(items, dim)`, row by row those of the codes that are repaired
    pub fn new(quantizer: &'a dyn RankCodes, embeddings: &'a mut dyn RowSource) -> Self {
        Self { quantizer, embeddings }
    }
}

impl CodeCosts for QuantizerCosts<'_> {
    type Error = QuantizeError;

    fn costs(&mut self, prefix: &[u32], rows: &[u32]) -> Result<Array2<f32>, QuantizeError> {
        let size = self.quantizer.codebook_sizes().get(prefix.len()).map_or(0, |&size| size as usize);
        let dim = self.embeddings.dim();
        let mut costs = Array2::zeros((rows.len(), size));
        for (rows, mut out) in rows.chunks(BLOCK).zip(costs.axis_chunks_iter_mut(Axis(0), BLOCK)) {
            let which: Vec<usize> = rows.iter().map(|&row| row as usize).collect();
            let mut xs = Array2::zeros((which.len(), dim));
            self.embeddings.gather(&which, xs.view_mut())?;
            let xs = Tensor::from_vec(xs.into_raw_vec_and_offset().0, (which.len(), dim), self.quantizer.device())?;
            let found =
                self.quantizer.code_costs(&xs, prefix)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            out.iter_mut().zip(found).for_each(|(slot, cost)| *slot = cost);
        }
        Ok(costs)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use sid_index::{CollisionPolicy, Reassign, ReassignMethod, SidIndex, SidLayout};
    use sid_quantize::{
        AnyQuantizer, ArrayRows, Fit, FsqConfig, HierarchicalKMeansConfig, ProductKMeansConfig, Quantizer,
        QuantizerConfig, RandomIdsConfig, ResidualKMeansConfig, RqVaeConfig, SimHashLshConfig,
    };

    use super::*;

    fn embeddings() -> Array2<f32> {
        Array2::from_shape_fn((60, 4), |(i, j)| ((i * 7 + j * 3) % 23) as f32 + 0.01 * ((i * j) % 5) as f32)
    }

    fn quantizers() -> Vec<AnyQuantizer> {
        let configs: [QuantizerConfig; 7] = [
            ResidualKMeansConfig::default().with_codebook_sizes([8, 8]).into(),
            ProductKMeansConfig::default().with_codebook_sizes([8, 8]).into(),
            HierarchicalKMeansConfig::default().with_codebook_sizes([8, 8]).into(),
            FsqConfig::default().with_scalars([vec![8], vec![4, 2]]).with_hidden([6]).with_epochs(2).into(),
            SimHashLshConfig::default().with_bits(3).with_levels(2).into(),
            RandomIdsConfig::default().with_codebook_sizes([8, 8]).into(),
            RqVaeConfig::default().with_codebook_sizes([8, 8]).with_hidden([6]).with_epochs(2).into(),
        ];
        configs.iter().map(|config| config.fit(&mut ArrayRows::from(embeddings())).unwrap()).collect()
    }

    #[test]
    fn repair_leaves_no_collision_where_there_is_room_for_all() {
        for quantizer in quantizers() {
            let embeddings = embeddings();
            let codes = quantizer.encode_array(embeddings.view(), 60).unwrap();
            let mut source = ArrayRows::from(embeddings.view());
            // Without a suffix, as shared codes need.
            let layout = SidLayout::new(vec![8, 8]).unwrap().without_suffix();
            for method in [ReassignMethod::Greedy, ReassignMethod::sinkhorn(), ReassignMethod::FirstFit] {
                let mut costs = QuantizerCosts::new(&quantizer, &mut source);
                let reassign = Reassign::default().with_method(method);
                let repaired = reassign.repair(&layout, codes.view(), &mut costs).unwrap();
                // A tree has no other places than its nodes.
                if !matches!(quantizer, AnyQuantizer::HierarchicalKMeans(_)) {
                    assert_eq!(repaired.report.left, 0, "{:?}", quantizer.config());
                    let index = SidIndex::from_codes(layout.clone(), repaired.codes.view(), CollisionPolicy::Share);
                    assert_eq!(index.unwrap().collision_rate(), 0.0);
                }
            }
        }
    }

    #[test]
    fn the_code_of_a_row_costs_least() {
        for quantizer in quantizers() {
            let embeddings = embeddings();
            let codes = quantizer.encode_array(embeddings.view(), 60).unwrap();
            let mut source = ArrayRows::from(embeddings.view());
            for (row, codes) in (0..).zip(codes.outer_iter()) {
                for level in 0..2 {
                    let prefix: Vec<u32> = codes.iter().copied().take(level).collect();
                    let mut costs = QuantizerCosts::new(&quantizer, &mut source);
                    let costs = costs.costs(&prefix, &[row]).unwrap();
                    let best = costs.iter().copied().fold(f32::INFINITY, f32::min);
                    let own = costs[(0, codes[level] as usize)];
                    assert!(own <= best + 1e-3 * (1.0 + best), "{:?}: {own} {best}", quantizer.config());
                }
            }
            let mut costs = QuantizerCosts::new(&quantizer, &mut source);
            assert!(costs.costs(&[], &[60]).is_err());
        }
    }
}
