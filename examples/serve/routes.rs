//! What is answered where.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{MatchedPath, Request, State as Shared},
    http::{HeaderMap, Method, StatusCode},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use genrec::data::Item;
use serde_json::json;

use crate::{
    browse,
    errors::ApiError,
    item, metrics,
    origin::{asked_by_program, local_names, may_change},
    page,
    reply::{json_response, read_json, response},
    request::Asked,
    snapshot::Snapshot,
    state::State,
};

/// What a route answers.
pub(crate) type Answer = Result<Response, ApiError>;

/// All routes of a server.
pub(crate) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/recommend", post(recommend))
        .route("/items", get(browse::items).post(add_item))
        .route("/reload", post(reload))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/info", get(browse::info))
        .route("/users", get(browse::users))
        .route("/tree", get(browse::tree))
        .merge(page::routes())
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), local_names))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), counted))
        .with_state(state)
}

/// Counts and times each request.
async fn counted(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    // Other paths are the client's to choose, and would be a series each.
    let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str);
    let route = format!("{} {path}", method(request.method()));
    let (start, _begun) = (Instant::now(), state.metrics.begun());
    let response = next.run(request).await;
    state.metrics.answered(&route, response.status().as_u16(), start.elapsed());
    response
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        _ => "OTHER",
    }
}

async fn recommend(Shared(state): Shared<Arc<State>>, request: Request) -> Answer {
    let asked: Asked = read(&state, request).await?;
    let (snapshot, drawn, lists) = state.recommend(asked).await?;
    let lists: Vec<Vec<serde_json::Value>> = lists
        .iter()
        .map(|list| {
            list.iter()
                .filter_map(|&(item, score)| Some(json!({ "item": snapshot.show(item)?, "score": score })))
                .collect()
        })
        .collect();
    let order = if drawn { "drawn" } else { "score" };
    let body = json!({ "recommendations": lists, "order": order, "generation": snapshot.generation });
    Ok(json_response(StatusCode::OK, &body))
}

async fn add_item(Shared(state): Shared<Arc<State>>, request: Request) -> Answer {
    may_change(&state.options, request.headers())?;
    let item: Item = read(&state, request).await?;
    item::check(&item)?;
    let (item, items) = state.add(item).await?;
    Ok(json_response(StatusCode::CREATED, &json!({ "item": item, "items": items })))
}

async fn reload(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> Answer {
    may_change(&state.options, &headers)?;
    asked_by_program(&headers)?;
    let snapshot = state.reload(Some(state.options.limits.timeout_ms)).await?;
    Ok(json_response(StatusCode::OK, &status("ok", &snapshot)))
}

async fn healthz(Shared(state): Shared<Arc<State>>) -> Response {
    let (code, word) = match state.is_stopping() {
        true => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        false => (StatusCode::OK, "ok"),
    };
    json_response(code, &status(word, &state.snapshot()))
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> Answer {
    let snapshot = state.snapshot();
    let text = state.metrics.text(state.queue.waiting(), snapshot.recommender.index().len(), snapshot.generation);
    let text = text.map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(response(StatusCode::OK, metrics::CONTENT_TYPE, text))
}

async fn no_route() -> ApiError {
    let message =
        "there is nothing at this path; GET / is a page, POST /recommend answers requests, README.md has the others";
    ApiError::new(StatusCode::NOT_FOUND, "no_route", message)
}

async fn no_method() -> ApiError {
    let message = "this path takes another method; the header `allow` names it";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "no_method", message)
}

fn status(word: &str, snapshot: &Snapshot) -> serde_json::Value {
    json!({ "status": word, "items": snapshot.recommender.index().len(), "generation": snapshot.generation })
}

async fn read<T: serde::de::DeserializeOwned>(state: &State, request: Request) -> Result<T, ApiError> {
    let limits = &state.options.limits;
    read_json(request, limits.max_body as usize, limits.client_timeout_ms).await
}
