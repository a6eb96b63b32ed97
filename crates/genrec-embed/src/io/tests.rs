use std::path::PathBuf;

use ndarray::array;
use proptest::prelude::*;

use super::*;

fn rows() -> impl Strategy<Value = Array2<f32>> {
    (0_usize..6, 0_usize..6).prop_flat_map(|(rows, columns)| {
        prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO | prop::num::f32::SUBNORMAL, rows * columns)
            .prop_map(move |values| Array2::from_shape_vec((rows, columns), values).unwrap())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_formats_round_trip_bit_for_bit(rows in rows()) {
        let dir = tempfile::tempdir().unwrap();
        let (npy, st) = (dir.path().join("a.npy"), dir.path().join("a.safetensors"));
        write_npy(&npy, rows.view()).unwrap();
        write_safetensors(&st, rows.view()).unwrap();
        for read in [read_npy(&npy).unwrap(), read_safetensors(&st).unwrap()] {
            prop_assert_eq!(read.dim(), rows.dim());
            prop_assert!(read.iter().zip(&rows).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "a temporary file is left");
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), npy in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut content = if npy { b"\x93NUMPY\x01\x00\x76\x00".to_vec() } else { Vec::new() };
        content.extend(bytes);
        fs::write(&path, content).unwrap();
        prop_assert!(read_npy(&path).is_err());
        prop_assert!(read_safetensors(&path).is_err());
    }

    #[test]
    fn a_damaged_or_cut_file_is_refused_or_read_but_never_panics(rows in rows(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let dir = tempfile::tempdir().unwrap();
        for (name, read) in [("a.npy", read_npy as fn(PathBuf) -> Result<Array2<f32>>), ("a.st", read_safetensors)] {
            let path = dir.path().join(name);
            if name == "a.npy" { write_npy(&path, rows.view()).unwrap() } else { write_safetensors(&path, rows.view()).unwrap() }
            let whole = fs::read(&path).unwrap();
            let at = at.index(whole.len());
            fs::write(&path, &whole[..at]).unwrap();
            prop_assert!(read(path.clone()).is_err(), "cut at {} of {}", at, whole.len());
            let mut flipped = whole;
            flipped[at] ^= 1 << bit;
            fs::write(&path, flipped).unwrap();
            let _ = read(path);
        }
    }
}

fn npy(header: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let mut header = header.to_owned();
    while !(header.len() + 11).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(payload);
    bytes
}

#[test]
fn f64_and_fortran_order_are_read() {
    let payload: Vec<u8> = [1.0_f64, 3.0, 2.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let bytes = npy("{'descr': '<f8', 'fortran_order': True, 'shape': (2, 2), }", &payload);
    assert_eq!(npy_from_bytes(&bytes).unwrap(), array![[1.0, 2.0], [3.0, 4.0]]);
}

#[test]
fn hostile_headers_are_refused() {
    let huge = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 2), }", &[]);
    assert!(matches!(npy_from_bytes(&huge), Err(ArrayProblem::Npy(ViewNpyError::LengthOverflow))));
    let short = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 300), }", &[0; 8]);
    assert!(matches!(npy_from_bytes(&short), Err(ArrayProblem::Npy(ViewNpyError::MissingBytes(_)))));
    let view_less = ["(0, 9223372036854775808)", "(0, 4611686018427387904, 4)", "(99999999999999999999, 0)"];
    for shape in view_less {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        let error = npy_from_bytes(&npy(&header, &[])).unwrap_err();
        assert!(matches!(error, ArrayProblem::Npy(ViewNpyError::LengthOverflow)), "{shape}: {error}");
    }
    for shape in ["(0, 0x8000000000000000)", "(0, 1+9223372036854775807)"] {
        let header = format!("{{'(0, 1)': 1, 'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        assert!(npy_from_bytes(&npy(&header, &[])).is_err(), "{shape}");
    }
    let empty = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775807), }", &[]);
    assert_eq!(npy_from_bytes(&empty).unwrap().dim(), (0, usize::MAX / 2));
    let nested = npy(&"(".repeat(2000), &[]);
    assert!(matches!(npy_from_bytes(&nested), Err(ArrayProblem::NpyHeader)));
    let integers = npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1, 1), }", &[0; 8]);
    assert!(matches!(npy_from_bytes(&integers), Err(ArrayProblem::Npy(ViewNpyError::WrongDescriptor(_)))));
    let three = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1), }", &[0; 4]);
    assert!(matches!(npy_from_bytes(&three), Err(ArrayProblem::Npy(ViewNpyError::WrongNdim(..)))));
}

#[test]
fn values_that_are_not_finite_are_located() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let rows = array![[0.0, 1.0], [f32::INFINITY, 0.0]];
    for write in [write_npy, write_safetensors] as [fn(PathBuf, ArrayView2<'_, f32>) -> Result<()>; 2] {
        write(path.clone(), rows.view()).unwrap();
        let error = read_npy(&path).or_else(|_| read_safetensors(&path)).unwrap_err();
        let problem = ArrayProblem::NotFinite { row: 1, column: 0 };
        let found = read_npy(&path).err().into_iter().chain([error]).any(
            |error| matches!(error, EmbedError::Array { problem: found, .. } if found.to_string() == problem.to_string()),
        );
        assert!(found);
    }
}

#[test]
fn other_tensors_are_named_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    write_tensors(&path, [("other", RawTensor::vector(&[1.0])), ("more", RawTensor::vector(&[1.0]))], &[]).unwrap();
    assert!(matches!(
        read_safetensors(&path),
        Err(EmbedError::Array { problem: ArrayProblem::MissingTensor { .. }, .. })
    ));
    write_tensors(&path, [("only", RawTensor::bytes(vec![0; 4], 2))], &[]).unwrap();
    assert!(matches!(
        read_safetensors(&path),
        Err(EmbedError::Array { problem: ArrayProblem::WrongTensor { .. }, .. })
    ));
    assert!(matches!(read_npy(dir.path().join("absent")), Err(EmbedError::Io { action: "read", .. })));
    assert!(matches!(write_npy("/", array![[0.0_f32]].view()), Err(EmbedError::Io { .. })));
}

#[test]
fn newer_formats_are_refused_and_foreign_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    for (metadata, newer) in
        [(("format_version", "2"), true), (("format_version", "pt"), false), (("format", "2"), false)]
    {
        write_tensors(&path, [("more", RawTensor::matrix(array![[1.0_f32]].view()))], &[metadata]).unwrap();
        match read_safetensors(&path) {
            Err(EmbedError::FormatVersion { got: 2, supported: 1, .. }) => assert!(newer),
            other => assert!(!newer && other.unwrap() == array![[1.0]], "{metadata:?}"),
        }
    }
}
