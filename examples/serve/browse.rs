//! What the page looks up: titles, categories, users, and the tree of Semantic IDs.

use std::sync::Arc;

use axum::{
    extract::{Query, State as Shared, rejection::QueryRejection},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    errors::{ApiError, abridged, shortened},
    item,
    reply::json_response,
    routes::Answer,
    state::State,
};

/// Items found at most.
const MAX_FOUND: usize = 100;
/// Bytes to look for at most: every word goes through all titles. An id is no longer.
const MAX_QUERY: usize = item::MAX_NAME;

/// Which items to look for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ItemsQuery {
    q: String,
    #[serde(default = "ten")]
    limit: usize,
}

fn ten() -> usize {
    10
}

/// Which prefix to look below.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TreeQuery {
    #[serde(default)]
    prefix: String,
}

fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => {
            let message = abridged(&rejection.body_text());
            Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_query", message))
        }
    }
}

/// `GET /items?q=words&limit=10`
pub(crate) async fn items(
    Shared(state): Shared<Arc<State>>,
    asked: Result<Query<ItemsQuery>, QueryRejection>,
) -> Answer {
    let ItemsQuery { q, limit } = query(asked)?;
    if !(1..=MAX_FOUND).contains(&limit) {
        let message = format!("`limit` is {limit}; ask for 1 to {MAX_FOUND} items");
        return Err(ApiError::invalid("invalid_limit", message));
    }
    if q.len() > MAX_QUERY {
        let message = format!("`q` has {} bytes; give at most {MAX_QUERY}, some words of a title or an id", q.len());
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "query_too_long", message));
    }
    let items = state.browse(move |snapshot| snapshot.search(&q, limit)).await?;
    Ok(json_response(StatusCode::OK, &json!({ "items": items })))
}

/// `GET /tree?prefix=12,5`
pub(crate) async fn tree(Shared(state): Shared<Arc<State>>, asked: Result<Query<TreeQuery>, QueryRejection>) -> Answer {
    let TreeQuery { prefix } = query(asked)?;
    let codes: Result<Vec<u32>, _> = match prefix.is_empty() {
        true => Ok(Vec::new()),
        false => prefix.split(',').map(|code| code.trim().parse()).collect(),
    };
    let Ok(codes) = codes else {
        let message = format!("`prefix` is `{}`; give codes separated by commas, as 12,5", shortened(&prefix));
        return Err(ApiError::invalid("invalid_prefix", message));
    };
    let below = state.browse({
        let codes = codes.clone();
        move |snapshot| snapshot.children(&codes)
    });
    let Some(children) = below.await? else {
        let message =
            format!("no item's Semantic ID begins with {}; GET /tree lists the first codes", shortened(&prefix));
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no_prefix", message));
    };
    Ok(json_response(StatusCode::OK, &json!({ "prefix": codes, "children": children })))
}

/// `GET /users`
pub(crate) async fn users(Shared(state): Shared<Arc<State>>) -> Answer {
    let snapshot = state.snapshot();
    Ok(json_response(StatusCode::OK, &json!({ "users": state.users.shown(&snapshot) })))
}

/// `GET /info`
pub(crate) async fn info(Shared(state): Shared<Arc<State>>) -> Answer {
    let (snapshot, limits) = (state.snapshot(), &state.options.limits);
    let (recommender, layout) = (&snapshot.recommender, snapshot.recommender.index().layout());
    let config = recommender.config();
    let categories: Vec<_> =
        snapshot.largest.iter().map(|(name, items)| json!({ "name": name, "items": items })).collect();
    let body = json!({
        "items": recommender.index().len(),
        "generation": snapshot.generation,
        "positions": layout.sizes(),
        "levels": layout.levels(),
        "max_k": limits.max_k,
        "max_histories": limits.max_histories,
        "max_items": limits.max_items,
        "model_reads": config.max_history,
        "own_items": !config.exclude_history,
        "second_ranking": config.rerank.is_some(),
        "read_only": state.options.read_only,
        "users": state.users.count(&snapshot),
        "categories": categories,
    });
    Ok(json_response(StatusCode::OK, &body))
}
