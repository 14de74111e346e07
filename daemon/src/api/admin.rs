//! The routes of `/admin/v1`.

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::problem::Problem;
use super::shapes::{
    Acceptance, AttemptShape, CallbackShape, DeadLetterShape, KeyShape, NewKey, Page, Promotion, Revocation,
    SourceShape, StatusShape, TeamPatch, TeamShape,
};
use crate::base::clock::Timestamp;
use crate::model::team::{KeyKind, parse_mode};
use crate::ops::{Actor, Ops};
use crate::store::reads::CallbackFilter;

type Answer = Result<Json<Value>, Problem>;
type Caller = Extension<Option<Actor>>;

/// Bytes of a dead letter's value that a list shows, and one letter alone.
const VALUE_IN_LIST: usize = 120;
const VALUE_ALONE: usize = 64 * 1024;

pub(super) fn router(ops: Ops) -> Router {
    let routes = Router::new()
        .route("/status", get(status))
        .route("/teams", get(teams).post(create_team))
        .route("/teams/{team}", get(team).patch(update_team))
        .route("/teams/{team}/keys", get(keys).post(create_key))
        .route("/teams/{team}/keys/{key}/promote", post(promote_key))
        .route("/teams/{team}/keys/{key}/revoke", post(revoke_key))
        .route("/teams/{team}/keys/{key}/reveal", post(reveal_key))
        .route("/callbacks", get(callbacks))
        .route("/callbacks/{id}", get(callback))
        .route("/callbacks/{id}/attempts", get(attempts))
        .route("/tasks/{task}", get(task))
        .route("/dead_letters", get(dead_letters))
        .route("/dead_letters/{id}", get(dead_letter))
        .route("/sources", get(sources))
        .route("/sources/accept", post(accept_offsets))
        .with_state(ops);
    Router::new()
        .nest("/admin/v1", routes)
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "this path does not take this method")
        })
        .layer(from_fn(only_known))
}

/// Whoever is not known gets no further.
async fn only_known(Extension(actor): Caller, request: Request, next: Next) -> Response {
    if actor.is_none() {
        let detail = "this socket is for the daemon's own user and root";
        return Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).into_response();
    }
    next.run(request).await
}

fn known(actor: Option<Actor>) -> Actor {
    actor.unwrap_or_else(|| Actor { name: "unknown".to_owned(), origin: "unknown".to_owned() })
}

/// A JSON body whose errors are problems.
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => {
                let too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
                let status = if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
                Err(Problem::new(status, "invalid_request", rejection.body_text()))
            }
        }
    }
}

/// A query whose errors are problems.
struct Query<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query: Result<axum::extract::Query<T>, QueryRejection> =
            axum::extract::Query::from_request_parts(parts, state).await;
        match query {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_request", rejection.body_text())),
        }
    }
}

fn json<T: serde::Serialize>(value: T) -> Answer {
    serde_json::to_value(value)
        .map(Json)
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "invalid_request", error.to_string()))
}

async fn status(State(ops): State<Ops>) -> Answer {
    json(StatusShape::new(ops.status().await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TeamsQuery {
    after: Option<String>,
    limit: Option<usize>,
}

async fn teams(State(ops): State<Ops>, Query(query): Query<TeamsQuery>) -> Answer {
    let limit = query.limit.unwrap_or(100).clamp(1, 1_000);
    let mut teams = ops.teams(query.after, Some(limit + 1)).await?;
    let has_more = teams.len() > limit;
    teams.truncate(limit);
    let docs: Vec<_> = teams.iter().map(TeamShape::new).collect();
    let next_token = docs.last().filter(|_| has_more).map(|team| team.team_id.clone());
    json(Page { docs, has_more, next_token, limit })
}

async fn create_team(State(ops): State<Ops>, Extension(actor): Caller, Body(mut patch): Body<TeamPatch>) -> Answer {
    let id = patch
        .team_id
        .take()
        .ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "invalid_request", "a new team needs its team_id"))?;
    json(TeamShape::new(&ops.create_team(&known(actor), &id, patch.into()).await?))
}

async fn team(State(ops): State<Ops>, Path(team): Path<String>) -> Answer {
    json(TeamShape::new(&ops.team(&team).await?))
}

async fn update_team(
    State(ops): State<Ops>,
    Extension(actor): Caller,
    Path(team): Path<String>,
    Body(patch): Body<TeamPatch>,
) -> Answer {
    if patch.team_id.as_ref().is_some_and(|id| *id != team) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_request", "a team's id never changes"));
    }
    json(TeamShape::new(&ops.update_team(&known(actor), &team, patch.into()).await?))
}

async fn keys(State(ops): State<Ops>, Path(team): Path<String>) -> Answer {
    let docs: Vec<_> = ops.keys(&team).await?.iter().map(|key| KeyShape::new(key, ops.clock.now())).collect();
    let limit = docs.len();
    json(Page { docs, has_more: false, next_token: None, limit })
}

async fn create_key(
    State(ops): State<Ops>,
    Extension(actor): Caller,
    Path(team): Path<String>,
    Body(new): Body<NewKey>,
) -> Answer {
    let wrong = |sentence: &str| Problem::new(StatusCode::BAD_REQUEST, "invalid_request", sentence);
    let kind = KeyKind::parse(&new.kind).ok_or_else(|| wrong("kind is callback-auth, hmac or signing"))?;
    let mode = parse_mode(&new.mode).ok_or_else(|| wrong("mode is live or test"))?;
    let given = new.value.map(Zeroizing::new);
    let (row, value) = ops.create_key(&known(actor), &team, kind, mode, given).await?;
    json(KeyShape { value: Some(value.to_string()), ..KeyShape::new(&row, ops.clock.now()) })
}

async fn promote_key(
    State(ops): State<Ops>,
    Extension(actor): Caller,
    Path((team, key)): Path<(String, String)>,
    Body(promotion): Body<Promotion>,
) -> Answer {
    let at = promotion.at.map(|text| time(&text)).transpose()?;
    let row = ops.promote_key(&known(actor), &team, &key, at).await?;
    json(KeyShape::new(&row, ops.clock.now()))
}

async fn revoke_key(
    State(ops): State<Ops>,
    Extension(actor): Caller,
    Path((team, key)): Path<(String, String)>,
    Body(revocation): Body<Revocation>,
) -> Answer {
    let row = ops.revoke_key(&known(actor), &team, &key, revocation.force).await?;
    json(KeyShape::new(&row, ops.clock.now()))
}

async fn reveal_key(
    State(ops): State<Ops>,
    Extension(actor): Caller,
    Path((team, key)): Path<(String, String)>,
) -> Answer {
    let value = ops.reveal_key(&known(actor), &team, &key).await?;
    json(json!({ "key_id": key, "value": value.as_str() }))
}

fn time(text: &str) -> Result<Timestamp, Problem> {
    let parsed: jiff::Timestamp = text.parse().map_err(|_| {
        let detail = format!("{text:?} is no time; write for example \"2026-11-24T12:00:00Z\"");
        Problem::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    })?;
    Ok(Timestamp::from_millis(parsed.as_millisecond()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallbacksQuery {
    team: Option<String>,
    task: Option<String>,
    state: Option<String>,
    before: Option<String>,
    limit: Option<usize>,
}

async fn callbacks(State(ops): State<Ops>, Query(query): Query<CallbacksQuery>) -> Answer {
    let filter = CallbackFilter { team: query.team, task: query.task, state: query.state };
    let listed = ops.callbacks(filter, query.before.as_deref(), query.limit).await?;
    json(Page::of(
        listed,
        |(id, rows)| CallbackShape::new(id, &rows),
        |shape| shape.as_ref().map_or_else(String::new, |shape| shape.callback_id.clone()),
    ))
}

async fn callback(State(ops): State<Ops>, Path(id): Path<String>) -> Answer {
    let (id, rows, _) = ops.callback(&id).await?;
    json(CallbackShape::new(id, &rows))
}

async fn attempts(State(ops): State<Ops>, Path(id): Path<String>) -> Answer {
    let (id, rows, attempts) = ops.callback(&id).await?;
    let docs: Vec<_> = attempts.iter().map(AttemptShape::new).collect();
    json(json!({ "callback": CallbackShape::new(id, &rows), "docs": docs }))
}

async fn task(State(ops): State<Ops>, Path(task): Path<String>) -> Answer {
    let history = ops.task(&task).await?;
    if history.callbacks.is_empty() && history.dead_letters.is_empty() {
        let upto = ops.sources().await?.into_iter().map(|source| source.moved_at).max();
        let read = upto.map_or_else(
            || "no partition was read yet".to_owned(),
            |at| format!("its event was not produced, not read yet (read up to {at}), or pruned"),
        );
        let detail = format!("nothing is known of this task: {read}");
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", detail));
    }
    let callbacks: Vec<_> = history.callbacks.iter().map(|(id, rows)| CallbackShape::new(*id, rows)).collect();
    let letters: Vec<_> =
        history.dead_letters.into_iter().map(|letter| DeadLetterShape::new(letter, VALUE_IN_LIST)).collect();
    json(json!({ "task_id": task, "callbacks": callbacks, "dead_letters": letters }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadLettersQuery {
    task: Option<String>,
    before: Option<String>,
    limit: Option<usize>,
}

async fn dead_letters(State(ops): State<Ops>, Query(query): Query<DeadLettersQuery>) -> Answer {
    let listed = ops.dead_letters(query.task, query.before.as_deref(), query.limit).await?;
    json(Page::of(listed, |letter| DeadLetterShape::new(letter, VALUE_IN_LIST), |shape| shape.dead_letter_id.clone()))
}

async fn dead_letter(State(ops): State<Ops>, Path(id): Path<String>) -> Answer {
    json(DeadLetterShape::new(ops.dead_letter(&id).await?, VALUE_ALONE))
}

async fn sources(State(ops): State<Ops>) -> Answer {
    let docs: Vec<_> = ops.sources().await?.into_iter().map(SourceShape::new).collect();
    let limit = docs.len();
    json(Page { docs, has_more: false, next_token: None, limit })
}

async fn accept_offsets(
    State(ops): State<Ops>,
    Extension(actor): Caller,
    Body(acceptance): Body<Acceptance>,
) -> Answer {
    let started = ops.accept_offsets(&known(actor), &acceptance.from).await?;
    json(json!({ "started": started }))
}
