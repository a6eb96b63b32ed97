//! `recommend(history, k)`: the best items for a user, by a saved run.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float32Array, ListArray, StringArray, StructArray};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::{CastOptions, cast, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Int64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::error::Result as QueryResult;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use genrec::artifacts::RunDir;
use genrec::{History, Recommendation, Recommender};

use crate::histories::{Histories, read_as};
use crate::{Error, Result, fingerprint};

/// The function's name in SQL.
const NAME: &str = "recommend";

/// How often a run is loaded that changes meanwhile.
const ATTEMPTS: usize = 3;

const ARGUMENTS: &str = "a history, a number of items and, if wanted, a user's id and a run's fingerprint";

/// The scalar function `recommend(history, k)`: the items that [`Recommender::recommend`] finds for each row.
///
/// # Shapes
/// - `history`: a list of item ids, oldest first: text, or integers, which stand for the ids that are written so
/// - `k`: an integer, how many items
/// - a third argument, if there is one: the user's id as text, for runs that were trained with user tokens; null is no user
/// - a fourth, if there is one: the run's [`fingerprint`](Self::fingerprint) as text; another run refuses to answer
/// - result: `List<Struct<item: Utf8, score: Float32>>`, best first, scores in nats; null where the history or `k` is null
///
/// A batch is searched in one call, so that histories share the model's batches. What `Recommender` refuses fails the query: an item
/// that is not in the catalogue, or a history without items where the run has no user tokens; the row is named.
///
/// ```no_run
/// use candle_core::Device;
/// use datafusion::prelude::*;
/// use genrec_datafusion::Recommend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut ctx = SessionContext::new();
/// Recommend::open("runs/mine", &Device::Cpu)?.register(&mut ctx)?;
/// ctx.sql("SELECT recommend(make_array('12', '7'), 10)").await?.show().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Recommend {
    recommender: Option<Arc<Recommender>>,
    /// In hexadecimal.
    fingerprint: Option<String>,
    signature: Signature,
}

impl Recommend {
    /// Loads a run onto a device.
    ///
    /// # Errors
    /// [`Error::Run`] when it cannot be loaded, [`Error::Changed`] when items are added to it all the while.
    pub fn open(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let dir = dir.as_ref();
        let mut declared = Self::declared_of(dir)?;
        for _ in 0..ATTEMPTS {
            let recommender = Recommender::load(dir, device).map_err(|source| failed_run(dir, source))?;
            // Items that came meanwhile would bear the fingerprint of before.
            let now = Self::declared_of(dir)?;
            if now.fingerprint == declared.fingerprint {
                return Ok(Self { recommender: Some(Arc::new(recommender)), ..declared });
            }
            declared = now;
        }
        Err(Error::Changed { path: dir.to_owned() })
    }

    /// Of a run at hand, which has no fingerprint: items may have been added to it.
    pub fn from_recommender(recommender: Recommender) -> Self {
        Self { recommender: Some(Arc::new(recommender)), ..Self::declared() }
    }

    /// The function's types alone, for a process that plans queries and computes none: a cluster's scheduler and its clients.
    pub fn declared() -> Self {
        Self { recommender: None, fingerprint: None, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// The same with the fingerprint of a run, which is not loaded: a client's whose queries are to be answered by this run alone.
    ///
    /// # Errors
    /// [`Error::Run`] when the directory holds no run, or its checksums or its index cannot be read. A run of before there were checksums
    /// has no fingerprint.
    pub fn declared_of(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let run = RunDir::new(dir);
        let fingerprint = match run.fingerprint() {
            Ok(fingerprint) => Some(fingerprint::hex(&fingerprint)),
            Err(genrec::Error::MissingArtifact { path }) if path == run.checksums() && run.report().exists() => None,
            Err(source) => return Err(failed_run(dir, source)),
        };
        Ok(Self { fingerprint, ..Self::declared() })
    }

    /// What tells the run from others, [`RunDir::fingerprint`] in hexadecimal; `None` where it is not known.
    pub fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    /// The type of its results.
    pub fn data_type() -> DataType {
        DataType::List(Arc::new(Self::item()))
    }

    fn item() -> Field {
        Field::new_list_field(DataType::Struct(Self::fields()), true)
    }

    fn fields() -> Fields {
        Fields::from(vec![Field::new("item", DataType::Utf8, false), Field::new("score", DataType::Float32, false)])
    }

    /// The function as DataFusion takes it.
    pub fn udf(&self) -> ScalarUDF {
        ScalarUDF::new_from_impl(self.clone())
    }

    /// Makes the function known to a session, by its name in SQL.
    ///
    /// # Errors
    /// When the registry takes no functions.
    pub fn register(&self, registry: &mut dyn FunctionRegistry) -> QueryResult<()> {
        registry.register_udf(Arc::new(self.udf())).map(|_| ())
    }

    /// The call of the function for the DataFrame API, with the [`fingerprint`](Self::fingerprint), where it is known, as its last
    /// argument.
    pub fn call(&self, history: Expr, k: Expr) -> Expr {
        self.call_for(history, k, lit(ScalarValue::Utf8(None)))
    }

    /// The same with the user's id, for runs with user tokens.
    pub fn call_for(&self, history: Expr, k: Expr, user: Expr) -> Expr {
        let fingerprint = self.fingerprint.as_deref().map(lit);
        self.udf().call([history, k, user].into_iter().chain(fingerprint).collect())
    }

    /// The items for a batch; `k` is an integer for each row, `users` text.
    ///
    /// # Errors
    /// [`Error::Declared`] without a run, [`Error::ArgumentType`] for arrays of other types; [`Error::NegativeK`],
    /// [`Error::NullItem`], [`Error::History`] and [`Error::EmptyHistory`] name a row; [`Error::Recommend`] with what `Recommender` refused.
    pub fn recommend(&self, histories: &dyn Array, k: &dyn Array, users: Option<&dyn Array>) -> Result<ArrayRef> {
        let recommender = self.recommender.as_deref().ok_or(Error::Declared {
            function: NAME,
            remedy: "start the processes that compute with the run's directory",
        })?;
        let wrong = |argument, got: &dyn Array, expected| Error::ArgumentType {
            function: NAME,
            argument,
            got: got.data_type().clone(),
            expected,
        };
        let rows = histories.len();
        if !k.data_type().is_integer() && !k.data_type().is_null() {
            return Err(wrong("k", k, "an integer"));
        }
        let exact = CastOptions { safe: false, ..CastOptions::default() };
        let many = cast_with_options(k, &DataType::Int64, &exact)
            .map_err(|_| wrong("k", k, "an integer, at most 9223372036854775807"))?;
        let many = many.as_primitive::<Int64Type>();
        let users =
            users.map(|users| cast(users, &DataType::Utf8).map_err(|_| wrong("user", users, "text"))).transpose()?;
        let users = users.as_ref().map(|users| users.as_string::<i32>());
        let read = Histories::read(histories, recommender, |row| many.is_valid(row))?;

        // Rows that want as many items are searched together.
        let mut asked: BTreeMap<usize, (Vec<usize>, Vec<History<'_>>)> = BTreeMap::new();
        for (&row, items) in read.rows.iter().zip(read.iter()) {
            let k = many.value(row);
            let k = usize::try_from(k).map_err(|_| Error::NegativeK { row, k })?;
            let user = users.filter(|users| users.is_valid(row)).map(|users| users.value(row));
            let (rows, histories) = asked.entry(k).or_default();
            rows.push(row);
            histories.push(History { user, items });
        }
        let mut found: Vec<Option<Vec<Recommendation>>> = vec![None; rows];
        for (k, (rows, histories)) in asked {
            let lists = recommender.recommend(&histories, k).map_err(|source| failed(&rows, &histories, source))?;
            for (row, list) in rows.into_iter().zip(lists) {
                found[row] = Some(list);
            }
        }
        lists(&found)
    }
}

fn failed_run(dir: &Path, source: genrec::Error) -> Error {
    Error::Run { path: dir.to_owned(), source: Box::new(source) }
}

/// What the run said, with the row where that is known.
fn failed(rows: &[usize], histories: &[History<'_>], source: genrec::Error) -> Error {
    let source = Box::new(source);
    match rows.iter().zip(histories).find(|(_, history)| history.items.is_empty()) {
        Some((&row, _)) => Error::EmptyHistory { row, source },
        None => Error::Recommend { rows: rows.len(), source },
    }
}

/// Recommendations as an array.
fn lists(found: &[Option<Vec<Recommendation>>]) -> Result<ArrayRef> {
    let all = || found.iter().flatten().flatten();
    let bytes: usize = all().map(|found| found.id.len()).sum();
    if i32::try_from(bytes.max(all().count())).is_err() {
        let source = ArrowError::OffsetOverflowError(bytes.max(all().count()));
        return Err(Error::Array { rows: found.len(), source });
    }
    let names: Vec<&str> = all().map(|found| found.id.as_str()).collect();
    let items: ArrayRef = Arc::new(StringArray::from(names));
    let scores: ArrayRef = Arc::new(Float32Array::from_iter_values(all().map(|found| found.score)));
    let offsets = OffsetBuffer::from_lengths(found.iter().map(|list| list.as_ref().map_or(0, Vec::len)));
    let nulls = NullBuffer::from_iter(found.iter().map(Option::is_some));
    let array = StructArray::try_new(Recommend::fields(), vec![items, scores], None)
        .and_then(|items| ListArray::try_new(Arc::new(Recommend::item()), offsets, Arc::new(items), Some(nulls)));
    Ok(Arc::new(array.map_err(|source| Error::Array { rows: found.len(), source })?))
}

impl ScalarUDFImpl for Recommend {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> QueryResult<DataType> {
        Ok(Self::data_type())
    }

    fn coerce_types(&self, given: &[DataType]) -> QueryResult<Vec<DataType>> {
        let ([history, k] | [history, k, _] | [history, k, _, _]) = given else {
            return Err(Error::ArgumentCount { function: NAME, expected: ARGUMENTS, got: given.len() }.into());
        };
        let wrong = |argument, got: &DataType, expected| Error::ArgumentType {
            function: NAME,
            argument,
            got: got.clone(),
            expected,
        };
        let history = match history {
            DataType::Null => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            list if read_as(list).is_some() => list.clone(),
            other => return Err(wrong("history", other, "a list of item ids, text or integers").into()),
        };
        if !k.is_integer() && !k.is_null() {
            return Err(wrong("k", k, "an integer").into());
        }
        Ok([history, DataType::Int64].into_iter().chain(given.iter().skip(2).map(|_| DataType::Utf8)).collect())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        if self.recommender.is_some() {
            fingerprint::check(args.args.get(3), self.fingerprint(), |asked, here| Error::OtherRun { asked, here })?;
        }
        let asked = args.args.get(..3).unwrap_or(&args.args);
        let arrays = match args.args.get(3) {
            // Literals beside a column of fingerprints are as many as it has rows.
            Some(ColumnarValue::Array(_)) => asked.iter().map(|value| value.to_array(args.number_rows)).collect(),
            _ => ColumnarValue::values_to_arrays(asked),
        }?;
        match &arrays[..] {
            [history, k] => Ok(ColumnarValue::Array(self.recommend(history, k, None)?)),
            [history, k, user] => Ok(ColumnarValue::Array(self.recommend(history, k, Some(user))?)),
            _ => Err(Error::ArgumentCount { function: NAME, expected: ARGUMENTS, got: arrays.len() }.into()),
        }
    }
}

impl fmt::Debug for Recommend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = self.recommender.as_ref().map(|recommender| recommender.catalogue().len());
        f.debug_struct("Recommend")
            .field("items", &items)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

// Two functions are one where they ask the same run in memory.

impl Recommend {
    fn identity(&self) -> (Option<usize>, Option<&str>) {
        (self.recommender.as_ref().map(|recommender| Arc::as_ptr(recommender) as usize), self.fingerprint())
    }
}

impl PartialEq for Recommend {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Recommend {}

impl Hash for Recommend {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}
