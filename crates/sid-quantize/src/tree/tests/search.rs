use proptest::prelude::*;

use super::*;
use crate::encoder::Codes;
use crate::tree::nodes::Level;

/// A tree whose nodes have 1 to `most` children with centroids that `value` gives.
fn grown(most: &[u32], width: usize, seed: u64, value: impl Fn(&CounterRng, u64) -> f32) -> Arc<Nodes> {
    let mut parents = 1;
    let levels = most.iter().zip(0..).map(|(&most, level)| {
        let rng = CounterRng::new(seed).stream(level);
        let mut offsets = vec![0];
        for parent in 0..parents {
            offsets.push(offsets[parent] + 1 + rng.named("children").below(parent as u64, u64::from(most)) as u32);
        }
        parents = offsets[parents] as usize;
        let values: Vec<f32> = (0..(parents * width) as u64).map(|at| value(&rng, at)).collect();
        Level { centroids: Tensor::from_vec(values, (parents, width), &Device::Cpu).unwrap(), offsets }
    });
    Arc::new(Nodes::new(levels.collect()))
}

/// What a plain search would cost each child: the squared distance, or one minus the cosine.
fn costs(row: &[f32], children: &Tensor, distance: Distance) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cost = |child: Vec<f32>| match distance {
        Distance::Euclidean => dot(row, row) - 2.0 * dot(row, &child) + dot(&child, &child),
        Distance::Cosine => 1.0 - dot(row, &child) / (dot(row, row) * dot(&child, &child)).sqrt(),
    };
    children.to_vec2::<f32>().unwrap().into_iter().map(cost).collect()
}

fn search(nodes: &Arc<Nodes>, width: usize, distance: Distance, rows: &[f32]) -> Vec<u32> {
    let search = TreeSearch::new(Arc::clone(nodes), distance, width).unwrap();
    let mut found = vec![u32::MAX; rows.len() / width * search.levels()];
    search.codes(rows, &mut found).unwrap();
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn integers_go_the_way_of_brute_force(seed: u64, most in prop::collection::vec(1_u32..40, 1..4), n in 0_usize..300) {
        // Small integers: every sum is exact, and ties are frequent.
        let width = 3;
        let nodes = grown(&most, width, seed, |rng, at| rng.below(at, 9) as f32 - 4.0);
        let rng = CounterRng::new(seed).named("rows");
        let rows: Vec<f32> = (0..(n * width) as u64).map(|at| rng.below(at, 11) as f32 - 5.0).collect();
        let found = search(&nodes, width, Distance::Euclidean, &rows);
        for (row, codes) in rows.chunks_exact(width).zip(found.chunks_exact(most.len())) {
            for (level, &code) in codes.iter().enumerate() {
                let costs = costs(row, &nodes.below(&codes[..level]).unwrap(), Distance::Euclidean);
                let least = (0..costs.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b]));
                prop_assert_eq!(Some(code as usize), least);
            }
        }
    }

    #[test]
    fn floats_go_that_way_to_rounding(
        seed: u64, most in prop::collection::vec(1_u32..40, 1..4), width in 1_usize..40, cosine: bool,
    ) {
        let distance = if cosine { Distance::Cosine } else { Distance::Euclidean };
        let nodes = grown(&most, width, seed, |rng, at| rng.normal_at(at));
        let rng = CounterRng::new(seed).named("rows");
        let rows: Vec<f32> = (0..(200 * width) as u64).map(|at| rng.normal_at(at)).collect();
        let found = search(&nodes, width, distance, &rows);
        for (row, codes) in rows.chunks_exact(width).zip(found.chunks_exact(most.len())) {
            for (level, &code) in codes.iter().enumerate() {
                let costs = costs(row, &nodes.below(&codes[..level]).unwrap(), distance);
                let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
                prop_assert!(costs[code as usize] <= least + 1e-5 * (1.0 + least), "{costs:?} {code}");
            }
        }
    }
}

#[test]
fn a_row_has_the_same_codes_alone_and_among_others() {
    let rows = noise(500, 7, 11);
    let model = fit(&small().with_codebook_sizes([4, 20, 3]), &rows);
    let together = codes(&model, &rows);
    for (row, codes) in rows.outer_iter().zip(together.outer_iter()) {
        assert_eq!(model.encode_array(row.insert_axis(Axis(0)), 1).unwrap().row(0), codes);
    }
}

#[test]
fn costs_are_distances_to_children() {
    let rows = noise(200, 4, 12);
    for distance in [Distance::Euclidean, Distance::Cosine] {
        // The last level has fewer children than there are codes.
        let model = fit(&small().with_codebook_sizes([5, 4, 30]).with_distance(distance), &rows);
        let xs = Tensor::from_vec(rows.iter().copied().collect::<Vec<_>>(), (200, 4), &Device::Cpu).unwrap();
        for prefix in [vec![], vec![3], vec![4, 2]] {
            let found = model.code_costs(&xs, &prefix).unwrap().to_vec2::<f32>().unwrap();
            let children = model.children(&prefix).unwrap();
            for (row, found) in rows.outer_iter().zip(&found) {
                let mut expected = costs(row.as_slice().unwrap(), &children, distance);
                expected.resize([5, 4, 30][prefix.len()], f64::INFINITY);
                assert_eq!(found.len(), expected.len());
                for (&found, expected) in found.iter().zip(expected) {
                    let found = f64::from(found);
                    assert!(
                        found == expected || (found - expected).abs() < 1e-4 * (1.0 + expected),
                        "{found} {expected}"
                    );
                }
            }
        }
        assert!(model.children(&[4, 2]).unwrap().dim(0).unwrap() < 30);
        for (prefix, fact) in [(vec![5], "no path"), (vec![0, 4], "no path"), (vec![0, 0, 0], "no level")] {
            let error = model.code_costs(&xs, &prefix).unwrap_err().to_string();
            assert!(error.contains(fact), "{error}");
        }
        assert!(model.code_costs(&xs.narrow(1, 0, 3).unwrap(), &[]).is_err());
    }
}

#[test]
fn codes_are_reconstructed_by_their_leaf() {
    let rows = noise(200, 4, 13);
    let model = fit(&small().with_standardize(true).with_whiten(Some(3)), &rows);
    let paths = prefixes(&model, 3);
    let tensor = |paths: &[Vec<u32>]| Tensor::new(paths.to_vec(), &Device::Cpu).unwrap();
    let near = model.reconstruct(&tensor(&paths)).unwrap();
    let leaf = |path: &Vec<u32>| model.children(&path[..2]).unwrap().narrow(0, path[2] as usize, 1).unwrap();
    let leaves = Tensor::cat(&paths.iter().map(leaf).collect::<Vec<_>>(), 0).unwrap();
    let expected = model.preprocess.invert(&leaves).unwrap();
    assert_eq!(near.to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap());
    let error = model.reconstruct(&tensor(&[vec![0, 1, 2], vec![4, 3, 3]])).unwrap_err().to_string();
    assert!(error.contains("[4, 3, 3] is no path of the tree"), "{error}");
    for wrong in [tensor(&[vec![0, 0]]), tensor(&[vec![0; 4]]), tensor(&[vec![u32::MAX, 0, 0]])] {
        assert!(model.reconstruct(&wrong).is_err());
    }
}
