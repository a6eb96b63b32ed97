mod files;
mod options;
mod search;

use std::ops::ControlFlow;

use genrec_kernels::CounterRng;
use ndarray::{Array2, ArrayView1, Axis, array};

use super::subset::Subset;
use super::*;
use crate::coding::Distance;
use crate::usage::encode_rows;
use crate::{ArrayRows, FileRows, QuantizeError};

fn noise(rows: usize, dim: usize, seed: u64) -> Array2<f32> {
    let rng = CounterRng::new(seed);
    Array2::from_shape_fn((rows, dim), |(i, j)| rng.normal_at((i * dim + j) as u64) * (1.0 + j as f32))
}

fn small() -> HierarchicalKMeansConfig {
    HierarchicalKMeansConfig::default().with_codebook_sizes([5, 4, 3]).with_iterations(30)
}

fn fit(config: &HierarchicalKMeansConfig, rows: &Array2<f32>) -> HierarchicalKMeans {
    config.fit(&mut ArrayRows::from(rows.view())).unwrap()
}

fn codes(model: &HierarchicalKMeans, rows: &Array2<f32>) -> Array2<u32> {
    encode_rows(model, &mut ArrayRows::from(rows.view()), 64).unwrap()
}

fn bytes(model: &HierarchicalKMeans) -> Vec<u8> {
    safetensors::serialize(model.tensors().unwrap(), None).unwrap()
}

fn distance(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

/// All paths of a tree down to a level.
fn prefixes(model: &HierarchicalKMeans, level: usize) -> Vec<Vec<u32>> {
    (0..level).fold(vec![vec![]], |paths, _| {
        let longer = |path: Vec<u32>| {
            let children = model.children(&path).unwrap().dim(0).unwrap() as u32;
            (0..children).map(move |code| [path.as_slice(), &[code]].concat())
        };
        paths.into_iter().flat_map(longer).collect()
    })
}

#[test]
fn children_are_the_means_of_their_rows() {
    let rows = noise(900, 4, 2);
    let model = fit(&small().with_tolerance(0.0).with_iterations(500), &rows);
    assert_eq!(model.node_counts(), [5, 20, 60]);
    let codes = codes(&model, &rows);
    for level in 0..3 {
        for prefix in prefixes(&model, level) {
            let children = model.children(&prefix).unwrap().to_vec2::<f32>().unwrap();
            for (code, child) in children.iter().enumerate() {
                let path = [prefix.as_slice(), &[code as u32]].concat();
                let own: Vec<usize> =
                    (0..900).filter(|&i| codes.row(i).iter().zip(&path).all(|(a, b)| a == b)).collect();
                assert!(!own.is_empty(), "{path:?} has no row");
                let mean = rows.select(Axis(0), &own).mean_axis(Axis(0)).unwrap();
                let worst = mean.iter().zip(child).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-4, "{path:?} is off by {worst}");
            }
        }
    }
}

#[test]
fn nodes_have_no_more_children_than_distinct_rows() {
    // Three distinct rows, one of them alone.
    let rows = array![[0.0_f32, 1.0], [-0.0, 1.0], [9.0, 9.0], [0.0, 1.0], [5.0, 5.0], [5.0, 5.0]];
    let model = fit(&small(), &rows);
    assert_eq!(model.node_counts(), [3, 3, 3]);
    assert_eq!(codes(&model, &rows), array![[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0], [2, 0, 0], [2, 0, 0]]);
    assert_eq!(model.children(&[1, 0]).unwrap().to_vec2::<f32>().unwrap(), [[9.0, 9.0]]);

    let constant = fit(&small(), &Array2::from_elem((40, 3), 7.0));
    assert_eq!(constant.node_counts(), [1, 1, 1]);
    let one = fit(&small().with_codebook_sizes([1, 8]), &array![[1.0_f32, 2.0]]);
    assert_eq!(one.node_counts(), [1, 1]);
    // New rows have codes all the same.
    assert_eq!(codes(&one, &noise(9, 2, 3)), Array2::<u32>::zeros((9, 2)));

    // Many rows, few of them distinct, whatever the first centroids are.
    let few = Array2::from_shape_fn((200, 2), |(i, _)| (i % 4) as f32);
    for init in [crate::KMeansInit::Points, crate::KMeansInit::PlusPlus, crate::KMeansInit::Random] {
        assert_eq!(fit(&small().with_init(init).with_codebook_sizes([8, 8]), &few).node_counts(), [4, 4]);
    }
}

#[test]
fn a_large_tree_tells_all_rows_apart() {
    let rows = noise(300, 5, 4);
    let model = fit(&small().with_codebook_sizes([16, 64]), &rows);
    assert_eq!(model.node_counts(), [16, 300]);
    let codes = codes(&model, &rows);
    let tensor = Tensor::from_vec(codes.iter().copied().collect::<Vec<_>>(), (300, 2), &Device::Cpu).unwrap();
    let near = model.reconstruct(&tensor).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(near, rows.iter().copied().collect::<Vec<_>>());
}

#[test]
fn directions_alone_count_for_the_cosine() {
    let rows = array![[1.0_f32, 0.0], [4.0, 0.0], [0.0, 2.0], [0.0, 0.5], [-1.0, 0.0]];
    let model = fit(&small().with_codebook_sizes([4, 2]).with_distance(Distance::Cosine), &rows);
    assert_eq!(model.node_counts(), [3, 3]);
    assert_eq!(codes(&model, &rows).column(0).to_vec(), [0, 0, 1, 1, 2]);
    assert_eq!(model.children(&[]).unwrap().to_vec2::<f32>().unwrap()[0], [2.5, 0.0]);
}

#[test]
fn one_seed_gives_one_model_however_rows_are_read() {
    let rows = noise(2500, 6, 5);
    let config = small().with_codebook_sizes([6, 20, 4]).with_iterations(10);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.safetensors");
    let values = Tensor::from_vec(rows.iter().copied().collect::<Vec<_>>(), rows.dim(), &Device::Cpu).unwrap();
    safetensors::serialize_to_file([("rows", values)], None, &path).unwrap();
    let run = |seed: u64, threads: usize, limits: Limits, file: bool| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let config = config.clone().with_seed(seed);
        let fit = |rows: &mut dyn RowSource| config.fit_within(limits, rows, &Device::Cpu, &mut ()).unwrap();
        let mut file_rows = FileRows::open_safetensors(&path, Some("rows")).unwrap();
        bytes(&pool.install(|| if file { fit(&mut file_rows) } else { fit(&mut ArrayRows::from(rows.view())) }))
    };
    let one = run(1, 1, Limits::default(), false);
    assert!(one == run(1, 2, Limits::default(), false));
    assert!(one != run(2, 2, Limits::default(), false));
    for (together, alone, copied) in [(0, 0, 0), (600, 300, 1 << 30), (4000, 1000, 2000)] {
        for (threads, file) in [(1, true), (2, false)] {
            assert!(one == run(1, threads, Limits { together, alone, copied }, file), "{together} {alone} {copied}");
        }
    }
}

#[test]
fn levels_are_reported() {
    struct Reports(Vec<EpochReport>);
    impl FitControl for Reports {
        fn on_epoch(&mut self, epoch: &EpochReport) -> ControlFlow<()> {
            self.0.push(epoch.clone());
            ControlFlow::Continue(())
        }
    }
    let mut rows = noise(400, 4, 6);
    let first = rows.row(0).to_owned();
    rows.row_mut(1).assign(&first);
    let mut reports = Reports(Vec::new());
    let config = small().with_codebook_sizes([7, 5, 300]);
    let model = config.fit_with(&mut ArrayRows::from(rows.view()), &mut reports).unwrap();
    let codes = codes(&model, &rows);
    assert_eq!(reports.0.len(), 3);
    for (level, report) in reports.0.iter().enumerate() {
        assert_eq!((report.epoch, report.epochs, report.level), (level + 1, 3, Some(level)));
        let node = |i: usize| {
            let path: Vec<u32> = codes.row(i).iter().copied().take(level + 1).collect();
            let children = model.children(&path[..level]).unwrap().to_vec2::<f32>().unwrap();
            ndarray::Array1::from(children[path[level] as usize].clone())
        };
        let loss = (0..400).map(|i| distance(rows.row(i), node(i).view())).sum::<f64>() / 400.0;
        assert!((report.loss - loss).abs() <= 1e-5 * loss, "{} {loss}", report.loss);
        let used = codes.column(level).iter().max().unwrap() + 1;
        assert_eq!(report.used, [used]);
    }
    // All rows but the double one end alone.
    assert_eq!(reports.0.iter().map(|r| r.collision_rate).collect::<Vec<_>>(), [None, None, Some(1.0 - 399.0 / 400.0)]);
}

#[test]
fn a_fit_that_is_ended_is_still_a_model() {
    struct Once(usize);
    impl FitControl for Once {
        fn on_epoch(&mut self, _: &EpochReport) -> ControlFlow<()> {
            self.0 += 1;
            ControlFlow::Break(())
        }
    }
    let rows = noise(300, 4, 5);
    let mut watch = Once(0);
    let model = small().fit_with(&mut ArrayRows::from(rows.view()), &mut watch).unwrap();
    assert_eq!((watch.0, model.node_counts()), (1, vec![5, 5, 5]));
    let codes = codes(&model, &rows);
    assert!(codes.columns().into_iter().skip(1).all(|column| column.iter().all(|&code| code == 0)));
    assert_eq!(codes.column(0), self::codes(&fit(&small(), &rows), &rows).column(0));
}

#[test]
fn bad_rows_have_their_errors() {
    let fit = |config: HierarchicalKMeansConfig, rows: Array2<f32>| config.fit(&mut ArrayRows::from(rows)).map(|_| ());
    // Only the root must have a row for each of its children.
    assert!(fit(small().with_codebook_sizes([5, 40]), noise(5, 4, 0)).is_ok());
    assert!(matches!(fit(small(), noise(4, 4, 0)), Err(QuantizeError::TooFewRows { rows: 4, codes: 5 })));
    assert!(matches!(fit(small(), Array2::zeros((0, 4))), Err(QuantizeError::TooFewRows { rows: 0, .. })));
    assert!(matches!(fit(small(), Array2::zeros((20, 0))), Err(QuantizeError::DimMismatch { .. })));
    for bad in [f32::NAN, f32::INFINITY] {
        let mut rows = noise(30, 4, 0);
        rows[[29, 1]] = bad;
        assert!(matches!(fit(small(), rows), Err(QuantizeError::RowNotFinite { row: 29, column: 1 })));
    }
    let huge = noise(400, 4, 0).mapv(|x| x.signum() * 3e38 * (1.0 - x.abs() * 1e-3));
    assert!(matches!(fit(small(), huge), Err(QuantizeError::LossNotFinite { .. })));
    let model = self::fit(&small(), &noise(100, 4, 6));
    assert!(model.encode(&Tensor::zeros((3, 5), candle_core::DType::F32, &Device::Cpu).unwrap()).is_err());
    assert!(model.encode_array(array![[0.0_f32; 3]].view(), 1).is_err());
    assert_eq!(
        model.encode(&Tensor::zeros((0, 4), candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap().dims(),
        [0, 3]
    );
}

#[test]
fn a_subset_has_the_rows_of_its_list() {
    let rows = noise(10, 2, 9);
    let mut source = ArrayRows::from(rows.view());
    let list = [1, 2, 3, 7, 9];
    let mut subset = Subset::new(&mut source, &list);
    assert_eq!((subset.len(), subset.dim()), (5, 2));
    assert_eq!(subset.slice(0, 3), rows.slice(ndarray::s![1..4, ..]).as_slice());
    assert!(subset.slice(1, 3).is_none() && subset.slice(3, 3).is_none() && subset.slice(0, 0).is_none());
    let mut out = Array2::zeros((3, 2));
    subset.read(2, out.view_mut()).unwrap();
    assert_eq!(out, rows.select(Axis(0), &[3, 7, 9]));
    subset.gather(&[4, 0, 2], out.view_mut()).unwrap();
    assert_eq!(out, rows.select(Axis(0), &[9, 1, 3]));
    assert!(matches!(subset.read(3, out.view_mut()), Err(QuantizeError::RowsOutOfRange { end: 6, len: 5, .. })));
    assert!(matches!(subset.gather(&[0, 5, 1], out.view_mut()), Err(QuantizeError::RowsOutOfRange { .. })));
    assert!(matches!(subset.read(0, Array2::zeros((1, 3)).view_mut()), Err(QuantizeError::DimMismatch { .. })));
}
