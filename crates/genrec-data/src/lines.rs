//! Bounded, streamed lines of plain or gzipped files, with every fault placed.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use crate::error::BadLine;
use crate::{DataError, Result};

/// How many bad lines a [`ReadReport`] keeps as examples.
const EXAMPLES: usize = 10;

/// What to do with a line that is malformed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnBadLine {
    /// Stop with [`DataError::BadLine`]. The default: silent loss of data is the worse surprise.
    #[default]
    Fail,
    /// Leave the line out, count it, and keep the first few in the [`ReadReport`].
    Skip,
}

/// How files are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ReadOptions {
    /// What to do with malformed lines. Default: [`OnBadLine::Fail`].
    pub on_bad_line: OnBadLine,
    /// Longest line accepted, in bytes. Longer ones are malformed; they are never held in memory. Default: 16 MiB,
    /// some hundred times the longest line of the Amazon files.
    pub max_line_bytes: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { on_bad_line: OnBadLine::Fail, max_line_bytes: 16 << 20 }
    }
}

impl ReadOptions {
    /// Sets [`on_bad_line`](Self::on_bad_line).
    #[must_use]
    pub fn with_on_bad_line(mut self, on_bad_line: OnBadLine) -> Self {
        self.on_bad_line = on_bad_line;
        self
    }

    /// Sets [`max_line_bytes`](Self::max_line_bytes).
    #[must_use]
    pub fn with_max_line_bytes(mut self, max_line_bytes: usize) -> Self {
        self.max_line_bytes = max_line_bytes;
        self
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// [`DataError::Config`] when `max_line_bytes` is zero.
    pub fn validate(&self) -> Result<()> {
        if self.max_line_bytes == 0 {
            return Err(DataError::config("ReadOptions::max_line_bytes", 0, "a line needs at least one byte"));
        }
        Ok(())
    }
}

/// What a reader saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadReport {
    /// Lines (or rows) seen, headers and empty lines included.
    pub lines: u64,
    /// Lines turned into a record.
    pub records: u64,
    /// Malformed lines left out; always zero under [`OnBadLine::Fail`].
    pub skipped: u64,
    /// The first ten of the lines left out.
    pub examples: Vec<BadLine>,
}

impl ReadReport {
    /// Adds the report of another file.
    pub fn merge(&mut self, other: Self) {
        self.lines += other.lines;
        self.records += other.records;
        self.skipped += other.skipped;
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }

    pub(crate) fn skip(&mut self, bad: BadLine) {
        self.skipped += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(bad);
        }
    }
}

/// Why a line is refused.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Something else should stand at this byte (counted from one).
    Line { column: usize, expected: String },
    /// Nothing to do with the line: stop whatever the options say.
    Fatal(DataError),
}

impl Fault {
    pub(crate) fn at(column: usize, expected: impl Into<String>) -> Self {
        Self::Line { column, expected: expected.into() }
    }

    /// A fault found by `serde_json`, which counts columns itself.
    pub(crate) fn json(error: &serde_json::Error, expected: &str) -> Self {
        let mut reason = error.to_string();
        if let Some(end) = reason.rfind(" at line ") {
            reason.truncate(end);
        }
        Self::at(error.column().max(1), format!("{expected} ({reason})"))
    }
}

impl From<DataError> for Fault {
    fn from(error: DataError) -> Self {
        Self::Fatal(error)
    }
}

/// The outcome of parsing one line.
pub(crate) type LineResult<T> = std::result::Result<T, Fault>;

/// Opens a file for buffered reading and looks through gzip, told by its first two bytes and not by the name.
pub(crate) fn open_maybe_gzip(path: &Path) -> Result<Box<dyn BufRead>> {
    let open = |source| DataError::Open { path: path.to_path_buf(), source };
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(open)?);
    let gzipped = file.fill_buf().map_err(open)?.starts_with(&[0x1f, 0x8b]);
    Ok(if gzipped { Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))) } else { Box::new(file) })
}

enum NextLine {
    End,
    Line,
    TooLong,
}

/// Streams the lines of one file.
pub(crate) struct LineReader {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    buffer: Vec<u8>,
    options: ReadOptions,
    report: ReadReport,
    latin1: bool,
    header: bool,
}

impl LineReader {
    pub(crate) fn open(path: &Path, options: &ReadOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            path: path.to_path_buf(),
            reader: open_maybe_gzip(path)?,
            buffer: Vec::new(),
            options: options.clone(),
            report: ReadReport::default(),
            latin1: false,
            header: false,
        })
    }

    /// Takes lines that are not UTF-8 as ISO 8859-1, in which the older MovieLens files are written.
    pub(crate) fn or_latin1(mut self) -> Self {
        self.latin1 = true;
        self
    }

    /// Says that the first line is a header, without which nothing can be read: a fault in it is never skipped, and it
    /// is no record.
    pub(crate) fn with_header(self) -> Self {
        self.header_if(true)
    }

    /// [`with_header`](Self::with_header) where a condition holds.
    pub(crate) fn header_if(mut self, header: bool) -> Self {
        self.header = header;
        self
    }

    /// Reads one line into the buffer, without its end (`\n` or `\r\n`), never holding more than the limit.
    fn fill(&mut self) -> Result<NextLine> {
        self.buffer.clear();
        let (mut any, mut too_long) = (false, false);
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(DataError::Read { path: self.path.clone(), line: self.report.lines, source });
                }
            };
            if chunk.is_empty() {
                break;
            }
            any = true;
            let end = chunk.iter().position(|&b| b == b'\n');
            let taken = end.unwrap_or(chunk.len());
            // One byte of grace for the '\r' of a line that just fits.
            if !too_long && self.buffer.len() + taken <= self.options.max_line_bytes.saturating_add(1) {
                self.buffer.extend_from_slice(&chunk[..taken]);
            } else {
                too_long = true;
            }
            self.reader.consume(taken + usize::from(end.is_some()));
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(NextLine::End);
        }
        self.report.lines += 1;
        if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
        }
        too_long |= self.buffer.len() > self.options.max_line_bytes;
        Ok(if too_long { NextLine::TooLong } else { NextLine::Line })
    }

    /// The next line that is not blank, or what is wrong with it; `None` at the end of the file.
    pub(crate) fn next_line(&mut self) -> Result<Option<LineResult<Cow<'_, str>>>> {
        loop {
            match self.fill()? {
                NextLine::End => return Ok(None),
                NextLine::TooLong => {
                    let limit = self.options.max_line_bytes;
                    let expected = format!("the end of a line of at most {limit} bytes");
                    return Ok(Some(Err(Fault::at(limit.saturating_add(1), expected))));
                }
                NextLine::Line => {}
            }
            if self.report.lines == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.buffer.drain(..3);
            }
            if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                break;
            }
        }
        Ok(Some(match (std::str::from_utf8(&self.buffer), self.latin1) {
            (Ok(line), _) => Ok(Cow::Borrowed(line)),
            (Err(_), true) => Ok(Cow::Owned(self.buffer.iter().map(|&b| char::from(b)).collect())),
            (Err(e), false) => Err(Fault::at(e.valid_up_to() + 1, "UTF-8")),
        }))
    }

    /// The number of the line last read, counted from one.
    pub(crate) fn number(&self) -> u64 {
        self.report.lines
    }

    /// A fault of the line last read, with its place.
    pub(crate) fn placed(&self, fault: Fault) -> Result<BadLine> {
        self.placed_in(fault, self.report.lines, &self.buffer)
    }

    /// A fault of another line, with its place.
    pub(crate) fn placed_in(&self, fault: Fault, line: u64, text: &[u8]) -> Result<BadLine> {
        match fault {
            Fault::Fatal(error) => Err(error),
            Fault::Line { column, expected } => Ok(BadLine {
                file: self.path.clone(),
                line,
                column: column as u64,
                expected,
                found: excerpt(text, column),
            }),
        }
    }

    /// Counts a record, or a line left out, or fails, as the options say.
    pub(crate) fn settle(&mut self, outcome: std::result::Result<(), BadLine>) -> Result<()> {
        let first_of_header = std::mem::take(&mut self.header);
        match (outcome, self.options.on_bad_line) {
            (Ok(()), _) => self.report.records += u64::from(!first_of_header),
            (Err(bad), OnBadLine::Skip) if !first_of_header => self.report.skip(bad),
            (Err(bad), _) => return Err(bad.into()),
        }
        Ok(())
    }

    /// What was read, at the end of the file.
    pub(crate) fn finish(self) -> ReadReport {
        if self.report.skipped > 0 {
            tracing::warn!(file = %self.path.display(), skipped = self.report.skipped, "malformed lines skipped");
        }
        self.report
    }

    /// Calls `each` with every line that is not blank. What it finds wrong with a line becomes an error or is counted,
    /// as the options say.
    pub(crate) fn for_each(mut self, mut each: impl FnMut(&str) -> LineResult<()>) -> Result<ReadReport> {
        while let Some(line) = self.next_line()? {
            let outcome = match line.and_then(|line| each(&line)) {
                Ok(()) => Ok(()),
                Err(fault) => Err(self.placed(fault)?),
            };
            self.settle(outcome)?;
        }
        Ok(self.finish())
    }
}

/// The first characters of a line from a column on, quoted; `the end of the line` behind it.
pub(crate) fn excerpt(line: &[u8], column: usize) -> String {
    const CHARACTERS: usize = 32;
    let rest = line.get(column.saturating_sub(1)..).unwrap_or_default();
    if rest.is_empty() {
        return "the end of the line".to_owned();
    }
    let text = String::from_utf8_lossy(&rest[..rest.len().min(4 * CHARACTERS)]);
    let mut shown: String = text.chars().take(CHARACTERS).collect();
    if shown.len() < text.len() || rest.len() > 4 * CHARACTERS {
        shown.push('…');
    }
    format!("{shown:?}")
}
