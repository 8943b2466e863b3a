//! A watch on up to three members. A frozen member then delays no change.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use etcd_client::{WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::ask::Members;
use super::backoff::Backoff;
use super::endpoints::Member;
use super::entry::{Entry, key_of};
use super::error::{Failure, Kind};

/// Members that are watched at the same time.
const WATCHED: usize = 3;
/// Interval at which each member is asked for its revision, so that the time of the last contact is known.
const PROGRESS: Duration = Duration::from_secs(2);
/// Longest time without a message of a member; its answers to the questions above are messages too.
const SILENCE: Duration = Duration::from_secs(5);
/// Longest time to open a stream.
const OPEN: Duration = Duration::from_secs(1);
/// Longest time between two attempts at a member.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Messages that wait for the caller, of all members. A full channel stops the streams, and loses nothing.
const WAITING: usize = 64;

/// What a watch has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// A key has changed. Each change is reported once, in the order of revisions.
    Changed {
        /// The key. Bytes that are not UTF-8 are replaced.
        key: String,
        /// The new value; `None` if the key was deleted.
        entry: Option<Entry>,
        /// The revision of the change.
        revision: i64,
    },
    /// The cluster no longer has the changes since the last one that was reported. The watch has ended: take
    /// a snapshot, and watch from its revision.
    Compacted,
    /// The stream of a member has ended. It is opened again, and no change is lost.
    Lost {
        /// The URL of the member.
        member: String,
        /// Why.
        error: String,
    },
    /// A member has a leader and has reported its revision. Changes up to it may still be on their way. A
    /// revision below an earlier one is that of a member behind the others, or of a restored cluster.
    Progress {
        /// The revision.
        revision: i64,
        /// The URL of the member.
        member: String,
    },
}

/// The keys of a watch.
#[derive(Clone)]
pub(super) struct Keys {
    /// The first key, or the prefix.
    pub first: String,
    /// The key behind the last one; `None` for all keys with the prefix.
    pub end: Option<String>,
}

/// A watch on keys. It ends with the value.
pub struct Watch {
    messages: Receiver<Message>,
    /// Updates of the last message.
    ready: VecDeque<Update>,
    /// The last revision that was reported. Every stream has the whole of each revision in one message, and
    /// revisions in order. Changes up to this number were therefore reported, by whichever stream.
    reported: Arc<AtomicI64>,
    has_ended: bool,
    _streams: JoinSet<()>,
}

/// A message of a stream.
enum Message {
    /// Changes of whole revisions, in order.
    Changes(Vec<(i64, String, Option<Entry>)>),
    Other(Update),
}

impl Watch {
    /// Begins to watch.
    pub(super) fn begin(members: &Arc<Members>, keys: &Keys, from_revision: i64) -> Self {
        let (sender, messages) = mpsc::channel(WAITING);
        let reported = Arc::new(AtomicI64::new(from_revision - 1));
        let mut streams = JoinSet::new();
        for first in 0..WATCHED.min(members.list.len()) {
            let follower = Follower {
                members: Arc::clone(members),
                keys: keys.clone(),
                reported: Arc::clone(&reported),
                queued: from_revision - 1,
                sender: sender.clone(),
            };
            streams.spawn(follower.run(first));
        }
        Self { messages, ready: VecDeque::new(), reported, has_ended: false, _streams: streams }
    }

    /// Waits for the next update. A caller may stop waiting without a loss.
    ///
    /// After [`Update::Compacted`] it returns that again.
    pub async fn next(&mut self) -> Update {
        loop {
            if let Some(update) = self.ready.pop_front() {
                return update;
            }
            if self.has_ended {
                return Update::Compacted;
            }
            match self.messages.recv().await {
                Some(Message::Changes(changes)) => self.report(changes),
                Some(Message::Other(update)) => {
                    self.has_ended = update == Update::Compacted;
                    return update;
                }
                None => self.has_ended = true,
            }
        }
    }

    /// Makes updates of the changes that no other stream has brought before.
    fn report(&mut self, changes: Vec<(i64, String, Option<Entry>)>) {
        let reported = self.reported.load(Relaxed);
        let new = changes.into_iter().filter(|(revision, ..)| *revision > reported);
        self.ready.extend(new.map(|(revision, key, entry)| Update::Changed { key, entry, revision }));
        if let Some(Update::Changed { revision, .. }) = self.ready.back() {
            self.reported.store(*revision, Relaxed);
        }
    }
}

/// Why a stream has ended.
enum End {
    /// The watch was dropped.
    Dropped,
    Compacted,
    Lost(Failure),
}

/// One of the streams of a watch. It goes on to another member if its member is lost.
struct Follower {
    members: Arc<Members>,
    keys: Keys,
    reported: Arc<AtomicI64>,
    /// The last revision that this stream has queued.
    queued: i64,
    sender: Sender<Message>,
}

impl Follower {
    /// Follows the members `first`, `first` + 3, … in turn. No two streams have the same member.
    async fn run(mut self, first: usize) {
        let members = Arc::clone(&self.members);
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        let mut told = None;
        for member in members.list.iter().skip(first).step_by(WATCHED).cycle() {
            let mut was_open = false;
            let failure = match self.follow(member, &mut was_open).await {
                End::Dropped => return,
                End::Compacted => {
                    self.send(Update::Compacted).await;
                    return;
                }
                End::Lost(failure) => failure,
            };
            if was_open {
                backoff = Backoff::new(LONGEST_PAUSE);
            }
            // A member that stays lost for the same reason is reported once.
            let lost = Update::Lost { member: member.url.clone(), error: failure.reason };
            if (was_open || told.as_ref() != Some(&lost)) && !self.send(lost.clone()).await {
                return;
            }
            told = Some(lost);
            sleep(backoff.next()).await;
        }
    }

    /// Follows one member until its stream ends.
    async fn follow(&mut self, member: &Member, was_open: &mut bool) -> End {
        let next = self.queued.max(self.reported.load(Relaxed)) + 1;
        let options = WatchOptions::new().with_start_revision(next).with_progress_notify();
        let options = match &self.keys.end {
            Some(end) => options.with_range(end.as_str()),
            None => options.with_prefix(),
        };
        let mut watches = member.watches();
        let stream = match timeout(OPEN, watches.watch(self.keys.first.as_str(), Some(options))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return End::Lost(error.into()),
            Err(_) => return lost("no answer"),
        };
        let (mut requests, mut answers) = stream.split();
        let mut ticks = interval(PROGRESS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let answer = match next_answer(&mut answers, &mut requests, &mut ticks).await {
                Ok(answer) => answer,
                Err(failure) => return End::Lost(failure),
            };
            if let Some(end) = self.take(member, &answer).await {
                return end;
            }
            *was_open = true;
        }
    }

    /// Queues the content of an answer. Returns the end of the stream, if it is one.
    async fn take(&mut self, member: &Member, answer: &WatchResponse) -> Option<End> {
        let revision = match self.members.check(answer.header()) {
            Ok(revision) => revision,
            Err(failure) => return Some(End::Lost(failure)),
        };
        if answer.compact_revision() != 0 {
            return Some(End::Compacted);
        }
        if answer.canceled() {
            return Some(lost(answer.cancel_reason()));
        }
        let changes: Vec<_> = answer
            .events()
            .iter()
            .filter_map(|event| event.kv())
            // A deleted key has no version.
            .map(|pair| (pair.mod_revision(), key_of(pair), (pair.version() != 0).then(|| Entry::from(pair))))
            .collect();
        let message = match changes.last() {
            Some((revision, ..)) => {
                self.queued = *revision;
                Message::Changes(changes)
            }
            None => Message::Other(Update::Progress { revision, member: member.url.clone() }),
        };
        self.sender.send(message).await.is_err().then_some(End::Dropped)
    }

    /// Queues an update. Returns false if the watch was dropped.
    async fn send(&self, update: Update) -> bool {
        self.sender.send(Message::Other(update)).await.is_ok()
    }
}

/// Waits for the next answer, and asks for the revision at each tick.
async fn next_answer(
    answers: &mut WatchResponseStream,
    requests: &mut WatchRequestSender,
    ticks: &mut tokio::time::Interval,
) -> Result<WatchResponse, Failure> {
    let silent = sleep(SILENCE);
    tokio::pin!(silent);
    loop {
        tokio::select! {
            answer = answers.message() => {
                // A stream that ends without an error is an error too: changes would be missed in silence.
                return answer?.ok_or_else(|| Failure::new(Kind::Unreachable, "the member ended the watch"));
            }
            _ = ticks.tick() => requests.request_progress().await?,
            () = &mut silent => return Err(Failure::new(Kind::Unreachable, "no answer")),
        }
    }
}

fn lost(reason: &str) -> End {
    End::Lost(Failure::new(Kind::Unreachable, reason))
}
