use ndarray::{Array2, array};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

use super::*;
use crate::error::RowFileFault;

fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn open(bytes: &[u8]) -> Result<FileRows> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.npy");
    std::fs::write(&path, bytes).unwrap();
    FileRows::open_npy(path)
}

fn le<const N: usize, T>(values: &[T], bytes: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(bytes).collect()
}

fn read_all(source: &mut dyn RowSource) -> Array2<f32> {
    let mut out = Array2::zeros((source.len(), source.dim()));
    source.read(0, out.view_mut()).unwrap();
    out
}

#[test]
fn arrays_read_any_range_and_gather_any_order() {
    let rows = array![[0.0_f32, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]];
    let mut source = ArrayRows::from(rows.view());
    let mut two = Array2::zeros((2, 2));
    source.read(1, two.view_mut()).unwrap();
    assert_eq!(two, array![[2.0, 3.0], [4.0, 5.0]]);
    let mut picked = Array2::zeros((5, 2));
    source.gather(&[3, 0, 1, 2, 2], picked.view_mut()).unwrap();
    assert_eq!(picked, array![[6.0, 7.0], [0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [4.0, 5.0]]);
}

#[test]
fn reads_outside_the_matrix_are_errors() {
    let mut source = ArrayRows::from(Array2::<f32>::zeros((3, 2)));
    let mut out = Array2::zeros((2, 2));
    assert!(matches!(source.read(2, out.view_mut()), Err(QuantizeError::RowsOutOfRange { start: 2, end: 4, len: 3 })));
    assert!(matches!(source.read(usize::MAX, out.view_mut()), Err(QuantizeError::RowsOutOfRange { .. })));
    let mut wide = Array2::zeros((1, 3));
    assert!(matches!(source.read(0, wide.view_mut()), Err(QuantizeError::DimMismatch { expected: 2, got: 3 })));
}

#[test]
fn npy_files_of_both_float_types_are_read() {
    let f4 = npy("<f4", "False", "(2, 3)", &le(&[0.5_f32, 1.0, -2.0, 3.0, 4.0, 5.0], |v| v.to_le_bytes()));
    assert_eq!(read_all(&mut open(&f4).unwrap()), array![[0.5, 1.0, -2.0], [3.0, 4.0, 5.0]]);
    let f8 = npy("<f8", "False", "(3, 1)", &le(&[0.25_f64, -1.0, 7.0], |v| v.to_le_bytes()));
    let mut source = open(&f8).unwrap();
    let mut last = Array2::zeros((1, 1));
    source.read(2, last.view_mut()).unwrap();
    assert_eq!(last[[0, 0]], 7.0);
    assert!(matches!(source.read(3, last.view_mut()), Err(QuantizeError::RowsOutOfRange { .. })));
}

#[test]
fn every_npy_fault_has_its_name() {
    let data = le(&[0.0_f32; 6], |v| v.to_le_bytes());
    let cases = [
        (b"PK\x03\x04 not an array".to_vec(), RowFileFault::Magic),
        (npy("<i8", "False", "(2, 3)", &data), RowFileFault::ElementType("<i8".into())),
        (npy("<f4", "True", "(2, 3)", &data), RowFileFault::FortranOrder),
        (npy("<f4", "Maybe", "(2, 3)", &data), RowFileFault::Header),
        (npy("<f4", "False", "(6,)", &data), RowFileFault::Rank(1)),
        (npy("<f4", "False", "(2, x)", &data), RowFileFault::Header),
        (npy("<f4", "False", "(2, 4)", &data), RowFileFault::Length { expected: 32, got: 24 }),
        (
            npy("<f4", "False", "(18446744073709551615, 18446744073709551615)", &data),
            RowFileFault::Length { expected: u64::MAX, got: 24 },
        ),
        (npy("<f4", "False", "(1000000000000000, 0)", &[]), RowFileFault::NoColumns(1_000_000_000_000_000)),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), RowFileFault::HeaderLength(0xffff_ffff)),
    ];
    for (bytes, expected) in cases {
        match open(&bytes) {
            Err(QuantizeError::RowFile { fact, .. }) => assert_eq!(fact, expected),
            other => panic!("{expected:?}: {other:?}"),
        }
    }
    assert!(matches!(FileRows::open_npy("no/such/file.npy"), Err(QuantizeError::Io { .. })));
}

#[test]
fn safetensors_rows_are_read_by_name_or_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("embeddings.safetensors");
    let data = le(&[1.0_f32, 2.0, 3.0, 4.0], |v| v.to_le_bytes());
    let flat = le(&[9.0_f32], |v| v.to_le_bytes());
    let rows = TensorView::new(Dtype::F32, vec![2, 2], &data).unwrap();
    let other = TensorView::new(Dtype::F32, vec![1], &flat).unwrap();
    std::fs::write(&path, safetensors::serialize([("rows", rows.clone()), ("other", other)], None).unwrap()).unwrap();
    assert_eq!(read_all(&mut FileRows::open_safetensors(&path, Some("rows")).unwrap()), array![[1.0, 2.0], [3.0, 4.0]]);
    let fact = |result: Result<FileRows>| match result {
        Err(QuantizeError::RowFile { fact, .. }) => fact,
        other => panic!("{other:?}"),
    };
    assert_eq!(fact(FileRows::open_safetensors(&path, Some("other"))), RowFileFault::Rank(1));
    assert!(matches!(fact(FileRows::open_safetensors(&path, Some("none"))), RowFileFault::NoTensor(_)));
    assert!(matches!(fact(FileRows::open_safetensors(&path, None)), RowFileFault::NoTensor(_)));
    std::fs::write(&path, safetensors::serialize([("x", rows)], None).unwrap()).unwrap();
    assert_eq!(FileRows::open_safetensors(&path, None).unwrap().len(), 2);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 1);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(fact(FileRows::open_safetensors(&path, None)), RowFileFault::Length { .. }));
    std::fs::write(&path, [0xff_u8; 64]).unwrap();
    assert!(matches!(fact(FileRows::open_safetensors(&path, None)), RowFileFault::HeaderLength(_)));
}

#[test]
fn the_row_that_is_not_finite_is_named() {
    let mut rows = Array2::<f32>::zeros((4, 3));
    rows[[2, 1]] = f32::NAN;
    assert!(matches!(check_finite(rows.view(), 10), Err(QuantizeError::RowNotFinite { row: 12, column: 1 })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_files_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), npy_start: bool) {
        if npy_start {
            bytes.splice(0..0, *b"\x93NUMPY\x01\x00\x40\x00{'descr': '<f4', 'shape': (");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows");
        std::fs::write(&path, &bytes).unwrap();
        for mut source in [FileRows::open_npy(&path), FileRows::open_safetensors(&path, None)].into_iter().flatten() {
            let mut out = Array2::zeros((source.len().min(4), source.dim()));
            prop_assert!(source.read(0, out.view_mut()).is_ok());
        }
    }
}

#[cfg(feature = "parquet")]
mod parquet {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use ::parquet::arrow::ArrowWriter;
    use ::parquet::file::properties::WriterProperties;
    use arrow::array::{
        ArrayRef, FixedSizeListBuilder, Float32Builder, Float64Builder, Int64Array, LargeListBuilder, ListBuilder,
        RecordBatch,
    };

    use super::*;

    fn write(dir: &Path, columns: Vec<(&str, ArrayRef)>, group: usize) -> PathBuf {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let path = dir.join("x.parquet");
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        path
    }

    fn value(row: usize, column: usize) -> f32 {
        (row * 10 + column) as f32
    }

    fn column(kind: usize, rows: usize, dim: usize) -> ArrayRef {
        match kind {
            0 => {
                let mut list = FixedSizeListBuilder::new(Float32Builder::new(), i32::try_from(dim).unwrap());
                for row in 0..rows {
                    (0..dim).for_each(|at| list.values().append_value(value(row, at)));
                    list.append(true);
                }
                Arc::new(list.finish())
            }
            1 => {
                let mut list = ListBuilder::new(Float64Builder::new());
                for row in 0..rows {
                    list.append_value((0..dim).map(|at| Some(f64::from(value(row, at)))));
                }
                Arc::new(list.finish())
            }
            _ => {
                let mut list = LargeListBuilder::new(Float32Builder::new());
                for row in 0..rows {
                    list.append_value((0..dim).map(|at| Some(value(row, at))));
                }
                Arc::new(list.finish())
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_range_of_any_list_type_is_read(
            kind in 0usize..3, rows in 1usize..3000, dim in 1usize..5, group in 1usize..2500,
            reads in proptest::collection::vec((any::<u32>(), 0usize..1500), 1..6),
        ) {
            let group = group.max(rows / 20);
            let dir = tempfile::tempdir().unwrap();
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
            let path = write(dir.path(), vec![("id", ids), ("vector", column(kind, rows, dim))], group);
            let mut source = ParquetRows::open(&path, None).unwrap();
            prop_assert_eq!((source.len(), source.dim(), source.column()), (rows, dim, "vector"));
            for (start, count) in reads {
                let start = start as usize % rows;
                let mut out = Array2::zeros((count.min(rows - start), dim));
                source.read(start, out.view_mut()).unwrap();
                for ((row, at), found) in out.indexed_iter() {
                    prop_assert_eq!(*found, value(start + row, at));
                }
            }
            let mut whole = Array2::zeros((rows, dim));
            source.read(0, whole.view_mut()).unwrap();
            prop_assert_eq!(whole[[rows - 1, dim - 1]], value(rows - 1, dim - 1));
        }
    }

    #[test]
    fn what_is_no_matrix_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fact = |result: Result<ParquetRows>| match result {
            Err(QuantizeError::RowFile { fact, .. }) => fact,
            other => panic!("{other:?}"),
        };
        let ids = || -> ArrayRef { Arc::new(Int64Array::from(vec![1, 2])) };
        let path = write(dir.path(), vec![("id", ids())], 10);
        assert!(matches!(fact(ParquetRows::open(&path, None)), RowFileFault::NoColumn { wanted: None, .. }));
        assert!(matches!(fact(ParquetRows::open(&path, Some("x"))), RowFileFault::NoColumn { wanted: Some(_), .. }));
        assert!(matches!(fact(ParquetRows::open(&path, Some("id"))), RowFileFault::ElementType(_)));
        let path = write(dir.path(), vec![("a", column(0, 2, 3)), ("b", column(1, 2, 3))], 10);
        assert!(matches!(fact(ParquetRows::open(&path, None)), RowFileFault::NoColumn { .. }));
        assert_eq!(ParquetRows::open(&path, Some("b")).unwrap().dim(), 3);

        let read = |rows: Vec<Option<Vec<Option<f32>>>>| {
            let mut list = ListBuilder::new(Float32Builder::new());
            rows.iter().for_each(|row| list.append_option(row.clone()));
            let path = write(dir.path(), vec![("a", Arc::new(list.finish()))], 10);
            fact(ParquetRows::open(&path, None).and_then(|mut source| {
                let mut out = Array2::zeros((rows.len(), 2));
                source.read(0, out.view_mut()).map(|()| source)
            }))
        };
        let full = || Some(vec![Some(1.0), Some(2.0)]);
        assert_eq!(
            read(vec![full(), full(), Some(vec![Some(1.0)])]),
            RowFileFault::Ragged { row: 2, expected: 2, got: 1 }
        );
        assert_eq!(read(vec![full(), None]), RowFileFault::Null { row: 1 });
        assert_eq!(read(vec![full(), full(), Some(vec![Some(1.0), None])]), RowFileFault::Null { row: 2 });
        assert_eq!(read(vec![Some(vec![]), Some(vec![])]), RowFileFault::NoColumns(2));

        let path = dir.path().join("x.parquet");
        std::fs::write(&path, b"PAR1 nothing of the sort PAR1").unwrap();
        assert!(matches!(ParquetRows::open(&path, None), Err(QuantizeError::Parquet { .. })));
        assert!(matches!(ParquetRows::open(dir.path().join("none"), None), Err(QuantizeError::Io { .. })));
    }

    /// A few changes of a file's bytes at random, always the same of a seed.
    fn changed(bytes: &[u8], seed: u64) -> Vec<u8> {
        let mut state = seed;
        // SplitMix64.
        let mut random = |below: usize| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (mixed ^ (mixed >> 31)) as usize % below
        };
        let mut changed = bytes.to_vec();
        for _ in 0..=random(4) {
            let at = random(changed.len());
            match random(8) {
                0 => _ = changed.remove(at),
                1 => changed.insert(at, random(256) as u8),
                2..5 => changed[at] = random(256) as u8,
                _ => changed[at] ^= 1 << random(8),
            }
        }
        changed
    }

    /// How many of these: as many as the variable `GENREC_DAMAGE` says.
    fn changes() -> u64 {
        std::env::var("GENREC_DAMAGE").map_or(2000, |count| count.parse().unwrap())
    }

    #[test]
    fn damage_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let mut given_up = 0;
        for kind in 0..3 {
            let path = write(dir.path(), vec![("vector", column(kind, 3, 2))], 2);
            let bytes = std::fs::read(&path).unwrap();
            let mut try_one = |bytes: &[u8]| {
                // To write over a file waits for the disk on some systems.
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, bytes).unwrap();
                let read = ParquetRows::open(&path, None).and_then(|mut source| {
                    // What a file says of its size is not believed before it was read.
                    let (rows, dim) = (source.len().min(3), source.dim().min(4));
                    let mut out = Array2::zeros((rows, dim));
                    if source.dim() == dim { source.read(source.len() - rows, out.view_mut()) } else { Ok(()) }
                });
                given_up += usize::from(read.is_err_and(|error| error.to_string().contains("the decoder gave up")));
            };
            for bit in (0..bytes.len() * 8).step_by(3) {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                try_one(&damaged);
            }
            (0..bytes.len()).for_each(|length| try_one(&bytes[..length]));
            (0..changes()).for_each(|seed| try_one(&changed(&bytes, seed)));
        }
        assert!(given_up > 0, "if the decoder no longer panics, `decoded` is not needed");
    }
}
