use std::path::PathBuf;

use super::*;
use crate::{BadLine, OnBadLine};

fn file(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    (directory, path)
}

fn columns() -> InteractionColumns {
    InteractionColumns::new("who", "what").with_timestamp("when").with_rating("stars")
}

fn item_columns() -> ItemColumns {
    ItemColumns::new("sku")
        .with_title("name")
        .with_brand("maker")
        .with_price("price")
        .with_categories("path")
        .with_description("text")
        .with_attribute("colour")
}

fn expected_item() -> Item {
    Item::new("b")
        .with_title("Soap \"& Brush\"")
        .with_brand("Acme")
        .with_price(3.5)
        .with_categories([vec!["Beauty", "Bath"], vec!["Gifts"]])
        .with_description("two lines")
        .with_attribute("colour", "red")
}

#[test]
fn interactions_in_every_form() {
    for (name, content) in [
        ("x.csv", "what,when,who,stars,more\nb,7,ada,5,\n\"c\",,ada,,z\n"),
        ("x.tsv", "what\twhen\twho\tstars\nb\t7\tada\t5\nc\t\tada\t\n"),
        (
            "x.jsonl",
            "{\"who\":\"ada\",\"what\":\"b\",\"when\":7,\"stars\":5}\n{\"who\":\"ada\",\"what\":\"c\",\"when\":null}\n",
        ),
    ] {
        let (_dir, path) = file(name, content);
        let format = Format::from_path(&path).unwrap();
        let (log, report) = read_interactions(&path, format, &columns(), &ReadOptions::default()).unwrap();
        let rows: Vec<_> = log.iter().map(|i| (i.user, i.item, i.timestamp, i.rating)).collect();
        assert_eq!(rows, [("ada", "b", Some(7), Some(5.0)), ("ada", "c", None, None)], "{name}");
        assert_eq!(report.records, 2, "{name}");
    }
}

#[test]
fn columns_are_told() {
    for (name, content, expected) in [
        ("x.csv", "what,\"when, if\", who\nb,7,ada\n", &["what", "when, if", "who"][..]),
        ("x.tsv", "what\twho\n", &["what", "who"]),
        ("x.jsonl", "\n{\"who\":\"ada\",\"what\":\"b\"}\n{\"when\":7}\n", &["what", "when", "who"]),
        ("y.csv", "", &[]),
        ("y.jsonl", "", &[]),
    ] {
        let (_dir, path) = file(name, content);
        let found = super::columns(&path, Format::from_path(&path).unwrap(), &ReadOptions::default()).unwrap();
        assert_eq!(found, expected, "{name}");
    }
    let (_dir, path) = file("x.jsonl", "[1]\n");
    let wrong = super::columns(&path, Format::JsonLines, &ReadOptions::default());
    assert!(matches!(wrong, Err(DataError::BadLine(BadLine { line: 1, .. }))), "{wrong:?}");
}

#[test]
fn times_may_be_dates() {
    let (_dir, path) = file("x.csv", "who,what,when,stars\nada,b,2024-03-01,\nada,c,2024-03-01 12:30:05,\n");
    let (log, _) = read_interactions(&path, Format::Csv, &columns(), &ReadOptions::default()).unwrap();
    let times: Vec<_> = log.iter().filter_map(|i| i.timestamp).collect();
    assert_eq!(times, [1_709_251_200_000, 1_709_296_205_000]);
}

#[test]
fn items_in_every_form() {
    for (name, content) in [
        (
            "x.csv",
            "sku,name,maker,price,path,text,colour\nb,\"Soap \"\"&amp; Brush\"\"\",Acme,3.5,Beauty > Bath|Gifts,\"two\nlines\",red\nc,,,,,,\n",
        ),
        (
            "x.json",
            "{\"sku\":\"b\",\"name\":\"Soap \\\"& Brush\\\"\",\"maker\":\"Acme\",\"price\":3.5,\"path\":[[\"Beauty\",\"Bath\"],[\"Gifts\"]],\"text\":\"two\\nlines\",\"colour\":\"red\"}\n{\"sku\":\"c\"}",
        ),
    ] {
        let (_dir, path) = file(name, content);
        let format = Format::from_path(&path).unwrap();
        let (items, report) = read_items(&path, format, &item_columns(), &ReadOptions::default()).unwrap();
        assert_eq!(items, [expected_item(), Item::new("c")], "{name}");
        assert_eq!(report.records, 2, "{name}");
    }
}

#[test]
fn lists_of_json_are_taken_as_they_are() {
    let content = concat!(
        "{\"sku\":\"b\",\"path\":[[\"Sci-Fi | Fantasy\",\"a > b\"],[\"Gifts\"]],\"text\":[\"two\",null,\"lines\"],\"colour\":[38,true]}\n",
        "{\"sku\":\"c\",\"path\":[\"Beauty\",\" \",\"Bath\"],\"text\":[]}\n",
        "{\"sku\":\"d\",\"path\":\"Beauty > Bath | Gifts\"}\n",
    );
    let (_dir, path) = file("x.jsonl", content);
    let (items, _) = read_items(&path, Format::JsonLines, &item_columns(), &ReadOptions::default()).unwrap();
    assert_eq!(
        items,
        [
            Item::new("b")
                .with_categories([vec!["Sci-Fi | Fantasy", "a > b"], vec!["Gifts"]])
                .with_description("two lines")
                .with_attribute("colour", "38 true"),
            Item::new("c").with_categories([["Beauty", "Bath"]]),
            Item::new("d").with_categories([vec!["Beauty", "Bath"], vec!["Gifts"]]),
        ]
    );
}

#[test]
fn formats_by_name() {
    for (name, format) in [
        ("a.csv.gz", Some(Format::Csv)),
        ("A.TSV", Some(Format::Tsv)),
        ("a.ndjson", Some(Format::JsonLines)),
        ("a.txt", None),
        ("a.parquet.gz", None),
        ("csv", None),
    ] {
        assert_eq!(Format::from_path(Path::new(name)), format, "{name}");
    }
}

#[test]
fn malformed() {
    for (name, content, line, column) in [
        ("x.csv", "who,what,when,stars\nada,b,1\n", 2, 8),
        ("x.csv", "who,what,when,stars\nada,b,1,2,3\n", 2, 11),
        ("x.csv", "who,what,when,stars\n,b,1,2\n", 2, 1),
        ("x.csv", "who,what,when,stars\nada, ,1,2\n", 2, 5),
        ("x.jsonl", "{\"who\":\"ada\",\"what\":null}", 1, 14),
        ("x.jsonl", "{\"who\":\"ada\",\"what\":\" \"}", 1, 14),
        ("x.csv", "who,what,when,stars\nada,b,x,2\n", 2, 7),
        ("x.csv", "who,what,when,stars\nada,b,1,x\n", 2, 9),
        ("x.csv", "who,what,when,stars\n\"ada\"x,b,1,2\n", 2, 6),
        ("x.csv", "who,what,when,stars\nada,\"b,1,2\n", 2, 5),
        ("x.jsonl", "{\"who\":\"ada\",\"what\":", 1, 20),
        ("x.jsonl", "[]", 1, 1),
        ("x.jsonl", "{\"who\":\"ada\",\"what\":{}}", 1, 14),
        ("x.jsonl", "{\"who\":\"ada\",\"what\":[{}]}", 1, 14),
        ("x.jsonl", "{\"who\":\"ada\",\"what\":\"b\",\"when\":\"x\"}", 1, 25),
    ] {
        let (_dir, path) = file(name, content);
        let format = Format::from_path(&path).unwrap();
        match read_interactions(&path, format, &columns(), &ReadOptions::default()) {
            Err(DataError::BadLine(bad)) => assert_eq!((bad.line, bad.column), (line, column), "{content:?}: {bad}"),
            other => panic!("{content:?}: {other:?}"),
        }
        let skipping = ReadOptions::default().with_on_bad_line(OnBadLine::Skip);
        let (log, report) = read_interactions(&path, format, &columns(), &skipping).unwrap();
        assert_eq!((log.len(), report.records, report.skipped), (0, 0, 1), "{content:?}");
    }
    let (_dir, path) = file("x.csv", "who,what\nada,b\n");
    match read_interactions(&path, Format::Csv, &columns(), &ReadOptions::default()) {
        Err(DataError::MissingColumn { column, available, .. }) => {
            assert_eq!((column.as_str(), available), ("when", vec!["who".to_owned(), "what".to_owned()]));
        }
        other => panic!("{other:?}"),
    }
    let (_dir, path) = file("x.csv", "who,what,when,stars\nada,\"b\nb\nb\nb\nb\nb\nb\nb\nb\nb\nb\nb\n");
    let short = ReadOptions::default().with_max_line_bytes(20);
    let error = read_interactions(&path, Format::Csv, &columns(), &short).unwrap_err();
    assert!(error.to_string().contains("the closing quote of a record of at most 20 bytes"), "{error}");
}

#[test]
fn faults_of_records_over_several_lines() {
    let head = "who,what,when,stars\n";
    let good = "bob,c,1,2\ncyd,d,1,2\n";
    for (content, place, records, skipped) in [
        // Never closed: the rows behind are read, not swallowed.
        (format!("{head}ada,\"b,1,2\n{good}"), (2, 5), 2, 1),
        // Closed by the next row's opening quote.
        (format!("{head}ada,\"b,1,2\nbob,\"c\",1,2\ncyd,d,1,2\n"), (2, 5), 2, 1),
        // Closed well, but with too few fields.
        (format!("{head}ada,\"b,1,2\nbob,\"\n{good}"), (3, 6), 2, 2),
        // A cell that is wrong, after a break inside another: the record is left out as a whole.
        (format!("{head}ada,\"b\nb\",1,x\n{good}"), (3, 6), 2, 1),
        (format!("{head}\"ada\n\nada\",\"b\nb\"x,1,x\n{good}"), (4, 6), 2, 3),
    ] {
        let (_dir, path) = file("x.csv", &content);
        match read_interactions(&path, Format::Csv, &columns(), &ReadOptions::default()) {
            Err(DataError::BadLine(bad)) => assert_eq!((bad.line, bad.column), place, "{content:?}: {bad}"),
            other => panic!("{content:?}: {other:?}"),
        }
        let skipping = ReadOptions::default().with_on_bad_line(OnBadLine::Skip);
        let (log, report) = read_interactions(&path, Format::Csv, &columns(), &skipping).unwrap();
        assert_eq!((log.len(), report.records, report.skipped), (records, records as u64, skipped), "{content:?}");
        assert_eq!(report.lines, content.lines().count() as u64, "{content:?}");
    }
    // Ends with a line that is malformed by itself.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.csv");
    std::fs::write(&path, [head.as_bytes(), b"ada,\"b,1,2\n\xff\n", good.as_bytes()].concat()).unwrap();
    let skipping = ReadOptions::default().with_on_bad_line(OnBadLine::Skip);
    let (log, report) = read_interactions(&path, Format::Csv, &columns(), &skipping).unwrap();
    assert_eq!((log.len(), report.skipped), (2, 2));
    assert_eq!(report.examples.iter().map(|bad| (bad.line, bad.column)).collect::<Vec<_>>(), [(2, 5), (3, 1)]);
}

#[test]
fn a_long_record_is_scanned_once() {
    // Scanned anew at every line, this takes minutes.
    let lines = 1_000_000;
    let content = format!("who,what,when,stars\nada,\"{}\",1,2\n", "b\n".repeat(lines));
    let (_dir, path) = file("x.csv", &content);
    let (log, report) = read_interactions(&path, Format::Csv, &columns(), &ReadOptions::default()).unwrap();
    assert_eq!((log.len(), report.lines), (1, lines as u64 + 2));
}

#[cfg(feature = "parquet")]
mod parquet {
    use std::sync::Arc;

    use ::parquet::arrow::ArrowWriter;
    use arrow::array::{
        ArrayRef, Float64Array, Int64Array, LargeListBuilder, ListBuilder, RecordBatch, StringArray, StringBuilder,
        StructArray, TimestampMillisecondArray,
    };
    use arrow::datatypes::{DataType, Field};

    use super::*;

    fn write(columns: Vec<(&str, ArrayRef)>) -> (tempfile::TempDir, PathBuf) {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let (dir, path) = file("x.parquet", "");
        let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        (dir, path)
    }

    #[test]
    fn typed_columns() {
        let (_dir, path) = write(vec![
            ("ignored", Arc::new(Int64Array::from(vec![1, 2]))),
            ("what", Arc::new(Int64Array::from(vec![30, 40]))),
            ("stars", Arc::new(Float64Array::from(vec![Some(4.5), None]))),
            ("who", Arc::new(StringArray::from(vec!["ada", "bob"]))),
            ("when", Arc::new(TimestampMillisecondArray::from(vec![Some(1_588_687_728_923), None]))),
        ]);
        let (log, report) = read_interactions(&path, Format::Parquet, &columns(), &ReadOptions::default()).unwrap();
        let rows: Vec<_> = log.iter().map(|i| (i.user, i.item, i.timestamp, i.rating)).collect();
        assert_eq!(rows, [("ada", "30", Some(1_588_687_728_923), Some(4.5)), ("bob", "40", None, None)]);
        assert_eq!((report.lines, report.records), (2, 2));
    }

    #[test]
    fn lists() {
        let mut paths = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
        for path in [["Beauty", "Sci-Fi | Fantasy"], ["Gifts", "a > b"]] {
            paths.values().append_value(path.map(Some));
        }
        paths.append(true);
        paths.append(false);
        let mut path = LargeListBuilder::new(StringBuilder::new());
        path.append_value([Some("two"), None, Some("lines")]);
        path.append(true);
        let texts: ArrayRef = Arc::new(path.finish());
        let (_dir, path) = write(vec![
            ("sku", Arc::new(StringArray::from(vec!["b", "c"]))),
            ("paths", Arc::new(paths.finish())),
            ("texts", texts),
            ("number", Arc::new(Int64Array::from(vec![7, 8]))),
        ]);
        let read = |columns: &ItemColumns| read_items(&path, Format::Parquet, columns, &ReadOptions::default());
        let columns = ItemColumns::new("sku").with_categories("paths").with_description("texts");
        let expected = Item::new("b")
            .with_categories([["Beauty", "Sci-Fi | Fantasy"], ["Gifts", "a > b"]])
            .with_description("two lines");
        assert_eq!(read(&columns).unwrap().0, [expected, Item::new("c")]);
        let columns = ItemColumns::new("sku").with_categories("texts").with_attribute("number");
        let expected = [
            Item::new("b").with_categories([["two", "lines"]]).with_attribute("number", "7"),
            Item::new("c").with_attribute("number", "8"),
        ];
        assert_eq!(read(&columns).unwrap().0, expected);
    }

    #[test]
    fn other_nested_columns_are_refused() {
        let field = Arc::new(Field::new("en", DataType::Utf8, false));
        let names: ArrayRef = Arc::new(StringArray::from(vec!["Soap"]));
        let (_dir, path) = write(vec![
            ("sku", Arc::new(StringArray::from(vec!["b"]))),
            ("name", Arc::new(StructArray::from(vec![(field, names)]))),
        ]);
        let read = |columns: &ItemColumns| read_items(&path, Format::Parquet, columns, &ReadOptions::default());
        match read(&ItemColumns::new("sku").with_title("name")) {
            Err(DataError::ColumnType { column, found, .. }) => {
                assert!(column == "name" && found.starts_with("Struct"), "{found}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(read(&ItemColumns::new("sku")).unwrap().0, [Item::new("b")]);
    }

    #[test]
    fn malformed() {
        let text = |values: Vec<Option<&str>>| -> ArrayRef { Arc::new(StringArray::from(values)) };
        let (_dir, path) = write(vec![
            ("who", text(vec![Some("ada"), None, Some("bob")])),
            ("what", text(vec![Some("b"), Some("c"), Some("d")])),
            ("when", text(vec![Some("soon"), Some("1"), Some("2")])),
            ("stars", text(vec![None, None, None])),
        ]);
        match read_interactions(&path, Format::Parquet, &columns(), &ReadOptions::default()) {
            Err(DataError::BadLine(bad)) => {
                assert_eq!((bad.line, bad.column, bad.found.as_str()), (1, 3, "\"soon\""), "{bad}");
            }
            other => panic!("{other:?}"),
        }
        let skipping = ReadOptions::default().with_on_bad_line(OnBadLine::Skip);
        let (log, report) = read_interactions(&path, Format::Parquet, &columns(), &skipping).unwrap();
        assert_eq!((log.len(), report.records, report.skipped), (1, 1, 2));
        assert_eq!(report.examples.iter().map(|bad| (bad.line, bad.column)).collect::<Vec<_>>(), [(1, 3), (2, 1)]);
        let nulls = InteractionColumns::new("who", "stars");
        match read_interactions(&path, Format::Parquet, &nulls, &ReadOptions::default()) {
            Err(DataError::BadLine(bad)) => assert_eq!((bad.line, bad.column), (1, 4), "{bad}"),
            other => panic!("{other:?}"),
        }
        let other = InteractionColumns::new("nobody", "what");
        let missing = read_interactions(&path, Format::Parquet, &other, &ReadOptions::default());
        assert!(matches!(missing, Err(DataError::MissingColumn { .. })));
        std::fs::write(&path, "PAR1 no PAR1").unwrap();
        let broken = read_interactions(&path, Format::Parquet, &columns(), &ReadOptions::default());
        assert!(matches!(broken, Err(DataError::Parquet { .. })));
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
        let mut paths = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
        paths.values().append_value(["Beauty", "Sci-Fi"].map(Some));
        paths.append(true);
        paths.append(false);
        let (_dir, path) = write(vec![
            ("sku", Arc::new(StringArray::from(vec!["b", "c"]))),
            ("paths", Arc::new(paths.finish())),
            ("number", Arc::new(Int64Array::from(vec![7, 8]))),
            ("stars", Arc::new(Float64Array::from(vec![Some(4.5), None]))),
            ("when", Arc::new(TimestampMillisecondArray::from(vec![Some(1_588_687_728_923), None]))),
        ]);
        let columns = ItemColumns::new("sku").with_categories("paths").with_attribute("number");
        let columns = columns.with_attribute("stars").with_attribute("when");
        let read = || read_items(&path, Format::Parquet, &columns, &ReadOptions::default());
        assert_eq!(read().unwrap().0.len(), 2);
        let bytes = std::fs::read(&path).unwrap();
        let (mut read_on, mut given_up) = (0, 0);
        let mut try_one = |bytes: &[u8]| {
            // To write over a file waits for the disk on some systems.
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, bytes).unwrap();
            match read() {
                Ok(_) => read_on += 1,
                Err(error) => given_up += usize::from(error.to_string().contains("the decoder gave up")),
            }
        };
        for bit in (0..bytes.len() * 8).step_by(3) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            try_one(&damaged);
        }
        (0..bytes.len()).for_each(|length| try_one(&bytes[..length]));
        (0..changes()).for_each(|seed| try_one(&changed(&bytes, seed)));
        assert!(read_on > 0, "what nobody reads may be damaged");
        assert!(given_up > 0, "if the decoder no longer panics, `decoded` is not needed");
    }
}
