//! Lines cut at a delimiter, every field with its column.

use crate::lines::{Fault, LineResult};

/// A field and the byte it starts at, counted from one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) text: String,
    pub(crate) column: usize,
}

/// Cuts at every delimiter; nothing is quoted.
pub(crate) fn split<'a>(line: &'a str, delimiter: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    line.split(delimiter).map(move |field| (field.as_ptr() as usize - line.as_ptr() as usize + 1, field))
}

/// The fields of a CSV record (RFC 4180): a field may stand in double quotes, doubled inside.
/// `None` when the record ends within quotes: it goes on on the next line.
pub(crate) fn quoted(record: &str, delimiter: char) -> LineResult<Option<Vec<Field>>> {
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let column = at + 1;
        let rest = &record[at..];
        let mut text = String::new();
        if rest.starts_with('"') {
            at += 1;
            loop {
                let Some(length) = record[at..].find('"') else { return Ok(None) };
                text.push_str(&record[at..at + length]);
                at += length + 1;
                if !record[at..].starts_with('"') {
                    break;
                }
                text.push('"');
                at += 1;
            }
            if !(record[at..].is_empty() || record[at..].starts_with(delimiter)) {
                return Err(Fault::at(at + 1, format!("{delimiter:?} or the end of the line after a closing quote")));
            }
        } else {
            let length = rest.find(delimiter).unwrap_or(rest.len());
            text.push_str(&rest[..length]);
            at += length;
        }
        fields.push(Field { text, column });
        if at == record.len() {
            return Ok(Some(fields));
        }
        at += delimiter.len_utf8();
    }
}

/// A whole number, or one with a fraction that is cut off: exports write times as floats.
pub(crate) fn time(text: &str, column: usize) -> LineResult<i64> {
    let text = text.trim();
    let float = || {
        let float = text.parse::<f64>().ok()?;
        // Bounds that `f64` holds exactly and whose floor `i64` holds.
        (float.abs() <= 9.0e18).then(|| float.floor() as i64)
    };
    text.parse().ok().or_else(float).ok_or_else(|| Fault::at(column, "a time as a number"))
}

/// A finite number.
pub(crate) fn number(text: &str, column: usize, what: &str) -> LineResult<f64> {
    let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| Fault::at(column, format!("{what} as a finite number")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(record: &str) -> Vec<(String, usize)> {
        quoted(record, ',').unwrap().unwrap().into_iter().map(|f| (f.text, f.column)).collect()
    }

    #[test]
    fn quotes() {
        let expected = [("a", 1), ("b,\"c", 3), ("", 11), ("d", 12)].map(|(t, c)| (t.to_owned(), c));
        assert_eq!(texts("a,\"b,\"\"c\",,d"), expected);
        assert_eq!(texts(""), [(String::new(), 1)]);
        assert_eq!(texts("a,"), [("a".to_owned(), 1), (String::new(), 3)]);
        assert!(quoted("a,\"open", ',').unwrap().is_none());
        assert!(matches!(quoted("\"a\"b,c", ','), Err(Fault::Line { column: 4, .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_quoted_comes_back(fields in proptest::collection::vec("[a,\"é\n]{0,6}", 1..5)) {
            let record = fields.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect::<Vec<_>>().join(",");
            let got: Vec<String> = texts(&record).into_iter().map(|(text, _)| text).collect();
            prop_assert_eq!(got, fields);
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(time("881250949", 1).unwrap(), 881_250_949);
        assert_eq!(time(" 9.78300760e8", 1).unwrap(), 978_300_760);
        for bad in ["", "x", "1e300", "nan", "inf"] {
            assert!(time(bad, 3).is_err() && number(bad, 3, "r").is_err() == (bad != "1e300"), "{bad}");
        }
    }
}
