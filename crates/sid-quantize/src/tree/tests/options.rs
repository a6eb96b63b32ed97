use super::*;
use crate::{KMeansInit, QuantizerConfig};

/// The model of a configuration beside that of another.
fn pair(a: &HierarchicalKMeansConfig, b: &HierarchicalKMeansConfig, rows: &Array2<f32>) -> [HierarchicalKMeans; 2] {
    [fit(a, rows), fit(b, rows)]
}

/// Mean squared distance of the rows to what their codes stand for.
fn error(model: &HierarchicalKMeans, rows: &Array2<f32>) -> f64 {
    crate::usage::reconstruction_error(model, &mut ArrayRows::from(rows.view())).unwrap().mean_squared
}

#[test]
fn defaults_are_valid_and_fields_have_bounds() {
    assert_eq!(HierarchicalKMeansConfig::default().codebook_sizes, [256; 3]);
    HierarchicalKMeansConfig::default().validate().unwrap();
    for (config, name) in [
        (small().with_codebook_sizes([]), "codebook_sizes"),
        (small().with_codebook_sizes([1 << 21]), "codebook_sizes"),
        (small().with_iterations(0), "iterations"),
        (small().with_tolerance(f64::NAN), "tolerance"),
        (small().with_balance(Some(0.5)), "balance"),
        (small().with_whiten(Some(0)), "whiten"),
        (small().with_whiten(Some(5)), "whiten"),
    ] {
        let found = config.fit(&mut ArrayRows::from(noise(30, 4, 0)));
        assert!(matches!(found, Err(QuantizeError::InvalidConfig { field, .. }) if field == name), "{name}");
    }
}

#[test]
fn the_tag_is_snake_case() {
    let config: QuantizerConfig = serde_json::from_str(r#"{"type": "hierarchical_k_means", "seed": 3}"#).unwrap();
    assert_eq!(config, HierarchicalKMeansConfig::default().with_seed(3).into());
}

#[test]
fn iterations_lower_the_error() {
    let rows = noise(1000, 4, 20);
    let [one, many] = pair(&small().with_iterations(1), &small().with_iterations(50), &rows);
    assert!(error(&many, &rows) < error(&one, &rows));
}

#[test]
fn a_tolerance_ends_a_node_early() {
    let rows = noise(1000, 4, 21);
    let [early, late] = pair(&small().with_tolerance(0.3), &small().with_tolerance(0.0), &rows);
    assert!(error(&late, &rows) < error(&early, &rows));
}

#[test]
fn first_centroids_are_chosen_as_asked() {
    let rows = noise(600, 4, 22);
    let models =
        [KMeansInit::PlusPlus, KMeansInit::Points, KMeansInit::Random].map(|init| fit(&small().with_init(init), &rows));
    assert!(bytes(&models[0]) != bytes(&models[1]) && bytes(&models[1]) != bytes(&models[2]));
    let [few, all] = pair(&small().with_init_rows(5), &small(), &rows);
    assert!(bytes(&few) != bytes(&all));
}

#[test]
fn standardised_features_count_alike() {
    // The last feature decides, the first is a thousand times louder and says nothing.
    let rng = CounterRng::new(3);
    let rows = Array2::from_shape_fn((200, 2), |(i, j)| match j {
        0 => 1000.0 * rng.f32_at(i as u64),
        _ => (i % 2) as f32 * 10.0 + 0.01 * rng.normal_at(i as u64),
    });
    let together = |model: &HierarchicalKMeans| {
        let codes = codes(model, &rows);
        (2..200).all(|row| codes[[row, 0]] == codes[[row % 2, 0]])
    };
    let config = small().with_codebook_sizes([2, 2]);
    assert!(together(&fit(&config.clone().with_standardize(true), &rows)));
    assert!(!together(&fit(&config, &rows)));
}

#[test]
fn whitened_rows_have_the_components_asked_for() {
    let rows = noise(300, 4, 23);
    let model = fit(&small().with_whiten(Some(2)), &rows);
    assert_eq!(model.children(&[0]).unwrap().dims(), [4, 2]);
    assert_eq!(model.dim(), 4);
    let tensors = model.tensors().unwrap();
    let loaded = HierarchicalKMeans::from_tensors(model.config().clone(), 4, &tensors, &Device::Cpu).unwrap();
    assert_eq!(codes(&loaded, &rows), codes(&model, &rows));
}

#[test]
fn the_distance_decides_what_is_near() {
    // Short and long rows of two directions.
    let rows = array![
        [1.0_f32, 0.1],
        [1.1, 0.0],
        [100.0, 1.0],
        [101.0, 0.0],
        [0.0, 1.0],
        [0.1, 1.1],
        [0.0, 90.0],
        [1.0, 91.0]
    ];
    let config = small().with_codebook_sizes([2]);
    let [angle, length] = pair(&config.clone().with_distance(Distance::Cosine), &config, &rows);
    let angle = codes(&angle, &rows).column(0).to_vec();
    assert!(angle[..4].iter().all(|&code| code == angle[0]) && angle[4..].iter().all(|&code| code == 1 - angle[0]));
    let length = codes(&length, &rows).column(0).to_vec();
    assert!(length[2] != length[0] || length[6] != length[4]);
}

#[test]
fn balanced_nodes_have_children_of_like_size() {
    // Most rows lie close together, and k-means alone would leave them so.
    let mut rows = noise(800, 3, 24);
    rows.outer_iter_mut().enumerate().for_each(|(i, mut row)| row *= if i % 8 == 0 { 20.0 } else { 1.0 });
    let largest = |model: &HierarchicalKMeans| {
        let codes = codes(model, &rows);
        let of = |prefix: &[u32]| codes.outer_iter().filter(|row| row.iter().zip(prefix).all(|(a, b)| a == b)).count();
        [1, 2].map(|level| prefixes(model, level).iter().map(|prefix| of(prefix)).max())
    };
    let config = small().with_codebook_sizes([8, 4]);
    let [even, free] = pair(&config.clone().with_balance(Some(1.0)), &config, &rows).map(|model| largest(&model));
    assert!(even[0] < free[0] && even[1] < free[1], "{even:?} {free:?}");
}

#[test]
fn sizes_bound_the_codes() {
    let rows = noise(500, 4, 25);
    let model = fit(&small().with_codebook_sizes([3, 7]), &rows);
    let codes = codes(&model, &rows);
    assert_eq!(model.node_counts(), [3, 21]);
    assert_eq!((codes.column(0).iter().max(), codes.column(1).iter().max()), (Some(&2), Some(&6)));
}
