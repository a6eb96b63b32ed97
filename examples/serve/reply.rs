//! Bodies in and out.

use std::{future::poll_fn, pin::Pin, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::errors::{ApiError, abridged, shortened};

/// A JSON answer.
pub(crate) fn json_response(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => response(status, "application/json", bytes),
        // Maps with string keys and finite or absent numbers are always JSON.
        Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", Vec::new()),
    }
}

/// An answer of a given type.
pub(crate) fn response(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Reads a JSON body of at most `limit` bytes that arrives within `time`.
pub(crate) async fn read_json<T: DeserializeOwned>(
    request: Request,
    limit: usize,
    time: Duration,
) -> Result<T, ApiError> {
    let (head, body) = request.into_parts();
    check_type(&head.headers)?;
    let bytes = tokio::time::timeout(time, collect(&head.headers, body, limit)).await.unwrap_or_else(|_| {
        let message = format!("the body did not arrive within {} ms; send it faster", time.as_millis());
        Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
    })?;
    parse(&bytes)
}

/// Forms of other pages cannot send this type without asking first, which keeps them from adding items.
pub(crate) fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "the body must be JSON; send it with the header `content-type: application/json`";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json_type", message))
}

/// Reads a body to its end. Of one that is too large some mebibytes more are read and dropped: a client that is still sending would
/// meet a closed connection and never see why.
async fn collect(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    const DROPPED: usize = 8 << 20;
    let too_large = || {
        let message =
            format!("the body has more than {limit} bytes; send fewer histories or shorter ones in a request");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let most = limit.saturating_add(DROPPED);
    let announced = body.size_hint().lower();
    let asks_first = headers.contains_key(header::EXPECT);
    if announced > if asks_first { limit } else { most } as u64 {
        return Err(too_large());
    }
    let (mut bytes, mut read) = (Vec::new(), 0_usize);
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let cut = |_| {
            let message = "the body ended early; send as many bytes as announced";
            ApiError::new(StatusCode::BAD_REQUEST, "body_cut", message)
        };
        let data: Bytes = frame.map_err(cut)?.into_data().unwrap_or_default();
        read = read.saturating_add(data.len());
        if read <= limit {
            bytes.extend_from_slice(&data);
        } else if read > most {
            break;
        }
    }
    if read > limit { Err(too_large()) } else { Ok(bytes) }
}

/// Malformed text is status 400, a value of another form 422.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let bad = |code, message| ApiError::new(StatusCode::BAD_REQUEST, code, message);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        bad("not_utf8", format!("the body is not UTF-8 from byte {} on; encode it as UTF-8", error.valid_up_to()))
    })?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let (path, error) = (shortened(&error.path().to_string()), error.into_inner());
        let (category, error) = (error.classify(), abridged(&error.to_string()));
        match category {
            serde_json::error::Category::Data if path == "." => ApiError::invalid("invalid_body", error),
            serde_json::error::Category::Data => ApiError::invalid("invalid_body", format!("`{path}`: {error}")),
            _ => bad("not_json", format!("the body is not JSON: {error}; send one JSON object")),
        }
    })?;
    reader
        .end()
        .map_err(|error| bad("not_json", format!("the body goes on after its JSON: {error}; send one object")))?;
    Ok(value)
}
