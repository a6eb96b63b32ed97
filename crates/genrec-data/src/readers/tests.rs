//! Whatever the bytes, a reader answers.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::{Catalogue, DataError, OnBadLine, ReadOptions};

/// Every reader on one file; the first `Err` of each is dropped, a panic is not.
fn read_all(path: &Path, options: &ReadOptions) -> Vec<Option<DataError>> {
    use tabular::{Format, InteractionColumns, ItemColumns};
    let columns = InteractionColumns::new("user", "item").with_timestamp("timestamp").with_rating("rating");
    let item_columns = ItemColumns::new("item").with_title("title").with_price("price").with_categories("categories");
    let mut errors = vec![
        neutral::read_items(path, options).err(),
        neutral::read_sequences(path, &Catalogue::new(), options).err(),
        amazon::read_reviews(path, options).err(),
        amazon::read_items(path, options, |_| true).err(),
        recbole::read_interactions(path, options).err(),
        recbole::read_items(path, options).err(),
    ];
    for layout in [movielens::Layout::Ml100k, movielens::Layout::Ml1m, movielens::Layout::Csv] {
        errors.push(movielens::read_ratings(path, layout, options).err());
        errors.push(movielens::read_movies(path, layout, options).err());
    }
    let formats = [
        Format::Csv,
        Format::Tsv,
        Format::JsonLines,
        #[cfg(feature = "parquet")]
        Format::Parquet,
    ];
    for format in formats {
        errors.push(tabular::read_interactions(path, format, &columns, options).err());
        errors.push(tabular::read_items(path, format, &item_columns, options).err());
    }
    errors
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20),
        r#"[\[\](){}'":,\\xu0-9a-e\t|\n -]{0,20}"#.prop_map(String::into_bytes),
        proptest::sample::select(vec![
            "user,item,timestamp,rating,title,price,categories\n",
            "user\titem\ttimestamp\trating\ttitle\tprice\tcategories\n",
            "user_id:token\titem_id:token\ttimestamp:float\n",
            "userId,movieId,rating,timestamp\n",
            "movieId,title,genres\n",
            "{\"item_id\":1,\"title\":",
            "{'reviewerID': 'u', 'asin': 'i', 'unixReviewTime': ",
            "1::2::3::4\n",
            "1\t2\t3\t4\n",
            "\u{1f}\u{8b}\u{8}\u{0}",
            "PAR1",
            "\n",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    proptest::collection::vec(pieces, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_bytes_panic(bytes in bytes(), limit in 1usize..200) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        std::fs::write(&path, &bytes).unwrap();
        for on_bad_line in [OnBadLine::Fail, OnBadLine::Skip] {
            let options = ReadOptions::default().with_on_bad_line(on_bad_line).with_max_line_bytes(limit);
            for error in read_all(&path, &options).into_iter().flatten() {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}

#[test]
fn gzip_of_random_lengths_never_panics() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"1\t2\t3\t4\n5\t6\t7\t8\n").unwrap();
    let whole = encoder.finish().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data.gz");
    let options = ReadOptions::default();
    for end in 0..=whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        let read = movielens::read_ratings(&path, movielens::Layout::Ml100k, &options);
        match end {
            0 => assert_eq!(read.unwrap().1.records, 0),
            _ if end == whole.len() => assert_eq!(read.unwrap().0.len(), 2),
            _ => assert!(matches!(read, Err(DataError::Read { .. } | DataError::BadLine(_))), "cut at {end}"),
        }
    }
}

#[test]
fn missing_files_and_limits() {
    let options = ReadOptions::default();
    for error in read_all(Path::new("/nonexistent/data"), &options) {
        assert!(matches!(error, Some(DataError::Open { .. })), "{error:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    std::fs::write(&path, "u1 i1\r\nu2 a very long line\n").unwrap();
    let catalogue = Catalogue::from_items(vec![crate::Item::new("i1")]).unwrap();
    let limited = ReadOptions::default().with_max_line_bytes(5);
    let error = neutral::read_sequences(&path, &catalogue, &limited).unwrap_err();
    let DataError::BadLine(bad) = error else { panic!("{error}") };
    assert_eq!((bad.line, bad.column), (2, 6));
    let skipping = limited.with_on_bad_line(OnBadLine::Skip);
    let (sequences, report) = neutral::read_sequences(&path, &catalogue, &skipping).unwrap();
    assert_eq!((sequences.len(), report.lines, report.records, report.skipped), (1, 2, 1, 1));
    assert_eq!(report.examples, [bad]);
    let none = ReadOptions::default().with_max_line_bytes(0);
    assert!(matches!(neutral::read_items(&path, &none), Err(DataError::Config { .. })));
}
