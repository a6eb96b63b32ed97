use ndarray::array;
use proptest::prelude::*;

use super::init::sample_sparse;
use super::*;
use crate::ArrayRows;

fn lloyd(codes: usize, seed: u64) -> Lloyd {
    Lloyd {
        codes,
        iterations: 50,
        tolerance: 0.0,
        batch: None,
        rule: Rule::default(),
        init: KMeansInit::PlusPlus,
        init_rows: 1000,
        rng: CounterRng::new(seed),
    }
}

fn run(lloyd: Lloyd, rows: &Array2<f32>) -> (Clusters, Vec<f64>) {
    let mut trace = Vec::new();
    let clusters = lloyd
        .run(&mut ArrayRows::from(rows.view()), &Device::Cpu, &mut |step| {
            trace.push(step.inertia);
            ControlFlow::Continue(())
        })
        .unwrap();
    (clusters, trace)
}

fn noise(rows: usize, dim: usize, seed: u64) -> Array2<f32> {
    let rng = CounterRng::new(seed);
    Array2::from_shape_fn((rows, dim), |(i, j)| rng.normal_at((i * dim + j) as u64))
}

fn distance(a: ndarray::ArrayView1<'_, f32>, b: ndarray::ArrayView1<'_, f32>) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

#[test]
fn planted_clusters_are_found() {
    // Twelve centres far apart on a circle, noise far smaller than the gaps.
    let spread = noise(1200, 3, 5) * 0.05;
    let rows = Array2::from_shape_fn((1200, 3), |(i, j)| {
        let angle = (i % 12) as f32 / 12.0 * std::f32::consts::TAU;
        spread[[i, j]] + 20.0 * [angle.cos(), angle.sin(), 0.0][j]
    });
    for seed in 0..5 {
        let (clusters, _) = run(lloyd(12, seed), &rows);
        for (row, &code) in clusters.codes.iter().enumerate() {
            assert_eq!(code, clusters.codes[row % 12], "row {row}, seed {seed}");
        }
        let mut labels = clusters.codes[..12].to_vec();
        labels.sort_unstable();
        assert_eq!(labels, (0..12).collect::<Vec<_>>());
    }
}

#[test]
fn the_objective_never_rises() {
    for (seed, init) in [(1, KMeansInit::PlusPlus), (2, KMeansInit::Points), (3, KMeansInit::Progressive)] {
        let (_, trace) = run(Lloyd { init, ..lloyd(40, seed) }, &noise(900, 6, seed));
        assert!(trace.len() > 3, "{trace:?}");
        for pair in trace.windows(2) {
            assert!(pair[1] <= pair[0] * (1.0 + 1e-6), "{trace:?}");
        }
    }
}

#[test]
fn first_centroids_are_the_same_on_any_number_of_threads() {
    for (init, dim) in [(KMeansInit::PlusPlus, 6), (KMeansInit::Progressive, 6), (KMeansInit::Progressive, 1)] {
        let rows = noise(1900, dim, 8);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let lloyd = Lloyd { init, ..lloyd(30, 5) };
            pool.install(|| init::first_centroids(&lloyd, &mut ArrayRows::from(rows.view()))).unwrap()
        };
        let first = on(1);
        assert_eq!(first.dim(), (30, dim));
        assert_eq!(first, on(2));
    }
}

#[test]
fn first_centroids_do_not_depend_on_where_the_rows_lie() {
    // Sums of these are exact in f32.
    let near = noise(900, 6, 8).mapv(|x| (64.0 * x).round() / 64.0);
    let far = &near + 65_536.0;
    let inertia = |rows: &Array2<f32>| run(Lloyd { init: KMeansInit::Progressive, ..lloyd(30, 5) }, rows).0.inertia;
    assert!((inertia(&near) / inertia(&far) - 1.0).abs() < 0.02, "{} and {}", inertia(&near), inertia(&far));
}

#[test]
fn very_wide_rows_start_from_k_means_plus_plus() {
    let rows = noise(40, 2049, 8);
    let first =
        |init| init::first_centroids(&Lloyd { init, ..lloyd(4, 5) }, &mut ArrayRows::from(rows.view())).unwrap();
    assert_eq!(first(KMeansInit::Progressive), first(KMeansInit::PlusPlus));
}

#[test]
fn limits_hold_far_from_the_origin() {
    let near = noise(97, 5, 3).mapv(|x| (64.0 * x).round() / 64.0);
    let centroids = noise(8, 5, 4).mapv(|x| (64.0 * x).round() / 128.0);
    let codes = |offset: f32| {
        let (rows, centroids) = (&near + offset, &centroids + offset);
        balanced::assign(&mut ArrayRows::from(rows.view()), &centroids, 13, Distance::Euclidean).unwrap()
    };
    assert_eq!(codes(0.0), codes(65_536.0));
}

#[test]
fn centroids_are_means_and_codes_are_nearest_at_the_end() {
    let rows = noise(700, 5, 9);
    let (clusters, _) = run(lloyd(16, 4), &rows);
    for code in 0..16 {
        let members: Vec<usize> = (0..700).filter(|&row| clusters.codes[row] == code).collect();
        assert!(!members.is_empty());
        for column in 0..5 {
            let mean = members.iter().map(|&row| f64::from(rows[[row, column]])).sum::<f64>() / members.len() as f64;
            assert!((mean - f64::from(clusters.centroids[[code as usize, column]])).abs() < 1e-5);
        }
    }
    for (row, &code) in rows.outer_iter().zip(&clusters.codes) {
        let own = distance(row, clusters.centroids.row(code as usize));
        let best = clusters.centroids.outer_iter().map(|c| distance(row, c)).fold(f64::INFINITY, f64::min);
        assert!(own <= best + 1e-5);
    }
}

#[test]
fn empty_clusters_move_to_the_farthest_rows() {
    let rows = array![[0.0_f32], [0.1], [0.2], [10.0], [0.15]];
    let mut source = ArrayRows::from(rows.view());
    let mut centroids = array![[0.0_f32], [-500.0], [-600.0]];
    let mut assignment = Assignment::new(5, 3, 1);
    assignment.assign(&mut source, &centroids, Rule::default(), &Device::Cpu).unwrap();
    assert_eq!(assignment.update(&mut source, &mut centroids).unwrap(), 2);
    assert!((centroids[[0, 0]] - 2.09).abs() < 1e-5);
    assert_eq!((centroids[[1, 0]], centroids[[2, 0]]), (10.0, 0.2));
}

#[test]
fn fewer_distinct_rows_than_codes_end_quietly() {
    let rows = Array2::from_shape_fn((20, 2), |(i, _)| (i % 3) as f32);
    let (clusters, trace) = run(lloyd(8, 0), &rows);
    assert_eq!(trace.last(), Some(&0.0));
    assert!(clusters.centroids.iter().all(|x| x.is_finite()));
}

#[test]
fn too_few_rows_are_refused_with_the_remedy() {
    let error = lloyd(8, 0)
        .run(&mut ArrayRows::from(noise(7, 2, 0)), &Device::Cpu, &mut |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(error.to_string().contains("lower the codebook size to 7"), "{error}");
}

#[test]
fn tolerance_and_watcher_end_a_run() {
    let rows = noise(2000, 4, 3);
    let (_, all) = run(lloyd(32, 1), &rows);
    let (_, short) = run(Lloyd { tolerance: 0.01, ..lloyd(32, 1) }, &rows);
    assert!(short.len() < all.len() && short[..] == all[..short.len()]);
    let mut calls = 0;
    lloyd(32, 1)
        .run(&mut ArrayRows::from(rows.view()), &Device::Cpu, &mut |_| {
            calls += 1;
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!(calls, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn one_iteration_agrees_with_brute_force(
        values in prop::collection::vec(-8_i8..8, 30 * 2),
        starts in prop::collection::vec(-8_i8..8, 4 * 2),
    ) {
        let rows = Array2::from_shape_fn((30, 2), |(i, j)| f32::from(values[i * 2 + j]));
        let mut centroids = Array2::from_shape_fn((4, 2), |(i, j)| f32::from(starts[i * 2 + j]));
        let mut source = ArrayRows::from(rows.view());
        let mut assignment = Assignment::new(30, 4, 2);
        let before = centroids.clone();
        assignment.assign(&mut source, &centroids, Rule::default(), &Device::Cpu).unwrap();
        assignment.update(&mut source, &mut centroids).unwrap();
        let mut total = 0.0;
        for (row, &code) in rows.outer_iter().zip(&assignment.codes) {
            // Small integers: distances are exact, the first of equals wins.
            let best = (0..4).min_by(|&a, &b| distance(row, before.row(a)).total_cmp(&distance(row, before.row(b))));
            prop_assert_eq!(Some(code as usize), best);
            total += distance(row, before.row(code as usize));
        }
        prop_assert!((assignment.inertia - total / 30.0).abs() < 1e-9);
        for code in 0..4 {
            let members: Vec<usize> = (0..30).filter(|&row| assignment.codes[row] as usize == code).collect();
            if !members.is_empty() {
                let mean = members.iter().map(|&row| rows[[row, 1]]).sum::<f32>() / members.len() as f32;
                prop_assert!((centroids[[code, 1]] - mean).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn mini_batches_come_near_to_all_rows() {
    let rows = noise(6000, 4, 3);
    let mean = |clusters: &Clusters| {
        let distances = clusters.codes.iter().zip(rows.outer_iter());
        distances.map(|(&code, row)| distance(row, clusters.centroids.row(code as usize))).sum::<f64>() / 6000.0
    };
    let (all, _) = run(lloyd(32, 1), &rows);
    let (some, trace) = run(Lloyd { batch: Some(512), iterations: 80, ..lloyd(32, 1) }, &rows);
    assert!(trace.len() > 10, "{trace:?}");
    assert!(mean(&some) < 1.1 * mean(&all), "{} against {}", mean(&some), mean(&all));
    for (row, &code) in rows.outer_iter().zip(&some.codes) {
        let nearest = some.centroids.outer_iter().map(|c| distance(row, c)).fold(f64::INFINITY, f64::min);
        assert!(distance(row, some.centroids.row(code as usize)) <= nearest * (1.0 + 1e-5));
    }
    let again = run(Lloyd { batch: Some(512), iterations: 80, ..lloyd(32, 1) }, &rows).0;
    assert_eq!((again.centroids, again.codes), (some.centroids, some.codes));
}

#[test]
fn mini_batches_move_a_centroid_that_no_row_chooses() {
    // Two tight groups; both first centroids lie in the first.
    let rows = Array2::from_shape_fn((400, 1), |(i, _)| if i < 396 { (i % 7) as f32 * 1e-3 } else { 100.0 });
    let (clusters, _) = run(Lloyd { batch: Some(100), iterations: 60, init: KMeansInit::Points, ..lloyd(3, 4) }, &rows);
    assert_eq!(clusters.codes[396..].iter().min(), clusters.codes[396..].iter().max());
    assert!(!clusters.codes[..396].contains(&clusters.codes[399]));
}

#[test]
fn samples_are_distinct_rows_in_order() {
    for (rows, wanted) in [(1000, 1000), (1000, 900), (1_000_000, 700), (3_000_000_000, 50), (5, 9)] {
        let picked = sample_rows(CounterRng::new(4), rows, wanted).unwrap();
        assert_eq!(picked.len(), wanted.min(rows));
        assert!(picked.windows(2).all(|pair| pair[0] < pair[1]) && picked.last().unwrap() < &rows);
    }
    // All of a few rows, whatever is drawn twice.
    assert_eq!(sample_sparse(CounterRng::new(1), 6, 6), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_run_goes_on_from_centroids_that_are_given() {
    let rows = noise(800, 4, 6);
    let first = Lloyd { iterations: 5, ..lloyd(20, 2) };
    let (half, mut trace) = run(first, &rows);
    let (whole, all) = run(Lloyd { iterations: 12, ..first }, &rows);
    let rest = Lloyd { iterations: 7, ..first }
        .run_from(half.centroids, &mut ArrayRows::from(rows.view()), &Device::Cpu, &mut |step| {
            trace.push(step.inertia);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((trace, rest.codes), (all, whole.codes));
    assert_eq!(rest.centroids, whole.centroids);
}

#[test]
fn limits_hold_and_no_row_and_cluster_would_both_rather_have_each_other() {
    for distance_of in [Distance::Euclidean, Distance::Cosine] {
        let (rows, centroids) = (noise(97, 5, 3), noise(8, 5, 4) * 0.5);
        let capacity = 13;
        let codes = balanced::assign(&mut ArrayRows::from(rows.view()), &centroids, capacity, distance_of).unwrap();
        let measure = |row: usize, code: usize| match distance_of {
            Distance::Euclidean => distance(rows.row(row), centroids.row(code)),
            Distance::Cosine => {
                let dot = |a: ndarray::ArrayView1<'_, f32>, b: ndarray::ArrayView1<'_, f32>| f64::from(a.dot(&b));
                let (x, c) = (rows.row(row), centroids.row(code));
                1.0 - dot(x, c) / (dot(x, x) * dot(c, c)).sqrt()
            }
        };
        let mut clusters = vec![Vec::new(); 8];
        codes.iter().zip(0..).for_each(|(&code, row)| clusters[code as usize].push(row));
        assert!(clusters.iter().all(|members| members.len() <= capacity), "{clusters:?}");
        for (own, cluster) in clusters.iter().enumerate() {
            for &row in cluster {
                for (other, members) in clusters.iter().enumerate() {
                    let would_leave = measure(row, other) + 1e-5 < measure(row, own);
                    let farthest = members.iter().map(|&row| measure(row, other)).fold(0.0, f64::max);
                    let has_room = members.len() < capacity || measure(row, other) + 1e-5 < farthest;
                    assert!(!(would_leave && has_room), "row {row} and cluster {other}");
                }
            }
        }
    }
}

#[test]
fn a_run_whose_error_may_rise_keeps_its_best_iteration() {
    let rows = noise(900, 6, 8);
    for rule in [Rule { balance: Some(1.0), ..Rule::default() }, Rule { distance: Distance::Cosine, ..Rule::default() }]
    {
        let (clusters, trace) = run(Lloyd { rule, ..lloyd(40, 2) }, &rows);
        let lowest = trace.iter().copied().fold(f64::INFINITY, f64::min);
        // Not at the first iteration that does not lower it.
        assert!(trace.len() > 9, "{trace:?}");
        if let Some(limited) = &clusters.limited {
            let mut counts = vec![0; 40];
            limited.iter().for_each(|&code| counts[code as usize] += 1);
            assert!(counts.iter().all(|&count| count <= 23), "{counts:?}");
            let error: f64 = limited
                .iter()
                .zip(rows.outer_iter())
                .map(|(&c, row)| distance(row, clusters.centroids.row(c as usize)))
                .sum();
            assert!((error / 900.0 - lowest).abs() < 1e-3 * lowest, "{} {lowest}", error / 900.0);
            assert!(clusters.inertia <= lowest);
        } else {
            assert!((clusters.inertia - lowest).abs() < 1e-9);
        }
    }
}

#[test]
fn points_drawn_have_the_mean_and_the_covariance_of_the_rows() {
    let base = noise(500, 2, 6);
    let rows =
        Array2::from_shape_fn((500, 2), |(i, j)| 5.0 + base[[i, 0]] * [2.0, 1.0][j] + 0.3 * base[[i, 1]] * j as f32);
    let points =
        init::first_centroids(&Lloyd { init: KMeansInit::Random, ..lloyd(400, 1) }, &mut ArrayRows::from(rows.view()))
            .unwrap();
    let moments = |xs: &Array2<f32>| {
        let mean = xs.mean_axis(ndarray::Axis(0)).unwrap();
        let centred = xs - &mean;
        (mean, centred.t().dot(&centred) / xs.nrows() as f32)
    };
    let ((mean, covariance), (drawn, spread)) = (moments(&rows), moments(&points));
    assert!((mean - drawn).iter().all(|gap| gap.abs() < 0.3));
    assert!(
        covariance.iter().zip(&spread).all(|(a, b)| (a - b).abs() < 0.2 * a.abs().max(1.0)),
        "{covariance} {spread}"
    );
    assert!(rows.outer_iter().all(|row| points.outer_iter().all(|point| row != point)));
}

#[test]
fn rows_too_large_for_their_squares_are_refused() {
    let rows = Array2::from_shape_fn((400, 3), |(i, j)| if (i + j) % 2 == 0 { 1e36 } else { -1e36 });
    let lloyd = Lloyd { batch: None, ..lloyd(4, 1) };
    let error = lloyd.run(&mut ArrayRows::from(rows.view()), &Device::Cpu, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(error, Err(QuantizeError::LossNotFinite { .. })));
}
