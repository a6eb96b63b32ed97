//! Relative position bias (section 2.1 of [Raffel et al. 2020](https://arxiv.org/abs/1910.10683)): a learnt scalar a
//! head for each bucket of distances, added to the attention scores.

use candle_core::{Result, Tensor};
use genrec_kernels::graph;

/// How distances fall into buckets: half of them hold one distance each, the rest grow logarithmically up to the
/// maximum distance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buckets {
    pub(crate) count: usize,
    pub(crate) max_distance: usize,
    /// Whether keys after the query have buckets of their own (encoder) or share bucket 0 (decoder).
    pub(crate) bidirectional: bool,
}

impl Buckets {
    /// The bucket of the key at position `key` seen from the query at position `query`.
    pub(crate) fn bucket(&self, query: usize, key: usize) -> usize {
        let (count, first, distance) = if self.bidirectional {
            let half = self.count / 2;
            (half, if key > query { half } else { 0 }, key.abs_diff(query))
        } else {
            (self.count, 0, query.saturating_sub(key))
        };
        let exact = count / 2;
        if distance < exact {
            return first + distance;
        }
        // The order of operations in f32 is that of the reference implementation, so that distances on the edge of two
        // buckets fall on the same side.
        let growth = (distance as f32 / exact as f32).ln() / ((self.max_distance as f64 / exact as f64).ln() as f32);
        let far = exact + (growth * (count - exact) as f32) as usize;
        first + far.min(count - 1)
    }

    /// The bias of the queries at positions `first..first + queries` over the keys `0..keys`.
    ///
    /// # Shapes
    /// `weight`: `(buckets, heads)`. Returns `(1, heads, queries, keys)`.
    pub(crate) fn bias(&self, weight: &Tensor, first: usize, queries: usize, keys: usize) -> Result<Tensor> {
        let heads = weight.dim(1)?;
        let ids = (first..first + queries)
            .flat_map(|query| (0..keys).map(move |key| (query, key)))
            .map(|(query, key)| u32::try_from(self.bucket(query, key)).map_err(candle_core::Error::from))
            .collect::<Result<Vec<_>>>()?;
        let ids = Tensor::from_vec(ids, queries * keys, weight.device())?;
        graph::embedding(weight, &ids)?.reshape((queries, keys, heads))?.permute((2, 0, 1))?.contiguous()?.unsqueeze(0)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Table {
        num_buckets: usize,
        max_distance: usize,
        bidirectional: bool,
        first_offset: i64,
        buckets: Vec<usize>,
    }

    #[test]
    fn buckets_are_those_of_transformers() {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/t5/buckets.json"));
        let tables: Vec<Table> = serde_json::from_str(text).unwrap();
        assert_eq!(tables.len(), 8);
        for table in tables {
            let Table { num_buckets: count, max_distance, bidirectional, .. } = table;
            let buckets = Buckets { count, max_distance, bidirectional };
            for (offset, expected) in (table.first_offset..).zip(table.buckets) {
                let query = 1000;
                let key = usize::try_from(1000 + offset).unwrap();
                assert_eq!(buckets.bucket(query, key), expected, "{buckets:?} at {offset}");
            }
        }
    }

    #[test]
    fn the_bias_reads_its_rows() {
        let buckets = Buckets { count: 8, max_distance: 10, bidirectional: true };
        let weight = Tensor::arange(0f32, 16.0, &candle_core::Device::Cpu).unwrap().reshape((8, 2)).unwrap();
        let bias = buckets.bias(&weight, 3, 2, 6).unwrap();
        assert_eq!(bias.dims(), [1, 2, 2, 6]);
        let bias = bias.get(0).unwrap().to_vec3::<f32>().unwrap();
        for (head, rows) in bias.iter().enumerate() {
            for (query, row) in rows.iter().enumerate() {
                for (key, value) in row.iter().enumerate() {
                    assert_eq!(*value, (2 * buckets.bucket(query + 3, key) + head) as f32);
                }
            }
        }
    }
}
