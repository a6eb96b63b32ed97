//! The page: three files that are part of the program, and nothing from elsewhere.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header},
    response::Response,
    routing::get,
};

use crate::{reply::response, state::State};

/// Nothing but what comes from this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/", get(|| async { file("text/html; charset=utf-8", include_str!("page/index.html")) }))
        .route("/style.css", get(|| async { file("text/css; charset=utf-8", include_str!("page/style.css")) }))
        .route("/app.js", get(|| async { file("text/javascript; charset=utf-8", include_str!("page/app.js")) }))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let mut response = response(StatusCode::OK, kind, text);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
