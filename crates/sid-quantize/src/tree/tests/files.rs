use genrec_kernels::ParamError;

use super::*;
use crate::{AnyQuantizer, QuantizerConfig};

#[test]
fn children_that_are_not_shared_out_are_refused() {
    let model = fit(&small(), &noise(200, 4, 7));
    let load = |change: &dyn Fn(&mut Vec<u32>)| {
        let mut tensors = model.tensors().unwrap();
        let mut offsets = tensors["children.1"].to_vec1::<u32>().unwrap();
        assert_eq!(offsets, [0, 4, 8, 12, 16, 20]);
        change(&mut offsets);
        let shape = offsets.len();
        tensors.insert("children.1".into(), Tensor::from_vec(offsets, shape, &Device::Cpu).unwrap());
        HierarchicalKMeans::from_tensors(small(), 4, &tensors, &Device::Cpu).map(|_| ())
    };
    assert!(load(&|_| ()).is_ok());
    type Change = fn(&mut Vec<u32>);
    let cases: [(Change, usize); 6] = [
        (|o| o[0] = 1, 0),
        (|o| o[5] = 19, 4),
        (|o| o[5] = u32::MAX, 4),
        (|o| o[2] = 4, 1),
        (|o| o[2] = 9, 1),
        (|o| o[3] = 3, 2),
    ];
    for (change, at) in cases {
        let error = load(&change).unwrap_err();
        assert!(
            matches!(error, QuantizeError::TreeChildren { level: 1, parent, nodes: 20, most: 4, .. } if parent == at)
        );
    }
    let short = load(&|o| o.truncate(5)).unwrap_err();
    assert!(matches!(short, QuantizeError::Parameters(ParamError::Shape { name, .. }) if name == "children.1"));
    let mut tensors = model.tensors().unwrap();
    tensors.insert("children.1".into(), Tensor::zeros(6, candle_core::DType::F32, &Device::Cpu).unwrap());
    let error = HierarchicalKMeans::from_tensors(small(), 4, &tensors, &Device::Cpu).unwrap_err();
    assert!(matches!(error, QuantizeError::TensorType { expected: "u32", .. }));
}

#[test]
fn tensors_of_another_tree_are_refused() {
    let tensors = fit(&small(), &noise(200, 4, 7)).tensors().unwrap();
    let load = |sizes: &[u32], dim: usize| {
        let config = small().with_codebook_sizes(sizes);
        match HierarchicalKMeans::from_tensors(config, dim, &tensors, &Device::Cpu).unwrap_err() {
            QuantizeError::Parameters(error) => error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(load(&[5, 4], 4), ParamError::Unexpected { name } if name == "children.2"));
    assert!(matches!(load(&[5, 4, 3, 2], 4), ParamError::Missing { name } if name == "nodes.3"));
    assert!(matches!(load(&[5, 4, 3], 6), ParamError::Shape { name, .. } if name == "nodes.0"));
}

#[test]
fn a_tree_smaller_than_its_configuration_allows_is_loaded() {
    // 256^3 leaves of 384 columns would be more than a file may hold; these are eighty.
    let config = QuantizerConfig::from(HierarchicalKMeansConfig::default().with_codebook_sizes([16, 256, 256, 256]));
    let rows = noise(80, 384, 8);
    let model = config.fit(&mut ArrayRows::from(rows.view())).unwrap();
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path()).unwrap();
    let loaded = AnyQuantizer::load(dir.path(), &Device::Cpu).unwrap();
    assert_eq!(loaded.encode_array(rows.view(), 80).unwrap(), model.encode_array(rows.view(), 80).unwrap());
}
