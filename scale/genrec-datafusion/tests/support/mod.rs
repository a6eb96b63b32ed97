//! What the tests share: embeddings, quantisers, tables in memory.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::needless_pass_by_value, reason = "an array view is passed by value, as a slice would be")]

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, UInt32Type};
use datafusion::arrow::error::ArrowError;
use datafusion::datasource::MemTable;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use ndarray::{Array2, ArrayView2};
use sid_quantize::{
    AnyQuantizer, ArrayRows, Fit, FsqConfig, HierarchicalKMeansConfig, ProductKMeansConfig, QuantizerConfig,
    ResidualKMeansConfig, RqVaeConfig, SimHashLshConfig,
};

pub(crate) const WIDTH: usize = 8;

/// Rows that look like nothing in particular and are never twice the same.
pub(crate) fn embeddings(rows: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, WIDTH), |(i, j)| {
        let mixed = (i as u64 * WIDTH as u64 + j as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        mixed as f32 / (1 << 23) as f32 - 1.0
    })
}

/// Quantisers of several kinds, fitted on [`embeddings`].
pub(crate) fn quantizers() -> Vec<AnyQuantizer> {
    let mut rq_vae = RqVaeConfig::default().with_codebook_sizes([8, 8, 8]);
    rq_vae.epochs = Some(2);
    let configs: Vec<QuantizerConfig> = vec![
        ResidualKMeansConfig::default().with_codebook_sizes([8, 8, 8]).into(),
        ProductKMeansConfig::default().with_codebook_sizes([16, 16]).into(),
        HierarchicalKMeansConfig::default().with_codebook_sizes([4, 4]).into(),
        SimHashLshConfig::default().into(),
        FsqConfig::default().into(),
        rq_vae.into(),
    ];
    configs.into_iter().map(|config| config.fit(&mut ArrayRows::from(embeddings(512))).unwrap()).collect()
}

/// One that has few codes, so that many rows share theirs.
pub(crate) fn coarse() -> AnyQuantizer {
    let config = ResidualKMeansConfig::default().with_codebook_sizes([4, 4]);
    AnyQuantizer::from(config.fit(&mut ArrayRows::from(embeddings(512))).unwrap())
}

/// Rows as an arrow array.
pub(crate) fn fixed(rows: ArrayView2<'_, f32>) -> ArrayRef {
    let field = Arc::new(Field::new_list_field(DataType::Float32, true));
    let values = Arc::new(Float32Array::from(rows.iter().copied().collect::<Vec<_>>()));
    Arc::new(FixedSizeListArray::try_new(field, rows.ncols() as i32, values, None).unwrap())
}

/// A table of the columns `id` and `x` in partitions, each of several batches.
pub(crate) fn table(
    ctx: &SessionContext,
    ids: &[i64],
    rows: ArrayView2<'_, f32>,
    partitions: usize,
) -> Result<DataFrame, ArrowError> {
    let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(Int64Array::from(ids.to_vec()))), ("x", fixed(rows))];
    let all = RecordBatch::try_from_iter(columns)?;
    let batches = (0..ids.len()).step_by(37).map(|at| all.slice(at, 37.min(ids.len() - at)));
    let mut parts = vec![Vec::new(); partitions];
    for (at, batch) in batches.enumerate() {
        parts[at % partitions].push(batch);
    }
    Ok(ctx.read_table(Arc::new(MemTable::try_new(all.schema(), parts).unwrap())).unwrap())
}

/// A session that works in so many partitions, on batches that are small.
pub(crate) fn session(partitions: usize) -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions).with_batch_size(64))
}

/// Id, codes and suffix of each row, by id.
pub(crate) async fn sids(query: DataFrame) -> Vec<(i64, Vec<u32>, u32)> {
    let mut found = Vec::new();
    for batch in query.collect().await.unwrap() {
        let ids = batch.column_by_name("id").unwrap().as_primitive::<datafusion::arrow::datatypes::Int64Type>().clone();
        let codes = batch.column_by_name("sid").unwrap().clone();
        let suffix = batch.column_by_name("suffix").unwrap().as_primitive::<UInt32Type>().clone();
        for row in 0..batch.num_rows() {
            found.push((ids.value(row), codes_of(&codes, row), suffix.value(row)));
        }
    }
    found.sort();
    found
}

/// The codes in a row.
pub(crate) fn codes_of(array: &dyn Array, row: usize) -> Vec<u32> {
    array.as_fixed_size_list().value(row).as_primitive::<UInt32Type>().values().to_vec()
}
