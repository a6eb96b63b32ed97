use super::*;
use crate::{DataError, OnBadLine};

fn directory(items: &str, sequences: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(ITEMS), items).unwrap();
    std::fs::write(directory.path().join(SEQUENCES), sequences).unwrap();
    directory
}

const TWO: &str = "{\"item_id\":1,\"title\":\"A &amp; B\",\"brand\":\"\",\"categories\":[[\"X\",\"Y &gt; Z\"]],\"asin\":\"B0\",\"rank\":7,\"new\":true,\"gone\":null}\n{\"item_id\":\"two\",\"title\":null,\"categories\":null,\"price\":2.5,\"text_hint\":\"a hint\"}\n";

#[test]
fn fields_and_order() {
    let dir = directory(TWO, "u2 two 1 two\n\nu1\t1\n");
    let (dataset, report) = read(dir.path(), &ReadOptions::default()).unwrap();
    assert_eq!(
        dataset.catalogue.items(),
        [
            Item::new("1")
                .with_title("A & B")
                .with_categories([["X", "Y > Z"]])
                .with_attribute("asin", "B0")
                .with_attribute("rank", "7")
                .with_attribute("new", "true"),
            Item::new("two").with_price(2.5).with_attribute("text_hint", "a hint"),
        ]
    );
    assert_eq!(dataset.sequences.user(0), Some("u2"));
    assert_eq!(dataset.sequences.items(0), Some(&[1, 0, 1].map(ItemId)[..]));
    assert_eq!(dataset.sequences.items(1), Some(&[ItemId(0)][..]));
    assert_eq!((report.lines, report.records), (5, 4));
    assert_eq!(dataset.catalogue.items()[1].field("text_hint").as_deref(), Some("a hint"));
}

#[test]
fn gzipped_files_are_the_same() {
    use std::io::Write;
    let dir = directory(TWO, "u 1 two\n");
    let plain = read(dir.path(), &ReadOptions::default()).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(TWO.as_bytes()).unwrap();
    std::fs::write(dir.path().join(ITEMS), encoder.finish().unwrap()).unwrap();
    assert_eq!(read(dir.path(), &ReadOptions::default()).unwrap(), plain);
}

#[test]
fn malformed_sequences() {
    for (sequences, line, column, expected) in [
        ("u 1 two\nv 1 three\n", 2, 5, "an item id of items.jsonl"),
        ("u\n", 1, 2, "at least one item id"),
        ("u 1\nu two\n", 2, 1, "a user id not yet used"),
    ] {
        let dir = directory(TWO, sequences);
        match read(dir.path(), &ReadOptions::default()) {
            Err(DataError::BadLine(bad)) => {
                assert_eq!((bad.line, bad.column), (line, column), "{bad}");
                assert!(bad.expected.contains(expected) && bad.file.ends_with(SEQUENCES), "{bad}");
            }
            other => panic!("{sequences:?}: {other:?}"),
        }
        let (dataset, report) = read(dir.path(), &ReadOptions::default().with_on_bad_line(OnBadLine::Skip)).unwrap();
        assert_eq!((dataset.sequences.len() as u64, report.skipped), (line - 1, 1));
    }
}

#[test]
fn malformed_items() {
    for (items, column) in [
        ("{\"item_id\":1", 12),
        ("{\"title\":\"x\"}", 13),
        ("{\"item_id\":null}", 1),
        ("{\"item_id\":\"a b\"}", 1),
        ("{\"item_id\":\"\"}", 1),
        ("{\"item_id\":1,\"title\":7}", 23),
        ("{\"item_id\":1,\"categories\":[\"x\"]}", 30),
        ("7", 1),
    ] {
        let dir = directory(items, "");
        match read(dir.path(), &ReadOptions::default()) {
            Err(DataError::BadLine(bad)) => {
                assert!(bad.line == 1 && bad.file.ends_with(ITEMS), "{bad}");
                assert!(bad.column.abs_diff(column) <= 1, "{items}: {bad}");
            }
            other => panic!("{items:?}: {other:?}"),
        }
    }
    let dir = directory("{\"item_id\":1}\n{\"item_id\":1}\n", "");
    let error = read(dir.path(), &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("items.jsonl:2:1: expected an item id not yet used (\"1\" is row 0)"), "{error}");
    std::fs::write(dir.path().join(ITEMS), b"{\"item_id\":\"\xff\"}").unwrap();
    let error = read(dir.path(), &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("items.jsonl:1:13: expected UTF-8"), "{error}");
}

#[test]
fn sequences_and_catalogue_must_agree() {
    let catalogue = Catalogue::from_items(vec![Item::new("a")]).unwrap();
    let mut sequences = Sequences::new();
    sequences.push("u", &[ItemId(1)]).unwrap();
    assert!(matches!(sequences.push("u", &[]), Err(DataError::DuplicateUser { .. })));
    assert!(matches!(
        Dataset::new("x", catalogue, sequences),
        Err(DataError::ItemOutOfRange { item: 1, items: 1, .. })
    ));
    let refuse = |item| Catalogue::from_items(vec![Item::new("a"), item]).unwrap_err();
    assert!(matches!(refuse(Item::new("a")), DataError::DuplicateItem { first: 0, second: 1, .. }));
    assert!(matches!(refuse(Item::new("")), DataError::EmptyItemId { row: 1 }));
    assert!(matches!(refuse(Item::new("b").with_price(f64::NAN)), DataError::InvalidPrice { .. }));
}

#[test]
fn statistics_by_hand() {
    let catalogue = Catalogue::from_items(vec![Item::new("a"), Item::new("b"), Item::new("c")]).unwrap();
    let mut sequences = Sequences::new();
    for (user, n) in [("u", 1), ("v", 4), ("w", 2), ("x", 5)] {
        sequences.push(user, &vec![ItemId(0); n]).unwrap();
    }
    assert_eq!(sequences.truncated(2).interactions(), 5);
    assert_eq!(sequences.truncated(9), sequences);
    let statistics = Dataset::new("x", catalogue, sequences).unwrap().statistics();
    assert_eq!((statistics.users, statistics.items, statistics.interactions), (4, 3, 12));
    assert_eq!((statistics.mean_length, statistics.median_length), (3.0, 3.0));
    assert_eq!((statistics.min_length, statistics.max_length, statistics.density), (1, 5, 1.0));
    let nothing = Dataset::new("x", Catalogue::new(), Sequences::new()).unwrap().statistics();
    assert_eq!((nothing.mean_length, nothing.median_length, nothing.density), (0.0, 0.0, 0.0));
}
