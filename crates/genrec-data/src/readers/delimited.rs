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

/// What quotes mean that are not those of RFC 4180.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quotes {
    /// They are a fault.
    Strict,
    /// They are text: the field is taken as it stands, up to the next delimiter.
    Loose,
}

/// The scan of a record (RFC 4180: a field may stand in double quotes, doubled inside). It stops at the end of a line
/// within quotes, and goes on from there when the next line is there.
#[derive(Debug)]
pub(crate) struct Scan {
    delimiter: char,
    quotes: Quotes,
    fields: Vec<Field>,
    at: usize,
    /// The field whose closing quote is awaited; its column is that of the opening quote.
    open: Option<Field>,
    /// Whether the next field is taken as it stands.
    plain: bool,
}

impl Scan {
    pub(crate) fn new(delimiter: char, quotes: Quotes) -> Self {
        Self { delimiter, quotes, fields: Vec::new(), at: 0, open: None, plain: false }
    }

    /// Scans what was added to the record; whether it is complete, rather than within quotes.
    pub(crate) fn resume(&mut self, record: &str) -> LineResult<bool> {
        loop {
            let field = match self.open.take() {
                Some(mut field) => {
                    if !self.close(&mut field, record) {
                        self.open = Some(field);
                        return Ok(false);
                    }
                    if !(record[self.at..].is_empty() || record[self.at..].starts_with(self.delimiter)) {
                        self.stray(&field, record)?
                    } else {
                        field
                    }
                }
                None if !self.plain && record[self.at..].starts_with('"') => {
                    self.at += 1;
                    self.open = Some(Field { text: String::new(), column: self.at });
                    continue;
                }
                None => self.plain(record),
            };
            self.fields.push(field);
            if self.at == record.len() {
                return Ok(true);
            }
            self.at += self.delimiter.len_utf8();
        }
    }

    /// Reads up to behind the closing quote; `false` when the text ends first.
    fn close(&mut self, field: &mut Field, record: &str) -> bool {
        loop {
            let rest = &record[self.at..];
            let Some(length) = rest.find('"') else {
                field.text.push_str(rest);
                self.at = record.len();
                return false;
            };
            field.text.push_str(&rest[..length]);
            self.at += length + 1;
            if !record[self.at..].starts_with('"') {
                return true;
            }
            field.text.push('"');
            self.at += 1;
        }
    }

    /// A field with something behind its closing quote.
    fn stray(&mut self, field: &Field, record: &str) -> LineResult<Field> {
        let delimiter = self.delimiter;
        // Of a field over several lines, it is the opening quote that will not belong there.
        if record[field.column - 1..self.at].contains('\n') {
            return Err(Fault::at(
                field.column,
                format!("a quote that is closed before {delimiter:?} or the end of a line"),
            ));
        }
        match self.quotes {
            Quotes::Strict => {
                Err(Fault::at(self.at + 1, format!("{delimiter:?} or the end of the line after a closing quote")))
            }
            Quotes::Loose => {
                self.at = field.column - 1;
                Ok(self.plain(record))
            }
        }
    }

    /// The field from here to the next delimiter.
    fn plain(&mut self, record: &str) -> Field {
        let (rest, column) = (&record[self.at..], self.at + 1);
        let length = rest.find(self.delimiter).unwrap_or(rest.len());
        self.at += length;
        self.plain = false;
        Field { text: rest[..length].to_owned(), column }
    }

    /// Takes the open quote of a one-line record as text, where quotes may be text and the line then has `fields`
    /// fields. Whether that was so; the scan is then to be resumed.
    pub(crate) fn give_up_quote(&mut self, record: &str, fields: usize) -> bool {
        let fits = |field: &mut Field| {
            let rest = &record[field.column - 1..];
            self.quotes == Quotes::Loose
                && !record.contains('\n')
                && self.fields.len() + rest.split(self.delimiter).count() == fields
        };
        let Some(field) = self.open.take_if(fits) else { return false };
        self.at = field.column - 1;
        self.plain = true;
        true
    }

    /// The column of the quote that is open, counted from one.
    pub(crate) fn open_quote(&self) -> Option<usize> {
        self.open.as_ref().map(|field| field.column)
    }

    pub(crate) fn into_fields(self) -> Vec<Field> {
        self.fields
    }
}

/// The fields of a CSV record of one line; `None` when it ends within quotes.
pub(crate) fn quoted(record: &str, delimiter: char) -> LineResult<Option<Vec<Field>>> {
    let mut scan = Scan::new(delimiter, Quotes::Strict);
    Ok(scan.resume(record)?.then(|| scan.into_fields()))
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

/// A time as a number, or a date with or without a time of day, as ISO 8601 and databases write them: `2024-03-01`,
/// `2024-03-01 12:30`, `2024-03-01T12:30:05.25Z`, `2024-03-01T12:30:05+01:00`. A date becomes milliseconds since 1970, in UTC
/// where it does not say otherwise.
pub(crate) fn time_or_date(text: &str, column: usize) -> LineResult<i64> {
    time(text, column).or_else(|_| {
        date(text.trim()).ok_or_else(|| Fault::at(column, "a time as a number or as in `2024-03-01 12:30:05`"))
    })
}

/// Milliseconds since 1970 of a date.
fn date(text: &str) -> Option<i64> {
    let (day, rest) = text.split_at_checked(10)?;
    let mut parts = day.split('-');
    let (year, month, day) = (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let long = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=long).contains(&day) {
        return None;
    }
    // Years that begin in March end with the day that some lack: 365 days, the leap days, and months of 30.6 days on average.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day;
    /// The first of January 1970, counted like this.
    const EPOCH: i64 = 719_469;
    Some((days - EPOCH) * 86_400_000 + if rest.is_empty() { 0 } else { time_of_day(rest.strip_prefix(['T', ' '])?)? })
}

/// Milliseconds since midnight in UTC.
fn time_of_day(text: &str) -> Option<i64> {
    let at = text.find(['Z', '+', '-']).unwrap_or(text.len());
    let (clock, zone) = text.split_at(at);
    let zone = match zone.split_at_checked(1) {
        None => 0,
        Some(("Z", "")) => 0,
        Some((sign, offset)) if sign != "Z" => {
            let (hours, minutes) = offset.split_once(':').or_else(|| offset.split_at_checked(2))?;
            let (hours, minutes) = (digits(hours, 2)?, if minutes.is_empty() { 0 } else { digits(minutes, 2)? });
            if hours > 23 || minutes > 59 {
                return None;
            }
            (60 * hours + minutes) * if sign == "-" { -1 } else { 1 }
        }
        Some(_) => return None,
    };
    let mut parts = clock.split(':');
    let (hour, minute, second) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, parts.next().unwrap_or("00"));
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    let second = digits(second, 2)?;
    // 60 is a leap second.
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let thousandths = format!("{fraction:0<3}").get(..3).and_then(|text| digits(text, 3))?;
    let all_digits = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then_some((3_600 * hour + 60 * (minute - zone) + second) * 1_000 + thousandths)
}

/// A number of so many digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    let wanted = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if wanted { text.parse().ok() } else { None }
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

    #[test]
    fn quotes_that_are_text() {
        let texts = |record: &str, columns: usize| {
            let mut scan = Scan::new('\t', Quotes::Loose);
            while !scan.resume(record).unwrap() {
                assert!(scan.give_up_quote(record, columns), "{record:?}");
            }
            scan.into_fields().into_iter().map(|f| f.text).collect::<Vec<_>>()
        };
        assert_eq!(texts("\"a\"\t\"b\" c\td", 3), ["a", "\"b\" c", "d"]);
        assert_eq!(texts("\"a\tb\t\"c", 3), ["\"a", "b", "\"c"]);
        assert_eq!(texts("a\t\"b\tc\" d\t\"", 4), ["a", "\"b", "c\" d", "\""]);
        let mut open = Scan::new('\t', Quotes::Loose);
        assert!(!open.resume("a\t\"b").unwrap() && !open.give_up_quote("a\t\"b", 3));
        assert_eq!(open.open_quote(), Some(3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn scanning_line_by_line_is_scanning_at_once(record in "[a,\"\n]{0,24}") {
            let mut scan = Scan::new(',', Quotes::Strict);
            let mut stepwise = Ok(false);
            for (at, _) in record.match_indices('\n').chain([(record.len(), "")]) {
                stepwise = scan.resume(&record[..at]);
                if !matches!(stepwise, Ok(false)) {
                    let whole = quoted(&record[..at], ',');
                    match stepwise {
                        Ok(_) => prop_assert_eq!(whole.unwrap().unwrap(), scan.into_fields()),
                        Err(_) => prop_assert!(whole.is_err()),
                    }
                    return Ok(());
                }
            }
            prop_assert!(!stepwise.unwrap() && quoted(&record, ',').unwrap().is_none());
        }

        #[test]
        fn what_is_quoted_comes_back(fields in proptest::collection::vec("[a,\"é\n]{0,6}", 1..5)) {
            let record = fields.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect::<Vec<_>>().join(",");
            let got: Vec<String> = texts(&record).into_iter().map(|(text, _)| text).collect();
            prop_assert_eq!(got, fields);
        }
    }

    #[test]
    fn dates() {
        for (text, milliseconds) in [
            ("1970-01-01", 0),
            ("1969-12-31 23:59:59.5", -500),
            ("2000-02-29", 951_782_400_000),
            ("2024-03-01 12:30", 1_709_296_200_000),
            ("2024-03-01T12:30:05.25Z", 1_709_296_205_250),
            ("2024-03-01T12:30:05+01:00", 1_709_292_605_000),
            ("2024-03-01T12:30:05-0130", 1_709_301_605_000),
            ("2024-03-01 12:30:05.123456+00", 1_709_296_205_123),
            ("1709296205", 1_709_296_205),
        ] {
            assert_eq!(time_or_date(text, 1).unwrap(), milliseconds, "{text}");
        }
        for bad in [
            "2023-02-29",
            "2024-13-01",
            "2024-3-1",
            "01.03.2024",
            "2024-03-01 24:00",
            "2024-03-01 12",
            "2024-03-01T12:30Zx",
            "2024-03-01T12:30:05.",
            "2024-03-01T12:30+1",
            "2024-03-01T12:30+99:00",
            "2024-03-01T12:30+01:60",
            "2024-03-01x",
            "+024-03-01",
            "2024-03-01 12:3é",
        ] {
            assert!(matches!(time_or_date(bad, 7), Err(Fault::Line { column: 7, .. })), "{bad}");
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
