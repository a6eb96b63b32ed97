//! Delimited records, which may go on over several lines within quotes.

use std::collections::VecDeque;
use std::path::Path;

use super::delimited::{Field, Quotes, Scan};
use crate::lines::{Fault, LineReader, LineResult};
use crate::{BadLine, ReadOptions, ReadReport, Result};

/// A line by its number, or what is wrong with it.
type Line = (u64, std::result::Result<String, BadLine>);

/// Streams the records of one file, the first of which is a header.
pub(crate) struct Records {
    lines: LineReader,
    delimiter: char,
    quotes: Quotes,
    limit: usize,
    /// Lines to be read again, or read ahead.
    again: VecDeque<Line>,
}

/// The lines of one record, joined.
struct Record {
    text: String,
    /// Where each line starts in the text, and its number.
    starts: Vec<(usize, u64)>,
}

impl Record {
    /// The line that holds a byte of the record, where it starts, and its text.
    fn line(&self, at: usize) -> (u64, usize, &str) {
        let index = self.starts.partition_point(|&(start, _)| start <= at).saturating_sub(1);
        let (start, number) = self.starts[index];
        let end = self.starts.get(index + 1).map_or(self.text.len(), |&(next, _)| next - 1);
        (number, start, &self.text[start..end])
    }

    fn into_lines_after_first(self) -> impl DoubleEndedIterator<Item = Line> {
        let ends: Vec<usize> =
            self.starts.iter().skip(1).map(|&(start, _)| start - 1).chain([self.text.len()]).collect();
        let lines = self.starts.into_iter().zip(ends).skip(1).collect::<Vec<_>>();
        lines.into_iter().map(move |((start, number), end)| (number, Ok(self.text[start..end].to_owned())))
    }
}

impl Records {
    pub(crate) fn open(path: &Path, delimiter: char, quotes: Quotes, options: &ReadOptions) -> Result<Self> {
        let lines = LineReader::open(path, options)?.with_header();
        Ok(Self { lines, delimiter, quotes, limit: options.max_line_bytes, again: VecDeque::new() })
    }

    /// Calls `each` with the fields of every record, the header first; the others have as many fields. What it finds
    /// wrong with a record becomes an error or is counted, as the options say.
    ///
    /// Of a record that is none over several lines, only the first line is left out: a quote there was not closed, and
    /// what follows may be records.
    pub(crate) fn for_each(mut self, mut each: impl FnMut(Vec<Field>) -> LineResult<()>) -> Result<ReadReport> {
        let mut columns = None;
        while let Some((number, line)) = self.next_line()? {
            let line = match line {
                Ok(line) => line,
                Err(bad) => {
                    self.lines.settle(Err(bad))?;
                    continue;
                }
            };
            let mut record = Record { text: line, starts: vec![(0, number)] };
            let scanned = self.scan(&mut record, columns)?;
            let again = scanned.is_err();
            let outcome = scanned.and_then(|fields| {
                columns.get_or_insert(fields.len());
                each(fields)
            });
            let outcome = match outcome {
                Ok(()) => Ok(()),
                Err(Fault::Fatal(error)) => return Err(error),
                Err(Fault::Line { column, expected }) => {
                    let (number, start, line) = record.line(column.saturating_sub(1));
                    Err(self.lines.placed_in(Fault::at(column - start, expected), number, line.as_bytes())?)
                }
            };
            self.lines.settle(outcome)?;
            if again {
                for line in record.into_lines_after_first().rev() {
                    self.again.push_front(line);
                }
            }
        }
        Ok(self.lines.finish())
    }

    fn next_line(&mut self) -> Result<Option<Line>> {
        if let Some(line) = self.again.pop_front() {
            return Ok(Some(line));
        }
        let line = match self.lines.next_line()? {
            None => return Ok(None),
            Some(Ok(line)) => Ok(line.into_owned()),
            Some(Err(fault)) => Err(fault),
        };
        let line = match line {
            Ok(line) => Ok(line),
            Err(fault) => Err(self.lines.placed(fault)?),
        };
        Ok(Some((self.lines.number(), line)))
    }

    /// The fields of a record, with further lines taken as long as a quote is open.
    fn scan(&mut self, record: &mut Record, columns: Option<usize>) -> Result<LineResult<Vec<Field>>> {
        let mut scan = Scan::new(self.delimiter, self.quotes);
        loop {
            match scan.resume(&record.text) {
                Ok(true) => break,
                Ok(false) => {}
                Err(fault) => return Ok(Err(fault)),
            }
            if columns.is_some_and(|columns| scan.give_up_quote(&record.text, columns)) {
                continue;
            }
            let unclosed = |before: String| Ok(Err(Fault::at(scan.open_quote().unwrap_or(1), before)));
            match self.next_line()? {
                Some((number, Ok(line))) if record.text.len() + 1 + line.len() <= self.limit => {
                    record.text.push('\n');
                    record.starts.push((record.text.len(), number));
                    record.text.push_str(&line);
                }
                Some((number, Ok(line))) => {
                    self.again.push_front((number, Ok(line)));
                    return unclosed(format!("the closing quote of a record of at most {} bytes", self.limit));
                }
                Some((number, Err(bad))) => {
                    self.again.push_front((number, Err(bad)));
                    return unclosed(format!("a quote that is closed before the malformed line {number}"));
                }
                None => return unclosed("a quote that is closed before the end of the file".to_owned()),
            }
        }
        let fields = scan.into_fields();
        Ok(match columns {
            Some(columns) if fields.len() != columns => {
                let column = fields.get(columns).map_or(record.text.len() + 1, |extra| extra.column);
                Err(Fault::at(column, format!("{columns} fields, as in the header (there are {})", fields.len())))
            }
            _ => Ok(fields),
        })
    }
}
