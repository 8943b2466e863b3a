//! The metrics over HTTP: read only, and nothing that a peer does or leaves undone holds the agent up.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
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

use super::Source;
use super::text::Format;

/// Connections at a time. Of more, the one that has lasted longest has to go: whoever connects and says nothing keeps nobody waiting.
const CONNECTIONS: usize = 256;
/// Bytes that request line and headers may have: the least that hyper takes.
const MAX_HEADERS: usize = 8192;
/// Time in which a request must have come, and as much again for its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time in which the figures must have been read: a disk may hang.
const READING: Duration = Duration::from_secs(10);
/// Time before an address is tried again, or another connection accepted where that failed.
const RETRY: Duration = Duration::from_secs(1);

/// The server of the metrics.
pub struct Server {
    address: SocketAddr,
    listener: Option<TcpListener>,
    source: Arc<Source>,
}

impl Server {
    /// Takes the address. One that is not to be had now is tried again later: metrics are not what the agent is for.
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
                // Out of descriptors, say: it passes.
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

/// One request and its answer. A peer has so long to ask, and as long again to take what was made for it.
async fn exchange(stream: TcpStream, source: Arc<Source>) {
    let made = Arc::new(Notify::new());
    let service = service_fn(|request| {
        let (source, made) = (Arc::clone(&source), Arc::clone(&made));
        async move {
            let answer = answer(&request, source).await;
            made.notify_one();
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEADERS)
        .max_header_size(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    select! {
        _ = &mut connection => return,
        () = made.notified() => {}
    }
    // Whether the peer went away or was too slow: there is nobody left to tell.
    let _ = timeout(PATIENCE, connection).await;
}

async fn answer(request: &Request<Incoming>, source: Arc<Source>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(path, "/metrics" | "/healthz") {
        return plain(StatusCode::NOT_FOUND, "there is /metrics, and /healthz\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "read only\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    if path == "/healthz" {
        return health(&source);
    }
    let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
    // Reading many maps takes milliseconds, and the audit log lies on a disk: not on the thread of the heartbeat.
    let made = async {
        let turn = Arc::clone(&source.turn).acquire_owned().await.ok()?;
        let read = move || {
            let _turn = turn;
            metrics(&source, format)
        };
        spawn_blocking(read).await.ok()
    };
    let made = timeout(READING, made).await.ok().flatten();
    made.unwrap_or_else(|| plain(StatusCode::SERVICE_UNAVAILABLE, "the figures cannot be read now\n"))
}

fn metrics(source: &Source, format: Format) -> Response<Full<Bytes>> {
    match source.metrics(format) {
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
