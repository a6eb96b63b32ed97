//! What a query asks of the artifact that answers it: that it be the one it was planned with.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;

use crate::Error;

/// In hexadecimal.
pub(crate) fn hex(fingerprint: &[u8]) -> String {
    fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fails where a query asks for another artifact than the one that is here; `refusal` is given what is asked for, and what is here.
pub(crate) fn check(
    asked: Option<&ColumnarValue>,
    here: Option<&str>,
    refusal: fn(String, String) -> Error,
) -> Result<()> {
    // A literal is one value, however many rows there are.
    let asked = match asked {
        None => return Ok(()),
        Some(ColumnarValue::Scalar(asked)) => asked.to_array()?,
        Some(ColumnarValue::Array(asked)) => asked.clone(),
    };
    let asked = cast(&asked, &DataType::Utf8)?;
    match asked.as_string::<i32>().iter().find(|asked| asked.is_none() || *asked != here) {
        None => Ok(()),
        Some(asked) => {
            let here = here.unwrap_or("one without a fingerprint");
            Err(refusal(asked.unwrap_or("null").to_owned(), here.to_owned()).into())
        }
    }
}
