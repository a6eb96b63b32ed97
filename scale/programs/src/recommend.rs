//! A table of histories into a table of recommendations.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use datafusion::arrow::array::{Array, ArrayBuilder, AsArray, ListBuilder, RecordBatch, StringBuilder};
use datafusion::arrow::compute::cast as cast_array;
use datafusion::arrow::datatypes::{DataType, Field, Float32Type, Schema};
use datafusion::common::ScalarValue;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{ExprFunctionExt, cast, ident, lit};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::SessionContext;
use genrec::artifacts::{RunDir, read_json};
use genrec::{DecodeConfig, History, Recommender};
use genrec_datafusion::Recommend;

use crate::{
    BoxError, report,
    session::{Place, parquet, with_columns},
    sink,
};

/// Users of a batch: some of the model's own batches, and a result that is soon there.
const BATCH: usize = 1024;

/// Under this name the metadata of the files has the fingerprint of the run.
const RUN: &str = "genrec.run";

/// A column that is in no table: the number of a row among those of its id.
const PLACE: &str = "genrec.place";

/// Whom to recommend to, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct Job {
    /// Directory of a finished run. The executors of a cluster load their own copy, which must be of this run.
    #[arg(long)]
    pub run: PathBuf,
    /// Parquet file, or directory of Parquet files, with a column of ids and one of lists of items; or a `sequences.txt`, a user and
    /// their items a line, whose columns are `id` and `history`.
    #[arg(long)]
    pub input: PathBuf,
    /// Directory that gets `recommendations/`: Parquet files with the columns of ids and `items`, a list of items with scores.
    #[arg(long)]
    pub out: PathBuf,
    /// How many items.
    #[arg(short, default_value_t = 10)]
    pub k: u32,
    /// Column of ids.
    #[arg(long, default_value = "id")]
    pub id: String,
    /// Column of histories, oldest item first.
    #[arg(long, default_value = "history")]
    pub history: String,
    /// Column of users' ids as training had them, for runs with user tokens; no user otherwise.
    #[arg(long)]
    pub user: Option<String>,
    /// Asks the run itself afterwards, and compares row for row.
    #[arg(long)]
    pub check: bool,
    /// Where it runs.
    #[command(flatten)]
    pub place: Place,
}

impl Job {
    /// Recommends, and returns the number of rows.
    ///
    /// # Errors
    /// When a file cannot be read or written, a history cannot be read, or the check finds a difference.
    pub async fn run(&self) -> Result<usize, BoxError> {
        let out = self.out.join("recommendations");
        sink::check_absent(&out)?;
        std::fs::create_dir_all(&self.out)?;
        let mut ctx = self.place.open(BATCH, &self.out).await?;
        let cluster = self.place.cluster.is_some();
        let recommend =
            if cluster { Recommend::declared_of(&self.run)? } else { Recommend::open(&self.run, &Device::Cpu)? };
        recommend.register(&mut ctx)?;
        let tokens = read_json::<DecodeConfig>(&RunDir::new(&self.run).decode())?.user_tokens;
        if tokens > 0 && self.user.is_none() {
            tracing::warn!(
                tokens,
                "the run was trained with user tokens; name the users by `--user COLUMN`, or lists are anybody's"
            );
        }

        let begun = Instant::now();
        let named =
            [(self.id.as_str(), "name one of them by `--id`"), (&self.history, "name one of them by `--history`")];
        let user = self.user.as_deref().map(|user| (user, "name one of them by `--user`"));
        let wanted: Vec<_> = named.into_iter().chain(user).collect();
        let users = with_columns(&ctx, &self.input, &wanted).await?;
        let call = |history| match &self.user {
            None => recommend.call(history, lit(i64::from(self.k))),
            Some(user) => recommend.call_for(history, lit(i64::from(self.k)), ident(user)),
        };
        // Histories are small and recommending is slow: a file of one row group would be the work of one task. A repartition that no
        // operator needs is taken out by the optimiser; a window needs its own.
        let place = row_number().partition_by(vec![ident(&self.id)]).build()?.alias(PLACE);
        let users = users.window(vec![place])?.filter(ident(PLACE).gt(lit(0_u64)))?;
        let found = users.select([ident(&self.id), call(ident(&self.history)).alias("items")])?;
        let label = recommend.fingerprint().map(|run| (RUN, run));
        let whole = &[self.id.as_str(), "items"];
        let table = sink::Table { path: &out, whole, label, rows_of: Some(&self.input), again: cluster };
        let rows = table.write(found).await?;
        report("recommended", rows, begun.elapsed().as_secs_f64());
        if self.check {
            let begun = Instant::now();
            self.compare(&out, rows).await?;
            report("equal to the run's own", rows, begun.elapsed().as_secs_f64());
        }
        Ok(rows)
    }

    /// Fails on the first user whose items or scores are not those of `Recommender`.
    async fn compare(&self, out: &Path, rows: usize) -> Result<(), BoxError> {
        let recommender = Recommender::load(&self.run, &Device::Cpu)?;
        let ctx = SessionContext::new();
        let text = |name: &str| cast(ident(name), DataType::Utf8).alias(name);
        let items = DataType::List(Field::new_list_field(DataType::Utf8, true).into());
        let users = parquet(&ctx, &self.input).await?;
        let user =
            cast(self.user.as_deref().map_or_else(|| lit(ScalarValue::Null), ident), DataType::Utf8).alias("user");
        let users =
            users.select([text(&self.id), cast(ident(&self.history), items).alias("history"), user])?.collect().await?;
        let found = parquet(&ctx, out).await?.select([text(&self.id), ident("items")])?.collect().await?;
        let mut wanted: HashMap<String, Vec<(String, f32)>> = HashMap::new();
        for batch in &users {
            for (id, items) in ids(batch)?.into_iter().zip(answers(&recommender, batch, self.k as usize)?) {
                wanted.insert(id, items);
            }
        }
        if wanted.len() != rows {
            return Err(format!("{rows} users have {} ids; ids must be unique to be compared", wanted.len()).into());
        }
        for batch in &found {
            let lists = batch.column(1).as_list::<i32>();
            for (row, id) in ids(batch)?.into_iter().enumerate() {
                let list = lists.value(row);
                let list = list.as_struct();
                let names = cast_array(list.column(0), &DataType::Utf8)?;
                let scores = list.column(1).as_primitive::<Float32Type>().values();
                let got: Vec<_> =
                    names.as_string::<i32>().iter().flatten().map(str::to_owned).zip(scores.iter().copied()).collect();
                if wanted.remove(&id).is_none_or(|wanted| wanted != got) {
                    return Err(format!("user {id} was recommended other items than by the run itself").into());
                }
            }
        }
        if wanted.is_empty() { Ok(()) } else { Err(format!("{} users are missing", wanted.len()).into()) }
    }
}

/// The first column, of text.
fn ids(batch: &RecordBatch) -> Result<Vec<String>, BoxError> {
    let ids = cast_array(batch.column(0), &DataType::Utf8)?;
    Ok(ids.as_string::<i32>().iter().flatten().map(str::to_owned).collect())
}

/// What the run itself says of the histories in the second column, in one call.
fn answers(recommender: &Recommender, batch: &RecordBatch, k: usize) -> Result<Vec<Vec<(String, f32)>>, BoxError> {
    let lists = batch.column(1).as_list::<i32>();
    let mut histories = Vec::new();
    for row in 0..lists.len() {
        let items = lists.value(row);
        let items = items.as_string::<i32>().iter().flatten().map(|id| recommender.find(id));
        histories.push(items.collect::<Result<Vec<_>, _>>()?);
    }
    let users = batch.column(2).as_string::<i32>().iter();
    let histories: Vec<_> = histories.iter().zip(users).map(|(items, user)| History { user, items }).collect();
    let found = recommender.recommend(&histories, k)?;
    Ok(found.into_iter().map(|items| items.into_iter().map(|item| (item.id, item.score)).collect()).collect())
}

/// Writes the histories of a `sequences.txt` (a user and their items a line) to a Parquet file of the columns `id` and `history`, without
/// the last `leave_out` items of each. Users of whom nothing is left are left out, with a warning; the others are counted.
///
/// # Errors
/// When a file cannot be read or written.
pub fn histories_to_parquet(sequences: &Path, leave_out: usize, parquet: &Path) -> Result<usize, BoxError> {
    let lists = DataType::List(Field::new_list_field(DataType::Utf8, true).into());
    let schema =
        Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, false), Field::new("history", lists, false)]));
    let file = File::open(sequences).map_err(|error| format!("cannot read `{}`: {error}", sequences.display()))?;
    let mut writer = ArrowWriter::try_new(File::create(parquet)?, schema.clone(), None)?;
    let (mut users, mut without) = (0, 0_usize);
    let (mut ids, mut lists) = (StringBuilder::new(), ListBuilder::new(StringBuilder::new()));
    let mut lines = BufReader::new(file).lines().peekable();
    while let Some(line) = lines.next() {
        let line = line?;
        let mut words = line.split_whitespace();
        if let Some(user) = words.next() {
            let items: Vec<&str> = words.collect();
            let kept = items.len().saturating_sub(leave_out);
            if kept == 0 {
                without += 1;
            } else {
                ids.append_value(user);
                items[..kept].iter().for_each(|item| lists.values().append_value(item));
                lists.append(true);
            }
        }
        if ids.len() == BATCH || (lines.peek().is_none() && ids.len() > 0) {
            users += ids.len();
            writer.write(&RecordBatch::try_new(
                schema.clone(),
                vec![Arc::new(ids.finish()), Arc::new(lists.finish())],
            )?)?;
        }
    }
    writer.close()?;
    if without > 0 {
        tracing::warn!(users = without, leave_out, "users with no history are left out");
    }
    Ok(users)
}
