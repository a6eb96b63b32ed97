//! `semantic_id(embedding)`: the codes of an embedding by a saved quantiser.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use datafusion::arrow::array::{Array, ArrayRef, FixedSizeListArray, UInt32Array};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::error::Result as QueryResult;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use ndarray::ArrayView2;
use sid_quantize::{AnyQuantizer, Quantizer};

use crate::embeddings::{Embeddings, is_embedding};
use crate::{Error, Result, fingerprint};

/// The function's name in SQL.
const NAME: &str = "semantic_id";

/// Rows that go through a device at once, where the quantiser is on one.
const DEVICE_ROWS: usize = 8192;

/// The scalar function `semantic_id(embedding)`: the codes of each row, by a quantiser that `sid-quantize` has saved.
///
/// # Shapes
/// - `embedding`: `FixedSizeList`, `List` or `LargeList` of `Float32`, or of `Float64` which is rounded, with as many values as the
///   quantiser takes
/// - result: `FixedSizeList<UInt32, levels>`, coarse to fine; null where the embedding is null
///
/// A `FixedSizeList` compares, groups, sorts, joins and travels to a cluster like any column, and `sid[1]` is its first code. A
/// batch is encoded in one call, and without a copy where it is a `FixedSizeList<Float32>` that holds no null.
///
/// A second argument, text, names the quantiser by its [`fingerprint`](Self::fingerprint): the query then fails where another is
/// loaded. [`call`](Self::call) sets it, so that an executor of a cluster which was started with another quantiser does not answer with
/// codes that mean something else.
///
/// ```
/// use candle_core::Device;
/// use datafusion::prelude::*;
/// use genrec_datafusion::SemanticId;
/// # use ndarray::Array2;
/// # use sid_quantize::{AnyQuantizer, ArrayRows, Fit, ResidualKMeansConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let rows = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
/// # let config = ResidualKMeansConfig::default().with_codebook_sizes([8, 8]);
/// # AnyQuantizer::from(config.fit(&mut ArrayRows::from(rows))?).save(dir.path())?;
/// let mut ctx = SessionContext::new();
/// SemanticId::open(dir.path(), &Device::Cpu)?.register(&mut ctx)?;
/// let found = ctx.sql("SELECT semantic_id(make_array(1.0, 4.0, 7.0, 10.0)) AS sid").await?;
/// assert_eq!(found.count().await?, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SemanticId {
    quantizer: Option<Arc<AnyQuantizer>>,
    /// In hexadecimal.
    fingerprint: Option<String>,
    levels: i32,
    signature: Signature,
}

impl SemanticId {
    /// Loads a quantiser from the directory that [`AnyQuantizer::save`] wrote, onto a device.
    ///
    /// # Errors
    /// [`Error::Quantizer`] when it cannot be loaded.
    pub fn open(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let dir = dir.as_ref();
        let quantizer = AnyQuantizer::load(dir, device)
            .map_err(|source| Error::Quantizer { path: dir.to_owned(), source: Box::new(source) })?;
        Self::from_quantizer(quantizer)
    }

    /// Of a quantiser at hand.
    ///
    /// # Errors
    /// [`Error::Fingerprint`] when its weights cannot be read.
    pub fn from_quantizer(quantizer: AnyQuantizer) -> Result<Self> {
        let fingerprint = quantizer.fingerprint().map_err(|source| Error::Fingerprint { source: Box::new(source) })?;
        let fingerprint = fingerprint::hex(&fingerprint);
        let declared = Self::declared(quantizer.codebook_sizes().len());
        Ok(Self { quantizer: Some(Arc::new(quantizer)), fingerprint: Some(fingerprint), ..declared })
    }

    /// The function's types alone, for a process that plans queries and computes none: a scheduler without the quantiser's files.
    pub fn declared(levels: usize) -> Self {
        let levels = i32::try_from(levels).unwrap_or(i32::MAX);
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { quantizer: None, fingerprint: None, levels, signature }
    }

    /// Codes of a row.
    pub fn levels(&self) -> usize {
        self.levels as usize
    }

    /// What tells the quantiser from others, [`AnyQuantizer::fingerprint`] in hexadecimal; `None` of a declared function.
    pub fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    /// The type of its results.
    pub fn data_type(&self) -> DataType {
        DataType::FixedSizeList(Arc::new(Field::new_list_field(DataType::UInt32, true)), self.levels)
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

    /// The call of the function for the DataFrame API, with the [`fingerprint`](Self::fingerprint) as its second argument.
    pub fn call(&self, embedding: Expr) -> Expr {
        let fingerprint = self.fingerprint.as_deref().map(lit);
        self.udf().call(std::iter::once(embedding).chain(fingerprint).collect())
    }

    /// The codes of a batch.
    ///
    /// # Shapes
    /// - `embeddings`: lists of floats, `(rows, width)`
    /// - result: `FixedSizeList<UInt32, levels>` of as many rows
    ///
    /// # Errors
    /// [`Error::Declared`] without a quantiser, [`Error::ArgumentType`] for an array of another type, the first row that cannot be
    /// encoded ([`Error::EmbeddingWidth`], [`Error::NullValue`], [`Error::NotFinite`]), and [`Error::Encode`].
    pub fn encode(&self, embeddings: &dyn Array) -> Result<ArrayRef> {
        let quantizer = self.quantizer.as_deref().ok_or(Error::Declared {
            function: NAME,
            remedy: "start the processes that compute with the quantiser's directory",
        })?;
        let (rows, levels) = (embeddings.len(), self.levels());
        let Embeddings { values, valid } = Embeddings::read(embeddings, quantizer.dim())?;
        let codes = encode(quantizer, &values, levels).map_err(|source| Error::Encode { rows, source })?;
        let codes = match &valid {
            None => codes,
            Some(valid) => {
                let mut all = vec![0; rows * levels];
                for (row, codes) in valid.valid_indices().zip(codes.chunks_exact(levels.max(1))) {
                    all[row * levels..(row + 1) * levels].copy_from_slice(codes);
                }
                all
            }
        };
        let field = Arc::new(Field::new_list_field(DataType::UInt32, true));
        let array = FixedSizeListArray::try_new(field, self.levels, Arc::new(UInt32Array::from(codes)), valid)
            .map_err(|source| Error::Array { rows, source })?;
        Ok(Arc::new(array))
    }
}

/// The codes of rows that are finite and as wide as the quantiser takes.
fn encode(quantizer: &AnyQuantizer, values: &[f32], levels: usize) -> candle_core::Result<Vec<u32>> {
    let width = quantizer.dim().max(1);
    let rows = values.len() / width;
    let mut codes = vec![0; rows * levels];
    if rows == 0 || quantizer.encode_slice(values, &mut codes)? {
        return Ok(codes);
    }
    let values = ArrayView2::from_shape((rows, width), values).map_err(candle_core::Error::wrap)?;
    Ok(quantizer.encode_array(values, DEVICE_ROWS)?.into_raw_vec_and_offset().0)
}

impl ScalarUDFImpl for SemanticId {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> QueryResult<DataType> {
        Ok(self.data_type())
    }

    fn coerce_types(&self, given: &[DataType]) -> QueryResult<Vec<DataType>> {
        let (embedding, fingerprint) = match given {
            [embedding] => (embedding, None),
            [embedding, fingerprint] => (embedding, Some(fingerprint)),
            _ => {
                let expected = "an embedding and, if wanted, a fingerprint";
                return Err(Error::ArgumentCount { function: NAME, expected, got: given.len() }.into());
            }
        };
        let embedding = match embedding {
            DataType::Null => DataType::List(Arc::new(Field::new_list_field(DataType::Float32, true))),
            list if is_embedding(list) => list.clone(),
            DataType::List(field) if field.data_type().is_numeric() => {
                DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)))
            }
            other => {
                let (argument, expected) = ("embedding", "a list of 32- or 64-bit floats");
                return Err(Error::ArgumentType { function: NAME, argument, got: other.clone(), expected }.into());
            }
        };
        Ok(std::iter::once(embedding).chain(fingerprint.map(|_| DataType::Utf8)).collect())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        if self.fingerprint.is_some() {
            fingerprint::check(args.args.get(1), self.fingerprint(), |asked, here| Error::OtherQuantizer {
                asked,
                here,
            })?;
        }
        match args.args.first() {
            Some(ColumnarValue::Array(embeddings)) => Ok(ColumnarValue::Array(self.encode(embeddings)?)),
            Some(ColumnarValue::Scalar(embedding)) => {
                let codes = self.encode(&embedding.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&codes, 0)?))
            }
            None => Err(Error::ArgumentCount { function: NAME, expected: "an embedding", got: 0 }.into()),
        }
    }
}

impl fmt::Debug for SemanticId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fingerprint, levels, .. } = self;
        f.debug_struct("SemanticId").field("fingerprint", fingerprint).field("levels", levels).finish_non_exhaustive()
    }
}

// Two functions are one where their quantisers are: DataFusion asks when it looks for common expressions.

impl PartialEq for SemanticId {
    fn eq(&self, other: &Self) -> bool {
        (&self.fingerprint, self.levels) == (&other.fingerprint, other.levels)
    }
}

impl Eq for SemanticId {}

impl Hash for SemanticId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.fingerprint, self.levels).hash(state);
    }
}
