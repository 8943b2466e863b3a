//! The calls to the fleet's etcd cluster, and nothing else of the fleet.
//!
//! Each member has a client of its own, and every call goes to several members: the first answer wins.
//! Nothing here takes a lock in etcd or decides by a lease.

mod ask;
mod backoff;
mod endpoints;
mod entry;
mod error;
mod lease;
mod read;
mod version;
mod watch;
mod write;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use ask::{Members, Order, Question};
use error::Failure;

pub use endpoints::{Endpoints, Tls};
pub use entry::{Entry, Snapshot};
pub use error::{Error, Kind, Result};
pub use version::is_old;
use watch::Keys;

pub use watch::{Update, Watch};
pub use write::Created;

/// Longest time of a call.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time of a question for the version of a member.
const VERSION: Duration = Duration::from_secs(1);

/// The cluster, as this client reaches it.
pub struct Engine {
    members: Arc<Members>,
    timeout: Duration,
}

impl Engine {
    /// Reads the files for TLS and makes a client for each member. Connects at the first call.
    ///
    /// # Errors
    /// [`Kind::Setup`] if a URL is none, or a file is unreadable or wrong.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(endpoints: &Endpoints) -> Result<Self> {
        let members = Arc::new(Members::new(endpoints::members(endpoints)?));
        Ok(Self { members, timeout: TIMEOUT })
    }

    /// Changes the longest time of a call, which is 5 s.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Accepts only answers of the cluster with this id. Without a call of this function it is the cluster of
    /// the first answer.
    pub fn expect_cluster(&self, id: u64) {
        self.members.expect_cluster(id);
    }

    /// Reads all keys with a prefix at one revision.
    ///
    /// # Errors
    /// If no member gives a linearizable answer in time.
    pub async fn snapshot(&self, prefix: &str) -> Result<Snapshot> {
        read::snapshot(&self.members, &self.hedged(&format!("reading {prefix}")), prefix).await
    }

    /// Creates a key and others in one transaction, if the key does not exist. All members are asked at once.
    ///
    /// A key with exactly this value counts as created by this call.
    ///
    /// # Errors
    /// If no member answers in time, or the cluster refuses. The keys may then still be created later.
    pub async fn create(&self, key: &str, value: &[u8], also: &[(String, Vec<u8>)]) -> Result<Created> {
        let mut entries = vec![(key, value)];
        entries.extend(also.iter().map(|(key, value)| (key.as_str(), value.as_slice())));
        let action = format!("creating {key}");
        let question = Question { action: &action, order: Order::AtOnce, deadline: self.deadline() };
        write::create(&self.members, &question, &entries).await
    }

    /// Writes entries of which this client is the only writer, in one transaction. Returns its revision, or 0
    /// for no entries.
    ///
    /// # Errors
    /// If no member answers in time, or the cluster refuses; also if the lease has expired.
    pub async fn put(&self, entries: &[(String, Vec<u8>)], lease: Option<i64>) -> Result<i64> {
        let entries: Vec<_> = entries.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        let Some((first, _)) = entries.first() else { return Ok(0) };
        write::put(&self.members, &self.hedged(&format!("writing {first}")), &entries, lease).await
    }

    /// Writes a value if the last change of the key has the expected revision, where 0 expects no key.
    /// Returns whether the key has the value through this call.
    ///
    /// # Errors
    /// If no member answers in time, or the cluster refuses.
    pub async fn compare_and_put(&self, key: &str, expected_mod_revision: i64, value: &[u8]) -> Result<bool> {
        let action = format!("changing {key}");
        write::compare_and_put(&self.members, &self.hedged(&action), (key, value), expected_mod_revision)
            .await
    }

    /// Deletes a key. Only entries of the inventory are ever deleted.
    ///
    /// # Errors
    /// If no member answers in time, or the cluster refuses.
    pub async fn delete(&self, key: &str) -> Result<()> {
        write::delete(&self.members, &self.hedged(&format!("deleting {key}")), key).await
    }

    /// Makes a lease and returns its id. The caller renews it each third of `ttl_s`.
    ///
    /// # Errors
    /// If no member answers in time, or the cluster refuses.
    pub async fn lease(&self, ttl_s: i64) -> Result<i64> {
        lease::grant(&self.members, &self.hedged("making a lease"), ttl_s).await
    }

    /// Renews a lease.
    ///
    /// # Errors
    /// [`Kind::LeaseLost`] if the lease has expired; otherwise as for every call.
    pub async fn keep_alive(&self, lease: i64) -> Result<()> {
        lease::keep_alive(&self.members, &self.hedged("renewing a lease"), lease).await
    }

    /// Watches all keys with a prefix, from a revision on.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn watch(&self, prefix: &str, from_revision: i64) -> Watch {
        let keys = Keys { first: prefix.to_owned(), end: None };
        Watch::begin(&self.members, &keys, from_revision)
    }

    /// Watches all keys from one up to another, without the latter, from a revision on. Changes of all of
    /// them are in the order of revisions.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn watch_range(&self, first: &str, end: &str, from_revision: i64) -> Watch {
        let keys = Keys { first: first.to_owned(), end: Some(end.to_owned()) };
        Watch::begin(&self.members, &keys, from_revision)
    }

    /// The URL of each member with its version, or with the reason why it is not known.
    pub async fn versions(&self) -> Vec<(String, std::result::Result<String, String>)> {
        join_all(self.members.list.iter().map(async |member| {
            let status = timeout(VERSION, async { member.client.maintenance_client().status().await });
            let version = match status.await {
                Ok(answer) => answer.map(|status| status.version().to_owned()),
                Err(_) => return (member.url.clone(), Err("no answer".to_owned())),
            };
            (member.url.clone(), version.map_err(|error| Failure::from(error).reason))
        }))
        .await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    fn hedged<'a>(&self, action: &'a str) -> Question<'a> {
        Question { action, order: Order::Hedged, deadline: self.deadline() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_send<T: Send>(_: T) {}

    /// Compiles if the calls may run in tasks.
    #[tokio::test]
    async fn calls_may_run_in_tasks() {
        let urls = vec!["http://127.0.0.1:1".to_owned()];
        let engine = Engine::new(&Endpoints { urls, tls: None }).expect("an engine");
        assert_send(engine.snapshot("/"));
        assert_send(engine.create("/a", b"", &[]));
        assert_send(engine.put(&[], None));
        assert_send(engine.compare_and_put("/a", 0, b""));
        assert_send(engine.delete("/a"));
        assert_send(engine.lease(5));
        assert_send(engine.keep_alive(1));
        assert_send(engine.versions());
        assert_send(engine.watch("/", 1).next());
    }

    #[tokio::test]
    async fn nobody_at_the_endpoints_is_unreachable() {
        let urls = vec!["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()];
        let engine = Engine::new(&Endpoints { urls, tls: None }).expect("an engine");
        let error = engine.with_timeout(Duration::from_millis(200)).snapshot("/").await;
        let error = error.expect_err("nobody listens there");
        assert_eq!(error.kind(), Kind::Unreachable);
        let text = error.to_string();
        assert!(text.contains("127.0.0.1:1: ") && text.contains("127.0.0.1:2: "), "{text}");
        assert!(text.contains("Connection refused"), "{text}");
    }
}
