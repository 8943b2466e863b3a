//! Which response a request gets.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, HeaderName, HeaderValue, IF_NONE_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::response::{Body, events, file, plain, whole};
use crate::agent::metrics::{Figures, Format, Source, text};
use crate::agent::page::{Encoding, Live, Viewer, asset};

/// Longest time to read the figures, because a disk may hang.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The sources of all responses.
#[derive(Clone)]
pub struct Sources {
    /// The source of the figures.
    pub source: Arc<Source>,
    /// The stream of states.
    pub live: Arc<Live>,
}

/// The response to a request, and the viewer if it is a stream of events.
pub async fn respond(request: &Request<Incoming>, sources: Sources) -> (Response<Body>, Option<Viewer>) {
    let path = request.uri().path();
    let asset = asset(path);
    if asset.is_none() && !matches!(path, "/live" | "/metrics" | "/history" | "/healthz") {
        let found = plain(StatusCode::NOT_FOUND, "not found: use /, /live, /metrics, /history or /healthz\n");
        return (found, None);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "read only\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return (refused, None);
    }
    if let Some(asset) = asset {
        return (file(asset, asset.matches(&header(request, IF_NONE_MATCH))), None);
    }
    match path {
        "/live" => live(request, &sources.live),
        "/healthz" => (health(&sources.source), None),
        "/history" => {
            let query = request.uri().query().map(str::to_owned);
            let turn = Arc::clone(&sources.source.history_turn);
            let read = move |source: &Source| history(source, query.as_deref());
            (read_in_turn(sources.source, turn, read).await, None)
        }
        _ => {
            let format = Format::accepted(&header(request, ACCEPT));
            let turn = Arc::clone(&sources.source.scrape_turn);
            (read_in_turn(sources.source, turn, move |source| metrics(source, format)).await, None)
        }
    }
}

/// The values of a header, separated by commas; empty if there are none.
fn header(request: &Request<Incoming>, name: HeaderName) -> String {
    let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

fn live(request: &Request<Incoming>, live: &Live) -> (Response<Body>, Option<Viewer>) {
    let encoding = Encoding::accepted(&header(request, ACCEPT_ENCODING));
    if request.method() == Method::HEAD {
        return (events(encoding, Either::Left(Full::new(Bytes::new()))), None);
    }
    match live.join(encoding) {
        Some((viewer, body)) => (events(encoding, Either::Right(body)), Some(viewer)),
        None => (plain(StatusCode::SERVICE_UNAVAILABLE, "too many viewers: close other pages\n"), None),
    }
}

/// Makes a response on a blocking thread, one at a time: the maps take milliseconds to read, and the audit
/// log is on a disk.
async fn read_in_turn(
    source: Arc<Source>,
    turn: Arc<Semaphore>,
    read: impl FnOnce(&Source) -> Response<Body> + Send + 'static,
) -> Response<Body> {
    let response = async {
        let turn = turn.acquire_owned().await.ok()?;
        let read = move || {
            let _turn = turn;
            read(&source)
        };
        spawn_blocking(read).await.ok()
    };
    let response = timeout(READ_TIMEOUT, response).await.ok().flatten();
    response.unwrap_or_else(|| plain(StatusCode::SERVICE_UNAVAILABLE, "the figures cannot be read now\n"))
}

fn metrics(source: &Source, format: Format) -> Response<Body> {
    let history = source.read_history();
    let text = Figures::read(source, &history)
        .and_then(|figures| text(figures, format).context("writing the metrics"));
    match text {
        Ok(text) => whole(StatusCode::OK, format.content_type(), text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}\n")),
    }
}

fn history(source: &Source, query: Option<&str>) -> Response<Body> {
    match source.recorder.json(query) {
        Ok(json) => whole(StatusCode::OK, "application/json", json),
        Err(error) => plain(StatusCode::BAD_REQUEST, &format!("{error:#}\n")),
    }
}

fn health(source: &Source) -> Response<Body> {
    let health_problems = source.health_problems();
    if health_problems.is_empty() {
        return plain(StatusCode::OK, "ok\n");
    }
    plain(StatusCode::SERVICE_UNAVAILABLE, &(health_problems.join("\n") + "\n"))
}
