use std::path::PathBuf;

use super::*;
use crate::{BadLine, DataError, OnBadLine, Prepare};

fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data.json");
    std::fs::write(&path, content).unwrap();
    (directory, path)
}

fn bad(result: Result<impl Sized>) -> BadLine {
    match result {
        Err(DataError::BadLine(bad)) => bad,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn all_editions_of_reviews() {
    let (_dir, path) = file(concat!(
        r#"{"reviewerID": "A1", "asin": "B1", "helpful": [0, 0], "overall": 5.0, "unixReviewTime": 1391040000}"#,
        "\n",
        r#"{'reviewerID': u'A2', 'asin': 'B2', 'reviewText': 'it\'s "ok" \x85', 'overall': 3.0, 'unixReviewTime': 1391040001L}"#,
        "\n\n",
        r#"{"rating": 4, "asin": "variant", "parent_asin": "B3", "user_id": "A3", "timestamp": 1588687728923, "verified_purchase": true}"#,
    ));
    let (log, report) = read_reviews(&path, &ReadOptions::default()).unwrap();
    let rows: Vec<_> = log.iter().map(|i| (i.user, i.item, i.timestamp, i.rating)).collect();
    assert_eq!(
        rows,
        [
            ("A1", "B1", Some(1_391_040_000), Some(5.0)),
            ("A2", "B2", Some(1_391_040_001), Some(3.0)),
            ("A3", "B3", Some(1_588_687_728_923), Some(4.0)),
        ]
    );
    assert_eq!((report.lines, report.records, report.skipped), (4, 3, 0));
}

#[test]
fn all_editions_of_items() {
    let (_dir, path) = file(concat!(
        r#"{'asin': 'B1', 'title': 'Soap &amp; Brush', 'price': 9.99, 'brand': '', 'categories': [['Beauty', 'Bath &amp; Body'], ['Gifts']], 'description': 'caf\xe9'}"#,
        "\n",
        r#"{"asin": "B2", "title": "Rod", "price": "$1,012.50", "brand": "Acme", "category": ["Sports", "Fishing"], "description": ["long", "rod"], "main_cat": "Sports"}"#,
        "\n",
        r#"{"parent_asin": "B3", "title": "Kit", "price": "from 12.00", "store": "Maker", "categories": ["Toys", "Kits"], "description": [], "main_category": null}"#,
        "\n",
        r#"{"asin": "B4", "price": "$5.00 - $9.00", "categories": []}"#,
        "\n",
        r#"{"asin": "unwanted", "price": {}}"#,
    ));
    let (items, report) = read_items(&path, &ReadOptions::default(), |id| id != "unwanted").unwrap();
    assert_eq!(
        items,
        [
            Item::new("B1")
                .with_title("Soap & Brush")
                .with_price(9.99)
                .with_categories([vec!["Beauty", "Bath & Body"], vec!["Gifts"]])
                .with_description("café"),
            Item::new("B2")
                .with_title("Rod")
                .with_price(1012.5)
                .with_brand("Acme")
                .with_categories([["Sports", "Fishing"]])
                .with_description("long rod")
                .with_attribute("main_category", "Sports"),
            Item::new("B3").with_title("Kit").with_brand("Maker").with_categories([["Toys", "Kits"]]),
            Item::new("B4"),
        ]
    );
    assert_eq!(report.records, 5);
}

#[test]
fn malformed_reviews() {
    for (line, column, expected) in [
        (r#"{"reviewerID": "A1", "asin": "B1""#, 34, "`,` or `}`"),
        (r#"{'reviewerID': 'A1', 'asin': 'B1', 'x': nope}"#, 41, "a Python literal"),
        (r#"{"asin": "B1", "unixReviewTime": 1}"#, 1, "a record with `reviewerID` or `user_id`"),
        (r#"{"reviewerID": "A1", "unixReviewTime": 1}"#, 1, "a record with `parent_asin` or `asin`"),
        (r#"{"reviewerID": "A1", "asin": "B1"}"#, 1, "a record with `unixReviewTime` or `timestamp`"),
        (r#"{"reviewerID": 7, "asin": "B1", "unixReviewTime": 1}"#, 2, "`reviewerID` to be a string"),
        (r#"{"reviewerID": "A1", "asin": "B1", "unixReviewTime": "x"}"#, 36, "`unixReviewTime` to be a whole number"),
        (r#"{'reviewerID': 'A', 'asin': 'B', 'unixReviewTime': 1, 'overall': 'x'}"#, 55, "`overall` to be a number"),
        ("[1]", 1, "a record in braces"),
    ] {
        let (_dir, path) = file(line);
        let bad = bad(read_reviews(&path, &ReadOptions::default()));
        assert_eq!((bad.line, bad.column), (1, column), "{line}: {bad}");
        assert!(bad.expected.contains(expected), "{line}: {bad}");
    }
}

#[test]
fn malformed_items() {
    for (line, column) in [
        (r#"{"asin": "B1", "title": {}}"#, 16),
        (r#"{"asin": "B1", "price": []}"#, 16),
        (r#"{"asin": "B1", "categories": ["a", {}]}"#, 16),
        (r#"{"asin": "B1", "categories": "a"}"#, 16),
        (r#"{"asin": "B1", "description": [1]}"#, 16),
        (r#"{"asin": ""}"#, 2),
        ("{}", 1),
    ] {
        let (_dir, path) = file(line);
        assert_eq!(bad(read_items(&path, &ReadOptions::default(), |_| true)).column, column, "{line}");
    }
}

#[test]
fn skipped_lines_are_counted() {
    let good = r#"{"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1}"#;
    let (_dir, path) = file(&format!("{good}\nbroken\n{{}}\n{good}\n"));
    let options = ReadOptions::default().with_on_bad_line(OnBadLine::Skip);
    let (log, report) = read_reviews(&path, &options).unwrap();
    assert_eq!((log.len(), report.records, report.skipped, report.examples.len()), (2, 2, 2, 2));
    assert_eq!(report.examples[0].line, 2);
    let dataset = Prepare::default().with_k_core(1, 1).run("x", &log, vec![]).unwrap();
    assert_eq!(dataset.statistics().interactions, 1);
}

#[test]
fn prices() {
    for (text, price) in
        [("12", Some(12.0)), ("$.5", Some(0.5)), ("inf", None), ("-1", None), ("", None), ("1-2", None)]
    {
        assert_eq!(parse_price(text), price, "{text}");
    }
}
