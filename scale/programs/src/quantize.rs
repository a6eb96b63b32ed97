//! A table of embeddings into a table of Semantic IDs, in two stages: encode, then number what collides.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Device;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::logical_expr::{cast, ident, lit, when};
use datafusion::prelude::{DataFrame, SessionContext};
use genrec_datafusion::{SemanticId, Suffixes};

use crate::{
    BoxError,
    patience::retried,
    report,
    session::{Place, parquet, with_columns},
    sink,
};

/// Rows of a batch: large enough that the encoder's threads share it out, small enough for a cache.
const BATCH: usize = 8192;

/// Under this name the metadata of the files has the fingerprint of the quantiser.
const QUANTIZER: &str = "genrec.quantizer";

/// What to quantise, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct Job {
    /// Directory of a saved quantiser.
    #[arg(long)]
    pub quantizer: PathBuf,
    /// Parquet file, or directory of Parquet files, with a column of ids and one of embeddings.
    #[arg(long)]
    pub input: PathBuf,
    /// Directory that gets `sids/`: Parquet files with the columns of ids, `sid` and `suffix`.
    #[arg(long)]
    pub out: PathBuf,
    /// Column of ids.
    #[arg(long, default_value = "id")]
    pub id: String,
    /// Column of embeddings.
    #[arg(long, default_value = "embedding")]
    pub embedding: String,
    /// Semantic IDs already given, the `sids/` of all earlier runs, by the same quantiser: only items that are not there are
    /// encoded, and none of these changes.
    #[arg(long, num_args = 1..)]
    pub given: Vec<PathBuf>,
    /// Where it runs.
    #[command(flatten)]
    pub place: Place,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Items that were encoded.
    pub rows: usize,
    /// Semantic IDs in all, with those given before.
    pub sids: usize,
    /// Of these, those that are there once.
    pub distinct: usize,
    /// Different tuples of codes, which the suffix makes unique.
    pub cells: usize,
    /// Seconds of encoding, of numbering, of checking.
    pub seconds: [f64; 3],
}

impl Job {
    /// Encodes, numbers and checks.
    ///
    /// # Errors
    /// When a file cannot be read or written, a row cannot be encoded, given Semantic IDs are of another quantiser, or those that come
    /// of it are not unique.
    pub async fn run(&self) -> Result<Outcome, BoxError> {
        let [sids, numbers, codes] = ["sids", "unchecked", "codes"].map(|name| self.out.join(name));
        // Better now than after the encoding.
        sink::check_absent(&sids)?;
        std::fs::create_dir_all(&self.out)?;
        for left in [&codes, &numbers] {
            if left.exists() {
                std::fs::remove_dir_all(left)?;
            }
        }
        let mut ctx = self.place.open(BATCH, &self.out).await?;
        let semantic_id = SemanticId::open(&self.quantizer, &Device::Cpu)?;
        semantic_id.register(&mut ctx)?;
        let label = semantic_id.fingerprint().map(|quantizer| (QUANTIZER, quantizer));
        if let Some((name, quantizer)) = label {
            for given in &self.given {
                sink::check_label(given, name, quantizer)?;
            }
        }
        let suffixes = Suffixes::default().with_id(self.id.as_str());
        let again = self.place.cluster.is_some();

        let begun = Instant::now();
        let wanted =
            [(self.id.as_str(), "name one of them by `--id`"), (&self.embedding, "name one of them by `--embedding`")];
        let mut items = with_columns(&ctx, &self.input, &wanted).await?;
        let given = self.given(&ctx).await?;
        if let Some(given) = &given {
            items = suffixes.unseen(items, given.clone())?;
        }
        let encoded = items.select([ident(&self.id), semantic_id.call(ident(&self.embedding)).alias("sid")])?;
        let rows_of = self.given.is_empty().then_some(self.input.as_path());
        let table = sink::Table { path: &codes, whole: &[&self.id, "sid"], label, rows_of, again };
        let rows = table.write(encoded).await?;
        let encoding = begun.elapsed().as_secs_f64();
        report("encoded", rows, encoding);

        let begun = Instant::now();
        let encoded = parquet(&ctx, &codes).await?;
        let numbered = match given {
            None => suffixes.of(encoded)?,
            Some(given) => suffixes.after(encoded, given)?,
        };
        let whole = &[self.id.as_str(), "sid", "suffix"];
        sink::Table { path: &numbers, whole, label, rows_of: Some(&codes), again }.write(numbered).await?;
        let numbering = begun.elapsed().as_secs_f64();
        report("numbered", rows, numbering);

        let begun = Instant::now();
        let mut expected = rows;
        for table in &self.given {
            expected += sink::rows_of(table).await?;
        }
        let mut outcome = retried(again, async || self.check(&ctx, &numbers, expected).await).await?;
        std::fs::rename(&numbers, &sids)?;
        std::fs::remove_dir_all(&codes)?;
        let checking = begun.elapsed().as_secs_f64();
        report("checked", outcome.sids, checking);
        (outcome.rows, outcome.seconds) = (rows, [encoding, numbering, checking]);
        Ok(outcome)
    }

    /// The Semantic IDs of all earlier runs; none where none was named.
    async fn given(&self, ctx: &SessionContext) -> Result<Option<DataFrame>, BoxError> {
        let mut all = None;
        for path in &self.given {
            let wanted = [
                ("sid", "give the `sids` of an earlier job"),
                ("suffix", "give the `sids` of an earlier job"),
                (&self.id, "give the `--id` of the job that wrote it"),
            ];
            let part = with_columns(ctx, path, &wanted).await?;
            let part = part.select([ident(&self.id), ident("sid"), ident("suffix")])?;
            all = Some(match all {
                None => part,
                Some(all) => DataFrame::union(all, part)?,
            });
        }
        Ok(all)
    }

    /// Counts Semantic IDs and ids, and fails unless each is there once, and there are as many as expected.
    async fn check(&self, ctx: &SessionContext, sids: &Path, expected: usize) -> Result<Outcome, BoxError> {
        let mut all = parquet(ctx, sids).await?;
        if let Some(given) = self.given(ctx).await? {
            all = all.union(given)?;
        }
        let groups = all
            .clone()
            .aggregate(vec![ident("sid"), ident("suffix")], vec![count(lit(1_i64)).alias("items")])?
            .aggregate(
                Vec::new(),
                vec![
                    count(lit(1_i64)).alias("distinct"),
                    cast(sum(ident("items")), DataType::Int64).alias("sids"),
                    count(when(ident("suffix").eq(lit(0_u32)), lit(1_i64)).end()?).alias("cells"),
                ],
            )?;
        let [distinct, sids, cells] = numbers(groups).await?;
        // An id is there as often as it has Semantic IDs. The input is there once more, lest an item has none.
        let there = |table: DataFrame, times: i64| table.select([ident(&self.id), lit(times).alias("times")]);
        let mut ids = there(all, 1)?;
        if !self.given.is_empty() {
            ids = ids.union(there(parquet(ctx, &self.input).await?, 0)?)?;
        }
        let ids = ids.aggregate(vec![ident(&self.id)], vec![sum(ident("times")).alias("times")])?.aggregate(
            Vec::new(),
            vec![
                count(lit(1_i64)).alias("ids"),
                count(when(ident("times").eq(lit(0_i64)), lit(1_i64)).end()?).alias("without"),
                cast(sum(ident("times")), DataType::Int64).alias("rows"),
            ],
        )?;
        let [ids, without, rows] = numbers(ids).await?;
        if (sids, rows) != (expected, expected) {
            // What an engine has done wrong once it may do right the next time.
            return Err(DataFusionError::Execution(format!(
                "{expected} Semantic IDs were written, and the check counts {sids}, and {rows} ids; start the job anew, and report this"
            ))
            .into());
        }
        let name = &self.id;
        if ids - without != sids {
            return Err(format!("{sids} rows have {} ids in column `{name}`; ids must be unique", ids - without).into());
        }
        if without > 0 {
            return Err(format!(
                "{without} ids of column `{name}` have no Semantic ID; start the job anew, and report this"
            )
            .into());
        }
        if distinct != sids {
            return Err(format!(
                "{sids} items have {distinct} Semantic IDs; report this as a fault of genrec-datafusion"
            )
            .into());
        }
        Ok(Outcome { rows: 0, sids, distinct, cells, seconds: [0.0; 3] })
    }
}

/// The only row of a query, of integers.
async fn numbers<const N: usize>(query: DataFrame) -> Result<[usize; N], BoxError> {
    let batches = query.collect().await?;
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).ok_or("a count has no row")?;
    let mut row = [0; N];
    for (number, column) in row.iter_mut().zip(batch.columns()) {
        // The sum of no rows is null.
        *number = usize::try_from(column.as_primitive::<Int64Type>().iter().next().flatten().unwrap_or(0))?;
    }
    Ok(row)
}
