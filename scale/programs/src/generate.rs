//! Made-up embeddings in Parquet, for measurements and tests.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::BoxError;

/// How far the clusters of each level lie apart; an embedding is the sum of one centre of each, so that there are clusters of
/// clusters, as residual quantisers look for.
const LEVELS: [f32; 3] = [1.0, 0.5, 0.25];

/// Centres of a level.
const CENTRES: usize = 256;

/// How far embeddings lie from their centres.
const SPREAD: f32 = 0.125;

/// Rows of a row group: a reader holds one in memory, 32 MiB at 128 values a row.
const GROUP_ROWS: usize = 64 << 10;

/// Rows written at once.
const BATCH: usize = 8192;

/// A table to make: an `id` and an `embedding`, whose values are the same bytes for the same settings.
#[derive(Debug, Clone, clap::Args)]
pub struct Table {
    /// Rows in all.
    #[arg(long)]
    pub rows: usize,
    /// Values of an embedding.
    #[arg(long, default_value_t = 128)]
    pub width: usize,
    /// Files, which share the rows.
    #[arg(long, default_value_t = 4)]
    pub files: usize,
    /// Every value derives from it.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Directory of the files.
    #[arg(long)]
    pub out: PathBuf,
}

impl Table {
    /// Writes the files, on as many threads as there are cores.
    ///
    /// # Errors
    /// When the directory has files already, or one cannot be written.
    pub fn write(&self) -> Result<(), BoxError> {
        std::fs::create_dir_all(&self.out)?;
        if std::fs::read_dir(&self.out)?.next().is_some() {
            return Err(format!("`{}` is not empty; choose another directory", self.out.display()).into());
        }
        let files = self.files.max(1);
        let starts: Vec<usize> = (0..=files).map(|file| self.rows * file / files).collect();
        let centres = self.centres();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files);
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || -> Result<(), BoxError> {
            loop {
                let file = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if file >= files {
                    return Ok(());
                }
                let path = self.out.join(format!("embeddings-{file:05}.parquet"));
                self.write_file(&path, file as u64, starts[file]..starts[file + 1], &centres)?;
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
        })
    }

    fn centres(&self) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let level = |scale: f32, rng: &mut ChaCha8Rng| -> Vec<f32> {
            (0..CENTRES * self.width).map(|_| scale * rng.random_range(-1.0_f32..1.0)).collect()
        };
        LEVELS.map(|scale| level(scale, &mut rng)).concat()
    }

    fn write_file(
        &self,
        path: &Path,
        stream: u64,
        ids: std::ops::Range<usize>,
        centres: &[f32],
    ) -> Result<(), BoxError> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(stream + 1);
        let item = Arc::new(Field::new_list_field(DataType::Float32, true));
        let list = DataType::FixedSizeList(item.clone(), i32::try_from(self.width)?);
        let schema =
            Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("embedding", list, false)]));
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_column_statistics_enabled("id".into(), EnabledStatistics::Chunk)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        let mut writer = ArrowWriter::try_new(File::create(path)?, schema.clone(), Some(properties))?;
        let mut at = ids.start;
        while at < ids.end {
            let rows = BATCH.min(ids.end - at);
            let mut values = Vec::with_capacity(rows * self.width);
            for _ in 0..rows {
                let at = values.len();
                values.extend((0..self.width).map(|_| SPREAD * noise(&mut rng)));
                for level in 0..LEVELS.len() {
                    let centre = (level * CENTRES + rng.random_range(0..CENTRES)) * self.width;
                    let centre = &centres[centre..centre + self.width];
                    values[at..].iter_mut().zip(centre).for_each(|(value, centre)| *value += centre);
                }
            }
            let values = Arc::new(Float32Array::from(values));
            let embeddings = FixedSizeListArray::try_new(item.clone(), i32::try_from(self.width)?, values, None)?;
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(at as i64..(at + rows) as i64));
            writer.write(&RecordBatch::try_new(schema.clone(), vec![ids, Arc::new(embeddings)])?)?;
            at += rows;
        }
        writer.close()?;
        Ok(())
    }
}

/// A sum of two even numbers between -1 and 1: cheap, and more often near than far.
fn noise(rng: &mut ChaCha8Rng) -> f32 {
    let bits = rng.next_u32();
    let (a, b) = (bits & 0xffff, bits >> 16);
    (a + b) as f32 / 65536.0 - 1.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn the_same_settings_make_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let table = |name: &str, seed| Table { rows: 1000, width: 8, files: 3, seed, out: dir.path().join(name) };
        for (name, seed) in [("a", 7), ("b", 7), ("c", 8)] {
            table(name, seed).write().unwrap();
        }
        let bytes = |name: &str| {
            let file = |file: usize| {
                std::fs::read(dir.path().join(name).join(format!("embeddings-{file:05}.parquet"))).unwrap()
            };
            (0..3).map(file).collect::<Vec<_>>()
        };
        assert_eq!(bytes("a"), bytes("b"));
        assert_ne!(bytes("a"), bytes("c"));
    }
}
