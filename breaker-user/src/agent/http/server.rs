//! Connections: one request each, with a limit to its size and its time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::routes::{Sources, respond};
use crate::agent::metrics::Source;
use crate::agent::page::{Live, Viewer};

/// Most connections without viewers. A further one closes the oldest, so that silent peers block nobody.
const CONNECTIONS: usize = 256;
/// Longest request line with headers, in bytes: the minimum that hyper accepts.
const MAX_HEADERS: usize = 8192;
/// Longest time to receive a request, and again to send the response.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time until the peer acknowledges a byte or opens its window again, in ms.
const UNACKNOWLEDGED_MS: u32 = 10_000;
/// Most bytes of a refused request that are read, so that the peer reads the refusal before an RST.
const REFUSED_BYTES: u64 = 4 << 20;
/// Time before a failed bind(2) or accept(2) is retried.
const RETRY: Duration = Duration::from_secs(1);

/// The HTTP server.
pub struct Server {
    address: SocketAddr,
    listener: Option<TcpListener>,
    sources: Sources,
}

/// The task of a connection.
struct Peer {
    task: AbortHandle,
    /// Set once the connection has a place among the viewers.
    is_viewer: Arc<AtomicBool>,
}

impl Server {
    /// Binds the address. A failure is retried later, because the agent works without the server.
    pub async fn bind(
        address: SocketAddr,
        source: Arc<Source>,
        live: Arc<Live>,
    ) -> (Self, Result<SocketAddr>) {
        let (listener, bound) = match TcpListener::bind(address).await {
            Ok(listener) => {
                let bound = listener.local_addr().unwrap_or(address);
                (Some(listener), Ok(bound))
            }
            Err(error) => (None, Err(error.into())),
        };
        (Self { address, listener, sources: Sources { source, live } }, bound)
    }

    /// Serves until the shutdown.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        select! {
            () = self.serve() => {}
            () = shutdown => {}
        }
    }

    async fn serve(&mut self) {
        let mut open: VecDeque<Peer> = VecDeque::new();
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
                open.retain(Peer::may_be_closed);
            }
            if open.len() >= CONNECTIONS
                && let Some(oldest) = open.pop_front()
            {
                oldest.task.abort();
            }
            let is_viewer = Arc::new(AtomicBool::new(false));
            let exchange = exchange(stream, self.sources.clone(), Arc::clone(&is_viewer));
            open.push_back(Peer { task: tokio::spawn(exchange).abort_handle(), is_viewer });
        }
    }
}

impl Peer {
    /// Returns true if the connection is open and no viewer's.
    fn may_be_closed(&self) -> bool {
        !self.task.is_finished() && !self.is_viewer.load(Ordering::Relaxed)
    }
}

/// Serves one request. The request and the response each have [`EXCHANGE_TIMEOUT`]; a viewer stays.
async fn exchange(stream: TcpStream, sources: Sources, is_viewer: Arc<AtomicBool>) {
    // A peer that vanished or reads nothing must not keep a viewer's place. A failure is ignored: the place
    // ends at the write timeout.
    let _ = set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS);
    let response_ready = Notify::new();
    let joined: Mutex<Option<Viewer>> = Mutex::new(None);
    let service = service_fn(|request| {
        let (sources, joined, response_ready) = (sources.clone(), &joined, &response_ready);
        // `poll_without_shutdown` needs a future that can be moved.
        Box::pin(async move {
            let (response, viewer) = respond(&request, sources).await;
            *joined.lock().unwrap_or_else(PoisonError::into_inner) = viewer;
            response_ready.notify_one();
            Ok::<_, Infallible>(response)
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(EXCHANGE_TIMEOUT)
        .max_buf_size(MAX_HEADERS)
        .max_header_size(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = poll_fn(|context| connection.poll_without_shutdown(context));
    let result = select! {
        result = &mut served => Some(result),
        () = response_ready.notified() => None,
    };
    let viewer = joined.lock().unwrap_or_else(PoisonError::into_inner).take();
    let result = match (result, viewer) {
        (Some(result), _) => result,
        (None, Some(viewer)) => {
            is_viewer.store(true, Ordering::Relaxed);
            select! {
                result = &mut served => result,
                () = viewer.serve() => return,
            }
        }
        (None, None) => match timeout(EXCHANGE_TIMEOUT, &mut served).await {
            Ok(result) => result,
            Err(_) => return,
        },
    };
    drop(served);
    let stream = connection.into_parts().io.into_inner();
    // The result is ignored: the peer may have closed the connection.
    let _ = timeout(EXCHANGE_TIMEOUT, close(stream, result.is_err())).await;
}

/// Closes a connection. The rest of a refused request is read first: a close with unread bytes would send an
/// RST, which discards the refusal at the peer.
async fn close(mut stream: TcpStream, is_refused: bool) -> std::io::Result<()> {
    stream.shutdown().await?;
    if is_refused {
        tokio::io::copy(&mut stream.take(REFUSED_BYTES), &mut tokio::io::sink()).await?;
    }
    Ok(())
}
