//! Asks several members for one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use etcd_client::{Error as CallError, ResponseHeader};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::backoff::Backoff;
use super::endpoints::Member;
use super::error::{Error, Failure, Kind, Result};

/// Time until the next member is asked too. A frozen member costs a call this time.
const STAGGER: Duration = Duration::from_millis(10);
/// Longest time of the first attempt at a member; each further attempt has half more than the last one. A
/// member whose leader freezes keeps a request for 5 s, and with the recommended settings it notices after
/// 0.2 to 0.4 s. A command then takes up to 0.4 s, and 0.8 s if attempts take 250 ms, 500 ms and so on.
const FIRST_ATTEMPT: Duration = Duration::from_millis(120);
/// Longest time of any attempt.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(2);
/// Longest time between two attempts of one call.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// When the members are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// All at once.
    AtOnce,
    /// One after the other, each 10 ms after the last, until one has answered.
    Hedged,
}

/// What is asked, and until when.
pub(super) struct Question<'a> {
    /// The action in the text of an error.
    pub action: &'a str,
    pub order: Order,
    pub deadline: Instant,
}

/// The members of one cluster.
pub(super) struct Members {
    pub list: Vec<Arc<Member>>,
    /// The member that answered the last hedged call first.
    preferred: AtomicUsize,
    /// The cluster's id; 0 as long as no member has answered.
    cluster: AtomicU64,
    /// The highest revision of any answer.
    revision: AtomicI64,
}

impl Members {
    pub fn new(list: Vec<Member>) -> Self {
        let list: Vec<_> = list.into_iter().map(Arc::new).collect();
        // Clients must not all prefer the same member.
        let preferred = AtomicUsize::new(fastrand::usize(..list.len().max(1)));
        Self { list, preferred, cluster: AtomicU64::new(0), revision: AtomicI64::new(0) }
    }

    /// The highest revision that this client has seen.
    pub fn revision(&self) -> i64 {
        self.revision.load(Relaxed)
    }

    /// Accepts answers of this cluster alone.
    pub fn expect_cluster(&self, id: u64) {
        self.cluster.store(id, Relaxed);
    }

    /// Returns the answer that comes first.
    ///
    /// A member that cannot answer now is asked again until the deadline. The call fails if more than half of
    /// the members refuse, because the refusal is then the cluster's.
    pub async fn ask<T, F>(
        &self,
        question: &Question<'_>,
        call: impl Fn(Arc<Member>) -> F + Sync,
    ) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, Failure>> + Send,
        T: Send,
    {
        let count = self.list.len();
        let first = self.preferred.load(Relaxed);
        let start = Instant::now();
        let mut attempts: FuturesUnordered<_> = (0..count)
            .map(|place| {
                let index = (first + place) % count;
                let step = if question.order == Order::Hedged { STAGGER } else { Duration::ZERO };
                let begin = start + step * u32::try_from(place).unwrap_or(u32::MAX);
                let call = &call;
                let member = &self.list[index];
                // A box, because the compiler cannot tell that futures with borrowed closures may be sent.
                async move { (index, attempts(member, question, begin, call).await) }.boxed()
            })
            .collect();
        let mut failures = Vec::new();
        while let Some((index, result)) = attempts.next().await {
            match result {
                Ok(answer) => {
                    if question.order == Order::Hedged {
                        self.preferred.store(index, Relaxed);
                    }
                    return Ok(answer);
                }
                Err(failure) => failures.push((self.list[index].url.as_str(), failure)),
            }
            if failures.iter().filter(|(_, failure)| failure.is_final()).count() * 2 > count {
                break;
            }
        }
        Err(Error::of_members(question.action, failures))
    }

    /// Checks that an answer comes from the cluster of the earlier answers, and keeps its revision.
    pub fn check(&self, header: Option<&ResponseHeader>) -> std::result::Result<i64, Failure> {
        let header = header.ok_or_else(|| Failure::new(Kind::Refused, "an answer without a header"))?;
        let found = header.cluster_id();
        if let Err(expected) = self.cluster.compare_exchange(0, found, Relaxed, Relaxed)
            && expected != found
        {
            let reason = format!("member of cluster {found:x}, expected cluster {expected:x}");
            return Err(Failure::new(Kind::Foreign, reason));
        }
        self.revision.fetch_max(header.revision(), Relaxed);
        Ok(header.revision())
    }
}

/// Asks one member until it answers, refuses, or the deadline has passed.
async fn attempts<T, F>(
    member: &Arc<Member>,
    question: &Question<'_>,
    begin: Instant,
    call: &(impl Fn(Arc<Member>) -> F + Sync),
) -> std::result::Result<T, Failure>
where
    F: Future<Output = std::result::Result<T, Failure>> + Send,
    T: Send,
{
    sleep_until(begin).await;
    let mut backoff = Backoff::new(LONGEST_PAUSE);
    let mut time = FIRST_ATTEMPT;
    let mut told = None;
    loop {
        let end = question.deadline.min(Instant::now() + time);
        match timeout_at(end, call(Arc::clone(member))).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(failure)) if failure.is_final() => return Err(failure),
            Ok(Err(failure)) => told = Some(failure),
            Err(_) => {}
        }
        let pause = backoff.next();
        if Instant::now() + pause >= question.deadline {
            // The reason that the member gave says more than its silence in the last attempt.
            let silent = || Failure::new(Kind::Unreachable, "no answer");
            return Err(told.unwrap_or_else(silent));
        }
        sleep(pause).await;
        time = (time * 3 / 2).min(LONGEST_ATTEMPT);
    }
}

/// The answer of a member, if it belongs to the cluster.
pub(super) trait Checked: Sized {
    fn header(&self) -> Option<&ResponseHeader>;
}

/// Returns an answer with its revision, if the member belongs to the cluster.
pub(super) fn checked<T: Checked>(
    members: &Members,
    answer: std::result::Result<T, CallError>,
) -> std::result::Result<(T, i64), Failure> {
    let answer = answer?;
    let revision = members.check(answer.header())?;
    Ok((answer, revision))
}

macro_rules! checked {
    ($($answer:ident),*) => {
        $(impl Checked for etcd_client::$answer {
            fn header(&self) -> Option<&ResponseHeader> {
                etcd_client::$answer::header(self)
            }
        })*
    };
}
checked!(GetResponse, TxnResponse, LeaseGrantResponse);
