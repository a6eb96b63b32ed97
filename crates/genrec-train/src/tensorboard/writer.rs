//! Event files.

use std::{
    fs::{self, File},
    io::{BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use prost::Message;

use super::event::{Datum, Event, Histogram, Metadata, Plugin, Session, Shape, Summary, Tensor, Value, What};
use crate::{Result, TrainError};

/// What is written reaches the file after so long at the latest, with the next event.
const DELAY: Duration = Duration::from_secs(5);

/// Writes one event file of TensorBoard.
///
/// A file is a row of records, each an `Event` of TensorFlow's protocol between two checksums. TensorBoard reads all files of a
/// directory as one run, in the order of their names, which begin with the time; so a run that is resumed adds a file.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dir = tempfile::tempdir()?;
/// let mut events = genrec_train::tensorboard::EventWriter::create(dir.path())?;
/// for step in 1..=3 {
///     events.scalars(step, &[("train/loss", 1.0 / step as f64)])?;
/// }
/// events.counts("codes/level 1", 3, &[4, 0, 2])?;
/// events.flush()?;
/// assert!(events.path().metadata()?.len() > 200);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
    flushed: Instant,
}

impl EventWriter {
    /// Starts a new file in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the directory or the file cannot be made.
    pub fn create(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| TrainError::Io { action, path, source }
        };
        fs::create_dir_all(dir).map_err(failed("create the directory", dir))?;
        let (seconds, process) = (now() as u64, std::process::id());
        // Two writers of one process may begin in the same second.
        let mut number = 0_u32;
        let (path, file) = loop {
            let path = dir.join(format!("events.out.tfevents.{seconds:010}.genrec.{process}.{number}"));
            match File::create_new(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && number < u32::MAX => number += 1,
                Err(error) => return Err(failed("create", &path)(error)),
            }
        };
        let mut writer = Self { path, file: BufWriter::new(file), flushed: Instant::now() };
        writer.write(0, What::FileVersion("brain.Event:2".to_owned()))?;
        writer.flush()?;
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says that what follows starts at a step: TensorBoard drops what earlier files have from that step on, as a run left it that
    /// was killed after its last checkpoint.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the file cannot be written.
    pub fn start_at(&mut self, step: u64) -> Result<()> {
        self.write(step, What::Session(Session { status: Session::START }))
    }

    /// Adds a point to the curve of each tag. A slash in a tag groups curves.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the file cannot be written.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        #[allow(clippy::cast_possible_truncation, reason = "the format has single precision")]
        let value = |&(tag, value): &(&str, f64)| Value {
            tag: tag.to_owned(),
            metadata: None,
            datum: Some(Datum::Scalar(value as f32)),
        };
        self.write(step, What::Summary(Summary { values: values.iter().map(value).collect() }))
    }

    /// Adds a histogram of how often each number from 0 on occurs: of a codebook's codes, say. Nothing is added where there is no
    /// number.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the file cannot be written.
    pub fn counts(&mut self, tag: &str, step: u64, counts: &[u64]) -> Result<()> {
        let used = || counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(number, _)| number as f64);
        let (Some(min), Some(max)) = (used().next(), used().next_back()) else { return Ok(()) };
        let counts: Vec<f64> = counts.iter().map(|&count| count as f64).collect();
        let moment =
            |power: i32| counts.iter().enumerate().map(|(number, count)| count * (number as f64).powi(power)).sum();
        let histogram = Histogram {
            min,
            max,
            num: moment(0),
            sum: moment(1),
            sum_squares: moment(2),
            limits: (0..counts.len()).map(|number| number as f64 + 0.5).collect(),
            counts,
        };
        let value = Value { tag: tag.to_owned(), metadata: None, datum: Some(Datum::Histogram(histogram)) };
        self.write(step, What::Summary(Summary { values: vec![value] }))
    }

    /// Adds a text in Markdown: settings, say.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the file cannot be written.
    pub fn text(&mut self, tag: &str, step: u64, markdown: &str) -> Result<()> {
        let strings = vec![markdown.as_bytes().to_vec()];
        let tensor = Tensor { dtype: Tensor::STRING, shape: Some(Shape {}), strings };
        let metadata = Some(Metadata { plugin: Some(Plugin { name: "text".to_owned() }) });
        let value = Value { tag: tag.to_owned(), metadata, datum: Some(Datum::Tensor(tensor)) };
        self.write(step, What::Summary(Summary { values: vec![value] }))
    }

    /// Hands all that was written to the operating system, so that TensorBoard sees it.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        self.file.flush().map_err(|source| self.failed(source))
    }

    fn write(&mut self, step: u64, what: What) -> Result<()> {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let record = record(&Event { wall_time: now(), step, what: Some(what) }.encode_to_vec());
        self.file.write_all(&record).map_err(|source| self.failed(source))?;
        if self.flushed.elapsed() >= DELAY { self.flush() } else { Ok(()) }
    }

    /// Lets what follows be written to a device that is always full.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn fill(&mut self) {
        if let Ok(full) = File::options().write(true).open("/dev/full") {
            self.file = BufWriter::new(full);
        }
    }

    fn failed(&self, source: std::io::Error) -> TrainError {
        TrainError::Io { action: "write", path: self.path.clone(), source }
    }
}

/// A record as TensorFlow frames it: length, checksum of the length, bytes, checksum of the bytes.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), bytes, &masked(bytes)].concat()
}

/// CRC-32C, turned and moved, since a checksum of data that hold checksums is weak.
pub(super) fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
