use super::*;
use crate::{DataError, OnBadLine};

fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

#[test]
fn layouts_agree() {
    let flags = "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0";
    let u_item =
        format!("1|Toy Story (1995)|01-Jan-1995||http://x|{flags}\n2|Am\u{e9}lie|||x|{}\n", "0|".repeat(18) + "0");
    let latin1: Vec<u8> = u_item.chars().map(|c| c as u8).collect();
    let small = directory(&[("u.data", b"196\t1\t3\t881250949\n186\t2\t4\t891717742\n"), ("u.item", &latin1)]);
    let medium = directory(&[
        ("ratings.dat", b"196::1::3::881250949\n186::2::4::891717742\n"),
        ("movies.dat", b"1::Toy Story (1995)::Animation|Children's|Comedy\n2::Am\xe9lie::(no genres listed)\n"),
    ]);
    let large = directory(&[
        ("ratings.csv", b"userId,movieId,rating,timestamp\r\n196,1,3.0,881250949\r\n186,2,4.0,891717742\r\n"),
        (
            "movies.csv",
            "movieId,title,genres\n1,Toy Story (1995),Animation|Children's|Comedy\n2,\"Amélie\",(no genres listed)\n"
                .as_bytes(),
        ),
    ]);
    let expected = [
        Item::new("1").with_title("Toy Story (1995)").with_categories([["Animation"], ["Children's"], ["Comedy"]]),
        Item::new("2").with_title("Amélie"),
    ];
    for (dir, layout) in [(&small, Layout::Ml100k), (&medium, Layout::Ml1m), (&large, Layout::Csv)] {
        assert_eq!(Layout::detect(dir.path()), layout);
        let (log, items, report) = read(dir.path(), layout, &ReadOptions::default()).unwrap();
        let rows: Vec<_> = log.iter().map(|i| (i.user, i.item, i.timestamp, i.rating)).collect();
        assert_eq!(rows, [("196", "1", Some(881_250_949), Some(3.0)), ("186", "2", Some(891_717_742), Some(4.0))]);
        assert_eq!(items, expected, "{layout:?}");
        assert_eq!((report.records, report.skipped), (4, 0));
    }
}

#[test]
fn malformed() {
    let cases: &[(Layout, &str, u64, u64)] = &[
        (Layout::Ml100k, "1\t2\t3\n", 1, 6),
        (Layout::Ml100k, "1\t2\t3\t4\t5\n", 1, 9),
        (Layout::Ml100k, "1\t2\tx\t4\n", 1, 5),
        (Layout::Ml100k, "1\t2\t3\tx\n", 1, 7),
        (Layout::Ml100k, "\t2\t3\t4\n", 1, 1),
        (Layout::Ml1m, "1::2::3::4\n1:2:3:4\n", 2, 8),
        (Layout::Csv, "user,movie\n", 1, 1),
        (Layout::Csv, "userId,movieId,rating,timestamp\n1,\"2\"x,3,4\n", 2, 6),
        (Layout::Csv, "userId,movieId,rating,timestamp\n1,\"2,3,4\n", 2, 9),
    ];
    for &(layout, content, line, column) in cases {
        let dir = directory(&[("r", content.as_bytes())]);
        let path = dir.path().join("r");
        match read_ratings(&path, layout, &ReadOptions::default()) {
            Err(DataError::BadLine(bad)) => assert_eq!((bad.line, bad.column), (line, column), "{content:?}: {bad}"),
            other => panic!("{content:?}: {other:?}"),
        }
        let skipped = read_ratings(&path, layout, &ReadOptions::default().with_on_bad_line(OnBadLine::Skip));
        match skipped {
            Ok((_, report)) => assert_eq!(report.skipped, 1),
            // A header that is not there cannot be skipped.
            Err(DataError::BadLine(bad)) => assert_eq!((bad.line, layout), (1, Layout::Csv)),
            Err(other) => panic!("{other}"),
        }
    }
    let dir = directory(&[("u.item", format!("1|T|||x|2{}\n", "|0".repeat(18)).as_bytes())]);
    match read_movies(&dir.path().join("u.item"), Layout::Ml100k, &ReadOptions::default()) {
        Err(DataError::BadLine(bad)) => assert!(bad.column == 9 && bad.expected.contains("unknown"), "{bad}"),
        other => panic!("{other:?}"),
    }
}
