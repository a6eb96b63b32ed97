//! The collision suffix, as a window over a column of Semantic IDs.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::JoinType;
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{ExprFunctionExt, cast, ident, lit, when};
use datafusion::prelude::DataFrame;

/// Columns that a join needs for a while.
const GIVEN_ID: &str = "__genrec_given_id";
const GIVEN_SID: &str = "__genrec_given_sid";
const LAST: &str = "__genrec_last_suffix";

/// Makes codes into Semantic IDs that are unique: the items whose codes are equal are numbered in the order of their ids, from 0 on
/// (the suffix of `CollisionPolicy` in `sid-index`; TIGER, arXiv 2305.05065, section 3.1).
///
/// The value names the columns. Ids must be unique, as those that are equal would be numbered by chance.
///
/// ```
/// use datafusion::prelude::*;
/// use genrec_datafusion::{SemanticId, Suffixes};
/// # use ndarray::Array2;
/// # use sid_quantize::{ArrayRows, Fit, ResidualKMeansConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let rows = Array2::from_shape_fn((64, 2), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
/// # let config = ResidualKMeansConfig::default().with_codebook_sizes([8, 8]);
/// # let semantic_id = SemanticId::from_quantizer(config.fit(&mut ArrayRows::from(rows))?.into())?;
/// let items = |from, to| async move {
///     let embedding = "make_array(CAST(value % 3 AS FLOAT), 1.0)";
///     SessionContext::new().sql(&format!("SELECT value AS id, {embedding} AS x FROM range({from}, {to})")).await
/// };
/// let encode = |items: DataFrame| items.select([col("id"), semantic_id.call(col("x")).alias("sid")]);
///
/// let suffixes = Suffixes::default();
/// let given = suffixes.of(encode(items(0, 30).await?)?)?.cache().await?;
/// assert_eq!(given.clone().select_columns(&["sid", "suffix"])?.distinct()?.count().await?, 30);
///
/// // Later there are 40 items: the ten that are new are encoded, and numbered after those that there are.
/// let new = suffixes.unseen(items(0, 40).await?, given.clone())?;
/// let new = suffixes.after(encode(new)?, given.clone())?;
/// assert_eq!(new.clone().count().await?, 10);
/// assert_eq!(given.union(new)?.select_columns(&["sid", "suffix"])?.distinct()?.count().await?, 40);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Suffixes {
    /// The column of ids, of any type that has an order; `id` by default.
    pub id: String,
    /// The column of codes, as `semantic_id` gives them; `sid` by default.
    pub sid: String,
    /// The column that the suffix is put into, a `UInt32`; `suffix` by default.
    pub suffix: String,
}

impl Default for Suffixes {
    fn default() -> Self {
        Self { id: "id".to_owned(), sid: "sid".to_owned(), suffix: "suffix".to_owned() }
    }
}

impl Suffixes {
    /// Names the column of ids.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Names the column of codes.
    #[must_use]
    pub fn with_sid(mut self, sid: impl Into<String>) -> Self {
        self.sid = sid.into();
        self
    }

    /// Names the column that the suffix is put into.
    #[must_use]
    pub fn with_suffix(mut self, suffix: impl Into<String>) -> Self {
        self.suffix = suffix.into();
        self
    }

    /// The rows with their suffix, in SQL
    /// `CAST(row_number() OVER (PARTITION BY sid ORDER BY id) - 1 AS INTEGER UNSIGNED) AS suffix`. Where there is no Semantic ID
    /// there is no suffix.
    ///
    /// # Errors
    /// When there is no such column; of the query, when more than $2^{32}$ items share their codes.
    pub fn of(&self, rows: DataFrame) -> Result<DataFrame> {
        let number = self.row_number()? - lit(1_u64);
        self.numbered(rows, number)
    }

    /// The rows of `items` whose id is not in `given`: what is left to encode.
    ///
    /// # Errors
    /// When a column of ids is missing or they cannot be compared.
    pub fn unseen(&self, items: DataFrame, given: DataFrame) -> Result<DataFrame> {
        let given = given.select([ident(&self.id).alias(GIVEN_ID)])?;
        items.join_on(given, JoinType::LeftAnti, [ident(&self.id).eq(ident(GIVEN_ID))])
    }

    /// The rows, none of which is in `given`, with suffixes that go on after the largest that `given` has for their codes. The rows of
    /// `given` keep theirs and are not part of the result.
    ///
    /// # Errors
    /// As [`of`](Self::of), and when `given` lacks a column.
    pub fn after(&self, rows: DataFrame, given: DataFrame) -> Result<DataFrame> {
        let columns: Vec<_> = rows.schema().fields().iter().map(|field| ident(field.name())).collect();
        let last = given
            .aggregate(vec![ident(&self.sid)], vec![max(ident(&self.suffix)).alias(LAST)])?
            .select([ident(&self.sid).alias(GIVEN_SID), ident(LAST)])?;
        let rows = rows.join_on(last, JoinType::Left, [ident(&self.sid).eq(ident(GIVEN_SID))])?;
        let first =
            when(ident(LAST).is_null(), lit(0_u64)).otherwise(cast(ident(LAST), DataType::UInt64) + lit(1_u64))?;
        let number = self.row_number()? - lit(1_u64) + first;
        let rows = self.numbered(rows, number)?;
        rows.select(columns.into_iter().chain([ident(&self.suffix)]))
    }

    fn row_number(&self) -> Result<datafusion::logical_expr::Expr> {
        let order = vec![ident(&self.id).sort(true, false)];
        row_number().partition_by(vec![ident(&self.sid)]).order_by(order).build()
    }

    fn numbered(&self, rows: DataFrame, number: datafusion::logical_expr::Expr) -> Result<DataFrame> {
        let suffix = when(ident(&self.sid).is_not_null(), cast(number, DataType::UInt32)).end()?;
        rows.with_column(&self.suffix, suffix)
    }
}
