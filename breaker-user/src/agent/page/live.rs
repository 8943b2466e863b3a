//! Server-sent events (WHATWG HTML, 9.2): the state once a second, made once and shared by all viewers.

use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use tokio::select;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

use super::state;
use crate::agent::metrics::Source;
use crate::agent::notice::notice;

/// Most viewers. Their connections take no place from scrapes.
const VIEWERS: usize = 128;
/// Time between two states.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest time until a viewer takes an event.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The header of a gzip file (RFC 1952): no name, no time, any system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// The stream of states.
pub struct Live {
    source: Arc<Source>,
    newest: watch::Sender<Event>,
    joined: Notify,
    places: Arc<Semaphore>,
}

/// An event in both encodings; empty if no state was read yet.
#[derive(Clone, Default)]
struct Event {
    plain: Bytes,
    /// A part of a deflate stream that ends on a byte boundary and refers to no other part, so that every
    /// viewer can receive the same bytes.
    deflated: Bytes,
}

/// Encoding of the stream of a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Plain text.
    Plain,
    /// gzip.
    Gzip,
}

/// A viewer: the sending side of its response.
pub struct Viewer {
    body: Sender<Bytes>,
    encoding: Encoding,
    newest: watch::Receiver<Event>,
    _place: OwnedSemaphorePermit,
}

impl Live {
    /// Makes a stream without viewers.
    pub fn new(source: Arc<Source>) -> Self {
        let places = Arc::new(Semaphore::new(VIEWERS));
        Self { source, newest: watch::Sender::new(Event::default()), joined: Notify::new(), places }
    }

    /// Adds a viewer. Returns it and the body of its response; `None` if there are [`VIEWERS`] already.
    pub fn join(&self, encoding: Encoding) -> Option<(Viewer, Channel<Bytes>)> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let (body, channel) = Channel::new(1);
        let viewer = Viewer { body, encoding, newest: self.newest.subscribe(), _place: place };
        self.joined.notify_one();
        Some((viewer, channel))
    }

    /// Reads the state once a second while there are viewers, until the shutdown.
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        select! {
            () = self.publish() => {}
            () = shutdown => {}
        }
    }

    async fn publish(&self) {
        let mut is_first = true;
        loop {
            while self.newest.receiver_count() == 0 {
                // A viewer that comes later must not receive an old state.
                self.newest.send_replace(Event::default());
                self.joined.notified().await;
            }
            if std::mem::take(&mut is_first) {
                // Hashing takes longer than a state does. The agent does not wait for the result.
                drop(spawn_blocking(state::hash_binary));
            }
            let next = Instant::now() + PERIOD;
            let source = Arc::clone(&self.source);
            match spawn_blocking(move || Event::new(&state::read(&source))).await {
                Ok(event) => drop(self.newest.send_replace(event)),
                Err(error) => notice(&format!("the state for the page was not read: {error}: it is retried")),
            }
            sleep_until(next).await;
        }
    }
}

impl Event {
    fn new(json: &str) -> Self {
        // JSON has no line break outside of strings, and escapes one inside.
        let plain = format!("data: {json}\n\n").into_bytes();
        let deflated = deflate(&plain);
        Self { plain: plain.into(), deflated: deflated.into() }
    }

    fn is_empty(&self) -> bool {
        self.plain.is_empty()
    }
}

/// Compresses a part of a deflate stream (RFC 1951), which ends with an empty stored block.
fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut part = DeflateEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory cannot fail. `flush` ends the part on a byte boundary.
    let _ = part.write_all(plain).and_then(|()| part.flush());
    part.get_ref().clone()
}

impl Viewer {
    /// Sends each new state until the viewer disconnects or does not take one in [`WRITE_TIMEOUT`].
    pub async fn serve(mut self) {
        let start = match self.encoding {
            Encoding::Plain => Bytes::from_static(b": breaker\n\n"),
            Encoding::Gzip => Bytes::from_static(&GZIP_HEADER),
        };
        if !self.send(start).await {
            return;
        }
        loop {
            let event = self.newest.borrow_and_update().clone();
            let bytes = match self.encoding {
                Encoding::Plain => event.plain.clone(),
                Encoding::Gzip => event.deflated.clone(),
            };
            if !event.is_empty() && !self.send(bytes).await {
                return;
            }
            if self.newest.changed().await.is_err() {
                return;
            }
        }
    }

    async fn send(&mut self, bytes: Bytes) -> bool {
        matches!(timeout(WRITE_TIMEOUT, self.body.send_data(bytes)).await, Ok(Ok(())))
    }
}

impl Encoding {
    /// The encoding that an Accept-Encoding header allows.
    pub fn accepted(accept: &str) -> Self {
        let refused = |part: &str| part.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        let mut items = accept.split(',').map(|item| item.split(';'));
        let gzip = items.any(|mut parts| {
            parts.next().is_some_and(|name| name.trim().eq_ignore_ascii_case("gzip")) && !parts.any(refused)
        });
        if gzip { Self::Gzip } else { Self::Plain }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn compressed_events_can_be_read_from_any_event_on() {
        let texts = ["{\"a\":1}", "{\"a\":2}", "{\"b\":\"{\\\"a\\\":2}\"}"];
        let events: Vec<_> = texts.iter().map(|text| Event::new(text)).collect();
        for first in 0..events.len() {
            let stream: Vec<u8> = GZIP_HEADER
                .into_iter()
                .chain(events[first..].iter().flat_map(|event| event.deflated.to_vec()))
                .collect();
            let expected: Vec<u8> = events[first..].iter().flat_map(|event| event.plain.to_vec()).collect();
            let mut read = vec![0; expected.len()];
            // The stream has no end, so that only this many bytes can be read.
            GzDecoder::new(&stream[..]).read_exact(&mut read).expect("a valid stream");
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn gzip_is_used_only_where_it_is_accepted() {
        for (accept, expected) in [
            ("", Encoding::Plain),
            ("identity", Encoding::Plain),
            ("gzip, deflate, br, zstd", Encoding::Gzip),
            ("br;q=1.0, GZIP;q=0.8", Encoding::Gzip),
            ("gzip;q=0", Encoding::Plain),
            ("gzip; q=0.0", Encoding::Plain),
            ("x-gzip", Encoding::Plain),
        ] {
            assert_eq!(Encoding::accepted(accept), expected, "{accept:?}");
        }
    }
}
