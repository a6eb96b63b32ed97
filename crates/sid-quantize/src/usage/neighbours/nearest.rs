//! The items nearest to some of them, by comparing with all.

use candle_core::Error;
use genrec_kernels::matmul::{Panels, Target, View, padded, product};
use ndarray::Array2;
use rayon::prelude::*;

use super::super::pass;
use super::directions::{Directions, flat};
use crate::{Result, RowSource};

/// Rows that the queries are multiplied by at once.
const ROWS: usize = 1024;

/// Queries that one task multiplies.
const QUERIES: usize = 32;

/// The nearest so far, nearest first, and of those equally near the first.
#[derive(Clone, Debug, Default)]
struct Nearest(Vec<(f32, usize)>);

impl Nearest {
    /// Takes an item that comes after all that were offered before.
    fn offer(&mut self, cosine: f32, item: usize, most: usize) {
        let Self(found) = self;
        if found.len() == most && found.last().is_none_or(|last| cosine <= last.0) {
            return;
        }
        let place = found.partition_point(|other| other.0 >= cosine);
        found.truncate(most - 1);
        found.insert(place, (cosine, item));
    }
}

/// The `most` items at the smallest angle to each query, nearest first, without the query itself.
pub(super) fn of(
    directions: &Directions,
    xs: &mut dyn RowSource,
    queries: &[usize],
    most: usize,
) -> Result<Vec<Vec<usize>>> {
    let dim = directions.dim();
    if most == 0 {
        return Ok(vec![Vec::new(); queries.len()]);
    }
    let mut rows = Array2::zeros((queries.len(), dim));
    xs.gather(queries, rows.view_mut())?;
    let rows: Vec<f32> = rows
        .into_raw_vec_and_offset()
        .0
        .chunks_exact(dim)
        .zip(queries)
        .flat_map(|(row, &query)| directions.normalized(query, row))
        .collect();
    let mut found = vec![Nearest::default(); queries.len()];
    let (mut others, mut items, mut panels) = (Vec::new(), Vec::new(), Panels::default());
    let mut candidates = directions.items().iter().copied().peekable();
    pass(dim, xs, |first, block| {
        for (at, values) in flat(&block).chunks(ROWS * dim).enumerate() {
            let first = first + at * ROWS;
            others.clear();
            items.clear();
            while let Some(item) = candidates.next_if(|&item| item < first + values.len() / dim) {
                let row = &values[(item - first) * dim..][..dim];
                others.extend(directions.normalized(item, row));
                items.push(item);
            }
            panels.par_pack(View::new(&others, items.len(), dim, dim).map_err(Error::wrap)?.t());
            let stride = padded(items.len());
            rows.par_chunks(QUERIES * dim)
                .zip(queries.par_chunks(QUERIES))
                .zip(found.par_chunks_mut(QUERIES))
                .try_for_each_init(Vec::new, |cosines, ((rows, queries), found)| {
                    cosines.resize(queries.len() * stride, 0.0);
                    let rows = View::new(rows, queries.len(), dim, dim)?;
                    product(rows, &panels, Target::set(cosines, stride).with_padding())?;
                    for ((cosines, &query), found) in cosines.chunks_exact(stride.max(1)).zip(queries).zip(found) {
                        for (&cosine, &item) in cosines.iter().zip(&items) {
                            if item != query {
                                found.offer(cosine, item, most);
                            }
                        }
                    }
                    Ok::<(), genrec_kernels::gemm::GemmError>(())
                })
                .map_err(Error::wrap)?;
        }
        Ok(())
    })?;
    Ok(found.into_iter().map(|Nearest(found)| found.into_iter().map(|(_, item)| item).collect()).collect())
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::ArrayRows;

    #[test]
    fn of_items_equally_near_the_first_come_first() {
        let xs = array![[1.0_f32, 0.0], [2.0, 0.0], [0.0, 1.0], [4.0, 0.0], [0.5, 0.0]];
        let mut rows = ArrayRows::from(xs.view());
        let directions = Directions::of(&mut rows).unwrap();
        let found = of(&directions, &mut rows, &[0, 3, 2], 2).unwrap();
        assert_eq!(found, [[1, 3], [0, 1], [0, 1]]);
    }
}
