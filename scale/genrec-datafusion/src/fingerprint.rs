//! What a query asks of the artifact that answers it: that it be the one it was planned with.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;

/// In hexadecimal.
pub(crate) fn hex(fingerprint: &[u8]) -> String {
    fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first fingerprint that a query asks for and that is not `here`.
pub(crate) fn other(asked: &ColumnarValue, here: Option<&str>) -> Result<Option<String>> {
    // A literal is one value, however many rows there are.
    let asked = match asked {
        ColumnarValue::Scalar(asked) => asked.to_array()?,
        ColumnarValue::Array(asked) => asked.clone(),
    };
    let asked = cast(&asked, &DataType::Utf8)?;
    let other = asked.as_string::<i32>().iter().find(|asked| asked.is_none() || *asked != here);
    Ok(other.map(|asked| asked.unwrap_or("null").to_owned()))
}
