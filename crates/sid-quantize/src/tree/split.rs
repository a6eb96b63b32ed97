//! The children of one node.

use std::collections::HashMap;
use std::ops::ControlFlow;

use candle_core::Device;

use crate::coding::Distance;
use crate::kmeans::{Clusters, Lloyd, normalize_rows, squared_distance};
use crate::usage::pass;
use crate::{Result, RowSource};

/// The children of a node, each of them with a row at least.
pub(super) struct Split {
    /// `(children, width)`, row after row.
    pub(super) centroids: Vec<f32>,
    /// The child of each row.
    pub(super) codes: Vec<u32>,
    /// Sum of the rows' squared distances to their children.
    pub(super) error: f64,
    /// Centroids that were moved onto another row because they had none.
    pub(super) reseeded: u32,
}

/// Clusters the rows of a node: by k-means, or with a child for each distinct row where there are not too many of them.
pub(super) fn split(rows: &mut dyn RowSource, lloyd: &Lloyd, device: &Device) -> Result<Split> {
    if let Some(codes) = distinct(rows, lloyd.codes, lloyd.rule.distance)? {
        return means(rows, codes);
    }
    let mut reseeded = 0;
    let clusters = lloyd.run(rows, device, &mut |step| {
        reseeded += step.reseeded;
        ControlFlow::Continue(())
    })?;
    Ok(used(clusters, reseeded))
}

/// Numbers rows, or directions where those alone matter, in the order in which they first occur; `None` where there are more
/// than `most`.
fn distinct(rows: &mut dyn RowSource, most: usize, distance: Distance) -> Result<Option<Vec<u32>>> {
    let dim = rows.dim();
    let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
    let mut codes = Vec::new();
    let mut row = Vec::new();
    pass(dim, rows, |_, block| {
        for values in block.outer_iter() {
            if known.len() > most {
                break;
            }
            row.clear();
            row.extend(values);
            if distance == Distance::Cosine {
                normalize_rows(&mut row, dim);
            }
            // Zero has two forms; the sum has the positive one.
            let key = row.iter().map(|x| (x + 0.0).to_bits()).collect();
            let next = known.len() as u32;
            codes.push(*known.entry(key).or_insert(next));
        }
        Ok(())
    })?;
    Ok((known.len() <= most).then_some(codes))
}

/// Children that are the means of the rows that have their codes.
fn means(rows: &mut dyn RowSource, codes: Vec<u32>) -> Result<Split> {
    let dim = rows.dim();
    let children = codes.iter().max().map_or(0, |&code| code as usize + 1);
    let mut sums = vec![0.0_f64; children * dim];
    let mut counts = vec![0.0_f64; children];
    pass(dim, rows, |first, block| {
        for (row, &code) in block.outer_iter().zip(&codes[first..]) {
            let sum = &mut sums[code as usize * dim..][..dim];
            sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            counts[code as usize] += 1.0;
        }
        Ok(())
    })?;
    let means = sums.chunks_exact(dim).zip(&counts);
    let centroids: Vec<f32> = means.flat_map(|(sum, count)| sum.iter().map(move |sum| (sum / count) as f32)).collect();
    let mut error = 0.0;
    pass(dim, rows, |first, block| {
        let rows = block.as_slice().unwrap_or_default().chunks_exact(dim);
        for (row, &code) in rows.zip(&codes[first..]) {
            error += squared_distance(row, &centroids[code as usize * dim..][..dim]);
        }
        Ok(())
    })?;
    Ok(Split { centroids, codes, error, reseeded: 0 })
}

/// The clusters that have rows.
fn used(clusters: Clusters, reseeded: u32) -> Split {
    let Clusters { centroids, mut codes, inertia, .. } = clusters;
    let error = inertia * codes.len() as f64;
    let mut number = vec![None; centroids.nrows()];
    codes.iter().for_each(|&code| number[code as usize] = Some(0));
    let mut kept = Vec::with_capacity(centroids.len());
    for (next, (number, centroid)) in
        (0..).zip(number.iter_mut().zip(centroids.outer_iter()).filter(|(number, _)| number.is_some()))
    {
        *number = Some(next);
        kept.extend(centroid);
    }
    codes.iter_mut().for_each(|code| *code = number[*code as usize].unwrap_or(0));
    Split { centroids: kept, codes, error, reseeded }
}
