use std::path::PathBuf;

use super::*;
use crate::{DataError, OnBadLine};

fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.inter");
    std::fs::write(&path, content).unwrap();
    (directory, path)
}

#[test]
fn interactions() {
    let (_dir, path) =
        file("item_id:token\tuser_id:token\ttimestamp:float\trating:float\nb\tada\t978300760.5\t4\nc\tada\t\t\n");
    let (log, report) = read_interactions(&path, &ReadOptions::default()).unwrap();
    let rows: Vec<_> = log.iter().map(|i| (i.user, i.item, i.timestamp, i.rating)).collect();
    assert_eq!(rows, [("ada", "b", Some(978_300_760), Some(4.0)), ("ada", "c", None, None)]);
    assert_eq!((report.lines, report.records), (3, 2));
}

#[test]
fn items() {
    let (_dir, path) = file(concat!(
        "item_id:token\ttitle:token_seq\tprice:float\tbrand:token\tcategories:token_seq\tsales_rank:float\n",
        "a\tSoap &amp; Brush\t3.5\tAcme\t'Beauty', 'Bath & Body'\t7\n",
        "b\t\t\t\tAction Comedy\t\n",
    ));
    let (items, _) = read_items(&path, &ReadOptions::default()).unwrap();
    assert_eq!(
        items,
        [
            Item::new("a")
                .with_title("Soap & Brush")
                .with_price(3.5)
                .with_brand("Acme")
                .with_categories([["Beauty"], ["Bath & Body"]])
                .with_attribute("sales_rank", "7"),
            Item::new("b").with_categories([["Action"], ["Comedy"]]),
        ]
    );
}

#[test]
fn items_as_pandas_writes_them() {
    let (_dir, path) = file(concat!(
        "item_id:token\ttitle:token_seq\tcategories:token_seq\n",
        "a\t\"12\"\" Brush\"\t'Clothing, Shoes & Jewelry', 'Baby'\n",
        "b\t\t'Cell Phones & Accessories'\n",
        "c\t\"two\nlines\"\t\"\"\"Men's\"\", 'Caf\\xe9, \"\"x\"\"'\"\n",
        "d\tSoap\t\"'Only, \n\n",
    ));
    let skipping = ReadOptions::default().with_on_bad_line(OnBadLine::Skip);
    let (items, report) = read_items(&path, &skipping).unwrap();
    assert_eq!(
        items,
        [
            Item::new("a").with_title("12\" Brush").with_categories([["Clothing, Shoes & Jewelry"], ["Baby"]]),
            Item::new("b").with_categories([["Cell Phones & Accessories"]]),
            Item::new("c").with_title("two lines").with_categories([["Men's"], ["Caf\u{e9}, \"x\""]]),
            // A quote that is never closed, and the fields are as many as they should be: text.
            Item::new("d").with_title("Soap").with_categories([["Only"]]),
        ]
    );
    assert_eq!((report.records, report.skipped), (4, 0));
}

#[test]
fn items_of_movielens() {
    let (_dir, path) = file(concat!(
        "item_id:token\tmovie_name:token_seq\trelease_year:token\ttype:token_seq\n",
        "1\tToy Story\t1995\tAdventure Children's\n",
        "2\t\"Great Performances\" Cats\t1998\tMusical\n",
        "3\t\"Open\t1999\tDrama\n",
    ));
    let (items, _) = read_items(&path, &ReadOptions::default()).unwrap();
    let film = |id: &str, title: &str, year: &str| Item::new(id).with_title(title).with_attribute("release_year", year);
    assert_eq!(
        items,
        [
            film("1", "Toy Story", "1995").with_categories([["Adventure"], ["Children's"]]),
            film("2", "\"Great Performances\" Cats", "1998").with_categories([["Musical"]]),
            film("3", "\"Open", "1999").with_categories([["Drama"]]),
        ]
    );
    let (_dir, path) = file("item_id:token\tgenre:token_seq\ttype:token\n1\tDrama Comedy\tTV\n");
    let (items, _) = read_items(&path, &ReadOptions::default()).unwrap();
    assert_eq!(items, [Item::new("1").with_categories([["Drama"], ["Comedy"]]).with_attribute("type", "TV")]);
}

#[test]
fn malformed() {
    let head = "user_id:token\titem_id:token\ttimestamp:float\trating:float\n";
    for (content, line, column) in [
        ("user_id\titem_id:token\n".to_owned(), 1, 1),
        ("user_id:token\titem_id:integer\n".to_owned(), 1, 23),
        ("user_id:token\n".to_owned(), 1, 1),
        (format!("{head}u\ti\t1\n"), 2, 6),
        (format!("{head}u\ti\t1\t2\t3\n"), 2, 9),
        (format!("{head}\ti\t1\t2\n"), 2, 1),
        (format!("{head}u\ti\tx\t2\n"), 2, 5),
        (format!("{head}u\ti\t1\tinf\n"), 2, 7),
    ] {
        let (_dir, path) = file(&content);
        match read_interactions(&path, &ReadOptions::default()) {
            Err(DataError::BadLine(bad)) => assert_eq!((bad.line, bad.column), (line, column), "{content:?}: {bad}"),
            other => panic!("{content:?}: {other:?}"),
        }
        let skipped = read_interactions(&path, &ReadOptions::default().with_on_bad_line(OnBadLine::Skip));
        assert_eq!(skipped.is_err(), line == 1, "only a header cannot be skipped: {content:?}");
    }
    for (content, column) in
        [("item_id:token\tprice:float\na\tx\n", 3), ("item_id:token\trank:float\na\tx\n", 3), ("title:token\n", 1)]
    {
        let (_dir, path) = file(content);
        match read_items(&path, &ReadOptions::default()) {
            Err(DataError::BadLine(bad)) => assert_eq!(bad.column, column, "{content:?}: {bad}"),
            other => panic!("{content:?}: {other:?}"),
        }
    }
}
