//! What a client is told when it gets no answer: a status, a code for programs, and a sentence with the fact and the remedy.

use std::{error::Error as _, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use genrec::{data::DataError, decode::DecodeError, train::TrainError};
use serde_json::json;

use crate::reply::json_response;

/// Why a request was not answered.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// For programs; never changes.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    retry_after: Option<Duration>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    /// What was asked is understood and cannot be done.
    pub(crate) fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// The server is at fault.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// It may go better later.
    pub(crate) fn busy(code: &'static str, message: impl Into<String>, after: Duration) -> Self {
        Self { retry_after: Some(after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message) }
    }

    pub(crate) fn full(waiting: usize, capacity: usize) -> Self {
        let message =
            format!("{waiting} of {capacity} histories wait to be decoded; ask again in a second, or ask for fewer");
        Self::busy("queue_full", message, Duration::from_secs(1))
    }

    pub(crate) fn stopping() -> Self {
        Self::busy("stopping", "the server is about to end; ask another, or later", Duration::from_secs(5))
    }

    pub(crate) fn timed_out(limit: Duration) -> Self {
        let message = format!("no answer within {} ms; ask for fewer histories or items, or later", limit.as_millis());
        Self::busy("timed_out", message, Duration::from_secs(1))
    }

    pub(crate) fn unknown_item(place: &str, id: &str, items: usize) -> Self {
        let message = format!(
            "{place}: `{}` is not among the {items} items; GET /items?q= finds ids, POST /items adds one",
            shortened(id)
        );
        Self::invalid("unknown_item", message)
    }

    /// What an error of the library means to a client.
    pub(crate) fn of(error: &genrec::Error) -> Self {
        use genrec::Error;
        match error {
            Error::Decode(DecodeError::Emptied { .. }) => Self::invalid("nothing_left", error.to_string()),
            Error::UnknownItem { item, items } => Self::unknown_item("the history", item, *items),
            Error::NoEmbedder => Self::new(
                StatusCode::CONFLICT,
                "no_embedder",
                "this run was made from ready vectors and cannot embed a text; start the server with `--embedder`",
            ),
            Error::EmbedderElsewhere { model } => Self::new(
                StatusCode::CONFLICT,
                "no_embedder",
                format!(
                    "the texts of this run were embedded by `{}`, which is not there; start the server with `--embedder`",
                    model.display()
                ),
            ),
            Error::Superseded { .. } => Self::new(
                StatusCode::CONFLICT,
                "superseded",
                "the run's directory holds another run by now, or items added by another process; `POST /reload`, then add the item",
            ),
            Error::Data(DataError::DuplicateItem { id, .. }) => Self::new(
                StatusCode::CONFLICT,
                "item_exists",
                format!("there is an item `{}` already; give the new one another id", shortened(id)),
            ),
            Error::Data(DataError::EmptyItemId { .. }) => {
                Self::invalid("empty_id", "`id` is empty; give the item an id")
            }
            Error::Data(DataError::InvalidPrice { .. }) => Self::invalid("invalid_price", "`price` is not finite"),
            Error::Index(genrec::index::IndexError::SuffixOverflow { .. }) => {
                Self::new(StatusCode::CONFLICT, "codes_full", chain(error))
            }
            Error::Train(locked) if matches!(**locked, TrainError::Locked { .. }) => {
                Self::busy("locked", chain(error), Duration::from_secs(1))
            }
            other => {
                let message = chain(other);
                tracing::error!("{message}");
                Self::internal(message)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        let mut response = json_response(self.status, &body);
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }
}

/// An error with all that caused it.
pub(crate) fn chain(error: &genrec::Error) -> String {
    let (mut message, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !message.ends_with(&cause_text) {
            message.push_str(": ");
            message.push_str(&cause_text);
        }
        source = cause.source();
    }
    message
}

/// A message of a library, which may hold what a client has sent: cut in its middle, as what it says of it stands at the ends.
pub(crate) fn abridged(text: &str) -> String {
    const BEGIN: usize = 120;
    const END: usize = 240;
    let count = text.chars().count();
    if count <= BEGIN + END {
        return text.to_owned();
    }
    text.chars().take(BEGIN).chain(" … ".chars()).chain(text.chars().skip(count - END)).collect()
}

/// What a client has sent, cut to what a message can hold.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST - 1).chain(['…']).collect()
}
