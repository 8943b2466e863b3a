//! The HTTP server of the metrics and the history. It is read-only, and no peer can block the agent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::figures::Figures;
use super::source::Source;
use super::text::{self, Format};

/// Most connections. A further one closes the oldest, so that silent peers block nobody.
const CONNECTIONS: usize = 256;
/// Longest request line with headers, in bytes: the minimum that hyper accepts.
const MAX_HEADERS: usize = 8192;
/// Longest time to receive a request, and again to send the response.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time to read the figures, because a disk may hang.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Time before a failed bind(2) or accept(2) is retried.
const RETRY: Duration = Duration::from_secs(1);

/// The HTTP server of the metrics and the history.
pub struct Server {
    address: SocketAddr,
    listener: Option<TcpListener>,
    source: Arc<Source>,
}

impl Server {
    /// Binds the address. A failure is retried later, because the agent works without metrics.
    pub async fn bind(address: SocketAddr, source: Arc<Source>) -> (Self, Result<SocketAddr>) {
        let (listener, bound) = match TcpListener::bind(address).await {
            Ok(listener) => {
                let bound = listener.local_addr().unwrap_or(address);
                (Some(listener), Ok(bound))
            }
            Err(error) => (None, Err(error.into())),
        };
        (Self { address, listener, source }, bound)
    }

    /// Serves until the shutdown.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        select! {
            () = self.serve() => {}
            () = shutdown => {}
        }
    }

    async fn serve(&mut self) {
        let mut open: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let Some(listener) = &self.listener else {
                sleep(RETRY).await;
                self.listener = TcpListener::bind(self.address).await.ok();
                continue;
            };
            let Ok((stream, _)) = listener.accept().await else {
                // For example, there are too many open files.
                sleep(RETRY).await;
                continue;
            };
            if open.len() >= CONNECTIONS {
                open.retain(|exchange| !exchange.is_finished());
            }
            if open.len() >= CONNECTIONS
                && let Some(oldest) = open.pop_front()
            {
                oldest.abort();
            }
            open.push_back(tokio::spawn(exchange(stream, Arc::clone(&self.source))).abort_handle());
        }
    }
}

/// Serves one request. The request and the response each have [`EXCHANGE_TIMEOUT`].
async fn exchange(stream: TcpStream, source: Arc<Source>) {
    let response_ready = Arc::new(Notify::new());
    let service = service_fn(|request| {
        let (source, response_ready) = (Arc::clone(&source), Arc::clone(&response_ready));
        async move {
            let response = respond_to(&request, source).await;
            response_ready.notify_one();
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(EXCHANGE_TIMEOUT)
        .max_buf_size(MAX_HEADERS)
        .max_header_size(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    select! {
        _ = &mut connection => return,
        () = response_ready.notified() => {}
    }
    // The result is ignored: the peer closed the connection or was too slow.
    let _ = timeout(EXCHANGE_TIMEOUT, connection).await;
}

async fn respond_to(request: &Request<Incoming>, source: Arc<Source>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(path, "/metrics" | "/history" | "/healthz") {
        return plain(StatusCode::NOT_FOUND, "not found: use /metrics, /history or /healthz\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "read only\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/healthz" => health(&source),
        "/history" => {
            let query = request.uri().query().map(str::to_owned);
            read_in_turn(source, move |source| history(source, query.as_deref())).await
        }
        _ => {
            let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
            let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
            read_in_turn(source, move |source| metrics(source, format)).await
        }
    }
}

/// Makes a response on a blocking thread, one at a time: the maps take milliseconds to read, and the audit
/// log is on a disk.
async fn read_in_turn(
    source: Arc<Source>,
    read: impl FnOnce(&Source) -> Response<Full<Bytes>> + Send + 'static,
) -> Response<Full<Bytes>> {
    let response = async {
        let turn = Arc::clone(&source.scrape_turn).acquire_owned().await.ok()?;
        let read = move || {
            let _turn = turn;
            read(&source)
        };
        spawn_blocking(read).await.ok()
    };
    let response = timeout(READ_TIMEOUT, response).await.ok().flatten();
    response.unwrap_or_else(|| plain(StatusCode::SERVICE_UNAVAILABLE, "the figures cannot be read now\n"))
}

fn history(source: &Source, query: Option<&str>) -> Response<Full<Bytes>> {
    match source.recorder.json(query) {
        Ok(json) => respond(StatusCode::OK, "application/json", json),
        Err(error) => plain(StatusCode::BAD_REQUEST, &format!("{error:#}\n")),
    }
}

fn metrics(source: &Source, format: Format) -> Response<Full<Bytes>> {
    let history = source.read_history();
    let text = Figures::read(source, &history)
        .and_then(|figures| text::text(figures, format).context("writing the metrics"));
    match text {
        Ok(text) => respond(StatusCode::OK, format.content_type(), text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}\n")),
    }
}

fn health(source: &Source) -> Response<Full<Bytes>> {
    let health_problems = source.health_problems();
    if health_problems.is_empty() {
        return plain(StatusCode::OK, "ok\n");
    }
    plain(StatusCode::SERVICE_UNAVAILABLE, &(health_problems.join("\n") + "\n"))
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text.to_owned())
}

fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
